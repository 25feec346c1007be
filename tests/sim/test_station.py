"""The router of a node, in virtual time: what the mesh does to a packet."""

import itertools

import pytest

from meshllm.sim import wire
from meshllm.sim.air import Air
from meshllm.sim.engine import VirtualTime
from meshllm.sim.packets import BROADCAST, ChannelSpec, Packet, Port, RoutingError
from meshllm.sim.station import HISTORY_SIZE, QUEUE_FULL, SHOULD_RELEASE
from tests.sim.world import A, B, C, World, make_world, text


def test_dm_to_a_neighbour_is_delivered_and_acked_by_the_addressee() -> None:
    world = make_world(A, B)

    assert world.stations[A].send(text(B)) == 0
    world.time.run(1.7)

    assert world.texts(B) == [b"hello"]
    assert world.results(A, 77) == [(B, RoutingError.NONE)]


def test_dm_arrives_with_everything_a_client_is_told() -> None:
    world = make_world(A, B)

    world.stations[A].send(text(B))
    world.time.run(5)

    heard = world.told[B][0]
    assert heard == Packet(
        sender=A,
        to=B,
        id=77,
        payload=b"hello",
        want_ack=True,
        bitfield=0,
        hop_limit=3,
        hop_start=3,
        pki=True,
        public_key=world.stations[A].user.public_key,
        rx_snr=6.0,
        rx_rssi=-104,
        relay_node=A & 0xFF,
    )


def test_receiver_of_a_text_is_told_of_an_ack_it_never_asked_for() -> None:
    """The ACK of a text wants an ACK itself, and its id means nothing to the client."""
    world = make_world(A, B)

    world.stations[A].send(text(B))
    world.time.run(10)

    routing = [p for p in world.told[B] if p.port == Port.ROUTING]
    assert [(p.sender, wire.parse_routing(p.payload)) for p in routing] == [(A, RoutingError.NONE)]
    assert routing[0].request_id != 77


@pytest.mark.parametrize(("size", "about_s"), [(20, 21.5), (200, 29.5)])
def test_three_transmissions_end_in_max_retransmit(size: int, about_s: float) -> None:
    world = make_world(A, B)
    world.stations[B].is_on = False

    world.stations[A].send(text(B, b"x" * size))
    world.time.run(about_s - 1)
    assert world.results(A, 77) == []
    world.time.run(3)

    assert world.results(A, 77) == [(A, RoutingError.MAX_RETRANSMIT)]
    assert len(world.transmissions(A, 77)) == 3


def test_max_retransmit_does_not_mean_not_delivered() -> None:
    world = make_world(A, B)
    world.air.cut(B, A)

    world.stations[A].send(text(B))
    world.time.run(60)

    assert world.texts(B) == [b"hello"]
    assert world.results(A, 77) == [(A, RoutingError.MAX_RETRANSMIT)]


def test_relayed_dm_brings_an_implicit_then_an_explicit_ack() -> None:
    world = make_world(A, C, B, in_line=True)

    world.stations[A].send(text(B))
    world.time.run(60)

    assert world.texts(B) == [b"hello"]
    assert world.results(A, 77) == [(A, RoutingError.NONE), (B, RoutingError.NONE)]
    assert len(world.transmissions(A, 77)) == 1


def test_lost_dm_behind_a_relay_is_only_ever_acked_implicitly() -> None:
    world = make_world(A, C, B, in_line=True)
    world.stations[B].is_on = False

    world.stations[A].send(text(B))
    world.time.run(120)

    assert world.results(A, 77) == [(A, RoutingError.NONE)]


def test_implicit_ack_has_no_signal_and_comes_from_the_own_node() -> None:
    world = make_world(A, C, B, in_line=True)

    world.stations[A].send(text(B))
    world.time.run(60)

    first = world.told[A][0]
    assert (first.sender, first.to, first.rx_snr, first.rx_rssi, first.hop_start) == (A, A, 0, 0, 0)


def test_repeat_heard_directly_is_not_shown_again_but_acked_again() -> None:
    world = make_world(A, B)

    for _ in range(2):
        world.stations[A].send(text(B))
        world.time.run(10)

    assert world.texts(B) == [b"hello"]
    assert world.results(A, 77) == [(B, RoutingError.NONE)] * 2


