"""The newest warnings and errors of the log files. Follows no file and writes nothing."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshllm.errors import NotRegularError
from meshllm.store import regular

TAIL_BYTES: Final = 512_000  #: read from the end of a log; about 2,000 events
BAD_LEVELS: Final = ("warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a log file."""

    timestamp: str
    role: str
    level: str
    event: str
    reason: str  #: the file it is about, and why, or else the consequence


def last_troubles(
    files: Sequence[Path], *, limit: int, levels: Sequence[str] = BAD_LEVELS
) -> list[Event]:
    """Return the newest events of these levels over several files, newest first."""
    found = [event for path in files for event in _events(path) if event.level in levels]
    return sorted(found, key=lambda event: event.timestamp, reverse=True)[:limit]


def _events(path: Path) -> Iterator[Event]:
    for line in _tail(path):
        with suppress(ValueError, RecursionError):
            fields = json.loads(line)
            if isinstance(fields, dict):
                yield Event(
                    timestamp=_text(fields, "timestamp"),
                    role=_text(fields, "role"),
                    level=_text(fields, "level"),
                    event=_text(fields, "event"),
                    reason=_reason(fields),
                )


def _reason(fields: dict[str, object]) -> str:
    """Say which file an event is about and why it happened, or what follows from it."""
    words = _text(fields, "reason") or _text(fields, "error") or _text(fields, "consequence")
    file = Path(_text(fields, "file")).name
    return words if file in words else ": ".join(filter(None, (file, words)))


def _tail(path: Path) -> list[bytes]:
    """Lines at the end of a file; nothing for one that is missing or cannot be read."""
    try:
        descriptor = regular.open_file(path)
    except (OSError, NotRegularError):
        return []
    try:
        size = os.fstat(descriptor).st_size
        start = max(0, size - TAIL_BYTES)
        lines = os.pread(descriptor, TAIL_BYTES, start).split(b"\n")
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return lines[1:] if start else lines


def _text(fields: dict[str, object], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""
