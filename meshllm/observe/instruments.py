"""Puts together what watches one process: log file, board, metrics, health pages.

Each part is left out where the settings say so; a service sees the same board either way.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from meshllm.clock import Clock
from meshllm.config import Settings
from meshllm.layout import Layout
from meshllm.observe import log as logging_setup
from meshllm.observe.board import Board, KeptBoard, Verdict, judge
from meshllm.observe.logfile import LogFile
from meshllm.observe.server import Pages, WatchServer
from meshllm.store import atomic
from meshllm.store.atomic import Modes
from meshllm.store.journal import Journal
from meshllm.store.reserve import SIZE_BYTES
from meshllm.store.space import BYTES_PER_MB

if TYPE_CHECKING:
    from meshllm.observe.exporter import Exporter

log = structlog.get_logger()

#: Free space that log lines leave: what the bridge's ballast frees is for messages.
KEPT_FOR_MESSAGES: Final = 2 * SIZE_BYTES


@dataclass(frozen=True, slots=True)
class Instruments:
    """What watches one process."""

    board: Board
    verdict: Callable[[], Verdict]  #: asked on the main loop, which is proof that this one turns
    file: LogFile | None
    server: WatchServer | None
    exporter: "Exporter | None"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write the log file and serve, until the end. The caller holds the process's lock."""
        with ExitStack() as stack:
            if self.file is not None:
                self.file.start()
                stack.callback(self.file.close)
            if self.exporter is not None:
                stack.enter_context(atomic.observed(self.exporter.committed))
            if self.server is not None:
                stack.callback(self.server.stop)
                self.server.start()
                self._tell_what_lacks()
            yield

    def _tell_what_lacks(self) -> None:
        if self.exporter is None:
            log.warning(
                "metrics_unavailable",
                reason="the package prometheus_client is not installed",
                consequence="the health pages are served, /metrics is not",
                advice="pip install prometheus_client",
            )


def prepare(
    role: str, settings: Settings, files: Layout, *, clock: Clock, is_supervised: bool = False
) -> Instruments:
    """Build what the settings ask for and send all events there from now on. Opens nothing.

    `is_supervised`: somebody wants to know whether the process lives, even without a port.
    """
    file = _log_file(role, settings, files)
    port = settings.bridge_metrics_port if role == "bridge" else settings.agent_metrics_port
    if not port:
        logging_setup.configure(settings.log_level, role=role, file=file)
        if not is_supervised:
            return Instruments(Board(), _unjudged, file, None, None)
    board = KeptBoard(clock)

    def verdict() -> Verdict:
        board.turned()
        return judge(role, board.snapshot())

    if not port:
        return Instruments(board, verdict, file, None, None)
    exporter = _exporter(role, board, file)
    logging_setup.configure(settings.log_level, role=role, file=file, tap=exporter)
    pages = Pages(lambda: judge(role, board.snapshot()), None)
    if exporter is not None:
        pages = Pages(pages.verdict, exporter.render, exporter.content_type)
    server = WatchServer(port, pages, clock=clock)
    return Instruments(board, verdict, file, server, exporter)


def _unjudged() -> Verdict:
    return Verdict(live=True, ready=True)


def _log_file(role: str, settings: Settings, files: Layout) -> LogFile | None:
    if not settings.log_files:
        return None
    return LogFile(
        Journal(
            files.log_file(role),
            max_bytes=settings.log_file_mb * BYTES_PER_MB,
            files=settings.log_files,
            modes=Modes(settings.file_mode, settings.folder_mode, settings.lock_mode),
            keep_free_bytes=KEPT_FOR_MESSAGES,
        )
    )


def _exporter(role: str, board: KeptBoard, file: LogFile | None) -> "Exporter | None":
    """Load the library only where it is wanted: it costs 60 ms of every start."""
    try:
        from meshllm.observe.exporter import Exporter  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        return None
    return Exporter(role, board.snapshot, lambda: file.lost if file else 0)
