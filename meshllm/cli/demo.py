"""`demo`: the two real processes on a simulated mesh, in a temporary folder. Needs no radio."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import click

from meshllm.clock import SystemClock, Waker, time_scale_from_environment
from meshllm.errors import ExitCode, UserError
from meshllm.layout import Layout, node_id
from meshllm.observe import status
from meshllm.records import Message
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.people import Heard, Person
from meshllm.store.table import Table
from meshllm.text import one_line, safe_for_terminal

ROOT: Final = Path(__file__).resolve().parents[2]
READY_LIMIT_S: Final = 60.0  #: both processes up and the radio connected
STOP_LIMIT_S: Final = 6.0  #: a process that has not ended by then is killed
_STEP_S: Final = 0.02


@dataclass(slots=True)
class World:
    """A running demo: mesh, person, processes and where their files are."""

    folder: Path
    radio: SimRadio
    person: Person
    clock: SystemClock
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  #: by script

    def check(self) -> None:
        """Raise UserError when a process has ended by itself: no answer would ever come."""
        for script, process in self.processes.items():
            if process.poll() is not None:
                problem = f"{script} of the demo ended by itself, with {process.returncode}"
                raise UserError(problem, [_tail(self.folder / f"{script}.log")])

    @property
    def files(self) -> Layout:
        """Paths of the demo's data."""
        data = self.folder / "data"
        return Layout(data, data / "nodes", self.folder / "prompts")

    def row_of(self, heard: Heard) -> Message | None:
        """Find the row that a received text came from: by any id it went on the air under."""
        thread = self.files.tree(node_id(self.radio.num)).dm_thread(node_id(self.person.num))
        for row in Table(thread, Message).read().rows:
            if row.is_outgoing and heard.packet_id in _packet_ids(row):
                return row
        return None


def _packet_ids(row: Message) -> set[int]:
    tries = row.meta.get("tries")
    ids = {t.get("id") for t in tries if isinstance(t, dict)} if isinstance(tries, list) else set()
    return {i for i in ids if isinstance(i, int)} | {int(row.message_id or 0)}


@click.command()
@click.option("--say", metavar="TEXT", help="Send one DM, print the answer, end.")
@click.option("--timeout", "timeout_s", default=180.0, show_default=True, help="Seconds to wait.")
@click.option("--keep", is_flag=True, help="Keep the data folder and say where it is.")
@click.option("--loss", default=0.0, show_default=True, help="Share of packets lost on the air.")
@click.option("--seed", default=1, show_default=True, help="Seed of the simulated air.")
def demo(say: str | None, timeout_s: float, keep: bool, loss: float, seed: int) -> None:
    """Try the librarian on a simulated mesh: no radio, no model, nothing left behind."""
    # An exception unwinds the stack that ends the processes; the default action would not.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with _world(loss=loss, seed=seed, keep=keep) as world:
        code = _say_once(world, say, timeout_s) if say is not None else _converse(world)
    sys.exit(code)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextmanager
def _world(*, loss: float, seed: int, keep: bool) -> Iterator[World]:
    clock = SystemClock(time_scale_from_environment())
    folder = Path(tempfile.mkdtemp(prefix="meshllm-demo-"))
    with ExitStack() as stack:
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        mesh = stack.enter_context(SimMesh(seed=seed, clock=clock))
        radio = mesh.add_radio("Base Camp")
        person = mesh.add_person("Ada Example")
        mesh.link(radio, person, loss=loss)
        world = World(folder, radio, person, clock)
        for script in ("meshtastic_bridge.py", "ai_agent.py"):
            world.processes[script] = _start(script, world)
            stack.callback(_stop, world.processes[script])
        _wait_until_ready(world)
        if keep:
            click.echo(f"data folder: {folder}", err=True)
        yield world


