"""Open descriptors with shared owners, and their closing off the hot path. Knows no tables.

The last close of a replaced file makes the file system free its blocks. That was measured at up to
2 ms, five times the rest of a commit, and a flush meanwhile waits for it. So such descriptors are
closed by a short-lived thread, once commits have paused.
"""

import os
import queue
import threading
from contextlib import suppress
from typing import Final

QUIET_S: Final = 0.05  #: pause between commits after which old files are freed
MAX_RETIRED: Final = 64  #: descriptors that may wait for a pause; more are closed without one


class Descriptor:
    """An open descriptor that closes with its last user, which may be another thread."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.number)


class Retirement:
    """Closes descriptors later, in a thread that ends itself when there is nothing to close."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Descriptor] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, descriptor: Descriptor) -> None:
        """Take over a descriptor. Never blocks on the file system."""
        with self._lock:
            self._queue.put(descriptor)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="store-retirement", daemon=True
                )
                self._thread.start()

    def wait(self) -> None:
        """Block until everything taken over is closed and the thread has ended."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        waiting: list[Descriptor] = []
        while True:
            try:
                waiting.append(self._queue.get(timeout=QUIET_S))
                if len(waiting) < MAX_RETIRED:
                    continue
            except queue.Empty:
                if not waiting and self._ended():
                    return
            waiting.clear()

    def _ended(self) -> bool:
        with self._lock:
            if not self._queue.empty():
                return False
            self._thread = None
            return True


retirement: Final = Retirement()
