"""Rotates prompts.csv by month, and deletes the calls that the operator does not want kept.

The agent is the only writer of the prompt log, so this runs on its thread, a small step at a time.
A part of the archive goes whole, with its pages: its name is taken away first, so that no row is
ever seen without its page; the hidden file then is the list of what is left to delete.
"""

import re
from collections.abc import Callable, Collection, Generator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from meshllm.agent.promptlog import RECOVERY_WINDOW_S, moment_of
from meshllm.agent.settled import open_questions, unsettled
from meshllm.agent.threads import ThreadBook
from meshllm.clock import Clock, boot_at, steady_utc
from meshllm.config import Settings
from meshllm.errors import TransientError
from meshllm.keeping import Batch, Calendar, Leaving, Limits, Month, last_month, leaving, month_of
from meshllm.layout import Layout
from meshllm.records import PromptRow
from meshllm.store import atomic, codec, locks, regular, rotate
from meshllm.store.calendar import recorded_months
from meshllm.store.space import BYTES_PER_MB
from meshllm.store.table import Table

LOOK_S: Final = 3600.0  #: between two looks for rows of an earlier month, and for what must go
AGAIN_S: Final = 600.0  #: a look that the disk or a lock ended
PAUSE_S: Final = 0.5  #: between two steps, so that an answer never waits for more than one
FIRST_LOOK_S: Final = 30.0  #: after the start: open questions come first
PAGES_A_STEP: Final = 50  #: deleted at once
LOCK_TIMEOUT_S: Final = 0.1  #: real seconds; whoever holds the file comes first
#: Ids of ours. A row that names any other file does not make us delete it.
_OWN_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

log = structlog.get_logger()

Unsettled = Callable[[Sequence[PromptRow]], Collection[str]]
_Steps = Generator[None, None, None]


def period_of(row: PromptRow) -> str:
    """Archive file of a row; rows without a readable time are never moved."""
    return row.datetime[: len("2026-01")]


def movable(
    rows: Sequence[PromptRow], kept: Collection[str], *, month: Month, young_from: datetime
) -> list[tuple[PromptRow, ...]]:
    """Name the rows that may go to the archive: settled ones of a month before this one."""
    return [
        (row,)
        for row in rows
        if row.prompt_id not in kept
        and (moment := moment_of(row)) is not None
        and month_of(moment) < month
        and moment < young_from
    ]


