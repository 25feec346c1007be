"""Puts the waiting questions in order: who is asked for next, and who after that. Pure.

Everything is counted from the rows, over the time that the oldest question of the line has waited:
a restart changes no order, and who got much an hour ago is not made to pay for it.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

#: More strangers than this are taken for a crowd of forged ids, as the bridge takes its rows: then
#: people who were answered before and strangers take turns, and neither keeps the other waiting.
CROWD: Final = 20
MAX_LINE: Final = 100  #: places in the line; the rest waits in the files until there is room


@dataclass(frozen=True, slots=True)
class Waiting:
    """One question in the line."""

    subject: Hashable  #: the same for one question that two radios heard
    person: str
    radio: str
    age_s: float  #: since it was heard
    is_known: bool  #: the person was answered before in this thread
    attempts: int = 0  #: calls that brought no answer; each counts like an answer that was had


@dataclass(frozen=True, slots=True)
class Served:
    """One answer that was given."""

    person: str
    radio: str
    age_s: float
    was_known: bool  #: it was not the person's first


@dataclass(slots=True)
class _Counts:
    people: Counter[str] = field(default_factory=Counter)
    radios: Counter[str] = field(default_factory=Counter)
    known: int = 0
    strangers: int = 0


def line_up(waiting: Sequence[Waiting], served: Iterable[Served]) -> tuple[Waiting, ...]:
    """Order the waiting questions.

    Nobody gets a second answer, or a second try, before everybody who waits had a first; radios
    take turns; then the oldest goes first. In a crowd all that holds among people who were
    answered before and among strangers, and the two take turns.
    """
    if len(waiting) < 2:
        return tuple(waiting)
    counts = _count(served, since_s=max(w.age_s for w in waiting))
    rounds = _rounds(waiting, counts)
    strangers = [w for w in waiting if not w.is_known]
    if len({w.person for w in strangers}) <= CROWD:
        return tuple(_by_rounds(rounds, counts))
    known = tuple(_by_rounds([(n, w) for n, w in rounds if w.is_known], counts))
    others = tuple(_by_rounds([(n, w) for n, w in rounds if not w.is_known], counts))
    return tuple(_in_turn(known, others, counts))


def _count(served: Iterable[Served], *, since_s: float) -> _Counts:
    counts = _Counts()
    for answer in served:
        if not 0 <= answer.age_s <= since_s:
            continue
        counts.people[answer.person] += 1
        counts.radios[answer.radio] += 1
        if answer.was_known:
            counts.known += 1
        else:
            counts.strangers += 1
    return counts


def _rounds(waiting: Sequence[Waiting], counts: _Counts) -> list[tuple[int, Waiting]]:
    """Number each question by the answers that its person will have had before it."""
    taken: dict[str, list[Hashable]] = {}
    numbered: list[tuple[int, Waiting]] = []
    for one in sorted(waiting, key=lambda w: -w.age_s):
        own = taken.setdefault(one.person, [])
        if one.subject not in own:
            own.append(one.subject)
        had = counts.people[one.person] + one.attempts
        numbered.append((had + own.index(one.subject), one))
    return numbered


def _by_rounds(numbered: Sequence[tuple[int, Waiting]], counts: _Counts) -> Iterator[Waiting]:
    had = Counter(counts.radios)
    ordered = sorted(numbered, key=lambda pair: pair[0])  # stable: the oldest first in a round
    for _, group in groupby(ordered, key=lambda pair: pair[0]):
        queues: dict[str, list[Waiting]] = {}
        for _, one in group:
            queues.setdefault(one.radio, []).append(one)
        while queues:
            # The radio that had least; of equals the one whose first question is oldest.
            radio = min(queues, key=lambda name: (had[name], -queues[name][0].age_s))
            had[radio] += 1
            yield queues[radio].pop(0)
            if not queues[radio]:
                del queues[radio]


def _in_turn(
    known: Sequence[Waiting], others: Sequence[Waiting], counts: _Counts
) -> Iterator[Waiting]:
    """Merge two lines so that each had as many turns; people who were answered before begin."""
    had_known, had_others = counts.known, counts.strangers
    first, second = list(known), list(others)
    while first and second:
        if had_known <= had_others:
            had_known += 1
            yield first.pop(0)
        else:
            had_others += 1
            yield second.pop(0)
    yield from first
    yield from second
