"""A bare StreamAPI client: writes requests, reads messages. For tests and benches."""

import socket
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from meshllm.sim import wire
from meshllm.sim.framing import WAKE, Deframer, frame
from meshllm.sim.packets import Packet, QueueStatus, Request, SendPacket, WantConfig

TIMEOUT_S: Final = 5.0

Message = tuple[str, Any]


class StreamClient:
    """One connection to a node, real or simulated. Blocking; one thread."""

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Connect to host:port."""
        host, _, port = address.rpartition(":")
        self._timeout_s = timeout_s
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deframer = Deframer()
        self._messages: deque[Message] = deque()

    def write(self, octets: bytes) -> None:
        """Write bytes as they are."""
        self._socket.sendall(octets)

    def ask(self, *requests: Request) -> None:
        """Write requests in one piece."""
        self.write(b"".join(frame(wire.request_bytes(request)) for request in requests))

    def send(self, *packets: Packet) -> None:
        """Hand packets over in one piece."""
        self.ask(*(SendPacket(packet) for packet in packets))

    def read(self, *, timeout_s: float | None = None) -> Message | None:
        """Return the next message as (kind, value), None at the end of the connection.

        Raises TimeoutError when there is none in time.
        """
        self._socket.settimeout(self._timeout_s if timeout_s is None else timeout_s)
        while not self._messages:
            try:
                chunk = self._socket.recv(65536)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self._messages.extend(map(wire.parse_from_radio, self._deframer.feed(chunk)))
        return self._messages.popleft()

    def read_until(self, wanted: Callable[[Message], bool]) -> list[Message]:
        """Read up to and including the first wanted message. EOFError when it ends before."""
        messages: list[Message] = []
        while not messages or not wanted(messages[-1]):
            message = self.read()
            if message is None:
                raise EOFError(f"connection ended after {[kind for kind, _ in messages]}")
            messages.append(message)
        return messages

    def configure(self, nonce: int = 4711) -> list[Message]:
        """Wake the node and read its whole configuration."""
        self.write(WAKE)
        self.ask(WantConfig(nonce))
        return self.read_until(lambda message: message == ("config_complete_id", nonce))

    def packet(self, wanted: Callable[[Packet], bool] = lambda _packet: True) -> Packet:
        """Read on to the first packet that fits."""
        found = self.read_until(lambda m: m[0] == "packet" and wanted(m[1]))[-1][1]
        assert isinstance(found, Packet)
        return found

    def queue_state(self) -> QueueStatus:
        """Read on to the next queue state."""
        found = self.read_until(lambda m: m[0] == "queueStatus")[-1][1]
        assert isinstance(found, QueueStatus)
        return found

    def is_silent(self, real_s: float) -> bool:
        """Say whether nothing at all comes within that time, not even the end."""
        try:
            self.read(timeout_s=real_s)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
