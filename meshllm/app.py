"""Process scaffold: arguments, settings, log, signals, process lock, ticks. Knows no service."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

import click
import structlog

from meshllm import config, notify
from meshllm.clock import Clock, SystemClock, Waker, time_scale_from_environment
from meshllm.config import Settings
from meshllm.errors import ExitCode, StoreWriteError, TransientError, UserError
from meshllm.layout import Layout
from meshllm.observe import log as logging_setup
from meshllm.observe.board import Board
from meshllm.observe.instruments import prepare
from meshllm.store import atomic
from meshllm.store.locks import ProcessLock
from meshllm.store.space import refusal_of

log = structlog.get_logger()

STORAGE_PAUSE_S: Final = 5.0  #: rest after a tick that the file system refused


class Service(Protocol):
    """A long-running half of the system."""

    def start(self) -> None:
        """Open what is needed."""

    def tick(self) -> float:
        """Do what is due; return the seconds until the next tick is wanted."""

    def stop(self) -> None:
        """Finish the current step and let go, within 4 s."""


class ServiceFactory(Protocol):
    """Builds a service from what the scaffold knows."""

    def __call__(
        self, settings: Settings, files: Layout, *, clock: Clock, waker: Waker, board: Board
    ) -> Service:
        """Build it; open nothing. It tells the board of itself."""


def main(
    role: str,
    build: ServiceFactory,
    lock_of: Callable[[Layout], Path],
    *,
    argv: Sequence[str],
    root: Path,
) -> int:
    """Run one process from its command line to its exit code; a stop signal ends it with 0."""

    @click.command(name=role, help=f"Run the {role}. Settings: config.yaml, .env, environment.")
    @click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings file (default: config.yaml beside the script).",
    )
    def command(config_file: Path | None) -> int:
        return run(role, build, lock_of, config_file=config_file, root=root)

    try:
        return int(command.main(list(argv), standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except click.Abort:
        return ExitCode.OK
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def run(
    role: str,
    build: ServiceFactory,
    lock_of: Callable[[Layout], Path],
    *,
    config_file: Path | None,
    root: Path,
) -> int:
    """Load settings, take the process lock, serve until a signal. Raises UserError."""
    manager = notify.Manager.from_environment(os.environ)
    waker = Waker()
    stopping: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)
        waker.wake()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # SIGHUP ignored by whoever started us (nohup) stays ignored: that is what was asked for.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)
    loaded = config.load(
        config_file or root / "config.yaml", os.environ, must_exist=config_file is not None
    )
    settings = loaded.settings
    clock = SystemClock(time_scale_from_environment())
    files = layout_of(settings)
    instruments = prepare(role, settings, files, clock=clock, is_supervised=manager.ping_s > 0)
    for warning in loaded.warnings:
        log.warning("settings_warning", reason=warning)
    try:
        _prepare(files, settings)
    except TransientError as error:
        log.error("process_failed", reason=str(error), consequence="the supervisor starts it again")
        return ExitCode.BUG

    def serve() -> None:
        board = instruments.board
        built = build(settings, files, clock=clock, waker=waker, board=board)
        service = notify.Reported(built, manager, instruments.verdict)
        service.start()
        log.info("process_started", pid=os.getpid(), data=str(files.data_dir))
        _loop(service, stopping, board, clock=clock, waker=waker)
        log.info("process_stopped", signal=stopping[0] if stopping else 0)

    lock = ProcessLock(lock_of(files), role)
    lock.acquire()
    try:
        with instruments.running(), logging_setup.contained():
            return _contained(serve)
    finally:
        lock.release()


def _contained(serve: Callable[[], None]) -> int:
    """Turn every end into an exit code, and into an event. Raises UserError."""
    try:
        serve()
    except UserError as error:
        log.error("process_refused", reason=str(error), consequence="the operator must act")
        raise
    except TransientError as error:
        log.error("process_failed", reason=str(error), consequence="the supervisor starts it again")
        return ExitCode.BUG
    except Exception:
        log.exception("process_crashed", consequence="the supervisor starts it again")
        return ExitCode.BUG
    return ExitCode.OK


def layout_of(settings: Settings) -> Layout:
    """Paths of the installation that these settings describe."""
    return Layout(settings.data_dir, settings.nodes_dir, settings.prompts_dir)


def _prepare(files: Layout, settings: Settings) -> None:
    modes = atomic.Modes(settings.file_mode, settings.folder_mode, settings.lock_mode)
    try:
        atomic.make_folders(files.data_dir, files.nodes_dir, modes=modes)
        if settings.log_files:
            with suppress(StoreWriteError):  # without it lines are lost, and nothing else
                atomic.make_folders(files.logs_dir, modes=modes)
        if settings.enable_prompt_logs:
            atomic.make_folders(files.prompts_dir, modes=modes)
    except TransientError as error:
        if refusal_of(error) == "full":
            raise  # it may pass
        raise UserError(
            f"the data folder cannot be written: {error}",
            ["give this user write permission, or set DATA_DIR to a folder it owns"],
        ) from error


def _loop(
    service: Service, stopping: list[int], board: Board, *, clock: Clock, waker: Waker
) -> None:
    try:
        while not stopping:
            try:
                wait_s = service.tick()
            except TransientError as error:
                log.error("tick_failed", reason=str(error), retry_in_s=STORAGE_PAUSE_S)
                wait_s = STORAGE_PAUSE_S
            board.turned()
            if not stopping:
                clock.wait(waker, max(0.0, wait_s))
    finally:
        service.stop()
