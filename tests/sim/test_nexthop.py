"""Next hops: learnt from ACKs, repeated for once more, given up with the last repeat."""

import itertools

from meshllm.sim.nexthop import NextHops
from meshllm.sim.packets import BROADCAST, Packet
from tests.sim.world import World, make_world, text

A, R, S, B = 0x51E0AA01, 0x51E0CC11, 0x51E0CC12, 0x51E0BB02


def line(*nums: int) -> World:
    """Hear each other weakly, so that relays do not wait long before they repeat."""
    world = make_world(*nums, in_line=True, next_hops=True)
    for one, other in itertools.pairwise(nums):
        world.air.link(one, other).snr_db = world.air.link(other, one).snr_db = -12.0
    return world


def next_hops(world: World, packet_id: int, num: int) -> list[int]:
    return [
        item.packet.next_hop
        for item in world.air.log.items()
        if item.node == num and item.packet.id == packet_id
    ]


def test_the_first_text_goes_to_everybody_and_the_second_by_the_way_of_its_ack() -> None:
    world = line(A, R, S, B)

    for packet_id in (1, 2):
        world.stations[A].send(text(B, packet_id=packet_id))
        world.time.run(60)

    assert [next_hops(world, 1, num) for num in (A, R, S)] == [[0], [0], [0]]
    assert [next_hops(world, 2, num) for num in (A, R)] == [[R & 0xFF], [S & 0xFF]]
    assert world.texts(B) == [b"hello"] * 2


def test_the_last_relay_forgets_its_way_since_nobody_repeats_after_it() -> None:
    """Our ACK of the person's ACK wants none itself, so its last relay hears nothing more."""
    world = line(A, R, S, B)
    world.stations[A].send(text(B, packet_id=1))
    world.time.run(60)

    world.stations[A].send(text(B, packet_id=2))
    world.time.run(60)

    acks = [item for item in world.air.log.items() if item.node == S and item.packet.sender == A]
    assert [item.packet.next_hop for item in acks if item.packet.request_id][:2] == [B & 0xFF, 0]
    assert next_hops(world, 2, S) == [0]


def test_a_named_relay_sends_once_more_when_nobody_repeats_after_it() -> None:
    world = line(A, R, S, B)
    world.stations[A].send(text(B, packet_id=1))
    world.time.run(60)
    world.air.cut(R, S)

    world.stations[A].send(text(B, packet_id=2))
    world.time.run(60)

    assert next_hops(world, 2, R) == [S & 0xFF, 0], "the last repeat is for everybody"
    world.stations[A].send(text(B, packet_id=3))
    world.time.run(60)
    assert next_hops(world, 3, R) == [0], "the way is forgotten"


def test_a_relay_that_hears_the_next_one_repeat_is_content() -> None:
    world = line(A, R, S, B)
    for packet_id in (1, 2):
        world.stations[A].send(text(B, packet_id=packet_id))
        world.time.run(60)

    assert len(next_hops(world, 2, R)) == 1


def test_the_senders_last_transmission_is_for_everybody() -> None:
    world = line(A, R, B)
    world.stations[A].send(text(B, packet_id=1))
    world.time.run(60)
    world.air.cut(A, R)

    world.stations[A].send(text(B, packet_id=2))
    world.time.run(60)

    assert next_hops(world, 2, A) == [R & 0xFF, R & 0xFF, 0]


def test_a_bystander_does_not_repeat_what_names_another() -> None:
    world = make_world(A, R, S, next_hops=True)
    for here, there in ((A, B), (B, A), (S, B), (B, S)):
        world.air.cut(here, there)
    world.add(B)
    world.air.cut(R, A)
    world.air.link(R, A)
    for packet_id in (1, 2):
        world.stations[A].send(text(B, packet_id=packet_id))
        world.time.run(60)

    assert world.texts(B) == [b"hello"] * 2
    assert next_hops(world, 2, A) == [R & 0xFF]
    assert next_hops(world, 2, S) == []


def test_broadcasts_name_nobody_and_a_restart_forgets_every_way() -> None:
    world = line(A, R, B)
    world.stations[A].send(text(B, packet_id=1))
    world.time.run(60)

    world.stations[A].send(Packet(to=BROADCAST, id=2, payload=b"all", hop_limit=3))
    world.time.run(60)
    world.stations[A].reboot()
    world.stations[A].send(text(B, packet_id=3))
    world.time.run(60)

    assert next_hops(world, 2, A) == [0]
    assert next_hops(world, 3, A) == [0]


def test_without_the_option_no_hop_is_ever_named() -> None:
    world = make_world(A, R, B, in_line=True)
    for packet_id in (1, 2):
        world.stations[A].send(text(B, packet_id=packet_id))
        world.time.run(60)

    assert next_hops(world, 2, A) == [0]
    assert len(next_hops(world, 2, R)) == 1


def test_an_ack_by_a_node_that_did_not_repeat_after_us_teaches_nothing() -> None:
    """It may hear us badly, or not at all."""
    hops = NextHops(A, is_on=True, size=10)
    hops.sent(Packet(sender=A, to=B, id=1, hop_limit=3))
    ack = Packet(sender=B, to=A, id=2, request_id=1, hop_start=3, hop_limit=2, relay_node=S & 0xFF)

    hops.heard_again(Packet(sender=A, to=B, id=1, hop_limit=1, relay_node=S & 0xFF))
    hops.learn(ack)
    from_afar = hops.towards(B)
    hops.heard_again(Packet(sender=A, to=B, id=1, hop_limit=2, relay_node=S & 0xFF))
    hops.learn(ack)

    assert (from_afar, hops.towards(B)) == (0, S & 0xFF)
