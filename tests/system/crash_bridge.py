"""A server that forks real bridges, each of which may die just before its k-th step of a send.

Usage: crash_bridge.py SOCKET. A connection stands for one bridge: the client writes a job as one
line of JSON, the bridge ends when the client writes "stop" or goes away, and the connection ends
when the process has. What it reports comes as lines of JSON, the exit code last.

The image is warm, so a bridge starts without importing anything. Steps are the changes of thread
files and the texts written to the radio's socket. A bridge that dies tells before what a power
cut at that moment would leave.
"""

import json
import os
import random
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import meshtastic
from meshtastic import mesh_interface
from meshtastic.util import DeferredExecution

from meshllm import app
from meshllm.bridge import service
from meshllm.bridge.open_tree import StationSettings
from meshllm.config import Link
from meshllm.radio.base import Emit, OutgoingText, QueueStatus, RoutingHeard
from meshllm.radio.device import DeviceRadio
from meshllm.sim import wire
from meshllm.sim.framing import Deframer
from meshllm.sim.packets import Port, SendPacket
from meshllm.testing.power import Disk, Recorder

DIED: Final = 77
THREADS: Final = "/threads/"
NEVER: Final = -1


@dataclass(frozen=True)
class Job:
    """One bridge: where it works, what it is to do wrong, and before which step it dies."""

    folder: str
    environ: dict[str, str]
    fatal: int = NEVER
    watched: bool = True
    control: str = ""  #: a defect for the tests to find: see CONTROLS, or "lying disk"
    is_serial: bool = False  #: take the link, which is TCP to a cable, for a serial one


class OwnIds(DeviceRadio):
    """The control of every naive bridge: the id is drawn when the text is handed over."""

    def __init__(self, link: Link, emit: Emit, **given: Any) -> None:
        self._ids: dict[int, int] = {}
        super().__init__(link, self._translated(emit), **given)

    def send(self, text: OutgoingText) -> None:
        drawn = random.SystemRandom().randrange(1, 2**32)
        self._ids[drawn] = text.packet_id
        super().send(replace(text, packet_id=drawn))

    def _translated(self, emit: Emit) -> Emit:
        def report(event: Any) -> None:
            if isinstance(event, QueueStatus):
                event = replace(event, packet_id=self._ids.get(event.packet_id, event.packet_id))
            elif isinstance(event, RoutingHeard):
                event = replace(event, request_id=self._ids.get(event.request_id, 0))
            emit(event)

        return report


class Hasty(DeviceRadio):
    """The control that says "handed over" first and writes to the radio a little later."""

    LATER_S: Final = 0.02  #: real; the row is settled by then

    def __init__(self, link: Link, emit: Emit, **given: Any) -> None:
        self._tell = emit
        super().__init__(link, emit, **given)

    def send(self, text: OutgoingText) -> None:
        self._tell(QueueStatus(text.packet_id, 0, free=15, maxlen=16))
        threading.Timer(self.LATER_S, super().send, [text]).start()


CONTROLS: Final = {"own ids": OwnIds, "hasty": Hasty}


class Steps:
    """Counts the steps of a send, and dies before one of them."""

    def __init__(self, job: Job, report: Callable[[dict[str, Any]], None]) -> None:
        self.calls: list[tuple[str, str]] = []
        self._fatal = job.fatal
        self._report = report
        root = Path(job.folder)
        self._recorder = Recorder(root, self._changing, is_lying=job.control == "lying disk")

    @property
    def disk(self) -> Disk:
        return self._recorder.disk

    def install(self) -> None:
        self._recorder.install()
        deframers: dict[int, Deframer] = {}
        sendall = socket.socket.sendall

        def sending(sock: socket.socket, data: bytes, *flags: int) -> None:
            with self._recorder.lock:
                messages = deframers.setdefault(sock.fileno(), Deframer()).feed(bytes(data))
                if any(map(_is_text, messages)):
                    self._step("radio", "text")
                sendall(sock, data, *flags)

        setattr(socket.socket, "sendall", sending)  # noqa: B010

    def _changing(self, call: str, path: str) -> None:
        if THREADS in f"{path}/":
            self._step(call, _kind(path))

    def _step(self, call: str, what: str) -> None:
        if len(self.calls) == self._fatal:
            self._report({"died": (call, what), "disk": _told(self.disk)})
            os._exit(DIED)
        self.calls.append((call, what))


def _kind(path: str) -> str:
    suffix = Path(path).suffix
    return {".tmp": "temp", ".lock": "lock", ".csv": "table"}.get(suffix, "folder")


def _is_text(message: bytes) -> bool:
    try:
        request = wire.parse_request(message)
    except wire.MalformedError:
        return False
    return isinstance(request, SendPacket) and request.packet.port == Port.TEXT


def _told(disk: Disk) -> dict[str, Any]:
    return {
        "live": disk.live().packed(),
        "lost": disk.after_power_cut("lost").packed(),
        "kept": disk.after_power_cut("kept").packed(),
    }


def run(connection: socket.socket) -> int:
    """Be one bridge, from its job to its end."""
    stream = connection.makefile("r")
    job = Job(**json.loads(stream.readline()))

    def report(news: dict[str, Any]) -> None:
        connection.sendall(json.dumps(news).encode() + b"\n")

    os.environ.clear()
    os.environ.update(job.environ)
    log = os.open(f"{job.folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Threads do not live on in a forked process, and the library started one on import.
    meshtastic.publishingThread = DeferredExecution("publishing")
    mesh_interface.publishingThread = meshtastic.publishingThread
    threading.Thread(target=_obey, args=[stream], daemon=True).start()
    if job.control in CONTROLS:
        setattr(service, "DeviceRadio", CONTROLS[job.control])  # noqa: B010
    if job.is_serial:
        setattr(service, "StationSettings", _serial_settings)  # noqa: B010
    steps = Steps(job, report)
    if job.watched:
        steps.install()
    config = Path(job.folder, "config.yaml")
    code = app.main(
        "bridge",
        service.BridgeService,
        lambda files: files.bridge_lock,
        argv=["--config", str(config)],
        root=config.parent,
    )
    report({"calls": steps.calls, "disk": _told(steps.disk)})
    return code


def _serial_settings(**given: Any) -> StationSettings:
    return StationSettings(**(given | {"kind": "serial"}))


def _obey(stream: Any) -> None:
    if stream.readline():
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os._exit(0)  # nobody is there any more


def _be_bridge(connection: socket.socket) -> None:
    code = 1
    try:
        code = run(connection)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(path: str) -> None:
    """Fork a bridge per connection until standard input ends."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(64)
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    for source in (server, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    living: dict[int, socket.socket] = {}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if sys.stdin in ready:
            return
        if woken in ready:
            woken.recv(4096)
            _bury(living)
        if server in ready:
            connection, _ = server.accept()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (*living.values(), server, woken, waker):
                    other.close()
                _be_bridge(connection)
            living[pid] = connection


def _bury(living: dict[int, socket.socket]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        connection = living.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        with connection:
            try:
                connection.sendall(json.dumps({"code": code}).encode() + b"\n")
            except OSError:
                continue  # the client did not wait for it


if __name__ == "__main__":
    serve(sys.argv[1])
