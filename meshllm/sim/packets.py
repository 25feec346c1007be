"""What travels through the simulated mesh, as plain values. Knows no wire format."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

BROADCAST: Final = 0xFFFFFFFF
MAX_HOPS: Final = 7
DEFAULT_HOPS: Final = 3
PRIVATE_DEFAULT_KEY: Final = b"\x01"  #: the well-known key of an untouched primary channel


class Port(IntEnum):
    """Application numbers the simulator acts on; any other number is carried untouched."""

    TEXT = 1
    POSITION = 3
    NODEINFO = 4
    ROUTING = 5
    ADMIN = 6
    WAYPOINT = 8
    ALERT = 11
    RANGE_TEST = 66
    TELEMETRY = 67
    TRACEROUTE = 70


#: Ports that the firmware never encrypts for one node only.
CHANNEL_ONLY_PORTS: Final = frozenset({Port.POSITION, Port.NODEINFO, Port.ROUTING, Port.TRACEROUTE})


class RoutingError(IntEnum):
    """The answers of the routing application, by their names on the wire."""

    NONE = 0
    NO_ROUTE = 1
    GOT_NAK = 2
    TIMEOUT = 3
    NO_INTERFACE = 4
    MAX_RETRANSMIT = 5
    NO_CHANNEL = 6
    TOO_LARGE = 7
    NO_RESPONSE = 8
    DUTY_CYCLE_LIMIT = 9
    BAD_REQUEST = 32
    NOT_AUTHORIZED = 33
    PKI_FAILED = 34
    PKI_UNKNOWN_PUBKEY = 35
    ADMIN_BAD_SESSION_KEY = 36
    ADMIN_PUBLIC_KEY_UNAUTHORIZED = 37
    RATE_LIMIT_EXCEEDED = 38
    PKI_SEND_FAIL_PUBLIC_KEY = 39


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One channel of a node: two nodes share it when name and key are equal."""

    name: str = ""
    psk: bytes = PRIVATE_DEFAULT_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One mesh packet as a node or its client sees it. Zero and empty mean: not on the wire."""

    sender: int = 0
    to: int = BROADCAST
    id: int = 0
    channel: int = 0
    port: int = Port.TEXT
    payload: bytes = b""
    encrypted: bytes | None = None  #: set: nobody here could decode it, port and payload are void
    want_ack: bool = False
    want_response: bool = False
    request_id: int = 0
    reply_id: int = 0
    emoji: int = 0
    bitfield: int | None = None
    hop_limit: int = 0
    hop_start: int = 0
    pki: bool = False
    public_key: bytes = b""
    priority: int = 0
    rx_time: int = 0
    rx_snr: float = 0.0
    rx_rssi: int = 0
    via_mqtt: bool = False
    relay_node: int = 0
    next_hop: int = 0  #: last byte of the only node that is to repeat it; 0: everybody

    @property
    def text(self) -> str | None:
        """The payload as UTF-8, None when it is not."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class User:
    """How a node presents itself."""

    num: int
    long_name: str
    short_name: str
    public_key: bytes = b""

    @property
    def node_id(self) -> str:
        """The `!xxxxxxxx` form of the number."""
        return f"!{self.num:08x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """One entry of a node's own list of nodes."""

    num: int
    user: User | None = None
    snr: float = 0.0
    last_heard: int = 0
    hops_away: int | None = None
    battery: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude: int | None = None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The node's answer to a packet: result, free places of its send queue, and which packet."""

    res: int
    free: int
    maxlen: int
    packet_id: int = 0


@dataclass(frozen=True, slots=True)
class WantConfig:
    """The client asks for everything, or with a special nonce for a part."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The client says that it is there."""

    nonce: int = 0


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client says goodbye."""


@dataclass(frozen=True, slots=True)
class SendPacket:
    """The client hands over a packet."""

    packet: Packet


@dataclass(frozen=True, slots=True)
class Unhandled:
    """A well-formed request that the simulated node does not act on."""

    name: str


Request = WantConfig | Heartbeat | Disconnect | SendPacket | Unhandled
