"""Log lines to a rotating file, from a thread of its own. Chooses no line and never raises.

A log call only puts its line into memory, so a disk that hangs holds up no service.
"""

import threading
from collections import deque
from typing import Final

import structlog

from meshllm.errors import TransientError
from meshllm.store.journal import Journal

log = structlog.get_logger()

FLUSH_S: Final = 1.0  #: real seconds that a line below warning may stay in memory
RETRY_S: Final = 5.0  #: real seconds between two tries while the disk refuses lines
MAX_WAITING_BYTES: Final = 1_000_000  #: kept in memory meanwhile; what comes on top is lost
BLOCK_BYTES: Final = 32_000  #: written in one go, and without waiting for more


class LogFile:
    """Takes lines from every thread. Until `start` they wait in memory.

    A kill loses what was logged within the last second, warnings excepted; a power cut loses what
    the system had not written out, since nothing is flushed to the disk itself.
    """

    def __init__(self, journal: Journal) -> None:
        """Open nothing yet."""
        self._journal = journal
        self._guard = threading.Lock()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost_before = 0  #: as told by the last event
        self._is_refused = False
        self._some = threading.Event()
        self._urgent = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log file", daemon=True)
        self.lost = 0  #: lines that never reached the file

    def write(self, line: str, *, is_urgent: bool) -> None:
        """Take one line without its end; an urgent one is written at once, others soon."""
        encoded = line.encode("utf-8", "replace") + b"\n"
        with self._guard:
            if self._bytes + len(encoded) > MAX_WAITING_BYTES:
                self.lost += 1
                return
            self._lines.append(encoded)
            self._bytes += len(encoded)
            is_urgent = is_urgent or self._bytes >= BLOCK_BYTES
        self._some.set()
        if is_urgent:
            self._urgent.set()

    def start(self) -> None:
        """Begin to write. The caller holds the process's lock: one writer for each file."""
        self._thread.start()

    def close(self, limit_s: float = 1.0) -> None:
        """Write what waits and end, within `limit_s` real seconds even where the disk hangs."""
        self._ending.set()
        self._some.set()
        self._urgent.set()
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._some.wait()
            if self._is_refused:
                self._ending.wait(RETRY_S)
            else:
                self._urgent.wait(FLUSH_S)
            self._some.clear()
            self._urgent.clear()
            self._flush()
        self._flush()
        self._journal.close()

    def _flush(self) -> None:
        while block := self._next_block():
            try:
                self._journal.append(b"".join(block))
            except TransientError as error:
                self._put_back(block)
                self._refuse(error)
                return
            self._accept()

    def _next_block(self) -> list[bytes]:
        block: list[bytes] = []
        size = 0
        with self._guard:
            while self._lines and (not block or size + len(self._lines[0]) <= BLOCK_BYTES):
                block.append(self._lines.popleft())
                size += len(block[-1])
            self._bytes -= size
        return block

    def _put_back(self, block: list[bytes]) -> None:
        with self._guard:
            self._lines.extendleft(reversed(block))
            self._bytes += sum(map(len, block))
            if self._ending.is_set():
                self.lost += len(self._lines)
        self._some.set()

    def _refuse(self, error: TransientError) -> None:
        if not self._is_refused:
            self._is_refused = True
            log.warning(
                "log_file_refused",
                file=self._journal.path.name,
                reason=str(error),
                consequence="lines that memory does not hold are lost; tried again",
            )

    def _accept(self) -> None:
        if self._is_refused or self.lost > self._lost_before:
            self._is_refused = False
            lost, self._lost_before = self.lost - self._lost_before, self.lost
            log.info("log_file_back", file=self._journal.path.name, lines_lost=lost)
