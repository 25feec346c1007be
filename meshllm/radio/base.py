"""What a radio is to the bridge: events it reports and six verbs. Imports no radio library."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

BROADCAST: Final = 0xFFFFFFFF  #: destination of channel texts
MAX_TEXT_BYTES: Final = (
    200  #: what the official apps send; fits a PKI DM with reply_id (215 measured)
)

LinkKind = Literal["serial", "tcp", "ble"]


@dataclass(frozen=True, slots=True)
class Channel:
    """One enabled channel slot of a radio."""

    index: int
    name: str  #: as the radio holds it; '' for an unnamed one
    role: str  #: PRIMARY or SECONDARY


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node as the radio's own list has it at connect."""

    number: int
    short_name: str = ""
    long_name: str = ""
    last_heard: int | None = None  #: Unix seconds by the radio's clock


@dataclass(frozen=True, slots=True)
class RadioInfo:
    """What the radio said of itself during the handshake."""

    number: int
    short_name: str = ""
    long_name: str = ""
    firmware: str = ""
    region: str = ""
    preset: str = ""  #: the enum's name, such as LONG_FAST
    hop_limit: int = 3
    channels: tuple[Channel, ...] = ()
    nodes: tuple[KnownNode, ...] = ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every packet carries, whatever is in it. None where the radio left the field out."""

    sender: int
    to: int
    packet_id: int
    channel_index: int = 0
    snr_db: float | None = None
    rssi: int | None = None
    hop_start: int | None = None
    hop_limit: int | None = None
    via_mqtt: bool = False
    pki: bool = False
    rx_time: int | None = None

    @property
    def hops(self) -> int | None:
        """Hops travelled; None when the sender's firmware did not say."""
        if self.hop_start is None:
            return None
        travelled = self.hop_start - (self.hop_limit or 0)
        return travelled if travelled >= 0 else None

    @property
    def has_signal(self) -> bool:
        """True when this packet came over the air to this radio."""
        return self.snr_db is not None or self.rssi is not None


@dataclass(frozen=True, slots=True)
class TextHeard:
    """A text. `raw` is set when the payload was not UTF-8; `text` then has replacement marks."""

    envelope: Envelope
    text: str
    reply_id: int = 0
    emoji: int = 0
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class PositionHeard:
    """A position in degrees; None when the packet held none."""

    envelope: Envelope
    latitude: float | None
    longitude: float | None
    altitude_m: int | None = None
    precision_bits: int | None = None


@dataclass(frozen=True, slots=True)
class TelemetryHeard:
    """Telemetry by group (deviceMetrics, environmentMetrics, …) as plain numbers."""

    envelope: Envelope
    groups: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UserHeard:
    """A node's names, as it broadcasts them. Anybody can claim any name."""

    envelope: Envelope
    short_name: str
    long_name: str


@dataclass(frozen=True, slots=True)
class RoutingHeard:
    """ACK (`error` is NONE) or NAK for a packet id; the sender tells who says so."""

    envelope: Envelope
    request_id: int
    error: str


@dataclass(frozen=True, slots=True)
class UndecodableHeard:
    """A packet the radio could not decrypt."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class OtherHeard:
    """A packet of a kind that has no row; it still shows that the node lives."""

    envelope: Envelope
    port: str


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The radio's answer to a hand-over (packet_id 0: to a heartbeat)."""

    packet_id: int
    result: int
    free: int
    maxlen: int


PacketEvent = (
    TextHeard
    | PositionHeard
    | TelemetryHeard
    | UserHeard
    | RoutingHeard
    | UndecodableHeard
    | OtherHeard
)


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The connection ended by itself; this radio object is spent."""

    cause: str


RadioEvent = PacketEvent | QueueStatus | LinkLost


@dataclass(frozen=True, slots=True)
class OutgoingText:
    """One text to hand over. The caller has written `packet_id` to disk."""

    packet_id: int
    to: int
    text: str
    channel_index: int = 0
    want_ack: bool = False
    reply_id: int = 0


class Radio(Protocol):
    """One connection to one radio. Good for a single life: after a loss a new one is made.

    Every verb returns or raises LinkDownError within its deadline, whatever the library below does.
    Events arrive by the `emit` callable given at construction, on any thread.
    """

    kind: LinkKind

    def connect(self) -> RadioInfo:
        """Connect and read the configuration."""

    def send(self, text: OutgoingText) -> None:
        """Give one text to the radio. Returning says nothing; a QueueStatus naming the id does."""

    def request_user(self, number: int) -> None:
        """Ask a node for its node info, which carries its public key; ours goes along.

        An answer comes as UserHeard. None may come: firmware answers a node only every few minutes.
        """

    def forget_ids(self) -> None:
        """Make the radio take ids that it has had before. Takes about 2 s on a serial line.

        Returning says that the radio was given enough to forget; see decision 34.
        """

    def probe(self) -> None:
        """Raise LinkDownError when the radio does not answer a heartbeat."""

    def close(self) -> None:
        """Drop the connection; never raises, never blocks beyond its deadline."""


Emit = Callable[[RadioEvent], None]
RadioFactory = Callable[[Emit], Radio]
