"""`meshllm start-check`: says before the start what is there, radio by radio. Stops nothing."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
from serial.tools import list_ports

from meshllm import config as settings_file
from meshllm.clock import SystemClock
from meshllm.config import Link, Settings
from meshllm.errors import AlreadyRunningError, UserError
from meshllm.layout import Layout
from meshllm.llm.base import ProbeResult, ProbeState
from meshllm.llm.servers import ollama_servers
from meshllm.store.locks import ProcessLock

CONNECT_S: Final = 1.0  #: a radio in the same network answers within milliseconds
PROBE_S: Final = 1.0  #: each of the two questions to the model server
DEMO_HINT: Final = "no radio at hand? ./run.sh demo needs none"


@dataclass(frozen=True, slots=True)
class RadioFinding:
    """What one configured radio looks like from here; `ready` is None where nobody can tell."""

    link: str
    ready: bool | None
    detail: str
    ports: tuple[str, ...] = ()  #: serial ports of this machine that were looked at


@click.command("start-check")
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="Settings file (default: config.yaml beside the programs).",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object to stdout.")
def start_check(path: Path | None, *, as_json: bool) -> None:
    """Say which radios and which model the start will meet.

    Exit code 0 whatever is missing, since both are waited for; 4 when the settings are wrong.
    """
    loaded = settings_file.load(
        path or settings_file.default_path(), os.environ, must_exist=path is not None
    )
    is_running = _is_bridge_running(loaded.settings)
    radios = [look_for(entry.link, is_in_use=is_running) for entry in loaded.settings.radios]
    model = _look_for_model(loaded.settings)
    if as_json:
        facts = {
            "radios": [asdict(radio) for radio in radios],
            "model": {"state": model.state.value, "detail": model.detail},
        }
        click.echo(json.dumps(facts, indent=2))
        return
    for line in [*_radio_lines(radios), *_model_lines(model)]:
        click.echo(line, err=True)


def look_for(link: Link, *, is_in_use: bool = False) -> RadioFinding:
    """Look for one radio, a second at most for one on the network. Sends nothing to it.

    A radio on the network has room for one client and throws the older one out, so one that a
    running bridge uses is left alone.
    """
    if link.kind == "tcp" and is_in_use:
        return RadioFinding(str(link), None, "not looked at: a running bridge uses it")
    if link.kind == "tcp":
        return _look_on_network(link)
    if link.kind == "ble":
        return RadioFinding(str(link), None, "Bluetooth is not looked at before the start")
    return _look_on_ports(link)


def _is_bridge_running(settings: Settings) -> bool:
    lock = Layout(settings.data_dir, settings.nodes_dir, settings.prompts_dir).bridge_lock
    if not lock.exists():
        return False
    try:
        with ProcessLock(lock, "bridge"):
            return False
    except AlreadyRunningError:
        return True
    except UserError:
        return False  # an unusable folder is reported by the start itself


def _look_on_network(link: Link) -> RadioFinding:
    try:
        socket.create_connection((link.target, link.port), timeout=CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        return RadioFinding(str(link), ready=False, detail=f"cannot be reached: {reason}")
    return RadioFinding(str(link), ready=True, detail="reachable")


def _look_on_ports(link: Link) -> RadioFinding:
    ports = tuple(sorted(str(port.device) for port in list_ports.comports()))
    if not link.is_auto:
        is_there = Path(link.target).exists()
        detail = "there" if is_there else "no such device"
        return RadioFinding(str(link), is_there, detail, ports)
    from meshllm.radio.device import serial_ports  # noqa: PLC0415  costs half a second to import

    radios = serial_ports()
    if len(radios) > 1:
        names = ", ".join(radios)
        return RadioFinding(
            str(link), ready=False, detail=f"several, name one: {names}", ports=ports
        )
    detail = radios[0] if radios else "no radio found"
    return RadioFinding(str(link), bool(radios), detail, ports)


def _look_for_model(settings: Settings) -> ProbeResult:
    urls = (settings.ollama_base_url, settings.ollama_base_url_2)
    model = settings.ollama_model_instruct
    return ollama_servers(urls, model, clock=SystemClock(), quick_s=PROBE_S).probe()


def _radio_lines(radios: list[RadioFinding]) -> list[str]:
    lines = []
    for radio in radios:
        looked = f" (ports looked at: {', '.join(radio.ports) or 'none present'})"
        is_serial = radio.link.startswith("serial:")
        lines.append(f"radio {radio.link}: {radio.detail}{looked if is_serial else ''}")
    if any(radio.ready is False for radio in radios):
        lines.append(f"the bridge starts anyway and keeps looking; {DEMO_HINT}")
    return lines


def _model_lines(model: ProbeResult) -> list[str]:
    if model.state is ProbeState.READY:
        return [f"model: {model.detail}"]
    lines = [f"model: {model.state.value.replace('_', ' ')}: {model.detail}"]
    if model.pull_command:
        lines.append(f"to install it: {model.pull_command}")
    return [*lines, "the librarian starts anyway and answers once the model is there"]
