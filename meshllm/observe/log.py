"""Structured logging for both processes. Chooses the shape of lines, never what is logged."""

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Final, Protocol, TextIO, cast

import structlog

from meshllm.observe.logfile import LogFile

log = structlog.get_logger()

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

_METHODS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


class Tap(Protocol):
    """Something that counts events, also those below the level that is logged."""

    def note(self, event: structlog.typing.EventDict) -> None:
        """Take one event, from any thread. Must not raise, block or change it."""


def configure(
    level: str,
    *,
    role: str,
    stream: TextIO | None = None,
    file: LogFile | None = None,
    tap: Tap | None = None,
) -> None:
    """Send every event to `stream` (stderr): readable on a terminal, JSON lines in a pipe.

    `file` gets the same events as JSON lines, `tap` those from info on, whatever the level.

    The radio library logs and prints for itself; its logger is silenced, since each of its
    complaints that matters to us is an event of ours.
    """
    target = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_role(role),
        structlog.processors.format_exc_info,
    ]
    as_json = structlog.processors.JSONRenderer(ensure_ascii=True, default=str)
    renderer: structlog.typing.Processor = (
        # repr: a channel named by a stranger must not drive the terminal.
        structlog.dev.ConsoleRenderer(repr_native_str=True) if target.isatty() else as_json
    )
    least = LEVELS[level]
    if tap is not None:
        shared.insert(-1, _counted(tap, least))
        least = min(least, logging.INFO)
    if file is not None:
        shared.append(_copied_to(file, as_json))
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Unbreakable(target))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=target, level=logging.WARNING)
    for name in ("meshtastic", "bleak", "urllib3", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextmanager
def contained() -> Iterator[None]:
    """Turn what libraries print, and the end of threads that they let die, into events.

    Neither would be JSON, and a pipe that nobody reads must not stop a service that prints.
    """
    previous, threading.excepthook = threading.excepthook, _thread_died
    try:
        with redirect_stdout(_Printed()):
            yield
    finally:
        threading.excepthook = previous


def _thread_died(details: threading.ExceptHookArgs) -> None:
    if details.exc_type is SystemExit or details.exc_value is None:
        return
    crash = {"exc_info": details.exc_value}
    log.error("thread_died", thread=details.thread.name if details.thread else "", **crash)


class _Printed(io.TextIOBase):
    """Takes the place of stdout: every line becomes an event."""

    def __init__(self) -> None:
        self._rest = ""
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, map(str.strip, lines)):
            log.debug("text_printed", text=line)
        return len(text)


class _Unbreakable:
    """A stream whose reader may go away and whose disk may fill up: lines are lost, nothing else.

    A log call that raised would take the thread down that was about to answer somebody.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def _counted(tap: Tap, least: int) -> structlog.typing.Processor:
    """Count every event, then drop what is below the level."""

    def count(
        _logger: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        tap.note(event)
        if _METHODS.get(method, logging.ERROR) < least:
            raise structlog.DropEvent
        return event

    return count


def _copied_to(
    file: LogFile, render: structlog.processors.JSONRenderer
) -> structlog.typing.Processor:
    def copy(
        logger: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        is_urgent = _METHODS.get(method, logging.ERROR) >= logging.WARNING
        file.write(str(render(logger, method, dict(event))), is_urgent=is_urgent)
        return event

    return copy


def _with_role(role: str) -> structlog.typing.Processor:
    def add(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["role"] = role
        return event

    return add