def test_repeat_that_comes_through_a_relay_brings_no_new_explicit_ack() -> None:
    world = make_world(A, C, B, in_line=True)

    for _ in range(2):
        world.stations[A].send(text(B))
        world.time.run(60)

    assert world.texts(B) == [b"hello"]
    assert world.results(A, 77).count((B, RoutingError.NONE)) == 1


def test_repeat_with_other_words_is_dropped_like_any_repeat() -> None:
    world = make_world(A, B)

    world.stations[A].send(text(B))
    world.time.run(10)
    world.stations[A].send(text(B, b"other words"))
    world.time.run(10)

    assert world.texts(B) == [b"hello"]


def test_reboot_of_the_receiver_makes_a_repeat_show_twice() -> None:
    world = make_world(A, B)

    world.stations[A].send(text(B))
    world.time.run(10)
    world.stations[B].reboot()
    world.stations[A].send(text(B))
    world.time.run(10)

    assert world.texts(B) == [b"hello", b"hello"]


def test_receiver_forgets_the_oldest_of_very_many() -> None:
    world = make_world(A, B)

    world.stations[A].send(text(B))
    world.time.run(10)
    for number in range(HISTORY_SIZE):
        world.stations[A].send(text(B, packet_id=1000 + number, want_ack=False))
        world.time.run(5)
    world.stations[A].send(text(B))
    world.time.run(10)

    assert world.texts(B).count(b"hello") == HISTORY_SIZE + 2


def test_broadcast_is_acked_by_whoever_repeats_it() -> None:
    world = make_world(A, C)

    world.stations[A].send(text(BROADCAST))
    world.time.run(30)

    assert world.results(A, 77) == [(A, RoutingError.NONE)]
    assert world.told[C][0].want_ack is False


def test_broadcast_that_nobody_repeats_ends_in_max_retransmit_though_heard() -> None:
    world = make_world(A, B)

    world.stations[A].send(text(BROADCAST, hops=1))
    world.air.cut(B, A)
    world.time.run(60)

    assert world.texts(B) == [b"hello"]
    assert world.results(A, 77) == [(A, RoutingError.MAX_RETRANSMIT)]


def test_without_want_ack_nothing_is_heard_of_a_dm() -> None:
    world = make_world(A, C, B, in_line=True)

    world.stations[A].send(text(B, want_ack=False))
    world.time.run(60)

    assert world.texts(B) == [b"hello"]
    assert world.told[A] == []


def test_hop_limit_zero_reaches_neighbours_only_unless_an_ack_is_wanted() -> None:
    world = make_world(A, C, B, in_line=True)

    world.stations[A].send(text(B, b"direct", packet_id=1, want_ack=False, hops=0))
    world.stations[A].send(text(B, b"default", packet_id=2, hops=0))
    world.time.run(60)

    assert world.texts(B) == [b"default"]


def test_hop_limit_ends_the_flood() -> None:
    nums = [0x51E0D001 + n for n in range(5)]
    world = make_world(*nums, in_line=True)

    world.stations[nums[0]].send(text(BROADCAST, want_ack=False, hops=2))
    world.time.run(120)

    assert [world.texts(num) for num in nums] == [[], [b"hello"], [b"hello"], [b"hello"], []]


@pytest.mark.parametrize(
    ("to", "reply_id", "limit"),
    [(B, 0, 220), (B, 9, 215), (BROADCAST, 0, 232), (BROADCAST, 9, 227)],
)
def test_text_above_the_radio_limit_is_refused_at_once(to: int, reply_id: int, limit: int) -> None:
    world = make_world(A, B)
    sizes = {limit: 1, limit + 1: 2}

    results = [
        world.stations[A].send(
            Packet(to=to, id=number, payload=b"x" * size, reply_id=reply_id, want_ack=True)
        )
        for size, number in sizes.items()
    ]
    world.time.run(0)

    assert results == [0, RoutingError.TOO_LARGE]
    assert world.results(A, 2) == [(A, RoutingError.TOO_LARGE)]
    world.time.run(30)
    assert [len(words) for words in world.texts(B)] == [limit]
    assert world.transmissions(A, 2) == []


