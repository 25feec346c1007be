"""Real Meshtastic firmware in simulator mode: one that runs already, or one that is started here.

MESHTASTICD is HOST:PORT of a node, or the path of a `meshtasticd` program.
"""

import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshtastic.protobuf import config_pb2
from meshtastic.tcp_interface import TCPInterface

from meshllm.config.links import Link, parse_link

VARIABLE: Final = "MESHTASTICD"
START_S: Final = 30.0  #: until the port answers
RESTART_S: Final = 60.0  #: until the node is back with its region; measured about 6 s
STOP_S: Final = 5.0
MAC: Final = "02:11:22:33:44:01"  #: a locally administered address; without one it wants Bluetooth


@contextmanager
def running(value: str) -> Iterator[Link]:
    """Yield the link to a node whose region is set. A node that was started here ends here."""
    if not Path(value).is_file():
        link = parse_link(f"tcp:{value}")
        _give_region(link, None)
        yield link
        return
    with tempfile.TemporaryDirectory() as folder:
        program = _Program(Path(value).resolve(), Path(folder))
        try:
            program.start()
            _give_region(program.link, program)
            yield program.link
        finally:
            program.stop()


class _Program:
    """One process of the firmware with a folder of its own."""

    def __init__(self, path: Path, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.link = Link("tcp", "127.0.0.1", port)
        self._folder = folder
        self._files = folder / "files"
        self._files.mkdir()
        self._log = folder / "log"
        self._command = [str(path), "-s", "-d", str(self._files), "-p", str(port), "-h", MAC]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait for its port."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        for _ in _tries(START_S):
            if self._process.poll() is not None:
                break
            if _answers(self.link):
                return
        raise AssertionError(f"{self._command} does not serve its port:\n{self.tail()}")

    def revive(self) -> None:
        """Start it again where a restart ended the process instead of replacing it."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def tail(self) -> str:
        """The end of what it said."""
        return self._log.read_bytes()[-2000:].decode("utf-8", "replace")

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)


def _give_region(link: Link, program: _Program | None) -> None:
    """A node without a region neither sends nor has a key pair. Setting one restarts it."""
    regions = config_pb2.Config.LoRaConfig.RegionCode
    asked = False
    for _ in _tries(RESTART_S):
        if program is not None:
            program.revive()
        try:
            interface = TCPInterface(link.target, portNumber=link.port, timeout=10)
        except (OSError, TCPInterface.MeshInterfaceError):
            continue  # it is restarting
        try:
            lora = interface.localNode.localConfig.lora
            if lora.region != regions.UNSET:
                return
            if not asked:
                lora.region = regions.US
                interface.localNode.writeConfig("lora")
                asked = True
        finally:
            interface.close()
    raise AssertionError(f"the node at {link} has no region{program.tail() if program else ''}")


def _tries(limit_s: float, *, pause_s: float = 0.5) -> Iterator[int]:
    wait = threading.Event()
    for number in range(round(limit_s / pause_s)):
        yield number
        wait.wait(pause_s)


def _answers(link: Link) -> bool:
    try:
        socket.create_connection((link.target, link.port), timeout=1.0).close()
    except OSError:
        return False
    return True
