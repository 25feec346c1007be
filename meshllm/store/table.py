"""One CSV table on disk: read, append, change single rows. Knows schemas by their record type only.

Writers hold the sidecar lock for the whole read-change-replace. Readers take no lock: a replaced
file is whole at every moment.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from meshllm.errors import DamagedFileError, StoreWriteError, TransientError
from meshllm.records import BadCellError, Record
from meshllm.store import atomic, codec, held, locks
from meshllm.store.codec import Damage, Decoded
from meshllm.store.held import Held

R = TypeVar("R", bound=Record)
Key = tuple[str, ...]

log = structlog.get_logger()

_files: Final = held.HeldFiles()
_swept: Final[set[str]] = set()


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[R]):
    """A table at one moment. With damage, no row of it may be acted upon by sending."""

    rows: tuple[R, ...] = ()
    damage: tuple[Damage, ...] = ()


class Table(Generic[R]):
    """A CSV file of one record type. Safe from several threads and processes.

    `changed` speaks of what this object has read: give each consumer its own object.
    """

    def __init__(
        self,
        path: Path,
        record_type: type[R],
        modes: atomic.Modes | None = None,
        lock_timeout_s: float = 5.0,
    ) -> None:
        self.path = path
        self.record_type = record_type
        self.modes = modes or atomic.Modes()
        self.lock_timeout_s = lock_timeout_s  #: may be changed between two calls
        self._seen: held.Signature | None = None

    def read(self) -> Snapshot[R]:
        """Return the rows and what is no row; a missing file is an empty table. Takes no lock."""
        try:
            state = self._load()
        except OSError as error:
            message = f"{self.path}: cannot read: {error.strerror or error}"
            raise TransientError(message) from error
        self._seen = state.signature if state else None
        return _snapshot(state)

    def changed(self) -> bool:
        """Say whether the file differs from what this object last read or wrote."""
        try:
            return held.current_signature(self.path) != self._seen
        except OSError:
            return True

    def append(self, rows: Sequence[R]) -> None:
        """Add rows at the end, durably, in one commit. Raises as `commit` does."""
        self.commit(append=rows)

    def append_made(self, make: Callable[[Sequence[R]], Sequence[R]]) -> Sequence[R]:
        """Add the rows that `make` makes of those there now, under the lock; return what it made.

        For rows that must not be added twice. It must not touch this table. Raises as `commit`
        does, and whatever `make` raises, nothing being written.
        """
        with self._locked():
            base = self._base()
            draft = _Draft(self.record_type, *self._writable(base))
            made = make(draft.decoded.rows)
            draft.append(made)
            if draft.touched:
                self._write(draft.data, draft.decoded, base=base)
        return made

    def update(self, changes: Mapping[Key, Callable[[R], R | None]]) -> dict[Key, R]:
        """Change single rows in one commit; see `commit`."""
        return self.commit(changes=changes)

    def commit(
        self,
        append: Sequence[R] = (),
        changes: Mapping[Key, Callable[[R], R | None]] | None = None,
    ) -> dict[Key, R]:
        """Change and append rows in one commit; when this returns, it is durable.

        Each callable of `changes` gets the row of its key as it is now, under the lock, and
        returns the new row or None to leave it; where several rows share the key, each is offered,
        newest first, until one is taken. It must not touch this table. The result holds the new
        rows; a key that is missing from the table is missing from the result.

        A crash leaves the old or the new file. Raises LockTimeoutError, DamagedFileError and
        StoreWriteError, nothing being written; BadCellError for a row that breaks its schema.
        """
        if not append and not changes:
            return {}
        with self._locked():
            base = self._base()
            draft = _Draft(self.record_type, *self._writable(base))
            applied = draft.change(changes or {})
            draft.append(append)
            if draft.touched:
                self._write(draft.data, draft.decoded, base=base)
        return applied

    def ensure(self) -> None:
        """Create the file with its header when it is missing or empty. Raises as `commit` does."""
        if self._has_content():
            return
        with self._locked():
            if not self._has_content():
                self._write(*self._fresh(()), base=self._base())

    def rewrite(self, decide: Callable[[bytes, Snapshot[R]], Sequence[R] | None]) -> bool:
        """Replace all rows, under the lock; works on damaged files too.

        `decide` gets the file's bytes and rows and returns the rows to keep, or None to leave
        the file as it is. Says whether the file was written. Raises as `commit` does.
        """
        with self._locked():
            base = self._base()
            bytes_now = base.data if base else b""
            rows = decide(bytes_now, _snapshot(base))
            if rows is not None:
                self._write(*self._fresh(rows), base=base)
        return rows is not None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        name = os.fspath(self.path)
        if name not in _swept:
            atomic.make_folders(self.path.parent, modes=self.modes)
        with locks.hold(self.path, self.lock_timeout_s, mode=self.modes.lock):
            if name not in _swept:
                removed = atomic.sweep(self.path.parent, self.path.name)
                if removed:
                    log.info("temps_swept", file=name, count=len(removed))
                _swept.add(name)
            yield

    def _load(self) -> Held[R] | None:
        """Return the file as it is now, from memory where that is current. Raises OSError."""
        known = _files.get(self.path, self.record_type)
        if known is not None and held.current_signature(self.path) == known.signature:
            return known
        state = held.load(self.path, self.record_type, previous=known)
        _files.put(self.path, self.record_type, state)
        return state

    def _base(self) -> Held[R] | None:
        try:
            return self._load()
        except OSError as error:
            message = f"{self.path}: cannot read before writing: {error.strerror or error}"
            raise StoreWriteError(message) from error

    def _writable(self, base: Held[R] | None) -> tuple[bytes, Decoded[R]]:
        """Return the bytes to build on, in our own form. Raises DamagedFileError."""
        if base is None or not base.data:
            return self._fresh(())
        if base.decoded.damage:
            first = base.decoded.damage[0]
            message = (
                f"{self.path}: {len(base.decoded.damage)} damaged places, the first at byte "
                f"{first.offset}: {first.reason}; nothing was written (doctor --repair mends it)"
            )
            raise DamagedFileError(message)
        if self._is_foreign(base):
            log.warning("foreign_change_noticed", file=os.fspath(self.path))
        if not base.decoded.tidy:
            return self._fresh(base.decoded.rows)
        return base.data, base.decoded

    def _is_foreign(self, base: Held[R]) -> bool:
        """Say whether another program wrote the file.

        Our writers leave our permission bits and our exact form, and always a new inode. An
        editor that keeps all three cannot be told from us. The next commit restores the form.
        """
        return base.edited_in_place or not base.decoded.tidy or base.mode != self.modes.file

    def _fresh(self, rows: Sequence[R]) -> tuple[bytes, Decoded[R]]:
        draft = codec.header(self.record_type) + codec.encode(rows)
        decoded = codec.decode(draft, self.record_type)
        _refuse_bad(decoded, len(rows))
        return draft, decoded

    def _write(self, data: bytes, decoded: Decoded[R], *, base: Held[R] | None) -> None:
        status = atomic.replace(self.path, [data], modes=self.modes)
        state = held.keep(self.path, data, status, decoded)
        _files.put(self.path, self.record_type, state)
        # Rows that others wrote since our last read have not been seen: `changed` must say so.
        if state and self._seen == (base.signature if base else None):
            self._seen = state.signature

    def _has_content(self) -> bool:
        try:
            signature = held.current_signature(self.path)
        except OSError as error:
            message = f"{self.path}: cannot read: {error.strerror or error}"
            raise StoreWriteError(message) from error
        return signature is not None and signature[2] > 0


class _Draft(Generic[R]):
    """The next content of a table, made from well-formed bytes. No I/O."""

    def __init__(self, record_type: type[R], data: bytes, decoded: Decoded[R]) -> None:
        self.data = data
        self.decoded = decoded
        self.touched = False
        self._type = record_type

    def append(self, rows: Sequence[R]) -> None:
        """Add rows; what was written is parsed back, so that no bad row reaches the disk."""
        if not rows:
            return
        wanted = len(self.decoded.rows) + len(rows)
        self.data += codec.encode(rows)
        self.decoded = codec.extend(self.data, self._type, known=self.decoded)
        _refuse_bad(self.decoded, wanted)
        self.touched = True

    def change(self, changes: Mapping[Key, Callable[[R], R | None]]) -> dict[Key, R]:
        """Apply changes. Rows of one key are offered newest first until one is taken."""
        applied: dict[Key, R] = {}
        for index in range(len(self.decoded.rows) - 1, -1, -1):
            if len(applied) == len(changes):
                break
            row = self.decoded.rows[index]
            key = row.key
            change = changes.get(key) if key not in applied else None
            new = change(row) if change else None
            if new is not None:
                applied[key] = new
                self._put(index, row, new)
        return applied

    def _put(self, index: int, row: R, new: R) -> None:
        if new.key != row.key:
            message = f"a change must keep the key {row.key}"
            raise ValueError(message)
        if new == row:
            return
        line = codec.encode_row(new)
        parsed = codec.parse_row(line, self._type)
        start, end = self.decoded.span(index)
        self.data = b"".join((self.data[:start], line, self.data[end:]))
        self.decoded = self.decoded.with_row(index, parsed, growth=len(line) - (end - start))
        self.touched = True


def _snapshot(state: Held[R] | None) -> Snapshot[R]:
    if state is None:
        return Snapshot()
    return Snapshot(state.decoded.rows, state.decoded.damage)


def _refuse_bad(decoded: Decoded[R], rows: int) -> None:
    if decoded.damage:
        raise BadCellError(decoded.damage[0].reason)
    if len(decoded.rows) != rows:
        message = f"{len(decoded.rows)} rows came back from {rows} written"
        raise BadCellError(message)
