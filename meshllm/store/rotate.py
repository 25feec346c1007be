"""Moves rows from a live file to its archive, and reads both as one. Decides not which rows go.

The archive is written first, then the live file; at every moment, and after a crash or power cut
at any step, each row is in one of them or in both. The two locks are never held at once: a row
leaves the live file only if under its lock it is still what was archived.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from meshllm.errors import DamagedFileError, NotRegularError, StoreWriteError, TransientError
from meshllm.layout import Shelf
from meshllm.records import Record
from meshllm.store import atomic, codec, locks, regular
from meshllm.store.codec import Damage, Decoded
from meshllm.store.table import Snapshot, Table

R = TypeVar("R", bound=Record)
Unit = Sequence[R]

#: A part that has reached this goes on in the next. Every rotation copies and parses the newest
#: part: larger parts make it slower, smaller ones leave more files.
MAX_PART_BYTES: Final = 1_000_000
#: Moved at once, at most; half a part, so that a batch lies in two parts of a period at most.
MAX_BATCH_BYTES: Final = MAX_PART_BYTES // 2
MAX_BATCH_PERIODS: Final = 3  #: archive files written at once, since each costs two flushes
_PARTS_TO_CHECK: Final = 3  #: where an interrupted rotation and the one after it may have been

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did. `kept` counts the rows that are live now."""

    moved: int
    kept: int
    archives: tuple[Path, ...]


def rotate(
    table: Table[R],
    units: Sequence[Unit[R]],
    shelf: Shelf,
    period: Callable[[R], str],
) -> Rotation:
    """Move the first of `units` that make one batch; no unit is split, the order of rows is kept.

    `units` are rows of the table as it was read just now; `period` names the archive file of a
    row. Safe to repeat after a failure or a crash: what is in the archive already is not added
    again, and takes over the live row's state. A damaged archive file is left alone and the next
    part is begun. Raises TransientError (LockTimeoutError, StoreWriteError), every row then
    being live; what was archived by then is found by the next try.
    """
    batch = _first_batch(table.record_type, units, period)
    place = {row.identity: at for at, row in enumerate(table.read().rows)}
    by_period: dict[str, list[R]] = {}
    for row in sorted(
        (row for unit in batch for row in unit), key=lambda r: place.get(r.identity, -1)
    ):
        by_period.setdefault(period(row), []).append(row)
    written: list[Path] = []
    for name, rows in by_period.items():
        written += _Archive(table, shelf, name).put(rows)
    moved = kept = 0

    def drop(_: bytes, now: Snapshot[R]) -> Sequence[R] | None:
        nonlocal moved, kept
        if now.damage:
            raise DamagedFileError(f"{table.path}: damaged; nothing was moved")
        present = set(now.rows)
        leaving = {row for unit in batch if present.issuperset(unit) for row in unit}
        rest = [row for row in now.rows if row not in leaving]
        moved, kept = len(now.rows) - len(rest), len(rest)
        return rest if moved else None

    if batch:
        table.rewrite(drop)
    return Rotation(moved, kept, tuple(written))


def history(table: Table[R], shelf: Shelf) -> Iterator[R]:
    """Yield all rows of a table, archived ones first, in file order, each once.

    A row that is in both counts as it is live, since the archive may hold an earlier state. The
    live file is read first: what moves meanwhile is not missed. Damaged places are left out and
    logged. Takes no lock, holds one archive file at a time. Raises TransientError.
    """
    live = table.read().rows
    seen = {row.identity for row in live}
    for _, _, path in _parts(shelf):
        _, decoded = _load(path, table.record_type)
        if decoded.damage:
            _tell_damage(path, decoded, "its other rows are shown")
        for row in decoded.rows:
            if row.identity not in seen:
                seen.add(row.identity)
                yield row
    yield from live


