"""The simulated mesh of one run: a line of nodes, their talking neighbours, a person who may leave.

Everything runs in virtual time on real stations; no thread, no socket. Knows no policy.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.delivery_scenario import Absence, Cell, Chatter, Scenario, Story
from meshllm.sim import wire
from meshllm.sim.air import Air
from meshllm.sim.engine import VirtualTime
from meshllm.sim.packets import BROADCAST, ChannelSpec, Packet, Port, User
from meshllm.sim.phone import PhoneSide
from meshllm.sim.station import Station

OURS: Final = 0x51E0AA01
PERSON: Final = 0x51E0BB02
_FIRST_RELAY: Final = 0x51E0CC11
_FIRST_NEIGHBOUR: Final = 0x51E0DD21  #: last bytes all differ, as next hops need
_CHANNELS: Final = (ChannelSpec(),)
_WALL: Final = 1_772_366_400  #: Unix seconds at the start, as the clock's


@dataclass(frozen=True, slots=True)
class Shown:
    """A text on the person's screen."""

    at: float
    text: str
    packet_id: int


class Line:
    """Our radio, the relays, the person's radio, and beside each of the line a neighbour."""

    def __init__(self, scenario: Scenario, cell: Cell, seed: int) -> None:
        self.time = VirtualTime()
        self.air = Air(
            self.time,
            seed=seed,
            preset=scenario.raw["radio"]["preset"],
            crowded=True,
            next_hops=bool(scenario.raw["radio"]["next_hops"]),
        )
        self.air.everyone_hears = False
        self.hop_limit = int(scenario.number("radio", "hop_limit"))
        self.shown: list[Shown] = []
        self.presence: list[tuple[float, str]] = []
        self._scenario = scenario
        self._rng = random.Random(f"line/{seed}")  # noqa: S311 - no secret
        relays = [_FIRST_RELAY + n for n in range(cell.hops - 1)]
        self.nodes = [self._station(num, seed) for num in (OURS, *relays, PERSON)]
        self.ours, self.person = self.nodes[0], self.nodes[-1]
        for one, other in zip(self.nodes, self.nodes[1:], strict=False):
            self._join(one, other, loss=cell.loss / 100)
        self.ours.learn(self.person.user)
        self.person.learn(self.ours.user)
        self.phone = PhoneSide(self.ours, scale=1.0, preset=self.air.preset)
        self.person.to_client = self._show
        self._neighbours(cell, seed)

    def _station(self, num: int, seed: int) -> Station:
        user = User(num, f"Node {num:x}", f"{num & 0xFFFF:04x}", num.to_bytes(32, "big"))
        return Station(
            self.air, user, _CHANNELS, seed=seed, wall=lambda: _WALL + int(self.time.now())
        )

    def _join(self, one: Station, other: Station, *, loss: float) -> None:
        for source, target in ((one, other), (other, one)):
            link = self.air.link(source.num, target.num)
            link.loss = loss
            link.snr_db = self._rng.uniform(*self._scenario.span("radio", "snr_db"))

    def _neighbours(self, cell: Cell, seed: int) -> None:
        """Put a talker beside our node and each relay; it repeats for nobody."""
        rate = self._scenario.chatter_rate(cell)
        for number, node in enumerate(self.nodes[:-1]):
            talker = self._station(_FIRST_NEIGHBOUR + number, seed)
            talker.relays = False
            self._join(node, talker, loss=self._scenario.number("air", "local_loss"))
            rng = random.Random(f"talk/{seed}/{number}")  # noqa: S311 - no secret
            _Talk(self.time, talker, self._scenario.chatter, rate, rng).start()

    def _show(self, packet: Packet) -> None:
        if packet.port == Port.TEXT and packet.encrypted is None and packet.to == PERSON:
            self.shown.append(Shown(self.time.now(), packet.text or "", packet.id))

    def live(self, story: Story) -> None:
        """Let the person come, go and be heard of as the story says."""
        for absence in story.absences:
            self.time.call_later(absence.start, lambda a=absence: self._leave(a))  # type: ignore[misc]
            self.time.call_later(absence.end, lambda a=absence: self._return(a))  # type: ignore[misc]
        for name, port in (
            ("position_s", Port.POSITION),
            ("telemetry_s", Port.TELEMETRY),
            ("nodeinfo_s", Port.NODEINFO),
        ):
            every_s = self._scenario.number("people", name)
            self.time.call_later(self._rng.uniform(0, every_s), self._sign(port, every_s))

    def _leave(self, absence: Absence) -> None:
        self._reach(is_there=False)
        self.presence.append((self.time.now(), "person leaves" + " (radio off)" * absence.off))
        if absence.off:
            self.person.reboot()
            self.person.is_on = False

    def _return(self, absence: Absence) -> None:
        self._reach(is_there=True)
        self.presence.append((self.time.now(), "person returns" + " (radio on)" * absence.off))
        if absence.off:
            self.person.is_on = True
            self.time.call_later(
                self._scenario.number("people", "boot_s"), self.person.broadcast_user
            )

    def _reach(self, *, is_there: bool) -> None:
        last = self.nodes[-2].num
        for source, target in ((last, PERSON), (PERSON, last)):
            self.air.link(source, target).in_reach = is_there

    def _sign(self, port: Port, every_s: float) -> Callable[[], None]:
        """Broadcast something of the person's radio now, and again and again."""

        def broadcast() -> None:
            if self.person.is_on:
                self.person.send(
                    Packet(
                        to=BROADCAST,
                        id=self.person.new_id(),
                        port=port,
                        payload=_sign_payload(port, self.person.user),
                        hop_limit=self.hop_limit,
                    )
                )
            jitter = self._scenario.number("people", "jitter")
            self.time.call_later(every_s * self._rng.uniform(1 - jitter, 1 + jitter), broadcast)

        return broadcast


def _sign_payload(port: Port, user: User) -> bytes:
    if port == Port.POSITION:
        return wire.position_payload(47.0, 11.0, altitude=800)
    if port == Port.TELEMETRY:
        return wire.telemetry_payload(battery=80, voltage=3.9, channel_utilisation=10.0)
    return wire.user_payload(user)


class _Talk:
    """One neighbour's packets: Poisson in time, kinds and sizes by their shares."""

    def __init__(
        self,
        time: VirtualTime,
        station: Station,
        kinds: tuple[Chatter, ...],
        rate: float,
        rng: random.Random,
    ) -> None:
        self._time, self._station, self._rate, self._rng = time, station, rate, rng
        self._kinds = kinds
        self._shares = [kind.share for kind in kinds]

    def start(self) -> None:
        """Draw when the next packet is due."""
        self._time.call_later(self._rng.expovariate(self._rate), self._say)

    def _say(self) -> None:
        kind = self._rng.choices(self._kinds, self._shares)[0]
        size = self._rng.randint(kind.least_bytes, kind.most_bytes)
        # The bytes of a real position or name are of no meaning here, their number is.
        packet = Packet(
            to=BROADCAST,
            id=self._station.new_id(),
            port=kind.port,
            payload=b"." * size,
            hop_limit=3,
        )
        self._station.send(packet)
        self.start()