def test_dm_to_a_node_without_known_key_is_refused_and_not_sent() -> None:
    world = make_world(A, B)
    world.stations[A].forget_key(B)

    assert world.stations[A].send(text(B)) == RoutingError.PKI_SEND_FAIL_PUBLIC_KEY
    world.time.run(30)

    assert world.results(A, 77) == [(A, RoutingError.PKI_SEND_FAIL_PUBLIC_KEY)]
    assert world.transmissions(A, 77) == []


@pytest.mark.parametrize("to", [0, 0x51E0FFFF])
def test_dm_to_nobody_is_refused_for_want_of_a_key(to: int) -> None:
    world = make_world(A, B)

    assert world.stations[A].send(text(to)) == RoutingError.PKI_SEND_FAIL_PUBLIC_KEY


def test_node_info_brings_the_missing_key() -> None:
    world = make_world(A, B)
    world.stations[A].forget_key(B)

    world.stations[B].broadcast_user()
    world.time.run(5)

    assert world.stations[A].send(text(B)) == 0


def test_receiver_without_our_key_says_so_and_is_introduced() -> None:
    world = make_world(A, B)
    world.stations[B].forget(A)

    world.stations[A].send(text(B))
    world.time.run(20)

    assert world.results(A, 77) == [(B, RoutingError.PKI_UNKNOWN_PUBKEY)]
    assert world.told[B][0].encrypted is not None
    world.stations[A].send(text(B, b"again", packet_id=78))
    world.time.run(20)
    assert world.texts(B) == [b"again"]


def test_receiver_with_a_new_key_cannot_be_reached_with_the_old_one() -> None:
    world = make_world(A, B)
    world.stations[B].wipe(b"n" * 32)

    world.stations[A].send(text(B))
    world.time.run(20)
    world.stations[B].broadcast_user()
    world.time.run(20)
    world.stations[A].send(text(B, packet_id=78))
    world.time.run(20)

    assert world.results(A, 77) == [(B, RoutingError.PKI_UNKNOWN_PUBKEY)]
    assert world.results(A, 78) == [(B, RoutingError.NO_CHANNEL)]
    assert world.texts(B) == []


def test_dm_from_a_node_with_a_new_key_reaches_the_client_undecoded() -> None:
    world = make_world(A, B)
    world.stations[B].wipe(b"n" * 32)
    world.stations[B].learn(world.stations[A].user)

    world.stations[B].send(text(A))
    world.time.run(20)

    assert world.results(B, 77) == [(A, RoutingError.NO_CHANNEL)]
    undecoded = world.told[A][0]
    assert undecoded.encrypted
    assert (undecoded.sender, undecoded.payload, undecoded.port) == (B, b"", 0)


def test_channel_is_shared_by_name_and_key_not_by_index() -> None:
    world = make_world()
    hiking = ChannelSpec("Hiking", b"secret")
    world.add(A, channels=(ChannelSpec(), hiking))
    world.add(B, channels=(hiking,))
    world.add(C, channels=(ChannelSpec(), ChannelSpec("Hiking", b"other")))

    world.stations[A].send(Packet(to=BROADCAST, id=5, channel=1, payload=b"walk"))
    world.time.run(10)

    assert [(p.channel, p.payload) for p in world.told[B]] == [(0, b"walk")]
    assert [(p.payload, p.encrypted is not None) for p in world.told[C]] == [(b"", True)]


def test_unnamed_channel_is_the_one_named_after_the_preset() -> None:
    world = make_world()
    world.add(A)
    world.add(B, channels=(ChannelSpec("LongFast"),))

    world.stations[A].send(text(BROADCAST, want_ack=False))
    world.time.run(10)

    assert world.texts(B) == [b"hello"]


def test_dm_on_a_further_channel_is_not_encrypted_for_one_node() -> None:
    world = make_world()
    channels = (ChannelSpec(), ChannelSpec("Hiking"))
    world.add(A, channels=channels)
    world.add(B, channels=channels)

    world.stations[A].send(Packet(to=B, id=5, channel=1, payload=b"walk"))
    world.time.run(10)

    assert [(p.channel, p.pki) for p in world.told[B]] == [(1, False)]


def test_channel_that_the_node_does_not_have_is_refused() -> None:
    world = make_world(A, B)

    assert world.stations[A].send(Packet(to=BROADCAST, id=5, channel=3)) == RoutingError.NO_CHANNEL
    assert world.results(A, 5) == [(A, RoutingError.NO_CHANNEL)]


