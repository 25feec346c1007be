"""The scaffold of both processes: what ends them, and with which code."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from meshllm import app
from meshllm.errors import ExitCode, StoreWriteError
from meshllm.layout import Layout

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _leave_the_process_as_it_was() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    structlog.reset_defaults()


class Service:
    """Does one thing at its first tick and counts its ends."""

    def __init__(self, *, start: Exception | None = None, tick: Exception | int | None = None):
        self._start, self._tick = start, tick
        self.stops = 0

    def start(self) -> None:
        if self._start is not None:
            raise self._start

    def tick(self) -> float:
        if isinstance(self._tick, Exception):
            raise self._tick
        if isinstance(self._tick, int):
            signal.raise_signal(self._tick)
        return 60.0

    def stop(self) -> None:
        self.stops += 1


def run(service: Service, root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("DATA_DIR", str(root / "data"))
    monkeypatch.setenv("PROMPTS_DIR", str(root / "prompts"))

    def build(*_args: Any, **_named: Any) -> Service:
        return service

    def lock(files: Layout) -> Path:
        return files.bridge_lock

    return app.run("bridge", build, lock, config_file=None, root=root)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_signal_ends_with_0(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tick=int(number))

    assert run(service, tmp_path, monkeypatch) == ExitCode.OK
    assert service.stops == 1


def test_a_hang_up_that_was_ignored_stays_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    run(Service(tick=int(signal.SIGTERM)), tmp_path, monkeypatch)

    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_what_may_pass_is_started_again_by_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held lock or a full disk at boot must not take the system down for good."""
    service = Service(start=StoreWriteError("no space left"))

    assert run(service, tmp_path, monkeypatch) == ExitCode.BUG


def test_a_bug_in_a_tick_stops_the_service_and_ends_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tick=ZeroDivisionError())

    assert run(service, tmp_path, monkeypatch) == ExitCode.BUG
    assert service.stops == 1


@pytest.mark.parametrize("is_on", [True, False])
def test_the_folder_of_prompts_is_made_only_where_prompts_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_on: bool
) -> None:
    monkeypatch.setenv("ENABLE_PROMPT_LOGS", str(is_on).lower())

    assert run(Service(tick=signal.SIGTERM), tmp_path, monkeypatch) == ExitCode.OK

    assert (tmp_path / "prompts").exists() is is_on
    assert (tmp_path / "data/nodes").is_dir()
