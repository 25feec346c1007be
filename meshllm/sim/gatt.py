"""The Bluetooth side of a simulated radio: what it offers a central and what it refuses.

Knows no D-Bus; that is `bluez`. Everything here runs on the engine's thread.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshllm.sim.node import SimRadio
from meshllm.sim.phone import Session

SERVICE: Final = "6ba1b218-15a8-461f-9fa8-5dcae273eafd"
TO_RADIO: Final = "f75c76d2-129e-4dad-a1dd-7866124401e7"
FROM_RADIO: Final = "2c55e69e-4993-11ed-b878-0242ac120002"
FROM_NUM: Final = "ed9da18c-a800-4f66-a670-aa7547e34453"
LOG_RADIO: Final = "5a3d6e49-06e6-4423-9944-e9de8cdf9547"
MAX_VALUE: Final = 512  #: longest attribute value that Bluetooth has

#: What can be done with each characteristic, in the words of BlueZ.
CHARACTERISTICS: Final[dict[str, tuple[str, ...]]] = {
    TO_RADIO: ("write",),
    FROM_RADIO: ("read",),
    FROM_NUM: ("read", "notify"),
    LOG_RADIO: ("read", "notify"),
}

Notify = Callable[[str, bytes], None]

READ_NOT_PERMITTED: Final = 0x02
WRITE_NOT_PERMITTED: Final = 0x03
INSUFFICIENT_AUTHENTICATION: Final = 0x05
INVALID_LENGTH: Final = 0x0D


class AttError(Exception):
    """The radio refuses, with a code of the attribute protocol."""

    def __init__(self, code: int) -> None:
        """Keep the code."""
        super().__init__(f"ATT error {code:#04x}")
        self.code = code


@dataclass(slots=True)
class Conditions:
    """How things stand between radio and computer; tests change them."""

    in_reach: bool = True
    lets_connect: bool = True  #: otherwise seen in a scan and too weak for a connection
    asks_pin: bool = False  #: nothing works unpaired
    is_paired: bool = False
    is_with_phone: bool = False  #: another central holds its only connection
    is_silent: bool = False  #: takes every write and never says anything again


class Peripheral:
    """A radio that advertises, takes one central, and moves bare protobuf messages."""

    def __init__(self, radio: SimRadio, address: str, *, name: str = "") -> None:
        """Take over the radio's client side; its TCP port then serves nobody."""
        self.radio = radio
        self.address = address
        self.name = name or f"{radio.station.user.short_name}_{address[-5:].replace(':', '')}"
        self.conditions = Conditions()
        self.is_connected = False
        self.on_notify: Notify = lambda _uuid, _value: None
        self.connections = 0  #: centrals that ever connected
        self.writes: list[bytes] = []
        self._subscribed: set[str] = set()
        self._count = 0
        # One for all connections: over Bluetooth the radio remembers ids until it restarts.
        self._session = Session(radio.phone)
        radio.phone.on_news = self._notify

    @property
    def is_advertising(self) -> bool:
        """Say whether a scan can see it: a connected radio does not advertise."""
        taken = self.is_connected or self.conditions.is_with_phone
        return self.conditions.in_reach and not taken and self.radio.station.is_on

    def connect(self) -> bool:
        """Let a central in; False when it cannot reach the radio."""
        if not (self.is_advertising and self.conditions.lets_connect):
            return False
        self.is_connected = True
        self.connections += 1
        return True

    def disconnect(self) -> None:
        """End the link; what the radio keeps for its client stays."""
        self.is_connected = False
        self._subscribed.clear()
        self._session.forget_configuration()

    def restart(self) -> None:
        """Lose everything in memory, ids included."""
        self.disconnect()
        self.radio.station.reboot()
        self.radio.phone.reset()
        self._session = Session(self.radio.phone)

    def read(self, uuid: str) -> bytes:
        """Read a value. FROMRADIO takes the next message off the queues, empty without one."""
        self._check(uuid, "read", READ_NOT_PERMITTED)
        if uuid == FROM_NUM:
            return struct.pack("<I", self._count)
        if uuid != FROM_RADIO or self.conditions.is_silent:
            return b""
        message = self._session.next_message() or b""
        if len(message) > MAX_VALUE:
            raise ValueError(f"a message of {len(message)} bytes does not fit into an attribute")
        return message

    def write(self, uuid: str, value: bytes) -> None:
        """Write a value; TORADIO is one whole message for the radio."""
        self._check(uuid, "write", WRITE_NOT_PERMITTED)
        if len(value) > MAX_VALUE:
            raise AttError(INVALID_LENGTH)
        self.writes.append(value)
        if uuid == TO_RADIO and not self.conditions.is_silent:
            self._session.handle(value)

    def subscribe(self, uuid: str) -> None:
        """Notify the central of this value from now on."""
        self._check(uuid, "notify", WRITE_NOT_PERMITTED)
        self._subscribed.add(uuid)

    def unsubscribe(self, uuid: str) -> None:
        """Stop notifying."""
        self._subscribed.discard(uuid)

    def _check(self, uuid: str, verb: str, refusal: int) -> None:
        if verb not in CHARACTERISTICS[uuid]:
            raise AttError(refusal)
        if self.conditions.asks_pin and not self.conditions.is_paired:
            raise AttError(INSUFFICIENT_AUTHENTICATION)

    def _notify(self) -> None:
        self._count += 1
        if FROM_NUM in self._subscribed and not self.conditions.is_silent:
            self.on_notify(FROM_NUM, struct.pack("<I", self._count))
