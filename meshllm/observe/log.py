"""Structured logging for both processes. Chooses the shape of lines, never what is logged."""

import logging
import sys
from contextlib import suppress
from typing import Final, TextIO, cast

import structlog

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


def configure(level: str, *, role: str, stream: TextIO | None = None) -> None:
    """Send every event to `stream` (stderr): readable on a terminal, JSON lines in a pipe.

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
    renderer: structlog.typing.Processor = (
        # repr: a channel named by a stranger must not drive the terminal.
        structlog.dev.ConsoleRenderer(repr_native_str=True)
        if target.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=True, default=str)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Unbreakable(target))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=target, level=logging.WARNING)
    for name in ("meshtastic", "bleak", "urllib3", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


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


def _with_role(role: str) -> structlog.typing.Processor:
    def add(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["role"] = role
        return event

    return add
