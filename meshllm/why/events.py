"""Events of the log files that concern one message. Copes with files that are not there."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshllm import reasons
from meshllm.reasons import Kind

ROLES: Final = ("bridge", "agent")
#: Of everybody's concern: why nothing happened in a time.
GENERAL: Final = frozenset(
    {"process_started", "process_stopped", "process_crashed", "model_state_changed"}
)
#: What the rows tell as well.
TOLD_BY_ROWS: Final = frozenset(
    {
        "message_received",
        "question_asked",
        "model_call_finished",
        "reply_queued",
        "notice_queued",
        "send_handed_over",
        "send_acknowledged",
        "send_held",
        "send_given_up",
        "command_answered",
    }
)
#: Which field of an event is a reason, and of which kind.
_REASONS: Final[Mapping[str, tuple[str, Kind]]] = {
    "question_skipped": ("reason", "skipped"),
    "reply_not_queued": ("reason", "skipped"),
    "question_deferred": ("reason", "deferred"),
    "question_refused": ("danger", "refused"),
    "answer_faulty": ("fault", "fault"),
    "model_call_finished": ("outcome", "model"),
    "thinking_failed": ("outcome", "model"),
    "model_state_changed": ("reason", "model"),
    "send_failed": ("reason", "sending"),
    "send_given_up": ("reason", "sending"),
    "send_held": ("reason", "sending"),
    "ack_overdue": ("reason", "sending"),
    "send_unconfirmed": ("reason", "sending"),
    "row_copy_ended": ("reason", "sending"),
}
_PLUMBING: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "role",
        "node_uid",
        "thread_key",
        "thread",
        "message_id",
        "prompt_id",
    }
)
_MAX_LINE_BYTES: Final = 100_000  #: a longer line is none of ours


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a log."""

    at: str  #: as a timestamp cell
    role: str
    name: str
    fields: Mapping[str, Any]

    @property
    def words(self) -> str:
        """Say it in words, as far as there are any."""
        field, kind = _REASONS.get(self.name, ("", "skipped"))
        code = str(self.fields.get(field) or "")
        said = [reasons.explain(kind, code).text] if code else []
        rest = {k: v for k, v in self.fields.items() if k not in _PLUMBING and k != field}
        said += [f"{k}={v}" for k, v in rest.items() if v not in (None, "", [])]
        return f"{self.role}: {self.name}" + (f": {', '.join(said)}" if said else "")


@dataclass(frozen=True, slots=True)
class Logs:
    """What the log files say, and how far back they go."""

    events: tuple[Event, ...] = ()  #: about the ids asked for, oldest first
    general: tuple[Event, ...] = ()  #: starts, ends, states of the model
    oldest: str = ""  #: timestamp cell of the oldest line; "" without any

    def covers(self, at: str) -> bool:
        """Say whether lines of that time would still be there."""
        return bool(self.oldest) and self.oldest <= at


def read(folder: Path, ids: Collection[str], thread_keys: Collection[str]) -> Logs:
    """Look through all log files for events that name one of the ids; damaged lines are skipped.

    Ids are unique only within a thread, and anybody may send one that is in use: an event of
    another thread is about another message.
    """
    marks = [name.encode() for name in (*ids, *GENERAL)]
    events: list[Event] = []
    general: list[Event] = []
    oldest: list[str] = []
    for role, path in _files(folder):
        for event, is_first in _events(path, role, marks):
            oldest += [event.at] if is_first else []
            if event.name in GENERAL:
                general.append(event)
            elif _names(event) & set(ids) and event.fields.get("thread_key") in (
                None,
                *thread_keys,
            ):
                events.append(event)
    events.sort(key=lambda event: event.at)
    general.sort(key=lambda event: event.at)
    return Logs(tuple(events), tuple(general), min(oldest, default=""))


def undecoded(folder: Path, node: str) -> Event | None:
    """Return the newest event about a direct message of a node that could not be decrypted."""
    found = [
        event
        for role, path in _files(folder)
        for event, _ in _events(path, role, [node.encode()])
        if event.name == "dm_undecodable" and event.fields.get("sender") == node
    ]
    return max(found, key=lambda event: event.at, default=None)


def _files(folder: Path) -> list[tuple[str, Path]]:
    try:
        found = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
    return [(role, p) for role in ROLES for p in found if p.name.startswith(f"{role}.jsonl")]


def _events(path: Path, role: str, marks: Collection[bytes]) -> Iterator[tuple[Event, bool]]:
    """Yield the lines that hold a mark, and the first one that is whole: it tells how old they are.

    Looking for bytes first spares parsing nearly every line.
    """
    is_first = True
    for line in _lines(path):
        if is_first or any(mark in line for mark in marks):
            event = _parse(line, role)
            if event is not None:
                yield event, is_first
                is_first = False


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE_BYTES):
                yield line
    except OSError:
        return


def _parse(line: bytes, role: str) -> Event | None:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("event"), str):
        return None
    at = f"{str(parsed.get('timestamp', ''))[:19]}Z"
    return Event(at, role, parsed["event"], parsed)


def _names(event: Event) -> set[str]:
    """Ids that an event is about."""
    found = {str(event.fields.get(key, "")) for key in ("message_id", "prompt_id", "packet_id")}
    for key in ("reply_ids", "message_ids"):
        listed = event.fields.get(key)
        found |= {str(one) for one in listed} if isinstance(listed, list) else set()
    return found - {""}
