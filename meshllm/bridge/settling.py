"""Write the results of sends into their rows, and keep what the disk refuses. Decides nothing."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from meshllm.bridge import copies
from meshllm.bridge.naming import names_of
from meshllm.bridge.tables import Change, Tables
from meshllm.bridge.work import Key
from meshllm.clock import Clock
from meshllm.errors import TransientError
from meshllm.records import Message
from meshllm.store.space import refusal_of

log = structlog.get_logger()

STORAGE_RETRY_S: Final = 5.0  #: pause after a write that the file system refused


class Settling:
    """State changes of one radio's rows. A result that cannot be written is never forgotten."""

    def __init__(self, tables: Tables, *, clock: Clock) -> None:
        """Nothing waits yet."""
        self._tables = tables
        self._clock = clock
        self._unsettled: list[tuple[Path, Key, Change]] = []
        self._not_before = 0.0  #: for all files: the disk itself refuses
        self._pauses: dict[Path, float] = {}  #: for one: locked or damaged, the others go on
        self._told: set[Path] = set()

    def row(self, path: Path, key: Key) -> Message | None:
        """Return an outgoing row as it is on disk; the newest of equal keys, as updates go.

        None also for a file that cannot be read now: what came of its rows is decided later.
        """
        try:
            rows = reversed(self._tables.read(path))
        except TransientError as error:
            log.debug("row_not_read", file=path.name, reason=str(error))
            return None
        return next(
            (r for r in rows if r.is_outgoing and r.key == key and not copies.is_ended(r)), None
        )

    def intend(self, path: Path, key: Key, change: Change) -> bool:
        """Commit an intent. False when it did not apply or was refused: then nothing is sent."""
        try:
            done = self._tables.update(path, {key: _past_copies(change)}, may_spend=False)
            changed = bool(done)
        except TransientError as error:
            self.pause(path, error)
            return False
        self._told.discard(path)
        return changed

    def settle(self, path: Path, key: Key, change: Change) -> bool:
        """Commit a result; one that the disk refuses is kept and tried again."""
        try:
            changed = bool(self._tables.update(path, {key: _past_copies(change)}))
        except TransientError as error:
            self.pause(path, error)
            self._unsettled.append((path, key, change))
            return False
        self._told.discard(path)
        return changed

    def end_copies(self, path: Path, found: Sequence[Message]) -> bool:
        """Commit the end of rows that are copies; False when none was ended.

        One of each key at a time: several equal copies take several calls.
        """
        changes = {copy.key: partial(copies.end, copy=copy) for copy in found}
        try:
            ended = self._tables.update(path, changes)
        except TransientError as error:
            self.pause(path, error)
            return False
        self._told.discard(path)
        for row in ended.values():
            log.warning(
                "row_copy_ended",
                reason=copies.DUPLICATE,
                consequence="the other row of this id goes on; this one is not sent",
                **names_of(path, row),
            )
        return bool(ended)

    def retry(self) -> list[Path]:
        """Write what waits, when it is time; returns the files that were tried."""
        if not self._unsettled or self.wait_s() > 0:
            return []
        due = [item for item in self._unsettled if self._pause_s(item[0]) <= 0]
        self._unsettled = [item for item in self._unsettled if item not in due]
        for path, key, change in due:
            self.settle(path, key, change)
        return list(dict.fromkeys(path for path, _, _ in due))

    def is_behind(self, path: Path) -> bool:
        """True while a result of this file is not on disk, or the file takes none now."""
        return self._pause_s(path) > 0 or any(item[0] == path for item in self._unsettled)

    @property
    def has_results(self) -> bool:
        """True while any result is not on disk."""
        return bool(self._unsettled)

    def wait_s(self) -> float:
        """Seconds until the disk is tried again, where the disk itself refuses."""
        return max(0.0, self._not_before - self._clock.monotonic())

    def _pause_s(self, path: Path) -> float:
        return self._pauses.get(path, 0.0) - self._clock.monotonic()

    def pause(self, path: Path, error: TransientError) -> None:
        """Leave a file alone for a while; all of them where the disk itself refuses."""
        now = self._clock.monotonic()
        self._pauses = {p: end for p, end in self._pauses.items() if end > now}
        self._pauses[path] = now + STORAGE_RETRY_S
        if refusal_of(error):
            self._not_before = now + STORAGE_RETRY_S
        if path not in self._told:
            self._told.add(path)
            log.error(
                "row_not_written", file=path.name, reason=str(error), retry_in_s=STORAGE_RETRY_S
            )


def _past_copies(change: Change) -> Change:
    """Keep a change from a copy that was ended: it is meant for the row."""
    return lambda row: None if copies.is_ended(row) else change(row)