def test_packet_to_the_own_node_is_acked_and_not_sent() -> None:
    world = make_world(A, B)

    assert world.stations[A].send(text(A)) == SHOULD_RELEASE
    world.time.run(30)

    assert world.results(A, 77) == [(A, RoutingError.NONE)]
    assert world.air.log.items() == ()


def test_full_send_queue_refuses() -> None:
    world = make_world(A, B)

    results = [world.stations[A].send(text(B, packet_id=n + 1, want_ack=False)) for n in range(17)]

    assert results == [0] * 16 + [QUEUE_FULL]
    assert world.stations[A].free == 0
    world.time.run(60)
    assert world.stations[A].free == 16
    assert len(world.texts(B)) == 16


def test_doubled_frames_are_shown_once() -> None:
    world = make_world(A, B)
    world.air.link(A, B).duplicate = 1.0

    world.stations[A].send(text(B))
    world.time.run(30)

    assert world.texts(B) == [b"hello"]
    assert world.results(A, 77).count((B, RoutingError.NONE)) == 2


def test_held_back_frames_arrive_after_later_ones() -> None:
    world = make_world(A, B, preset="SHORT_TURBO")
    world.air.link(A, B).reorder = 1.0
    world.stations[A].send(text(B, b"first", packet_id=1, want_ack=False))
    world.time.run(0.2)
    world.air.link(A, B).reorder = 0.0

    world.stations[A].send(text(B, b"second", packet_id=2, want_ack=False))
    world.time.run(30)

    assert world.texts(B) == [b"second", b"first"]


def lost_of(seed: int, count: int = 40) -> list[bool]:
    world = make_world(A, B, seed=seed)
    link = world.air.link(A, B)
    link.loss = 0.3
    return [not link.fates() for _ in range(count)]


def test_same_seed_loses_the_same_frames() -> None:
    assert lost_of(3) == lost_of(3)
    assert lost_of(3) != lost_of(4)
    assert 4 <= sum(lost_of(3)) <= 20


def test_fate_of_a_frame_does_not_hang_on_other_settings_of_the_link() -> None:
    plain, delayed = (make_world(A, B).air.link(A, B) for _ in range(2))
    plain.loss = delayed.loss = 0.5
    delayed.delay_s, delayed.reorder = 1.0, 0.5

    assert [not plain.fates() for _ in range(30)] == [not delayed.fates() for _ in range(30)]


def test_one_transmits_at_a_time() -> None:
    world = make_world(A, B, C)

    world.stations[A].send(text(BROADCAST, packet_id=1, want_ack=False))
    world.stations[B].send(text(BROADCAST, packet_id=2, want_ack=False))
    world.time.run(60)

    log = sorted(world.air.log.items(), key=lambda entry: entry.at)
    overlaps = [
        (one.node, two.node)
        for one, two in itertools.pairwise(log)
        if one.node != two.node and two.at < one.at + one.airtime_s
    ]
    assert overlaps in ([], [(A, B)], [(B, A)])


def test_forged_sender_is_heard_on_the_channel_without_proof() -> None:
    world = make_world(A, B, C)

    world.stations[C].forge(Packet(sender=B, to=A, id=5, payload=b"it is me", hop_limit=3))
    world.time.run(10)

    assert [(p.sender, p.payload, p.pki) for p in world.told[A]] == [(B, b"it is me", False)]


def test_dm_for_another_key_than_the_known_one_is_refused() -> None:
    world = make_world(A, B)

    wrong = Packet(to=B, id=5, payload=b"x", pki=True, public_key=b"w" * 32)

    assert world.stations[A].send(wrong) == RoutingError.PKI_FAILED


def test_instant_air_takes_no_time_and_needs_no_relay() -> None:
    time = VirtualTime()
    world = World(time, Air(time, instant=True))
    for num in (A, B, C):
        world.add(num)

    world.stations[A].send(text(B))
    world.time.run(0)
    assert world.results(A, 77) == [(B, RoutingError.NONE)]
    world.time.run(60)

    assert world.results(A, 77) == [(B, RoutingError.NONE)]
    assert world.transmissions(C, 77) == []
