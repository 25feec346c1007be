"""What each thread file still wants: rows to send, to hold, to expire, and ACKs to wait for.

Derived from the rows at every change of a file; decides no retry and writes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Final

from meshllm.bridge import hold, life, retry
from meshllm.clock import Clock, age_s, wall_age_s
from meshllm.grouping import Grouping
from meshllm.layout import node_number
from meshllm.records import Message

BELIEVED_AGE_S: Final = 48 * 3600.0  #: an older try is a clock that jumped
KEPT_ACKS_S: Final = 10.0  #: after a restart, for ACKs that the radio kept meanwhile
MANY_TRIES: Final = 1000  #: remembered with the moment of their hand-over
IDLE_S: Final = 60.0  #: longest time to look away while nothing is due
RELEASE_S: Final = 3.0  #: after hearing a person: what they still send comes first
NOTICE_LIFE_S: Final = 600.0  #: "working on it" is of no use later

_CANCELS: Final = '"cancels"'
_DELIVERED: Final = (
    '"delivered"'  #: like the one above, spares a JSON parse for every row of every thread
)

Key = tuple[str, ...]


@dataclass(slots=True)
class _Held:
    """One row that waits for a person; `ready_at` is set when they have been heard."""

    tries: int
    since: float
    packets: int  #: what the radio had heard by then
    was_heard: bool = False
    ready_at: float | None = None


@dataclass(slots=True)
class _Thread:
    queued: list[Message] = field(default_factory=list)
    due: dict[Key, tuple[str, float]] = field(default_factory=dict)
    held: dict[Key, _Held] = field(default_factory=dict)
    expires: dict[Key, float] = field(default_factory=dict)
    part_states: dict[tuple[str, int], Message] = field(default_factory=dict)
    #: Of each queued row the text that it is a part of, and which part it is.
    places: dict[Key, tuple[str, int]] = field(default_factory=dict)
    ack_deadlines: dict[Key, float] = field(default_factory=dict)
    is_known: bool = False  #: something of ours was delivered here
    cancelled: set[str] = field(default_factory=set)  #: message ids that a reply here cancels


@dataclass(frozen=True, slots=True)
class Pick:
    """How the next row is chosen among those that may go."""

    after: str = ""  #: the answer sent last: its next part goes first
    dms_first: bool = False
    known_first: bool = False  #: a thousand answers to forged ids must not delay a real one
    #: Seconds a row has to wait for reasons of its own, such as a budget. Asked once for each
    #: file and thread key; what it returns is asked for each row.
    wait_of: Callable[[Path, str], Callable[[Message], float]] = lambda _path, _key: _no_wait


class Work:
    """Unfinished rows of one radio, by thread file."""

    def __init__(self, *, clock: Clock, max_held_s: float) -> None:
        """Start with nothing to do."""
        self._clock = clock
        self._max_held_s = max_held_s
        self._threads: dict[Path, _Thread] = {}
        self._packets = 0
        self._begun: dict[tuple[Path, Key], tuple[int, float]] = {}

    def note(
        self, path: Path, rows: Sequence[Message], *, timeout_of: Callable[[Message], float]
    ) -> list[Message]:
        """Take in a thread file as it is now; return its unfinished rows.

        `timeout_of` gives the seconds after which the silence about a row counts.
        """
        thread = _Thread()
        previous = self._threads.pop(path, None) or _Thread()
        unfinished = []
        # Only what is answered now needs its extras parsed: this runs at every change of a file.
        answering = {row.reply_to_id for row in rows if life.is_queued(row)}
        grouping = Grouping()
        for row in rows:
            if not row.is_outgoing:
                continue
            thread.is_known = thread.is_known or _DELIVERED in row.meta_json
            if _CANCELS in row.meta_json:
                thread.cancelled |= hold.cancelled_by(row)
            if life.is_queued(row):
                self._note_queued(thread, row, previous)
                unfinished.append(row)
            elif life.awaits_ack(row):
                known = previous.ack_deadlines.get(row.key)
                thread.ack_deadlines[row.key] = known or self._ack_deadline(
                    path, row, timeout_of(row)
                )
                unfinished.append(row)
            if row.reply_to_id in answering:
                answer, part = grouping.name(row), row.meta.get("part")
                if isinstance(part, int):
                    thread.part_states[answer, part] = row
                if life.is_queued(row):
                    thread.places[row.key] = (answer, part if isinstance(part, int) else 0)
        if thread.queued or thread.ack_deadlines:
            self._threads[path] = thread
        return unfinished

    def begun(self, path: Path, row: Message) -> None:
        """A try of this row, which is not in `row` yet, goes to the radio now.

        The row's own timestamps are whole seconds, and the clock behind them may jump.
        """
        if len(self._begun) > MANY_TRIES:
            self._begun.clear()
        self._begun[path, row.key] = (len(life.tries(row)) + 1, self._clock.monotonic())

    def next_ready(self, pick: Pick) -> tuple[tuple[Path, Message] | None, float]:
        """Find the row that may be sent now, else the seconds until one may be."""
        best: tuple[tuple[bool, bool, bool, str], Path, Message] | None = None
        wait_s = IDLE_S
        for path, thread in self._threads.items():
            row, thread_wait_s = self._first_ready(path, thread, pick)
            wait_s = min(wait_s, thread_wait_s)
            if row is None:
                continue
            rank = (
                not pick.after or thread.places[row.key][0] != pick.after,
                pick.dms_first and row.thread_type != "dm",
                pick.known_first and not thread.is_known,
                row.timestamp,
            )
            if best is None or rank < best[0]:
                best = (rank, path, row)
        return ((best[1], best[2]) if best else None), wait_s

    def _first_ready(self, path: Path, thread: _Thread, pick: Pick) -> tuple[Message | None, float]:
        wait_s = IDLE_S
        now = self._clock.monotonic()
        wait_of = cache(partial(pick.wait_of, path))
        for row in thread.queued:
            due_s = _ready_at(thread, row) - now
            if due_s <= 0 and not _is_blocked(thread, row):
                due_s = wait_of(row.thread_key)(row)
                if due_s <= 0:
                    return row, wait_s
            if due_s > 0:
                wait_s = min(wait_s, due_s)
        return None, wait_s

    def answer_of(self, path: Path, row: Message) -> str:
        """Name the answer that a queued row is a part of; "" once it is not queued any more."""
        thread = self._threads.get(path)
        return thread.places.get(row.key, ("", 0))[0] if thread else ""

    def earlier_part(self, path: Path, row: Message) -> Message | None:
        """Return the part before this one of the same answer, None for a first part."""
        return _earlier_part(self._threads[path], row)

    def release(self, number: int, relays_of: Callable[[int], int | None]) -> int:
        """A packet of this node was heard: what is held for people may go out soon.

        Returns how many rows. Each waits at least its own gap since the try before: a person who
        is heard but cannot hear us must not cost airtime with every packet of theirs.
        """
        self._packets += 1
        released = 0
        for thread in self._threads.values():
            for row in thread.queued if thread.held else ():
                held = thread.held.get(row.key)
                if held is not None and held.ready_at is None:
                    released += self._release(held, row, number, relays_of)
        return released

    def _release(
        self, held: _Held, row: Message, number: int, relays_of: Callable[[int], int | None]
    ) -> bool:
        addressee = node_number(row.thread_key) or 0
        held.was_heard = held.was_heard or addressee == number
        since = self._packets - held.packets
        if not held.was_heard or not retry.may_release(
            relays=relays_of(addressee), packets_since=since
        ):
            return False
        gap_s = retry.release_gap_s(held.tries)
        held.ready_at = max(self._clock.monotonic() + RELEASE_S, held.since + gap_s)
        return True

    def hasten(self, reason: str) -> None:
        """Let rows that were put off for this reason go at once: it is gone."""
        now = self._clock.monotonic()
        for thread in self._threads.values():
            for row in thread.queued:
                due = thread.due.get(row.key)
                if due is not None and row.meta.get("reason") == reason:
                    thread.due[row.key] = (due[0], now)

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

    def expired(self, now: float) -> list[tuple[Path, Key]]:
        """Name the queued rows whose time is over."""
        return [
            (path, key)
            for path, thread in self._threads.items()
            for key, end in thread.expires.items()
            if now >= end
        ]

    def cancelled(self) -> list[tuple[Path, Key]]:
        """Name the queued rows that a later reply of the same thread cancels."""
        return [
            (path, row.key)
            for path, thread in self._threads.items()
            for row in (thread.queued if thread.cancelled else ())
            if row.message_id in thread.cancelled
        ]

    def waits(self, now: float) -> Iterator[float]:
        """Seconds until each ACK is overdue and each row expires."""
        for thread in self._threads.values():
            for deadline in (*thread.ack_deadlines.values(), *thread.expires.values()):
                yield max(0.0, deadline - now)

    def postpone_acks(self, earliest: float) -> None:
        """Let no ACK be overdue before this moment."""
        for thread in self._threads.values():
            thread.ack_deadlines = {
                key: max(deadline, earliest) for key, deadline in thread.ack_deadlines.items()
            }

    def queued_count(self) -> int:
        """Rows that still have to be sent, held ones included."""
        return sum(len(thread.queued) for thread in self._threads.values())

    def held_count(self) -> int:
        """Rows that wait until somebody is heard."""
        return sum(len(thread.held) for thread in self._threads.values())

    def oldest_s(self) -> float:
        """Age of the oldest row that waits to be sent and is not held; 0 for none."""
        cells = [
            row.timestamp
            for thread in self._threads.values()
            for row in thread.queued
            if row.key not in thread.held
        ]
        return max(0.0, wall_age_s(self._clock, min(cells)) or 0.0) if cells else 0.0

    def _note_queued(self, thread: _Thread, row: Message, previous: _Thread) -> None:
        now = self._clock.monotonic()
        thread.queued.append(row)
        self._note_due(thread, row, previous)
        if hold.is_held(row):
            tries = len(life.tries(row))
            known = previous.held.get(row.key)
            is_same = known is not None and known.tries == tries
            thread.held[row.key] = known if known and is_same else _Held(tries, now, self._packets)
        thread.expires[row.key] = previous.expires.get(row.key) or self._expiry(row, now)

    def _note_due(self, thread: _Thread, row: Message, previous: _Thread) -> None:
        """Turn a wall time into a deadline once: a clock set back must not hold a row for ever."""
        due_at = row.meta.get("due_at")
        if not isinstance(due_at, str):
            return
        known = previous.due.get(row.key)
        if known is None or known[0] != due_at:
            age = wall_age_s(self._clock, due_at)
            wait_s = 0.0 if age is None else min(-age, retry.longest_wait_s(row.meta.get("reason")))
            known = (due_at, self._clock.monotonic() + wait_s)
        thread.due[row.key] = known

    def _expiry(self, row: Message, now: float) -> float:
        """When a row's time is over: counted from the first holding, else from the first look.

        The time of queuing alone is not believed: a clock that is set by days must not end a row.
        """
        if row.meta.get("kind") == "notice":
            queued_s = age_s(self._clock, row.timestamp) or 0.0
            return now + NOTICE_LIFE_S - (queued_s if 0 < queued_s <= BELIEVED_AGE_S else 0.0)
        meta = row.meta
        held_at = meta.get("held_at")
        if not isinstance(held_at, str):
            return now + self._max_held_s
        age = age_s(self._clock, held_at, boot=meta.get("boot"), up_s=meta.get("up_s"))
        return now + self._max_held_s - max(0.0, age or 0.0)

    def _ack_deadline(self, path: Path, row: Message, limit_s: float) -> float:
        history = life.tries(row)
        tries, begun_at = self._begun.get((path, row.key), (0, 0.0))
        if tries == len(history):
            return begun_at + limit_s
        elapsed = age_s(self._clock, history[-1].at) if history else None
        # A clock set backwards or days forward must neither stretch nor cut the wait. One that is
        # over keeps a rest for ACKs the radio held: begun anew, a bridge that restarts often
        # would wait until the person's radio has forgotten the id, and they saw the answer twice.
        is_plausible = elapsed is not None and 0 <= elapsed <= BELIEVED_AGE_S
        spent_s = min(elapsed or 0.0, limit_s - KEPT_ACKS_S) if is_plausible else 0.0
        return self._clock.monotonic() + limit_s - spent_s


def _ready_at(thread: _Thread, row: Message) -> float:
    """Monotonic time from which a row may go; never, while the person has not been heard."""
    due = thread.due.get(row.key)
    held = thread.held.get(row.key)
    if held is None:
        return due[1] if due else 0.0
    return min(due[1] if due else float("inf"), held.ready_at or float("inf"))


def _is_blocked(thread: _Thread, row: Message) -> bool:
    """Part n waits for the hand-over of part n-1."""
    earlier = _earlier_part(thread, row)
    return earlier is not None and life.is_queued(earlier)


def _earlier_part(thread: _Thread, row: Message) -> Message | None:
    answer, part = thread.places[row.key]
    if part <= 1:
        return None
    return thread.part_states.get((answer, part - 1))


def _no_wait(_row: Message) -> float:
    return 0.0
