"""A file of lines that is only appended to and rotates by size. Takes no locks, flushes no disk.

For logs alone: lines that a power cut takes are no loss that anything builds upon, and a flush for
each would wear out a card.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from meshllm.errors import StoreWriteError
from meshllm.store import atomic
from meshllm.store.atomic import Modes

_OWNER_WRITES: Final = 0o200  #: a file that is appended to must be open to its writer
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Journal:
    """`path`, and older lines in `path.1`, `path.2` … One thread of one process writes.

    Readers need no lock; the last line may be cut short while it is written, or by a kill.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, files: int, modes: Modes, keep_free_bytes: int = 0
    ) -> None:
        """Open nothing yet. `files` counts the current one; `keep_free_bytes` stay on the disk."""
        self.path = path
        self._max_bytes = max_bytes
        self._files = files
        self._modes = modes
        self._keep_free_bytes = keep_free_bytes
        self._descriptor = -1
        self._size = 0

    def append(self, block: bytes) -> None:
        """Append whole lines: all of them or, when it raises StoreWriteError, none.

        After a kill in the middle, the next start begins on a new line.
        """
        try:
            self._open()
            if self._size and self._size + len(block) > self._max_bytes:
                self._rotate()
            self._write(block)
        except OSError as error:
            self.close()
            message = f"{self.path}: cannot write: {error.strerror or error}"
            raise StoreWriteError(message) from error

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):
                os.close(descriptor)

    def _open(self) -> None:
        """Open the file that has the name now: an operator may have moved or removed it."""
        if self._descriptor >= 0:
            if self._is_named():
                return
            self.close()
        atomic.make_folders(self.path.parent, modes=self._modes)
        mode = self._modes.file | _OWNER_WRITES
        is_new = not self.path.exists()
        self._descriptor = os.open(self.path, _FLAGS, mode)
        if is_new:
            os.fchmod(self._descriptor, mode)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        self._size = status.st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._write(b"\n")

    def _is_named(self) -> bool:
        ours = os.fstat(self._descriptor)
        try:
            named = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def _write(self, block: bytes) -> None:
        if self._keep_free_bytes:
            state = os.fstatvfs(self._descriptor)
            if state.f_bavail * state.f_frsize < self._keep_free_bytes + len(block):
                raise OSError(errno.ENOSPC, "the rest of the disk is kept for messages")
        done = 0
        try:
            while done < len(block):
                done += os.write(self._descriptor, memoryview(block)[done:])
        except OSError:
            if done:
                with suppress(OSError):  # else the next start begins on a new line
                    os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(block)

    def _rotate(self) -> None:
        """Move every file on by one; a kill in between leaves a gap, which the next one closes."""
        self.close()
        self._older(self._files - 1).unlink(missing_ok=True)
        for number in range(self._files - 2, -1, -1):
            with suppress(FileNotFoundError):
                self._older(number).rename(self._older(number + 1))
        self._drop_surplus()
        self._open()

    def _drop_surplus(self) -> None:
        """Remove what an earlier start with a larger limit left."""
        number = self._files
        while self._older(number).exists():
            self._older(number).unlink(missing_ok=True)
            number += 1

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path
