"""StreamAPI framing: two start bytes, a 16-bit length, one message. Pure; knows no message."""

from typing import Final

START: Final = b"\x94\xc3"
MAX_MESSAGE_BYTES: Final = 512  #: a longer length is noise that looks like a frame
WAKE: Final = b"\xc3" * 32  #: what the client library writes before its first frame


def frame(message: bytes) -> bytes:
    """Put the header in front of a message. Raises ValueError when it is too long for one."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {len(message)} bytes does not fit a frame")
    return START + len(message).to_bytes(2, "big") + message


class Deframer:
    """Finds the messages in a byte stream; skips whatever is not a frame."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._pending = bytearray()
        self.skipped_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes as they come and return the messages completed by them."""
        self._pending += chunk
        messages: list[bytes] = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> bytes | None:
        pending = self._pending
        while self._skip_noise() and len(pending) >= 4:
            length = int.from_bytes(pending[2:4], "big")
            if length > MAX_MESSAGE_BYTES:
                self._drop(1)
                continue
            if len(pending) < 4 + length:
                return None
            message = bytes(pending[4 : 4 + length])
            del pending[: 4 + length]
            return message
        return None

    def _skip_noise(self) -> bool:
        start = self._pending.find(START)
        if start < 0:
            keep = 1 if self._pending.endswith(START[:1]) else 0
            self._drop(len(self._pending) - keep)
            return False
        self._drop(start)
        return True

    def _drop(self, count: int) -> None:
        self.skipped_bytes += count
        del self._pending[:count]
