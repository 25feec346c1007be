"""Deletes archive files that the operator does not want kept. Moves no rows, touches no live file.

Files of a month or a year go whole, the oldest first; `keeping` says which. Whoever reads the
archive meanwhile sees each file whole or not at all.
"""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from meshllm.bridge.upkeep import MIN_AGE_S, QUIET_S
from meshllm.clock import Clock, boot_at, steady_utc
from meshllm.errors import TransientError
from meshllm.keeping import Batch, Calendar, Leaving, Limits, Month, candidates, last_month, leaving
from meshllm.layout import NodeTree, Shelf
from meshllm.store import atomic, locks
from meshllm.store.calendar import recorded_months

FIRST_LOOK_S: Final = 120.0  #: after the tree is opened: connecting and reading come first
LOOK_S: Final = 6 * 3600.0  #: between two looks at the whole archive
AGAIN_S: Final = 600.0  #: a look that the disk or a lock ended
PAUSE_S: Final = 0.5  #: between two steps
LOCK_TIMEOUT_S: Final = 0.1  #: real seconds; whoever holds the file comes first
LONGEST_MONTH: Final = 31  #: days

log = structlog.get_logger()

_Steps = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class _Month:
    """The parts of one period on one shelf: what goes as a whole."""

    shelf: Shelf
    period: str
    parts: tuple[Path, ...]

    def batch(self) -> Batch:
        size_bytes = sum(path.stat().st_size for path in self.parts)
        name = f"{self.shelf.folder.parent.name}/{self.shelf.folder.name}"
        return Batch(name, self.period, size_bytes=size_bytes)


class Clearing:
    """Keeps the archive of one tree within limits. Runs on the station's thread."""

    def __init__(
        self,
        tree: NodeTree,
        limits: Limits,
        *,
        clock: Clock,
        lock_mode: int = locks.LOCK_MODE,
        booted_at: float | None = None,
        min_age_s: float = MIN_AGE_S,
    ) -> None:
        """`booted_at`: `boot_at` when the process started. No month as young as `min_age_s` goes.

        Without limits nothing is ever read.
        """
        self._tree = tree
        self._limits = limits
        self._clock = clock
        self._lock_mode = lock_mode
        self._booted_at = boot_at(clock) if booted_at is None else booted_at
        self._min_age_s = max(min_age_s, MIN_AGE_S)
        self._due = clock.monotonic() + FIRST_LOOK_S
        self._steps: _Steps | None = None

    def tick(self, *, quiet_s: float) -> None:
        """Take one step, if one is due and nothing else is for `quiet_s` seconds."""
        now = self._clock.monotonic()
        if not self._limits.are_set or now < self._due or quiet_s < QUIET_S:
            return
        self._steps = self._steps or self._look()
        self._due = now + PAUSE_S
        try:
            next(self._steps)
        except StopIteration:
            self._steps, self._due = None, now + LOOK_S
        except (TransientError, OSError) as error:
            self._steps, self._due = None, now + AGAIN_S
            log.warning(
                "archive_not_cleared",
                node_uid=self._tree.node_uid,
                reason=str(error),
                consequence="what should go stays; tried again",
                retry_in_s=AGAIN_S,
            )

    def _look(self) -> _Steps:
        months = {month.batch(): month for shelf in self._tree.shelves() for month in _on(shelf)}
        recorded = {m for batch in months if (m := _month_of(batch)) is not None}
        calendar = self._calendar(recorded)
        if self._limits.days and _is_any_old(list(months), calendar, self._limits.days):
            for found in recorded_months(self._tree):
                recorded |= found
                yield
            calendar = self._calendar(recorded)
        for one in leaving(list(months), self._limits, calendar):
            self._delete(months[one.batch], one)
            yield

    def _calendar(self, recorded: set[Month]) -> Calendar:
        now = steady_utc(self._clock, self._booted_at)
        young_from = now - timedelta(seconds=self._min_age_s / self._clock.scale)
        return Calendar.of(recorded, now=now, young_from=young_from)

    def _delete(self, month: _Month, one: Leaving) -> None:
        for path in month.parts:
            with locks.hold(path, LOCK_TIMEOUT_S, mode=self._lock_mode):
                atomic.remove(path)
        log.info(
            "archive_deleted",
            node_uid=self._tree.node_uid,
            archive=one.batch.name,
            period=one.batch.period,
            files=len(month.parts),
            bytes=one.batch.size_bytes,
            reason=one.reason,
        )


def _on(shelf: Shelf) -> list[_Month]:
    periods: dict[str, list[Path]] = {}
    for period, _, path in shelf.parts():
        periods.setdefault(period, []).append(path)
    return [_Month(shelf, period, tuple(parts)) for period, parts in periods.items()]


def _month_of(batch: Batch) -> Month | None:
    """Month that a file's name proves to be recorded: that of a year's file may be any."""
    return last_month(batch.period) if "-" in batch.period else None


def _is_any_old(batches: list[Batch], calendar: Calendar, days: int) -> bool:
    """Say whether by the clock alone anything is old enough to look closer."""
    oldest = next(iter(candidates(batches, calendar)), None)
    end = last_month(oldest.period) if oldest else None
    return end is not None and (calendar.now - end) * LONGEST_MONTH >= days