def _first_batch(
    record_type: type[R], units: Sequence[Unit[R]], period: Callable[[R], str]
) -> list[Unit[R]]:
    batch: list[Unit[R]] = []
    periods: set[str] = set()
    size = 0
    for unit in units:
        content = codec.encode(unit)
        if codec.extend(content, record_type, known=Decoded()).rows != tuple(unit):
            continue  # such as a number with more digits than we write: no lesser copy is made
        periods |= {period(row) for row in unit}
        size += len(content)
        if batch and (size > MAX_BATCH_BYTES or len(periods) > MAX_BATCH_PERIODS):
            break
        batch.append(unit)
    return batch


class _Archive(Generic[R]):
    """The parts of one period. Read and written past the files held in memory: those are live."""

    def __init__(self, table: Table[R], shelf: Shelf, period: str) -> None:
        self._type = table.record_type
        self._modes = table.modes
        self._shelf = shelf
        self._period = period
        self._lock_timeout_s = table.lock_timeout_s

    def put(self, rows: Sequence[R]) -> list[Path]:
        """Have every row in some part; return the files written."""
        numbers = [n for name, n, _ in _parts(self._shelf) if name == self._period]
        number = max(numbers, default=1)
        written: list[Path] = []
        left = list(rows)
        for earlier in sorted(numbers)[-_PARTS_TO_CHECK:-1]:
            left = self._put(earlier, left, written, may_add=False)
        while left:
            left = self._put(number, left, written, may_add=True)
            number += 1
        return written

    def _put(self, number: int, rows: list[R], written: list[Path], *, may_add: bool) -> list[R]:
        """Bring one part up to date; return the rows that it does not hold."""
        path = self._shelf.part(self._period, number)
        atomic.make_folders(path.parent, modes=self._modes)
        with locks.hold(path, self._lock_timeout_s, mode=self._modes.lock):
            atomic.sweep(path.parent, path.name)
            data, decoded = _load(path, self._type)
            if decoded.damage:
                if may_add:
                    _tell_damage(path, decoded, "left as it is; the next part is begun")
                return rows
            left, content = self._merged(data, decoded, rows, may_add=may_add)
            if content != data:
                atomic.replace(path, [content], modes=self._modes)
                written.append(path)
        return left

    def _merged(
        self, data: bytes, decoded: Decoded[R], rows: list[R], *, may_add: bool
    ) -> tuple[list[R], bytes]:
        """Return the rows that find no place, and the new content."""
        places = {row.identity: at for at, row in enumerate(decoded.rows)}
        old = list(decoded.rows)
        for row in rows:
            if row.identity in places:
                old[places[row.identity]] = row
        fresh = [row for row in rows if row.identity not in places]
        if not data or not decoded.tidy or tuple(old) != decoded.rows:
            data = codec.header(self._type) + codec.encode(old)
        added: list[bytes] = []
        size = len(data)
        while may_add and len(added) < len(fresh) and size < MAX_PART_BYTES:
            added.append(codec.encode_row(fresh[len(added)]))
            size += len(added[-1])
        return fresh[len(added) :], b"".join((data, *added))


def _parts(shelf: Shelf) -> list[tuple[str, int, Path]]:
    try:
        return shelf.parts()
    except OSError as error:
        raise TransientError(f"{shelf.folder}: cannot read: {error.strerror or error}") from error


def _load(path: Path, record_type: type[R]) -> tuple[bytes, Decoded[R]]:
    try:
        data = regular.read_bytes(path)
    except FileNotFoundError:
        data = b""
    except NotRegularError:
        reason = f"a {regular.kind_of(path)}, not a file"
        return b"", Decoded(damage=(Damage(0, 0, reason),), tidy=False)
    except OSError as error:
        raise StoreWriteError(f"{path}: cannot read: {error.strerror or error}") from error
    return data, codec.decode(data, record_type)


def _tell_damage(path: Path, decoded: Decoded[R], consequence: str) -> None:
    log.warning(
        "archive_damaged",
        file=f"{path.parent.name}/{path.name}",
        places=len(decoded.damage),
        reason=decoded.damage[0].reason,
        consequence=consequence,
    )
