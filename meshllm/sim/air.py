"""The shared medium: who hears whom, how long a frame takes, what a link does to it.

Knows nothing of what is inside a frame. Frames never collide and noise is a link's loss figure;
a station that hears one waits before it sends.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from meshllm import airtime
from meshllm.sim.engine import Journal, Scheduler
from meshllm.sim.packets import ChannelSpec, Packet

DEFAULT_SNR_DB: Final = 6.0
SNR_FLOOR_DB: Final = -20.0  #: relays that hear worse than this repeat first
SNR_CEILING_DB: Final = 10.0
INSTANT_RELAY_S: Final = 0.02  #: shortest wait before repeating when the air is instant
HELD_BACK_S: Final = 0.5  #: shortest time by which a reordered frame is late
HELD_BACK_SPREAD_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class PkiSeal:
    """Encryption for one receiver: opens only with this pair of public keys."""

    sender_key: bytes
    receiver_key: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One transmission: the packet, what it is encrypted with, and its length."""

    packet: Packet
    seal: ChannelSpec | PkiSeal
    size_bytes: int

    @property
    def key(self) -> tuple[int, int]:
        """What receivers remember it by."""
        return self.packet.sender, self.packet.id


@dataclass(frozen=True, slots=True)
class OnAir:
    """A transmission as the air log keeps it; `at` is scaled, `real_at` real monotonic seconds."""

    node: int
    packet: Packet
    airtime_s: float
    at: float
    real_at: float


@dataclass(slots=True)
class Link:
    """One direction between two nodes. The n-th frame over it meets the same fate in every run."""

    rng: random.Random = field(repr=False)
    loss: float = 0.0
    delay_s: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    snr_db: float = DEFAULT_SNR_DB

    def fates(self) -> tuple[float, ...]:
        """Draw the delays of the copies of the next frame that arrive: none, one or two."""
        lost, doubled, late, lateness = (self.rng.random() for _ in range(4))
        if lost < self.loss:
            return ()
        delay = self.delay_s
        held_back = HELD_BACK_S + HELD_BACK_SPREAD_S * lateness
        if late < self.reorder:
            delay += held_back
        return (delay, delay + held_back) if doubled < self.duplicate else (delay,)


class Hearer(Protocol):
    """What the air needs of a station."""

    num: int

    def hear(self, frame: Frame, snr_db: float) -> None:
        """Take in a frame that has arrived completely."""


class Air:
    """All links of a mesh. Used on the engine's thread only, but for the log."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        seed: int = 0,
        preset: str = "LONG_FAST",
        instant: bool = False,
        scale: float = 1.0,
    ) -> None:
        """Start with no station. `instant` leaves out airtime and back-off."""
        self.scheduler = scheduler
        self.preset = preset
        self.instant = instant
        self.everyone_hears = True
        self.log: Journal[OnAir] = Journal()
        self._scale = scale
        self._seed = seed
        self._stations: dict[int, Hearer] = {}
        self._links: dict[tuple[int, int], Link | None] = {}
        self._busy_until: dict[int, float] = {}

    def join(self, station: Hearer) -> None:
        """Let a station take part."""
        self._stations[station.num] = station

    def link(self, source: int, target: int) -> Link:
        """Return the link of one direction, made when there is none yet."""
        link = self._links.get((source, target))
        if link is None:
            link = Link(random.Random(f"{self._seed}/{source:08x}/{target:08x}"))  # noqa: S311 - no secret
            self._links[source, target] = link
        return link

    def cut(self, source: int, target: int) -> None:
        """Put one direction out of earshot for good, until `link` is called for it."""
        self._links[source, target] = None

    def seal(self, channel: ChannelSpec) -> ChannelSpec:
        """What encrypts a channel: an unnamed one has its preset's name."""
        name = channel.name or self.preset.title().replace("_", "")
        return ChannelSpec(name, channel.psk)

    def frame_airtime_s(self, size_bytes: int) -> float:
        """Time on air of a frame; nothing when the air is instant."""
        return 0.0 if self.instant else airtime.frame_airtime_s(size_bytes, self.preset)

    def backoff_s(self, rng: random.Random) -> float:
        """Draw the random wait before an own transmission."""
        return self._slots(rng.randrange(2**airtime.CONTENTION_MIN))

    def relay_delay_s(self, rng: random.Random, snr_db: float) -> float:
        """Draw the wait before repeating: longer for those who heard well, so the far go first."""
        if self.instant:
            # Late enough for the addressee's ACK, or another's repeat, to make it unnecessary.
            return INSTANT_RELAY_S * (1 + rng.random())
        share = (snr_db - SNR_FLOOR_DB) / (SNR_CEILING_DB - SNR_FLOOR_DB)
        window = airtime.contention_window(share)
        return self._slots(2 * airtime.CONTENTION_MAX + rng.randrange(2**window))

    def _slots(self, count: int) -> float:
        return 0.0 if self.instant else count * airtime.PRESETS[self.preset].slot_s

    def retransmit_s(self, size_bytes: int) -> float:
        """Wait before a frame without an ACK goes out again."""
        return airtime.frame_retransmit_s(size_bytes, self.preset)

    def busy_until(self, num: int) -> float:
        """Until when a station hears somebody send."""
        return self._busy_until.get(num, 0.0)

    def transmit(self, sender: int, frame: Frame) -> float:
        """Send a frame to everybody in earshot and return how long it takes."""
        duration = self.frame_airtime_s(frame.size_bytes)
        now = self.scheduler.now()
        self.log.add(OnAir(sender, frame.packet, duration, now, now / self._scale))
        for num, station in self._stations.items():
            if num != sender and self._in_earshot(sender, num):
                self._carry(frame, self.link(sender, num), station, duration)
        return duration

    def _in_earshot(self, source: int, target: int) -> bool:
        if (source, target) in self._links:
            return self._links[source, target] is not None
        return self.everyone_hears

    def _carry(self, frame: Frame, link: Link, station: Hearer, duration: float) -> None:
        end = self.scheduler.now() + duration
        self._busy_until[station.num] = max(self.busy_until(station.num), end)
        for delay in link.fates():
            self.scheduler.call_later(duration + delay, _arrival(station, frame, link.snr_db))


def _arrival(station: Hearer, frame: Frame, snr_db: float) -> Callable[[], None]:
    return lambda: station.hear(frame, snr_db)
