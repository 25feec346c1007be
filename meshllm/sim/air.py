"""The shared medium: who hears whom, how long a frame takes, what a link does to it.

Knows nothing of what is inside a frame. Noise is a link's loss figure; a station that hears a
frame waits before it sends. Frames collide only on crowded air.
"""

import random
from collections import deque
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
USE_WINDOW_S: Final = 60.0  #: over which the firmware measures channel use (airtime.h)
OWN_WINDOW_S: Final = 3600.0  #: over which it measures its own sending
#: A frame this much stronger than another is read all the same; of two closer ones neither is
#: (Bor et al., "Do LoRa Low-Power Wide-Area Networks Scale?", 2016).
CAPTURE_DB: Final = 6.0


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
    size_bytes: int = 0


@dataclass(slots=True)
class Link:
    """One direction between two nodes. The n-th frame over it meets the same fate in every run.

    `in_reach` is False while one of the two is away: nothing is carried, no fate is drawn.
    """

    rng: random.Random = field(repr=False)
    in_reach: bool = True
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


@dataclass(slots=True)
class _Reception:
    """One frame at one hearer; `spoilt` by another frame or by the hearer's own sending."""

    start: float
    end: float
    snr_db: float
    is_faded: bool
    spoilt: bool = False


@dataclass(slots=True)
class _Use:
    """Frames that a station sent or heard, as (end, airtime), and the sum of their airtimes."""

    window_s: float
    frames: deque[tuple[float, float]] = field(default_factory=deque)
    total_s: float = 0.0

    def add(self, end: float, airtime_s: float) -> None:
        """Count one frame."""
        self.frames.append((end, airtime_s))
        self.total_s += airtime_s

    def share(self, now: float) -> float:
        """Share of the window that was used, 0 to 1."""
        while self.frames and self.frames[0][0] <= now - self.window_s:
            self.total_s -= self.frames.popleft()[1]
        return min(1.0, max(0.0, self.total_s / self.window_s))


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
        crowded: bool = False,
        next_hops: bool = False,
    ) -> None:
        """Start with no station. `instant` leaves out airtime and back-off.

        On `crowded` air frames that overlap at a hearer spoil each other, a sending station hears
        nothing, a frame is sensed only after one contention slot, and stations wait by the channel
        use they measure, all as on real radios. With `next_hops` stations learn from ACKs who is
        to repeat for whom, and such a relay sends once more; the last bytes of all numbers differ.
        """
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
        self.crowded = crowded
        self.next_hops = next_hops
        self.spoilt = 0  #: frames that a hearer lost to another frame or to its own sending
        self._at_hearer: dict[int, list[_Reception]] = {}
        self._sending_until: dict[int, float] = {}
        self._use: dict[int, _Use] = {}
        self._own_use: dict[int, _Use] = {}

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

    def backoff_s(self, rng: random.Random, num: int = 0) -> float:
        """Draw the random wait of a station before an own transmission."""
        window = airtime.contention_window(self._felt_use(num))
        return self._slots(rng.randrange(2**window))

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

    def retransmit_s(self, size_bytes: int, num: int = 0) -> float:
        """Wait of a station before a frame without an ACK goes out again."""
        use = self._felt_use(num)
        return airtime.frame_retransmit_s(size_bytes, self.preset, channel_utilisation=use)

    def channel_use(self, num: int) -> float:
        """Share of the last minute in which a station sent or heard a frame, 0 to 1."""
        return self._share(self._use, num)

    def own_use(self, num: int) -> float:
        """Share of the last hour in which a station sent, 0 to 1."""
        return self._share(self._own_use, num)

    def _share(self, uses: dict[int, _Use], num: int) -> float:
        return uses[num].share(self.scheduler.now()) if num in uses else 0.0

    def _felt_use(self, num: int) -> float:
        return self.channel_use(num) if self.crowded else 0.0

    def busy_until(self, num: int) -> float:
        """Until when a station hears somebody send."""
        if not self.crowded:
            return self._busy_until.get(num, 0.0)
        sensed_from = self.scheduler.now() - airtime.PRESETS[self.preset].slot_s
        sensed = (r.end for r in self._current(num) if r.start <= sensed_from)
        return max(sensed, default=0.0)

    def transmit(self, sender: int, frame: Frame) -> float:
        """Send a frame to everybody in earshot and return how long it takes."""
        duration = self.frame_airtime_s(frame.size_bytes)
        now = self.scheduler.now()
        real_now = now / self._scale
        self.log.add(OnAir(sender, frame.packet, duration, now, real_now, frame.size_bytes))
        self._count(self._use, USE_WINDOW_S, sender, duration)
        self._count(self._own_use, OWN_WINDOW_S, sender, duration)
        if self.crowded:
            self._sending_until[sender] = now + duration
            for reception in self._current(sender):
                reception.spoilt = True
        for num, station in self._stations.items():
            if num != sender and self._in_earshot(sender, num):
                self._carry(frame, self.link(sender, num), station, duration)
        return duration

    def _in_earshot(self, source: int, target: int) -> bool:
        if (source, target) in self._links:
            link = self._links[source, target]
            return link is not None and link.in_reach
        return self.everyone_hears

    def _carry(self, frame: Frame, link: Link, station: Hearer, duration: float) -> None:
        end = self.scheduler.now() + duration
        self._busy_until[station.num] = max(self._busy_until.get(station.num, 0.0), end)
        delays = link.fates()
        if delays:
            self._count(self._use, USE_WINDOW_S, station.num, duration)
        reception = (
            self._receive(station.num, link.snr_db, end, is_faded=not delays)
            if self.crowded
            else None
        )
        for delay in delays:
            arrival = self._arrival(station, frame, link.snr_db, reception)
            self.scheduler.call_later(duration + delay, arrival)

    def _receive(self, num: int, snr_db: float, end: float, *, is_faded: bool) -> _Reception:
        """Let a frame begin at a hearer; it may spoil others there, or be spoilt by them.

        One that the link loses is too weak for either, but not to be sensed as a busy channel.
        """
        now = self.scheduler.now()
        is_deaf = self._sending_until.get(num, 0.0) > now
        reception = _Reception(now, end, snr_db, is_faded, spoilt=is_deaf)
        others = self._current(num)
        for other in others:
            if not (is_faded or other.is_faded):
                other.spoilt |= other.snr_db < snr_db + CAPTURE_DB
                reception.spoilt |= snr_db < other.snr_db + CAPTURE_DB
        others.append(reception)
        return reception

    def _current(self, num: int) -> list[_Reception]:
        now = self.scheduler.now()
        current = [r for r in self._at_hearer.get(num, ()) if r.end > now]
        self._at_hearer[num] = current
        return current

    def _count(self, uses: dict[int, _Use], window_s: float, num: int, airtime_s: float) -> None:
        use = uses.get(num)
        if use is None:
            use = uses[num] = _Use(window_s)
        now = self.scheduler.now()
        use.add(now + airtime_s, airtime_s)
        use.share(now)

    def _arrival(
        self, station: Hearer, frame: Frame, snr_db: float, reception: _Reception | None
    ) -> Callable[[], None]:
        def arrive() -> None:
            if reception is not None and reception.spoilt:
                self.spoilt += 1
            else:
                station.hear(frame, snr_db)

        return arrive
