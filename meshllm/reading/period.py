"""Counts what the rows of a period tell: heard, answered, sent, time on air. Writes nothing.

A row counts by its own time, a try by that of the try. Times are compared as they stand in the
cells, so a clock that was set back or ahead shows.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from meshllm.airtime import PRESETS, airtime_s
from meshllm.clock import parse_utc
from meshllm.grouping import Grouping
from meshllm.reading.states import state_of, text_of
from meshllm.records import Message, PromptRow
from meshllm.trigger import question_text

SLOWEST_PRESET: Final = (
    "LONG_SLOW"  #: of a radio with modem settings of its own, as the bridge does
)
_HOUR: Final = len("2026-03-01T10")  #: this much of a timestamp cell names its hour


@dataclass(frozen=True, slots=True)
class Period:
    """From one moment up to another, as timestamp cells."""

    since: str
    until: str

    def holds(self, at: str) -> bool:
        """Say whether a moment is in it; one that cannot be read is not."""
        return self.since <= at < self.until


Share = tuple[str, str, str]  #: hour, radio and thread


def _zeros() -> defaultdict[Any, float]:
    return defaultdict(float)


@dataclass(slots=True)
class Tally:
    """Counts of the rows added so far."""

    period: Period
    counts: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    parts: Counter[int] = field(default_factory=Counter)
    people: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)  #: from a question to its first hand-over
    #: Seconds on the air by hour, and by hour, radio and thread.
    hours: defaultdict[str, float] = field(default_factory=_zeros)
    shares: defaultdict[Share, float] = field(default_factory=_zeros)

    def add_thread(
        self,
        rows: Iterable[Message],
        *,
        node_uid: str,
        preset: str,
        own_ids: Collection[str] = (),
    ) -> None:
        """Count the rows of one thread, given in file order."""
        asked: dict[tuple[str, str], str] = {}
        answers: set[str] = set()
        grouping = Grouping()
        for row in rows:
            if row.is_outgoing:
                self._add_ours(row, asked, answers, grouping.name(row))
                self._add_tries(row, node_uid, preset)
            elif self.period.holds(row.timestamp):
                self._add_heard(row, own_ids)
                asked[_asker(row), row.message_id] = row.timestamp

    def _add_heard(self, row: Message, own_ids: Collection[str]) -> None:
        self.counts["heard"] += 1
        self.counts["direct" if row.thread_type == "dm" else "channel"] += 1
        if question_text(row, own_ids=own_ids) is not None:
            self.counts["questions"] += 1
            self.people.add(row.sender_id)

    def _add_ours(
        self, row: Message, asked: Mapping[tuple[str, str], str], answers: set[str], name: str
    ) -> None:
        if not self.period.holds(row.timestamp):
            return
        self.counts["texts"] += 1
        state, meta = state_of(row), row.meta
        self.states[state] += 1
        if state == "failed":
            self.failed[text_of(meta, "reason") or "UNKNOWN"] += 1
        kind = _kind(row, meta)
        if kind == "notices" or name not in answers:
            self.counts[kind] += 1
        if kind == "answers" and name not in answers:
            self.parts[_number(meta.get("parts"))] += 1
            self._add_wait(row, meta, asked)
        answers.add(name)

    def _add_wait(
        self, row: Message, meta: Mapping[str, Any], asked: Mapping[tuple[str, str], str]
    ) -> None:
        asker = "" if row.thread_type == "dm" else text_of(meta, "reply_to_sender")
        begin = parse_utc(asked.get((asker, row.reply_to_id), ""))
        end = next((parse_utc(at) for _, at in _tries(meta)), None)
        if begin is not None and end is not None and end >= begin:
            self.seconds.append((end - begin).total_seconds())

    def _add_tries(self, row: Message, node_uid: str, preset: str) -> None:
        if '"tries"' not in row.meta_json:  # spares a JSON parse
            return
        size = len(row.content.encode("utf-8", "replace"))
        length = airtime_s(size, preset, pki=row.thread_type == "dm")
        ids = set()
        for number, (packet_id, at) in enumerate(_tries(row.meta)):
            if not self.period.holds(at) or parse_utc(at) is None:
                continue
            ids.add(packet_id)
            self.hours[at[:_HOUR]] += length
            self.shares[at[:_HOUR], node_uid, row.thread_key] += length
            self.counts["hand_overs"] += 1
            self.counts["again"] += number > 0
        self.counts["doubles"] += len(ids) > 1


def calls_in(prompts: Iterable[PromptRow], period: Period) -> dict[str, Any]:
    """Count the model calls of a period, and how long those took that gave an answer."""
    outcomes: Counter[str] = Counter()
    seconds = []
    for row in prompts:
        if not period.holds(f"{row.datetime.replace(' ', 'T')}Z"):
            continue
        outcome = str(row.meta.get("outcome", "unknown"))
        outcomes[outcome] += 1
        if outcome in ("ok", "capped", "partial") and row.duration_ms is not None:
            seconds.append(row.duration_ms / 1000)
    return {"calls": outcomes.total(), "outcomes": dict(outcomes), "seconds": spread(seconds)}


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Say how many values there are, and what half, nine of ten and all of them do not exceed."""
    listed = sorted(values)
    return {
        "count": len(listed),
        "p50": _rank(listed, 0.5),
        "p90": _rank(listed, 0.9),
        "most": listed[-1] if listed else None,
    }


def preset_of(name: object) -> str:
    """Find a preset by what radio.json calls it; the slowest for one that is unknown."""
    wanted = str(name or "").lower()
    return next((key for key in PRESETS if key.replace("_", "").lower() == wanted), SLOWEST_PRESET)


def _rank(listed: Sequence[float], share: float) -> float | None:
    return listed[math.ceil(share * len(listed)) - 1] if listed else None


def _asker(row: Message) -> str:
    """Ids are unique in a direct conversation; on a channel they are unique per sender."""
    return "" if row.thread_type == "dm" else row.sender_id


def _kind(row: Message, meta: Mapping[str, Any]) -> str:
    if meta.get("kind") in ("notice", "operator"):
        return "notices" if meta["kind"] == "notice" else "by_operator"
    if meta.get("command"):
        return "commands"
    return "answers" if row.reply_to_id else "by_operator"


def _tries(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Packet id and time of each hand-over; what is no such entry is left out."""
    listed = meta.get("tries")
    entries = listed if isinstance(listed, list) else []
    return [(str(e.get("id")), str(e.get("at", ""))) for e in entries if isinstance(e, dict)]


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1