def _start(script: str, world: World) -> subprocess.Popen[bytes]:
    """Start one process on the demo's own folders; everything else comes from the settings."""
    files = world.files
    environ = {
        **os.environ,
        "RADIO": f"tcp:{world.radio.address}",
        "DATA_DIR": str(files.data_dir),
        "NODES_BASE_DIR": str(files.nodes_dir),
        "PROMPTS_DIR": str(files.prompts_dir),
        "NODE_UID_STRATEGY": "auto",
    }
    with (world.folder / f"{script}.log").open("wb") as log_file:
        return subprocess.Popen(  # noqa: S603 - our own two scripts, no shell
            [sys.executable, str(ROOT / script)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends both in order
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(world: World) -> None:
    files = world.files
    tree = files.tree(node_id(world.radio.num))
    waker = Waker()
    deadline = world.clock.monotonic() + READY_LIMIT_S * world.clock.scale
    while world.clock.monotonic() < deadline:
        if status.read(tree.radio_status).get("link_state") == "up" and files.agent_status.exists():
            return
        world.check()
        waker.wait_real(_STEP_S)
    logs = [_tail(world.folder / f"{name}.log") for name in ("meshtastic_bridge.py", "ai_agent.py")]
    raise UserError("the demo did not come up", logs)


def _tail(path: Path) -> str:
    text = path.read_text(errors="replace") if path.exists() else ""
    return f"{path.name}: {text.strip()[-600:] or 'no output'}"


def _say_once(world: World, text: str, timeout_s: float) -> int:
    """Send one DM and print each part of the answer as the person's radio received it."""
    world.person.say(text, to=world.radio)
    waker = Waker()
    printed = 0
    received: dict[str, set[int]] = {}
    deadline = world.clock.monotonic() + timeout_s * world.clock.scale
    while world.clock.monotonic() < deadline:
        heard = world.person.heard[printed:]
        for message in heard:
            row = world.row_of(message)
            click.echo(_shown(message), err=_is_promise(row))
            printed += 1
            if _is_complete(row, received):
                return ExitCode.OK
        world.check()
        waker.wait_real(_STEP_S)
    click.echo(f"no answer within {timeout_s:g} s", err=True)
    return ExitCode.NO_ANSWER


def _is_promise(row: Message | None) -> bool:
    """Say whether this only tells that an answer is coming."""
    return row is not None and row.meta.get("notice") in {"working", "thinking"}


def _is_complete(row: Message | None, received: dict[str, set[int]]) -> bool:
    """Say whether this was the last missing part of an answer."""
    if row is None or _is_promise(row):
        return False
    group = str(row.meta.get("prompt_id") or row.message_id)
    parts = received.setdefault(group, set())
    parts.add(int(row.meta.get("part") or 1))
    return len(parts) >= int(row.meta.get("parts") or 1)


def _converse(world: World) -> int:
    """Read lines as the person, show what their radio receives, until end of input or Ctrl-C."""
    click.echo(f"You are {world.person.name}. Your radio is {node_id(world.person.num)};")
    click.echo(f"the librarian is {world.radio.name}, {node_id(world.radio.num)}.")
    click.echo('Type a message and press Enter. "/c text" speaks on the channel, Ctrl-D ends.')
    ended = threading.Event()
    printer = threading.Thread(target=_show_heard, args=(world, ended), daemon=True)
    printer.start()
    try:
        for line in sys.stdin:
            _type(world, line.rstrip("\n"))
    except KeyboardInterrupt:
        click.echo("")
    finally:
        ended.set()
        printer.join(2)
    world.check()
    return ExitCode.OK


def _type(world: World, line: str) -> None:
    if line.startswith("/c "):
        world.person.say(line[3:], channel=0)
    elif line:
        world.person.say(line, to=world.radio)


def _show_heard(world: World, ended: threading.Event) -> None:
    shown = 0
    while not ended.wait(_STEP_S):
        if any(process.poll() is not None for process in world.processes.values()):
            # The main thread waits for a line that may never come.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return
        for message in world.person.heard[shown:]:
            shown += 1
            where = "DM" if message.is_dm else f"channel {message.channel}"
            click.echo(f"  [{where}, {len(message.payload)} bytes] {_shown(message)}")


def _shown(message: Heard) -> str:
    """One line of a received text, harmless on a terminal."""
    text = message.payload.decode(errors="replace") if message.text is None else message.text
    return safe_for_terminal(one_line(text))
