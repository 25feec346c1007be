"""What a service manager hears of a process, through real sockets, and what its absence costs."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from structlog.testing import capture_logs

from meshllm import app
from meshllm.config import Settings
from meshllm.errors import ExitCode, StoreWriteError
from meshllm.layout import Layout
from meshllm.notify import Manager, Reported
from meshllm.observe.board import Board, Verdict
from meshllm.observe.instruments import prepare
from meshllm.testing.clock import ManualClock

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PERIOD_US = "180000000"


@pytest.fixture(autouse=True)
def _leave_the_process_as_it_was() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    structlog.reset_defaults()


@pytest.fixture(params=["path", "abstract"])
def listening(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket of each kind that systemd may choose, and its name as systemd tells it."""
    name = f"@meshllm-{uuid4().hex}" if request.param == "abstract" else str(tmp_path / "n")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind("\0" + name[1:] if name.startswith("@") else name)
        manager.setblocking(False)
        yield manager, name


def heard(manager: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_the_manager_hears_ready_alive_and_stopping(
    listening: tuple[socket.socket, str],
) -> None:
    socket_, name = listening
    manager = Manager.from_environment({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": PERIOD_US})

    manager.ready()
    manager.alive()
    manager.stopping()

    assert heard(socket_) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    assert manager.ping_s == 60.0


@pytest.mark.parametrize(
    ("environ", "ping_s"),
    [
        ({"WATCHDOG_USEC": PERIOD_US, "WATCHDOG_PID": "7"}, 60.0),
        ({"WATCHDOG_USEC": PERIOD_US, "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "²"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(
    listening: tuple[socket.socket, str], environ: dict[str, str], ping_s: float
) -> None:
    socket_, name = listening
    manager = Manager.from_environment({"NOTIFY_SOCKET": name, **environ}, pid=7)

    manager.alive()

    assert manager.ping_s == ping_s
    assert heard(socket_) == (["WATCHDOG=1"] if ping_s else [])


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_is_sent_and_nothing_logged(environ: dict[str, str]) -> None:
    with capture_logs() as events:
        manager = Manager.from_environment({"WATCHDOG_USEC": PERIOD_US, **environ})
        manager.ready()
        manager.alive()

    assert manager.ping_s == 0.0
    assert events == []


def test_a_manager_that_is_gone_costs_one_log_event_and_nothing_else(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "nobody"), watchdog_s=60)

    with capture_logs() as events:
        manager.ready()
        manager.alive()
        manager.stopping()

    assert [event["event"] for event in events] == ["notify_failed"]


def test_a_manager_that_reads_nothing_does_not_block_the_process(tmp_path: Path) -> None:
    """The test ends by the time limit if a send waits for room."""
    name = str(tmp_path / "n")
    with (
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as deaf,
        capture_logs() as events,
    ):
        deaf.bind(name)
        manager = Manager(name, watchdog_s=60)
        for _ in range(2000):
            manager.alive()

    assert [event["event"] for event in events] == ["notify_failed"]


# The scaffold


class Service:
    """Does one thing at its tick, or fails at the start."""

    def __init__(self, *, refuses: bool = False, tick: Exception | int | None = None) -> None:
        self._refuses = refuses
        self._tick = tick

    def start(self) -> None:
        if self._refuses:
            raise StoreWriteError("no space left")

    def tick(self) -> float:
        if isinstance(self._tick, Exception):
            raise self._tick
        if self._tick is not None:
            signal.raise_signal(self._tick)
        return 60.0

    def stop(self) -> None:
        pass


def living() -> Verdict:
    return Verdict(live=True, ready=False)


def run(service: Service, root: Path, environ: dict[str, str], patch: pytest.MonkeyPatch) -> int:
    set_to = {"DATA_DIR": str(root / "data"), "PROMPTS_DIR": str(root / "prompts"), **environ}
    for name, value in set_to.items():
        patch.setenv(name, value)

    def build(*_args: Any, **_named: Any) -> Service:
        return service

    def lock(files: Layout) -> Path:
        return files.bridge_lock

    return app.run("bridge", build, lock, config_file=None, root=root)


def test_a_process_is_ready_when_its_service_has_started_and_tells_of_its_end(
    listening: tuple[socket.socket, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket_, name = listening
    environ = {
        "NOTIFY_SOCKET": name,
        "WATCHDOG_USEC": PERIOD_US,
        "WATCHDOG_PID": str(os.getpid()),
    }

    assert run(Service(tick=signal.SIGTERM), tmp_path, environ, monkeypatch) == ExitCode.OK

    assert heard(socket_) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_a_process_whose_start_fails_is_never_called_ready(
    listening: tuple[socket.socket, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise systemd would start what was ordered after it, and report success."""
    socket_, name = listening

    code = run(Service(refuses=True), tmp_path, {"NOTIFY_SOCKET": name}, monkeypatch)

    assert code == ExitCode.BUG
    assert "READY=1" not in heard(socket_)


def test_ticks_come_often_enough_for_the_watchdog(listening: tuple[socket.socket, str]) -> None:
    _, name = listening
    patient = Service()

    watched = Reported(patient, Manager(name, watchdog_s=30), living)
    unwatched = Reported(patient, Manager(name), living)

    assert (watched.tick(), unwatched.tick()) == (10.0, 60.0)


def test_a_tick_that_the_disk_refused_still_is_a_sign_of_life(
    listening: tuple[socket.socket, str],
) -> None:
    """A full disk fails every tick; killing the process would not empty it."""
    socket_, name = listening

    with pytest.raises(StoreWriteError):
        Reported(Service(tick=StoreWriteError("full")), Manager(name, watchdog_s=30), living).tick()

    assert heard(socket_) == ["WATCHDOG=1"]


def test_a_thread_that_is_stuck_is_no_sign_of_life(
    listening: tuple[socket.socket, str], tmp_path: Path
) -> None:
    """Without a port for metrics, too: the watchdog is the one who asks."""
    socket_, name = listening
    clock = ManualClock()
    files = Layout(tmp_path / "d", tmp_path / "d/nodes", tmp_path / "p")
    instruments = prepare("bridge", Settings(log_files=0), files, clock=clock, is_supervised=True)
    watched = Reported(Service(), Manager(name, watchdog_s=180), instruments.verdict)
    board = instruments.board

    with capture_logs() as events:
        board.turned("radio 0")
        clock.advance(119)
        watched.tick()
        assert heard(socket_) == ["WATCHDOG=1"]
        clock.advance(2)
        watched.tick()
        watched.tick()
        assert heard(socket_) == []
        board.turned("radio 0")
        watched.tick()
        assert heard(socket_) == ["WATCHDOG=1"]

    told = [event for event in events if event["event"] == "watchdog_not_fed"]
    assert [event["reasons"][0] for event in told] == ["radio 0: has not turned for 121 s"]


def test_a_main_loop_that_was_slow_and_turns_again_is_a_sign_of_life(
    listening: tuple[socket.socket, str], tmp_path: Path
) -> None:
    socket_, name = listening
    clock = ManualClock()
    files = Layout(tmp_path / "d", tmp_path / "d/nodes", tmp_path / "p")
    instruments = prepare("agent", Settings(log_files=0), files, clock=clock, is_supervised=True)
    watched = Reported(Service(), Manager(name, watchdog_s=180), instruments.verdict)
    clock.advance(150)

    watched.tick()

    assert heard(socket_) == ["WATCHDOG=1"]


def test_a_process_that_nobody_watches_keeps_no_board(tmp_path: Path) -> None:
    files = Layout(tmp_path / "d", tmp_path / "d/nodes", tmp_path / "p")

    made = prepare("bridge", Settings(log_files=0), files, clock=ManualClock())

    assert type(made.board) is Board
