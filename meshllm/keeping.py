"""Decides which archived batches go, given the operator's limits. Reads and deletes nothing.

A batch goes whole: a file of a month or a year. Age is told by the calendar of what was recorded,
not by the clock alone: a clock that jumps forward by years skips months in which nothing was
recorded, and these make nothing older.
"""

import re
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from meshllm.clock import parse_utc

Month = int  #: months since year 0, so that neighbours differ by one
Reason = Literal["age", "count", "size"]

_PERIOD: Final = re.compile(r"(\d{4})(?:-(\d\d))?")
MONTHS_A_YEAR: Final = 12


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator wants kept at most; 0 is no limit."""

    days: int = 0
    count: int = 0
    size_bytes: int = 0

    @property
    def are_set(self) -> bool:
        """True when anything may ever go."""
        return bool(self.days or self.count or self.size_bytes)


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes as a whole. `name` tells it from others of its period."""

    name: str
    period: str  #: `YYYY-MM` or `YYYY`; anything else has no known age and stays
    part: int = 1
    count: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Leaving:
    """A batch that goes, and the limit that it breaks."""

    batch: Batch
    reason: Reason


def month_of(moment: datetime) -> Month:
    """Number the month of a moment."""
    return moment.year * MONTHS_A_YEAR + moment.month - 1


def month_in(cell: str) -> Month | None:
    """Number the month of a time cell; None when it cannot be read."""
    moment = parse_utc(cell)
    return month_of(moment) if moment else None


def last_month(period: str) -> Month | None:
    """Number the last month of an archive's period; None for one without a date."""
    match = _PERIOD.fullmatch(period)
    if match is None:
        return None
    month = int(match[2] or MONTHS_A_YEAR)
    if not 1 <= month <= MONTHS_A_YEAR:
        return None
    return int(match[1]) * MONTHS_A_YEAR + month - 1


def days_in(month: Month) -> int:
    """Count the days of a month."""
    return monthrange(max(1, month // MONTHS_A_YEAR), month % MONTHS_A_YEAR + 1)[1]


@dataclass(frozen=True, slots=True)
class Calendar:
    """What is known of the time that passed. `open_from`: the first month that may still grow."""

    recorded: frozenset[Month]
    now: Month
    open_from: Month

    @classmethod
    def of(cls, recorded: Iterable[Month], *, now: datetime, young_from: datetime) -> "Calendar":
        """Build it. Nothing as young as `young_from`, or in the newest recorded month, goes."""
        months = frozenset(recorded)
        newest = max((month for month in months if month <= month_of(now)), default=month_of(now))
        return cls(months, month_of(now), min(month_of(young_from), month_of(now), newest))

    def age_days(self, month: Month) -> int:
        """Days that have certainly passed since a month ended.

        A month counts when something was recorded in it, in the one before and in the one after:
        then no clock was set in it by more than a month, and all its days were lived through.
        """
        lived = self.recorded | {self.now}
        return sum(
            days_in(passed)
            for passed in lived
            if month < passed < self.now and lived.issuperset((passed - 1, passed + 1))
        )


def candidates(batches: Iterable[Batch], calendar: Calendar) -> list[Batch]:
    """Name what may go at all, in the order in which it would: the oldest first."""
    dated = [(last_month(batch.period), batch) for batch in batches]
    closed = [(end, b) for end, b in dated if end is not None and end < calendar.open_from]
    return [b for _, b in sorted(closed, key=lambda pair: (pair[0], pair[1].name, pair[1].part))]


def leaving(
    batches: Sequence[Batch], limits: Limits, calendar: Calendar, *, rest: Batch | None = None
) -> list[Leaving]:
    """Name the batches that go, oldest first. `rest`: what counts against limits and stays.

    At least `limits.count` stay; a limit that only what must stay breaks is broken. A stricter
    limit lets at least as much go.
    """
    everything = [*batches, *([rest] if rest else [])]
    count = sum(batch.count for batch in everything)
    size_bytes = sum(batch.size_bytes for batch in everything)
    gone: list[Leaving] = []
    for batch in candidates(batches, calendar):
        reason = _reason(batch, limits, calendar, count=count, size_bytes=size_bytes)
        if reason is None:
            break
        gone.append(Leaving(batch, reason))
        count -= batch.count
        size_bytes -= batch.size_bytes
    return gone


def _reason(
    batch: Batch, limits: Limits, calendar: Calendar, *, count: int, size_bytes: int
) -> Reason | None:
    end = last_month(batch.period)
    if limits.days and end is not None and calendar.age_days(end) >= limits.days:
        return "age"
    if limits.count and count - batch.count >= limits.count:
        return "count"
    return "size" if limits.size_bytes and size_bytes > limits.size_bytes else None
