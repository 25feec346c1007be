"""Counts what the log files tell of a period: decisions by reason, and troubles. Writes nothing.

Only the logs know why somebody was left without an answer or had to wait. A question counts once
for each reason, though a restart may tell of it again. Missing and damaged lines cost themselves.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meshllm.errors import NotRegularError
from meshllm.layout import Layout
from meshllm.reading.period import Period
from meshllm.reasons import Kind
from meshllm.store import regular

ROLES: Final = ("bridge", "agent")
#: Events that carry a reason of the table: its field, and of which kind it is.
DECISIONS: Final[Mapping[str, tuple[str, Kind]]] = {
    "question_skipped": ("reason", "skipped"),
    "reply_not_queued": ("reason", "skipped"),
    "question_deferred": ("reason", "deferred"),
    "question_refused": ("danger", "refused"),
    "answer_faulty": ("fault", "fault"),
    "send_failed": ("reason", "sending"),
    "ack_overdue": ("reason", "sending"),
    "air_held": ("reason", "sending"),
}
#: Events that are counted as they are.
EVENTS: Final[Mapping[str, str]] = {
    "question_waited_too_long": "questions told that the line is too long",
    "answer_replaced_by_facts": "answers replaced by the facts",
    "airtime_budget_used": "texts that waited for the airtime budget",
    "dm_undecodable": "direct messages that could not be decrypted",
    "duplicate_dropped": "texts heard twice",
    "link_down": "times that a radio was lost",
    "model_call_retried": "model calls tried again at once",
    "message_not_written": "times that the disk refused a text",
    "process_started": "starts of bridge and agent",
}
_MARKS: Final = tuple(name.encode() for name in (*DECISIONS, *EVENTS))
_CHUNK: Final = 1 << 20
_MAX_LINE_BYTES: Final = 100_000  #: a longer line is none of ours


@dataclass(slots=True)
class Decisions:
    """Counts of log events, and how far back each process's log files go."""

    reasons: dict[Kind, Counter[str]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    oldest: dict[str, str] = field(default_factory=dict)  #: by role; "" without a line


def read(layout: Layout, period: Period, radios: Collection[str]) -> Decisions:
    """Look through all log files; of events that name a radio, those of these radios count."""
    found = Decisions()
    told: set[tuple[object, ...]] = set()
    for role in ROLES:
        firsts = []
        for path in _files(layout.log_file(role)):
            lines = _lines(path)
            first = next((one for one in map(_parse, lines) if one), None)
            if first is None:
                continue
            firsts.append(_at(first))
            for event in (first, *_marked(lines)):
                if period.holds(_at(event)) and str(event.get("node_uid", "")) in {"", *radios}:
                    _count(event, found, told)
        found.oldest[role] = min(firsts, default="")
    return found


def _count(event: Mapping[str, Any], found: Decisions, told: set[tuple[object, ...]]) -> None:
    name = event["event"]
    if name in EVENTS:
        found.events[name] += 1
    if name not in DECISIONS:
        return
    field_name, kind = DECISIONS[name]
    code = str(event.get(field_name) or "")
    keys = ("node_uid", "thread_key", "message_id")
    mark = (kind, code, *(str(event.get(key, "")) for key in keys))
    if event.get("message_id") and mark in told:
        return
    told.add(mark)
    found.reasons.setdefault(kind, Counter())[code] += 1


def _files(current: Path) -> list[Path]:
    try:
        names = sorted(path.name for path in current.parent.iterdir())
    except OSError:
        return []
    stem = f"{current.name}."
    return [
        current.parent / name
        for name in names
        if name == current.name or (name.startswith(stem) and name.removeprefix(stem).isdigit())
    ]


def _marked(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Parse the lines that name one of the events; looking for bytes spares nearly every parse."""
    for line in lines:
        event = _parse(line) if any(mark in line for mark in _MARKS) else None
        if event is not None:
            yield event


def _lines(path: Path) -> Iterator[bytes]:
    try:
        descriptor = regular.open_file(path)
    except (OSError, NotRegularError):
        return
    rest = b""
    try:
        while piece := os.read(descriptor, _CHUNK):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            rest = rest if len(rest) <= _MAX_LINE_BYTES else b""
    except OSError:
        return
    finally:
        os.close(descriptor)
    yield rest


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_event = isinstance(parsed, dict) and isinstance(parsed.get("event"), str)
    return parsed if is_event else None


def _at(event: Mapping[str, Any]) -> str:
    return f"{str(event.get('timestamp', ''))[:19]}Z"
