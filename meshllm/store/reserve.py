"""A ballast file, given up on a full disk so that the text just heard can still be written.

Made when there is room and again after it was spent; one per process. What may use the freed
space is the caller's decision.
"""

import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import structlog

from meshllm.errors import StoreWriteError
from meshllm.store.space import BYTES_PER_MB, refusal_of

T = TypeVar("T")

#: Room for thousands of texts: each commit copies its thread file (about 250 kB) and then frees
#: the old copy, so the peak counts, and several radios may have theirs at once.
SIZE_BYTES: Final = 4_000_000
_MODE: Final = 0o600
_BLOCK: Final = 512  #: unit of st_blocks, whatever the file system's blocks are

log = structlog.get_logger()


def has_room_for(free_bytes: int, floor_bytes: int, size_bytes: int) -> bool:
    """Say whether a reserve may be made.

    It never takes the disk from above the operator's limit to below it. Where that limit is passed
    already, it is made from what is left, as long as twice its size stays.
    """
    left = free_bytes - size_bytes
    if free_bytes < floor_bytes:
        return left >= 2 * size_bytes
    return left >= max(floor_bytes, size_bytes)


class Reserve:
    """The ballast file of one process. Safe from several threads.

    A kill or a power cut leaves it whole, half made or missing; `look` recognises each.
    """

    def __init__(self, path: Path, *, floor_bytes: int, size_bytes: int = SIZE_BYTES) -> None:
        """Make nothing yet. `floor_bytes` is free space that making it must leave."""
        self._path = path
        self._floor_bytes = floor_bytes
        self._size_bytes = size_bytes
        self._guard = threading.Lock()
        self._is_kept = False
        self._was_spent = False
        self._spendings = 0
        self._has_complained = False

    @property
    def is_kept(self) -> bool:
        """True while the ballast lies on the disk."""
        return self._is_kept

    @property
    def is_spent(self) -> bool:
        """True from giving it up until it is made again."""
        return self._was_spent and not self._is_kept

    def look(self) -> None:
        """Make the reserve where it is missing and there is room. Logs each change once."""
        with self._guard:
            if self._is_kept:
                return
            try:
                self._is_kept = self._stands() or self._make()
            except OSError as error:
                self._complain(error.strerror or str(error))
                return
            if self._is_kept:
                if self._was_spent:
                    log.info("reserve_made", file=os.fspath(self._path), mb=self._mb())
                self._has_complained = False
            else:
                self._complain("not enough free space")

    def write(self, act: Callable[[], T]) -> T:
        """Run a write; where the disk is full, give the reserve up and run it once more.

        `act` must be safe to repeat. Raises what it raises.
        """
        seen = self._spendings
        try:
            return act()
        except StoreWriteError as error:
            if refusal_of(error) != "full" or not self._give_up(seen):
                raise
        return act()

    def _give_up(self, seen: int) -> bool:
        """Free the space; True also when another thread did so since `seen`."""
        with self._guard:
            if self._spendings != seen:
                return True
            if not self._is_kept:
                return False
            self._is_kept = False
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                self._complain(error.strerror or str(error))
                return False
            # Some file systems hand freed blocks out only after the removal has reached the disk.
            with suppress(OSError):
                _flush_folder(self._path.parent)
            self._was_spent = True
            self._spendings += 1
            log.error(
                "reserve_spent",
                file=os.fspath(self._path),
                mb=self._mb(),
                consequence="only messages and their states are written until there is space; "
                "free some now",
            )
            return True

    def _stands(self) -> bool:
        """Recognise a whole reserve of an earlier run; remove a half-made one. Raises OSError."""
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return False
        if (
            stat.S_ISREG(found.st_mode)
            and found.st_size == self._size_bytes
            and found.st_blocks * _BLOCK >= self._size_bytes
        ):
            return True
        self._path.unlink()  # raises for a folder: an operator's, which is not ours to remove
        return False

    def _make(self) -> bool:
        disk = os.statvfs(self._path.parent)
        free_bytes = disk.f_bavail * disk.f_frsize
        if not has_room_for(free_bytes, self._floor_bytes, self._size_bytes):
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, _MODE)
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            raise
        finally:
            os.close(descriptor)
        return True

    def _complain(self, reason: str) -> None:
        if self._has_complained or self.is_spent:
            return  # the operator knows
        self._has_complained = True
        log.warning(
            "reserve_not_made",
            file=os.fspath(self._path),
            reason=reason,
            consequence="on a full disk, texts heard wait in memory and die with the process",
        )

    def _mb(self) -> float:
        return self._size_bytes / BYTES_PER_MB


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
