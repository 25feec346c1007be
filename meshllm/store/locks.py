"""Advisory locks: sidecars for one file's read-change-replace, and one lock per process for life.

Protects against our own processes and threads only, not against editors. A lock file is never
unlinked: a waiter could otherwise lock an inode that no longer carries the name.
"""

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from filelock import FileLock, Timeout

from meshllm.errors import AlreadyRunningError, LockTimeoutError, StoreWriteError, UserError

POLL_S: Final = 0.002  #: retry interval; the library's 50 ms would be the longest wait of an answer
KEPT_LOCKS: Final = 256  #: lock objects kept for reuse; a new one costs 40 microseconds more
LOCK_MODE: Final = 0o660  #: members of the group may take turns with us

_kept: OrderedDict[str, FileLock] = OrderedDict()
_kept_guard: Final = threading.Lock()


def lock_path(path: Path) -> Path:
    """Name the sidecar of a file."""
    return path.with_name(path.name + ".lock")


@contextmanager
def hold(path: Path, timeout_s: float = 5.0, *, mode: int = LOCK_MODE) -> Iterator[None]:
    """Hold the sidecar lock of `path`, against other processes and other threads of this one.

    Blocks up to the timeout, then raises LockTimeoutError. Not reentrant: a second hold of the
    same file by one thread is a bug and raises RuntimeError.
    """
    lock = _lock_for(path, mode)
    if lock.is_locked:
        message = f"{path.name}: this thread holds the lock already"
        raise RuntimeError(message)
    try:
        lock.acquire(timeout=timeout_s, poll_interval=POLL_S)
    except Timeout as error:
        message = f"{path}: locked by another process for more than {timeout_s:g} s"
        raise LockTimeoutError(message) from error
    except OSError as error:
        message = f"{lock_path(path)}: cannot lock: {error.strerror or error}"
        raise StoreWriteError(message) from error
    try:
        yield
    finally:
        lock.release()


def _lock_for(path: Path, mode: int) -> FileLock:
    name = os.fspath(path)
    with _kept_guard:
        lock = _kept.get(name)
        if lock is None:
            lock = _kept[name] = FileLock(lock_path(path), mode=mode, thread_local=True)
            if len(_kept) > KEPT_LOCKS:
                _kept.popitem(last=False)  # a holder or waiter keeps its own reference
        else:
            _kept.move_to_end(name)
    return lock


class ProcessLock:
    """Held for a process's life: a second process of the same role on the same data is refused.

    Only the kernel's lock counts. The process id in the file is for the message; a stale one
    never blocks.
    """

    def __init__(self, path: Path, role: str) -> None:
        self._path = path
        self._role = role
        self._lock = FileLock(path, mode=LOCK_MODE, thread_local=False)

    def acquire(self) -> None:
        """Take the lock at once. Raises AlreadyRunningError, or UserError about the folder."""
        try:
            self._lock.acquire(blocking=False)
            self._write_pid()
        except Timeout as error:
            message = (
                f"the {self._role} is already running (pid {self._holder()}) on {self._path.parent}"
            )
            raise AlreadyRunningError(message) from error
        except OSError as error:
            self.release()
            reason = error.strerror or str(error)
            message = f"{self._path}: cannot lock the data folder: {reason}"
            hint = f"make {self._path.parent} a folder this user can write, or set DATA_DIR;"
            hint += " `./run.sh doctor` names files of another user"
            raise UserError(message, [hint]) from error

    def release(self) -> None:
        """Give the lock up; without effect when it is not held. Any thread may call it."""
        self._lock.release(force=True)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _write_pid(self) -> None:
        # A second descriptor is safe: this kind of lock belongs to the descriptor that took it.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A full disk must not stop the start: the id is for a message only.
        finally:
            os.close(descriptor)

    def _holder(self) -> str:
        try:
            text = self._path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return "unknown"
        return text if text.isdecimal() else "unknown"