class PromptKeep:
    """Looks after prompts.csv, its archive and the pages. Used by the service's thread alone."""

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        limits: Limits,
        min_age_s: float,
        modes: atomic.Modes,
        unsettled: Unsettled,
    ) -> None:
        """Nothing as young as `min_age_s` moves or goes, nor what `unsettled` names."""
        self._layout = layout
        self._clock = clock
        self._limits = limits
        self._min_age_s = min_age_s
        self._modes = modes
        self._unsettled = unsettled
        self._booted_at = boot_at(clock)
        self._table = Table(layout.prompts_table, PromptRow, modes, LOCK_TIMEOUT_S)
        self._shelf = layout.prompts_shelf
        self._measured: dict[Path, tuple[tuple[int, int], Batch]] = {}
        self._steps: _Steps | None = None
        self._due = clock.monotonic() + FIRST_LOOK_S

    def tick(self, *, has_room: bool) -> float:
        """Take one step if one is due; scaled seconds until the next. Moves only with room."""
        now = self._clock.monotonic()
        if now < self._due:
            return self._due - now
        self._steps = self._steps or self._look(has_room=has_room)
        pause_s = PAUSE_S
        try:
            next(self._steps)
        except StopIteration:
            self._steps, pause_s = None, LOOK_S
        except (TransientError, OSError) as error:
            self._steps, pause_s = None, AGAIN_S
            log.warning(
                "prompts_not_tidied",
                reason=str(error),
                consequence="every call is where it was, or in both places; tried again",
                retry_in_s=AGAIN_S,
            )
        self._due = now + pause_s
        return pause_s

    def _look(self, *, has_room: bool) -> _Steps:
        for hidden in self._shelf.leaving():
            yield from self._delete_pages(hidden, "interrupted")
        if has_room:
            yield from self._rotate()
        if self._limits.are_set:
            yield from self._clear()

    # -- to the archive ------------------------------------------------------------------------

    def _rotate(self) -> _Steps:
        while True:
            snapshot = self._table.read()
            now, young_from = self._now()
            old = movable(snapshot.rows, (), month=month_of(now), young_from=young_from)
            if snapshot.damage or not old:
                return  # a damaged file is mended by the operator's repair
            kept = self._unsettled([row for (row,) in old])
            units = [unit for unit in old if unit[0].prompt_id not in kept]
            done = rotate.rotate(self._table, units, self._shelf, period_of)
            if not done.moved:
                return
            log.info(
                "prompts_rotated",
                file=self._table.path.name,
                moved=done.moved,
                kept=done.kept,
                archive=[path.name for path in done.archives],
            )
            yield

    def _now(self) -> tuple[datetime, datetime]:
        now = steady_utc(self._clock, self._booted_at)
        return now, now - timedelta(seconds=self._min_age_s / self._clock.scale)

    # -- out of it -----------------------------------------------------------------------------

    def _clear(self) -> _Steps:
        batches: list[Batch] = []
        for period, number, path in self._shelf.parts():
            batches.append(self._measure(path, period, number))
            yield
        times = (moment_of(row) for row in self._table.read().rows)
        recorded = {month_of(moment) for moment in times if moment is not None}
        recorded |= {m for batch in batches if (m := last_month(batch.period)) is not None}
        if self._limits.days and batches:
            for tree in self._layout.trees():
                for found in recorded_months(tree):
                    recorded |= found
                    yield
        now, young_from = self._now()
        calendar = Calendar.of(recorded, now=now, young_from=young_from)
        for one in leaving(batches, self._limits, calendar, rest=self._live()):
            path = self._shelf.folder / one.batch.name
            if not self._may_go(path):
                return  # those after it are younger, and keep their order
            with locks.hold(path, LOCK_TIMEOUT_S, mode=self._modes.lock):
                hidden = atomic.rename(path, self._shelf.leaving_name(path))
            yield from self._delete_pages(hidden, one.reason, one)

    def _may_go(self, path: Path) -> bool:
        """Look at the part as it is now: an operator may have queued an answer once more."""
        decoded = codec.decode(regular.read_bytes(path), PromptRow)
        kept = self._unsettled(decoded.rows)
        if decoded.damage or kept:
            log.warning(
                "prompts_kept",
                archive=path.name,
                calls=len(kept),
                reason="damaged" if decoded.damage else "unsettled",
                consequence="nothing of this file and of later ones is deleted now",
            )
            return False
        return True

    def _delete_pages(self, hidden: Path, reason: str, one: Leaving | None = None) -> _Steps:
        decoded = codec.decode(regular.read_bytes(hidden), PromptRow)
        pages = [page for row in decoded.rows if (page := self._page(row)) is not None]
        size_bytes = one.batch.size_bytes if one else sum(map(_size, (hidden, *pages)))
        removed = 0
        for at in range(0, len(pages), PAGES_A_STEP):
            removed += atomic.remove(*pages[at : at + PAGES_A_STEP])
            yield
        atomic.remove(hidden)
        log.info(
            "prompts_deleted",
            archive=self._shelf.left_name(hidden),
            calls=len(decoded.rows),
            pages=removed,
            bytes=size_bytes,
            reason=reason,
        )

    def _page(self, row: PromptRow) -> Path | None:
        return self._layout.prompt_page(row.prompt_id) if _OWN_ID.fullmatch(row.prompt_id) else None

    def _measure(self, path: Path, period: str, number: int) -> Batch:
        """Count a part and its pages; once, until the file changes."""
        status = path.stat()
        signature = (status.st_mtime_ns, status.st_size)
        known = self._measured.get(path)
        if known is not None and known[0] == signature:
            return known[1]
        rows = codec.decode(regular.read_bytes(path), PromptRow).rows
        size_bytes = status.st_size + self._pages_bytes(rows)
        batch = Batch(path.name, period, number, len(rows), size_bytes)
        self._measured[path] = (signature, batch)
        return batch

    def _live(self) -> Batch:
        rows = self._table.read().rows
        size_bytes = _size(self._table.path) + self._pages_bytes(rows)
        return Batch(self._table.path.name, "", count=len(rows), size_bytes=size_bytes)

    def _pages_bytes(self, rows: Sequence[PromptRow]) -> int:
        return sum(_size(page) for row in rows if (page := self._page(row)) is not None)


def prompt_keep(
    settings: Settings, layout: Layout, clock: Clock, *, book: ThreadBook, modes: atomic.Modes
) -> PromptKeep | None:
    """Build it as the settings say; None where no prompt log is kept."""
    if not settings.enable_prompt_logs:
        return None
    limits = Limits(
        days=settings.keep_prompts_days,
        count=settings.keep_prompts_count,
        size_bytes=settings.keep_prompts_mb * BYTES_PER_MB,
    )
    return PromptKeep(
        layout,
        clock,
        limits=limits,
        min_age_s=window_s(settings),
        modes=modes,
        unsettled=lambda rows: unsettled(rows, open_questions(book.asking.values()), layout),
    )


def window_s(settings: Settings) -> float:
    """Scaled seconds in which a logged call may still matter: as long as a question is kept."""
    return max(RECOVERY_WINDOW_S, settings.max_question_age_seconds)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
