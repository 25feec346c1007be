"""What each thread file still wants: rows to send, parts to keep in order, ACKs to wait for.

Derived from the rows at every change of a file; decides no retry and writes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshllm.bridge import life, retry
from meshllm.clock import Clock, age_s, wall_age_s
from meshllm.records import Message

BELIEVED_AGE_S: Final = 48 * 3600.0  #: an older try is a clock that jumped
KEPT_ACKS_S: Final = 10.0  #: after a restart, for ACKs that the radio kept meanwhile
IDLE_S: Final = 60.0  #: longest time to look away while nothing is due

Key = tuple[str, ...]


@dataclass(slots=True)
class _Thread:
    queued: list[Message] = field(default_factory=list)
    due: dict[Key, tuple[str, float]] = field(default_factory=dict)
    part_states: dict[tuple[str, int], Message] = field(default_factory=dict)
    ack_deadlines: dict[Key, float] = field(default_factory=dict)


class Work:
    """Unfinished rows of one radio, by thread file."""

    def __init__(self, *, clock: Clock) -> None:
        """Start with nothing to do."""
        self._clock = clock
        self._threads: dict[Path, _Thread] = {}

    def note(self, path: Path, rows: Sequence[Message], *, preset: str) -> list[Message]:
        """Take in a thread file as it is now; return its unfinished rows."""
        thread = _Thread()
        previous = self._threads.pop(path, None) or _Thread()
        unfinished = []
        # Only what is answered now needs its extras parsed: this runs at every change of a file.
        answering = {row.reply_to_id for row in rows if life.is_queued(row)}
        for row in rows:
            if not row.is_outgoing:
                continue
            if life.is_queued(row):
                thread.queued.append(row)
                self._note_due(thread, row, previous)
                unfinished.append(row)
            elif life.awaits_ack(row):
                known = previous.ack_deadlines.get(row.key)
                thread.ack_deadlines[row.key] = known or self._ack_deadline(row, preset)
                unfinished.append(row)
            if row.reply_to_id in answering:
                part = row.meta.get("part")
                if isinstance(part, int):
                    thread.part_states[(_group(row), part)] = row
        if thread.queued or thread.ack_deadlines:
            self._threads[path] = thread
        return unfinished

    def next_ready(self) -> tuple[tuple[Path, Message] | None, float]:
        """Find the oldest row that may be sent now, else the seconds until one may be."""
        best: tuple[str, Path, Message] | None = None
        wait_s = IDLE_S
        now = self._clock.monotonic()
        for path, thread in self._threads.items():
            for row in thread.queued:
                due_s = thread.due[row.key][1] - now if row.key in thread.due else 0.0
                if due_s > 0:
                    wait_s = min(wait_s, due_s)
                    continue
                if _is_blocked(thread, row):
                    continue
                if best is None or row.timestamp < best[0]:
                    best = (row.timestamp, path, row)
                break
        return ((best[1], best[2]) if best else None), wait_s

    def earlier_part(self, path: Path, row: Message) -> Message | None:
        """Return the part before this one of the same answer, None for a first part."""
        return _earlier_part(self._threads[path], row)

    def take_overdue(self, now: float) -> list[tuple[Path, Key]]:
        """Name the rows whose ACK is overdue, once each."""
        over = [
            (path, key)
            for path, thread in self._threads.items()
            for key, deadline in thread.ack_deadlines.items()
            if now >= deadline
        ]
        for path, key in over:
            del self._threads[path].ack_deadlines[key]
        return over

    def ack_waits(self, now: float) -> Iterable[float]:
        """Seconds until each ACK is overdue."""
        for thread in self._threads.values():
            for deadline in thread.ack_deadlines.values():
                yield max(0.0, deadline - now)

    def postpone_acks(self, earliest: float) -> None:
        """Let no ACK be overdue before this moment."""
        for thread in self._threads.values():
            thread.ack_deadlines = {
                key: max(deadline, earliest) for key, deadline in thread.ack_deadlines.items()
            }

    def queued_count(self) -> int:
        """Rows that still have to be sent."""
        return sum(len(thread.queued) for thread in self._threads.values())

    def _note_due(self, thread: _Thread, row: Message, previous: _Thread) -> None:
        """Turn a wall time into a deadline once: a clock set back must not hold a row for ever."""
        due_at = row.meta.get("due_at")
        if not isinstance(due_at, str):
            return
        known = previous.due.get(row.key)
        if known is None or known[0] != due_at:
            age = wall_age_s(self._clock, due_at)
            wait_s = 0.0 if age is None else min(-age, retry.LONGEST_WAIT_S)
            known = (due_at, self._clock.monotonic() + wait_s)
        thread.due[row.key] = known

    def _ack_deadline(self, row: Message, preset: str) -> float:
        history = life.tries(row)
        elapsed = age_s(self._clock, history[-1].at) if history else None
        limit_s = retry.ack_timeout_s(len(row.content.encode()), preset)
        # A clock set backwards or days forward must neither stretch nor cut the wait. One that is
        # over keeps a rest for ACKs the radio held: begun anew, a bridge that restarts often
        # would wait until the person's radio has forgotten the id, and they saw the answer twice.
        is_plausible = elapsed is not None and 0 <= elapsed <= BELIEVED_AGE_S
        spent_s = min(elapsed or 0.0, limit_s - KEPT_ACKS_S) if is_plausible else 0.0
        return self._clock.monotonic() + limit_s - spent_s


def _is_blocked(thread: _Thread, row: Message) -> bool:
    """Part n waits for the hand-over of part n-1."""
    earlier = _earlier_part(thread, row)
    return earlier is not None and life.is_queued(earlier)


def _earlier_part(thread: _Thread, row: Message) -> Message | None:
    part = row.meta.get("part")
    if not isinstance(part, int) or part <= 1:
        return None
    return thread.part_states.get((_group(row), part - 1))


def _group(row: Message) -> str:
    """Name the answer a part belongs to; "more" answers another question from the same prompt."""
    return f"{row.meta.get('prompt_id', '')} {row.reply_to_id}"
