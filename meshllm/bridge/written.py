"""Remembers what this run wrote into thread files, to notice rows that vanish. Reads no file.

A spreadsheet that saves what it opened an hour ago drops every row that came since, and puts
answers that were sent back to "queued". What is known here is put back; nothing is sent again.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshllm.bridge import copies, life
from meshllm.records import Message

MAX_ROWS: Final = 1000  #: remembered per radio, about 1 kB each
MAX_AGE_S: Final = 86_400.0  #: below the age at which rows may leave for the archive

_Name = tuple[Path, bool, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Loss:
    """How a file falls short of what was written: rows gone, and rows set back."""

    gone: tuple[Message, ...] = ()
    set_back: tuple[Message, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gone or self.set_back)

    @property
    def message_ids(self) -> list[str]:
        """Ids of all rows concerned."""
        return [row.message_id for row in (*self.gone, *self.set_back)]

    def mend(self, rows: Sequence[Message]) -> list[Message]:
        """Return the file's rows as they should be; what is gone comes last, in its old order."""
        known = {row.key: row for row in self.set_back}
        mended = []
        for row in rows:
            newer = known.get(row.key)
            mended.append(newer if newer is not None and is_behind(row, newer) else row)
        return [*mended, *self.gone]


class Written:
    """The newest rows of one tree: texts heard, and texts of ours once they were tried."""

    def __init__(self) -> None:
        self._rows: OrderedDict[_Name, tuple[Message, float]] = OrderedDict()

    def note(self, path: Path, rows: Iterable[Message], now: float) -> None:
        """Remember rows that are on disk now. Untried ones are not: the agent queues them again."""
        for row in rows:
            if copies.is_ended(row):
                continue  # the row of that key is another one
            name = (path, row.is_outgoing, row.key)
            if row.is_outgoing and life.is_queued(row) and not life.tries(row):
                self._rows.pop(name, None)
                continue
            self._rows[name] = (row, now)  # keeps its place: order is that of writing
        while self._rows and (len(self._rows) > MAX_ROWS or self._oldest() < now - MAX_AGE_S):
            self._rows.popitem(last=False)

    def forget(self, path: Path, *, queued_only: bool = False) -> None:
        """Forget a file, or its rows that are still to be sent: those left it on purpose."""
        for name, (row, _) in tuple(self._rows.items()):
            if name[0] == path and (not queued_only or life.is_queued(row)):
                del self._rows[name]

    def loss(self, path: Path, rows: Sequence[Message], now: float) -> Loss:
        """Compare a file with what is remembered of it."""
        known = [
            row
            for name, (row, at) in self._rows.items()
            if name[0] == path and at >= now - MAX_AGE_S
        ]
        if not known:
            return Loss()
        on_disk: dict[tuple[bool, tuple[str, ...]], list[Message]] = {}
        for row in rows:
            on_disk.setdefault((row.is_outgoing, row.key), []).append(row)
        gone, set_back = [], []
        for row in known:
            found = on_disk.get((row.is_outgoing, row.key), [])
            if not found:
                gone.append(row)
            elif any(is_behind(copy, row) for copy in found):
                set_back.append(row)
        return Loss(tuple(gone), tuple(set_back))

    def _oldest(self) -> float:
        return next(iter(self._rows.values()))[1]


def is_behind(found: Message, known: Message) -> bool:
    """Say whether a row on disk is an earlier state of ours: sending by it would repeat a send."""
    if copies.is_ended(found):
        return False
    return found.is_outgoing and known.is_outgoing and _progress(found) < _progress(known)


def _progress(row: Message) -> tuple[int, int]:
    attempts = max(row.send_attempts, len(life.tries(row)))
    if life.is_queued(row):
        return attempts, 0
    return attempts, 2 if row.meta.get("delivery") == "delivered" else 1
