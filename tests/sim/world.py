"""Some stations on one air in virtual time, and what each told its client."""

import itertools
from dataclasses import dataclass, field

from meshllm.sim import wire
from meshllm.sim.air import Air
from meshllm.sim.engine import VirtualTime
from meshllm.sim.packets import ChannelSpec, Packet, Port, RoutingError, User
from meshllm.sim.station import Station

A, B, C = 0x51E0AA01, 0x51E0BB01, 0x51E0CC01
PLAIN = (ChannelSpec(),)


@dataclass
class World:
    """Some stations on one air, and what each told its client."""

    time: VirtualTime
    air: Air
    stations: dict[int, Station] = field(default_factory=dict)
    told: dict[int, list[Packet]] = field(default_factory=dict)

    def add(
        self, num: int, *, channels: tuple[ChannelSpec, ...] = PLAIN, has_key: bool = True
    ) -> Station:
        key = num.to_bytes(32, "big") if has_key else b""
        user = User(num, f"Node {num:x}", "N", key)
        station = Station(self.air, user, channels, seed=1)
        self.told[num] = []
        station.to_client = self.told[num].append
        for other in self.stations.values():
            other.learn(user)
            station.learn(other.user)
        self.stations[num] = station
        return station

    def texts(self, num: int) -> list[bytes]:
        return [p.payload for p in self.told[num] if p.port == Port.TEXT]

    def results(self, num: int, request_id: int) -> list[tuple[int, RoutingError | None]]:
        return [
            (p.sender, wire.parse_routing(p.payload))
            for p in self.told[num]
            if p.port == Port.ROUTING and p.request_id == request_id
        ]

    def transmissions(self, num: int, packet_id: int) -> list[float]:
        return [e.at for e in self.air.log.items() if e.node == num and e.packet.id == packet_id]


def make_world(
    *nums: int,
    in_line: bool = False,
    preset: str = "LONG_FAST",
    seed: int = 1,
    crowded: bool = False,
    next_hops: bool = False,
) -> World:
    time = VirtualTime()
    air = Air(time, seed=seed, preset=preset, crowded=crowded, next_hops=next_hops)
    world = World(time, air)
    world.air.everyone_hears = not in_line
    for num in nums:
        world.add(num)
    for one, other in itertools.pairwise(nums) if in_line else ():
        world.air.link(one, other)
        world.air.link(other, one)
    return world


def text(
    to: int, words: bytes = b"hello", *, packet_id: int = 77, want_ack: bool = True, hops: int = 3
) -> Packet:
    return Packet(to=to, id=packet_id, payload=words, want_ack=want_ack, hop_limit=hops)
