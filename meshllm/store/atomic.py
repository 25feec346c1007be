"""The write primitive: a file is replaced as a whole and durably, never edited. Takes no locks."""

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshllm.clock import real_s
from meshllm.errors import StoreWriteError

KEPT_FOLDERS: Final = 16  #: folder descriptors kept open; opening one costs a tenth of a commit
_TEMP_SUFFIX: Final = ".tmp"
_observers: Final[list[Callable[[float, bool], None]]] = []


@dataclass(frozen=True, slots=True)
class Modes:
    """Permission bits of what is created."""

    file: int = 0o440
    folder: int = 0o750
    lock: int = 0o660


def replace(path: Path, chunks: Sequence[bytes], *, modes: Modes) -> os.stat_result:
    """Replace `path` by the joined chunks; when this returns, the new content survives a power cut.

    Exactly two flushes. At every moment, and after a kill or a power cut, the name shows the old
    or the new content. Raises StoreWriteError with the old file intact and no temp file left; only
    when the flush of the folder itself fails may the new content already stand.

    The temp descriptor is closed last, so the close event that watchers see names the final file
    and comes after the content is durable. Returns the status of the new file.
    """
    started, is_done = real_s() if _observers else 0.0, False
    try:
        folder = _folders.get(path.parent)
        status = _replace_in(folder.number, path.name, chunks, mode=modes.file)
        is_done = True
    except OSError as error:
        message = f"{path}: cannot write: {error.strerror or error}"
        raise StoreWriteError(message) from error
    finally:
        for observe in _observers:
            observe(real_s() - started, is_done)
    return status


@contextmanager
def observed(observe: Callable[[float, bool], None]) -> Iterator[None]:
    """Meanwhile tell this of every replacing: real seconds, and whether it was done.

    Called on the thread that writes; it must neither raise nor block.
    """
    _observers.append(observe)
    try:
        yield
    finally:
        _observers.remove(observe)


def write_text(path: Path, text: str, *, modes: Modes | None = None) -> None:
    """Replace a whole text file. Raises StoreWriteError. One writer at a time, by the caller."""
    replace(path, [text.encode("utf-8", "replace")], modes=modes or Modes())


def remove(*paths: Path) -> int:
    """Delete files of one folder, durably; count those that were there. Never a lock.

    The caller is the files' only writer, or holds their locks. A crash leaves each whole or gone;
    repeating it is safe. Raises StoreWriteError.
    """
    removed = 0
    try:
        for path in paths:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - observed by the tests of power cuts
                removed += 1
        # Also when all were gone: whoever removed them may have died before this.
        if paths:
            os.fsync(_folders.get(paths[0].parent).number)
    except OSError as error:
        message = f"{error.filename or paths[0]}: cannot delete: {error.strerror or error}"
        raise StoreWriteError(message) from error
    return removed


def rename(path: Path, name: str) -> Path:
    """Give a file another name in its folder, durably. The caller is its only writer.

    A crash leaves the old or the new name. Raises StoreWriteError.
    """
    target = path.with_name(name)
    try:
        os.rename(path, target)  # noqa: PTH104 - as above
        os.fsync(_folders.get(path.parent).number)
    except OSError as error:
        message = f"{path}: cannot be renamed: {error.strerror or error}"
        raise StoreWriteError(message) from error
    return target


def make_folders(*paths: Path, modes: Modes | None = None) -> None:
    """Create folders with their parents, durably; existing ones are left as they are."""
    for path in paths:
        try:
            _make_folder(path, (modes or Modes()).folder)
        except OSError as error:
            message = f"{path}: cannot create the folder: {error.strerror or error}"
            raise StoreWriteError(message) from error


def sweep(folder: Path, name: str | None = None) -> list[str]:
    """Remove temp files that a killed writer left: those of one file, or all in the folder.

    The caller holds the lock of every file concerned, else a living writer's temp file goes too.
    Returns the names removed. Raises StoreWriteError.
    """
    prefix = f".{name}." if name is not None else "."
    removed = []
    try:
        with os.scandir(folder) as entries:
            stale = [e.name for e in entries if _is_temp(e.name, prefix)]
        for found in stale:
            with suppress(FileNotFoundError):
                os.unlink(folder / found)  # noqa: PTH108 - a temp file, never a lock
                removed.append(found)
    except OSError as error:
        message = f"{folder}: cannot remove left-over files: {error.strerror or error}"
        raise StoreWriteError(message) from error
    return removed


def _is_temp(name: str, prefix: str) -> bool:
    if not (name.startswith(prefix) and name.endswith(_TEMP_SUFFIX)):
        return False
    middle = name[len(prefix) : -len(_TEMP_SUFFIX)]
    return bool(middle) and (prefix == "." or "." not in middle)


def _replace_in(folder: int, name: str, chunks: Sequence[bytes], *, mode: int) -> os.stat_result:
    temp = f".{name}.{secrets.token_hex(4)}{_TEMP_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temp, flags, mode, dir_fd=folder)
    try:
        try:
            os.fchmod(descriptor, mode)
            _write_all(descriptor, chunks[0] if len(chunks) == 1 else b"".join(chunks))
            os.fsync(descriptor)
            os.rename(temp, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temp, dir_fd=folder)
            raise
        os.fsync(folder)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, memoryview(content)[written:])


def _make_folder(path: Path, mode: int) -> None:
    if path.is_dir():
        return
    _make_folder(path.parent, mode)
    with suppress(FileExistsError):
        path.mkdir(mode)
        path.chmod(mode)
    os.fsync(_folders.get(path.parent).number)


class _Folder:
    """An open folder; closes with its last user, which may be a commit of another thread."""

    __slots__ = ("identity", "number")

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self.number)
        self.identity = (status.st_dev, status.st_ino)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self.number)


class _Folders:
    """Least recently used folders stay open. A folder that was replaced is opened anew."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[str, _Folder] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, path: Path) -> _Folder:
        """Open a folder or reuse its descriptor; the caller keeps the result while it uses it."""
        name = os.fspath(path)
        status = os.stat(name)  # noqa: PTH116 - Path objects cost as much as the call
        with self._guard:
            folder = self._kept.get(name)
            if folder is None or folder.identity != (status.st_dev, status.st_ino):
                folder = self._kept[name] = _Folder(name)
            self._kept.move_to_end(name)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return folder


_folders: Final = _Folders(KEPT_FOLDERS)
