"""The bytes of the few files used last, so that a commit need not read them again. Writes nothing.

A file's signature alone may lie: a file system gives a freed inode number to the next file, and
some stamp times in ticks of milliseconds. So bytes are held only together with an open descriptor
of their file: its inode number cannot come back while we hold it.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from meshllm.errors import NotRegularError
from meshllm.records import Record
from meshllm.store import codec, regular
from meshllm.store.codec import Decoded
from meshllm.store.descriptors import Descriptor, retirement

R = TypeVar("R", bound=Record)

MAX_FILES: Final = 24  #: files held per process, each with one descriptor and its parsed rows
MAX_BYTES: Final = 4_000_000  #: file bytes held per process
_TRIES: Final = 3  #: reads of a file that an editor is writing in place

#: inode, modification time, size, change time
Signature = tuple[int, int, int, int]


def signature_of(status: os.stat_result) -> Signature:
    """Take what tells two states of a file apart."""
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Held(Generic[R]):
    """One state of a file: its bytes and rows."""

    signature: Signature
    mode: int
    data: bytes
    guard: Descriptor
    decoded: Decoded[R]
    edited_in_place: bool = False  #: since we last held it; our own writers never do that


class HeldFiles:
    """Least recently used files stay held, up to two limits. Safe from several threads."""

    def __init__(self, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[tuple[str, type[Record]], Held[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, record_type: type[R]) -> Held[R] | None:
        """Return what is held of a file, whether it is still current or not."""
        key = (os.fspath(path), record_type)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, path: Path, record_type: type[R], held: Held[R] | None) -> None:
        """Hold a newer state, or with None nothing any more."""
        key = (os.fspath(path), record_type)
        with self._lock:
            self._drop(key)
            if held is not None:
                self._held[key] = held
                self._bytes += len(held.data)
            while len(self._held) > self._max_files or self._bytes > self._max_bytes:
                self._drop(next(iter(self._held)))

    def _drop(self, key: tuple[str, type[Record]]) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= len(held.data)
            retirement.add(held.guard)


def load(path: Path, record_type: type[R], *, previous: Held[R] | None) -> Held[R] | None:
    """Read and parse a file; None when it is missing. Raises OSError and NotRegularError.

    What has not changed since `previous` is not parsed again.
    """
    for _ in range(_TRIES):
        try:
            guard = Descriptor(regular.open_file(path))
        except FileNotFoundError:
            return None
        before = os.fstat(guard.number)
        data = _read_all(guard.number, before.st_size)
        status = os.fstat(guard.number)
        if signature_of(status) == signature_of(before):
            break
    signature = signature_of(status)
    return Held(
        signature,
        status.st_mode & 0o7777,
        data,
        guard,
        _decode(data, record_type, previous),
        previous is not None and _is_edit(previous, signature),
    )


def _is_edit(previous: Held[Any], signature: Signature) -> bool:
    """Say whether the inode that we hold open has changed under us."""
    same_file = signature[0] == previous.signature[0]
    return same_file and (previous.edited_in_place or signature[1:3] != previous.signature[1:3])


def _decode(data: bytes, record_type: type[R], previous: Held[R] | None) -> Decoded[R]:
    known = codec.reuse(data, previous.data, previous.decoded) if previous else None
    if known is None:
        return codec.decode(data, record_type)
    return codec.extend(data, record_type, known=known)


def keep(path: Path, data: bytes, status: os.stat_result, decoded: Decoded[R]) -> Held[R] | None:
    """Hold what was just written; None when the name shows another file already."""
    try:
        guard = Descriptor(regular.open_file(path))
        found = os.fstat(guard.number)
    except (OSError, NotRegularError):
        return None
    signature = signature_of(status)
    if signature_of(found) != signature:
        return None
    return Held(signature, status.st_mode & 0o7777, data, guard, decoded)


def current_signature(path: Path) -> Signature | None:
    """Take a file's signature; None when it is missing. Raises OSError."""
    try:
        return signature_of(os.stat(path))  # noqa: PTH116 - the hot path of every commit
    except FileNotFoundError:
        return None


def _read_all(descriptor: int, expected: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, expected + 1):
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
