"""A simulated radio's serial port: a pseudo terminal that the unmodified library opens.

Speaks bytes and framing; what the node says is decided in `phone`, what a fault does in `node`.
As on a real line, nobody tells the radio that a client opened or closed the port.
"""

import asyncio
import os
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshllm.sim.framing import Deframer
from meshllm.sim.phone import Session

CHUNK_BYTES: Final = 4096


class SerialPort:
    """One plugged-in cable with its name in the file system. Used on the engine's thread only.

    The session outlives the cable: the radio knows the ids of earlier connections until it
    restarts. Bytes that no client reads are lost when one opens the port, as a real line loses
    them: the library empties its buffer then.
    """

    def __init__(
        self,
        name: Path,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        *,
        on_message: Callable[["SerialPort", bytes], None],
        on_room: Callable[["SerialPort"], None],
    ) -> None:
        """Make the terminal and its name. Raises FileExistsError where the name is taken."""
        self.session = session
        self.is_dead = False
        self.last_heard_at = 0.0
        self.raw: deque[bytes] = deque()
        self.name = name
        self._loop = loop
        self._on_message = on_message
        self._on_room = on_room
        self._deframer = Deframer()
        self._unwritten = b""
        self._is_open = True
        self._ours, self._theirs = os.openpty()
        # Raw from the start: until a client has set the line up, it would echo what we write.
        # Our own hold on their end keeps the line up while nobody has it open.
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        name.symlink_to(os.ttyname(self._theirs))
        loop.add_reader(self._ours, self._readable)

    @property
    def is_paused(self) -> bool:
        """Say whether the line is full: nobody reads it."""
        return bool(self._unwritten)

    def read(self, on: bool) -> None:
        """Go on or stop taking in what the client writes."""
        if not self._is_open:
            return
        if on:
            self._loop.add_reader(self._ours, self._readable)
        else:
            self._loop.remove_reader(self._ours)

    def write(self, octets: bytes) -> None:
        """Put bytes on the line; what does not fit waits."""
        if self._is_open:
            self._unwritten += octets
            self._drain()

    def end(self) -> None:
        """End the client's session. The line stays, and so do the ids."""
        self.session.forget_configuration()

    def drop(self) -> None:
        """Pull the cable: the client's next read or write fails, and the name is gone."""
        if not self._is_open:
            return
        self._is_open = False
        self.is_dead = True
        self._loop.remove_reader(self._ours)
        self._loop.remove_writer(self._ours)
        self.name.unlink(missing_ok=True)
        os.close(self._ours)
        os.close(self._theirs)

    def _readable(self) -> None:
        try:
            chunk = os.read(self._ours, CHUNK_BYTES)
        except BlockingIOError:
            return
        if self.is_dead:
            return
        for message in self._deframer.feed(chunk):
            self._on_message(self, message)
        self._on_room(self)

    def _drain(self) -> None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._ours, self._unwritten) :]
        except BlockingIOError:
            self._loop.add_writer(self._ours, self._writable)
        else:
            self._loop.remove_writer(self._ours)

    def _writable(self) -> None:
        self._drain()
        if not self._unwritten:
            self._on_room(self)
