"""Crowded air: what overlapping frames do to each other, and how busy a station finds its channel.

Frames are put on the air by hand, so that they begin when the test says.
"""

import random
from dataclasses import dataclass, field

import pytest

from meshllm.airtime import PRESETS
from meshllm.sim.air import Air, Frame
from meshllm.sim.engine import VirtualTime
from meshllm.sim.packets import ChannelSpec, Packet, Port
from tests.sim.world import A, B, C, make_world, text

SIZE_BYTES = 50
SLOT_S = PRESETS["LONG_FAST"].slot_s


@dataclass
class Ear:
    """A hearer that notes what reaches it."""

    num: int
    heard: list[int] = field(default_factory=list)

    def hear(self, frame: Frame, snr_db: float) -> None:
        self.heard.append(frame.packet.sender)


class World:
    """Ears A, B and C; nobody sends unless told to."""

    def __init__(self, *, crowded: bool = True) -> None:
        self.time = VirtualTime()
        self.air = Air(self.time, crowded=crowded)
        self.ears = {num: Ear(num) for num in (A, B, C)}
        for ear in self.ears.values():
            self.air.join(ear)

    def send(self, sender: int, *, at: float) -> None:
        frame = Frame(Packet(sender=sender, id=sender), ChannelSpec(), SIZE_BYTES)

        def transmit() -> None:
            self.air.transmit(sender, frame)

        self.time.call_later(at, transmit)

    def strength(self, source: int, target: int, snr_db: float) -> None:
        self.air.link(source, target).snr_db = snr_db

    @property
    def frame_s(self) -> float:
        return self.air.frame_airtime_s(SIZE_BYTES)


def test_two_equal_frames_that_overlap_are_both_lost() -> None:
    world = World()

    world.send(A, at=0)
    world.send(B, at=world.frame_s - 0.01)
    world.time.run(10)

    assert world.ears[C].heard == []
    assert world.air.spoilt == 4, "both at C, and each at the sender of the other"


def test_frames_one_after_the_other_both_arrive() -> None:
    world = World()

    world.send(A, at=0)
    world.send(B, at=world.frame_s + 0.01)
    world.time.run(10)

    assert world.ears[C].heard == [A, B]


@pytest.mark.parametrize(("other_db", "heard"), [(0.0, [B]), (0.1, [])], ids=["6 dB", "5.9 dB"])
def test_a_frame_six_decibels_stronger_is_read_all_the_same(
    other_db: float, heard: list[int]
) -> None:
    world = World()
    world.strength(A, C, other_db)
    world.strength(B, C, 6.0)

    world.send(A, at=0)
    world.send(B, at=0.1)
    world.time.run(10)

    assert world.ears[C].heard == heard


def test_a_frame_that_its_link_loses_spoils_no_other() -> None:
    world = World()
    world.air.link(A, C).loss = 1.0

    world.send(A, at=0)
    world.send(B, at=0.1)
    world.time.run(10)

    assert world.ears[C].heard == [B]
    assert world.air.channel_use(C) == pytest.approx(world.frame_s / 60), "one frame, not two"


@pytest.mark.parametrize("own_at", [0.1, -0.1], ids=["begun later", "begun before"])
def test_a_sending_station_hears_nothing(own_at: float) -> None:
    world = World()

    world.send(A, at=1.0)
    world.send(C, at=1.0 + own_at)
    world.time.run(10)

    assert world.ears[C].heard == []


def test_hidden_from_each_other_two_senders_meet_at_the_one_between() -> None:
    world = World()
    world.air.cut(A, C)
    world.air.cut(C, A)

    world.send(A, at=0)
    world.send(C, at=0.3)
    world.time.run(10)

    assert world.ears[B].heard == []


def test_without_crowding_nothing_is_spoilt() -> None:
    world = World(crowded=False)

    world.send(A, at=0)
    world.send(B, at=0)
    world.time.run(10)

    assert (world.ears[C].heard, world.air.spoilt) == ([A, B], 0)


def test_a_frame_is_sensed_after_one_slot_and_until_its_end() -> None:
    world = World()
    busy: list[float] = []

    world.send(A, at=1.0)
    for at in (1.0 + SLOT_S / 2, 1.0 + 1.5 * SLOT_S, 1.0 + world.frame_s + 0.001):
        world.time.call_later(at, lambda: busy.append(world.air.busy_until(C)))
    world.time.run(10)

    assert busy == [0.0, pytest.approx(1.0 + world.frame_s), 0.0]


def test_channel_use_is_what_was_sent_and_heard_in_the_last_minute() -> None:
    world = World()

    world.send(A, at=0)
    world.send(C, at=2)
    world.time.run(59)
    both = world.air.channel_use(C)
    world.time.run(2)

    assert both == pytest.approx(2 * world.frame_s / 60)
    assert world.air.channel_use(C) == pytest.approx(world.frame_s / 60)
    assert world.air.own_use(C) == pytest.approx(world.frame_s / 3600)
    assert world.air.own_use(B) == 0


def test_on_a_used_channel_stations_wait_longer() -> None:
    world = World()
    idle_s = world.air.retransmit_s(SIZE_BYTES, C)
    rng = random.Random(1)
    idle = max(world.air.backoff_s(rng, C) for _ in range(200))

    for number in range(40):
        world.send(A, at=number)
    world.time.run(41)

    assert world.air.channel_use(C) > 0.4
    assert world.air.retransmit_s(SIZE_BYTES, C) > idle_s
    assert max(world.air.backoff_s(rng, C) for _ in range(200)) > idle


def test_out_of_reach_nothing_arrives_and_back_the_link_goes_on_where_it_was() -> None:
    arrived: list[list[bool]] = []
    for pause in (0, 7):
        world = World()
        link = world.air.link(A, C)
        link.loss = 0.5
        fates = []
        for number in range(40 + pause):
            link.in_reach = not 20 <= number < 20 + pause
            before = len(world.ears[C].heard)
            world.send(A, at=0)
            world.time.run(1)
            fates.append(len(world.ears[C].heard) > before)
        assert not any(fates[20 : 20 + pause])
        arrived.append(fates[:20] + fates[20 + pause :])

    assert arrived[0] == arrived[1]
    assert 5 < sum(arrived[0]) < 35


def test_a_mute_station_hears_and_answers_but_repeats_nothing() -> None:
    world = make_world(A, C, B, in_line=True)
    world.stations[C].relays = False

    world.stations[A].send(text(B, packet_id=1))
    world.stations[A].send(text(C, packet_id=2))
    world.time.run(60)

    assert world.texts(B) == []
    assert world.texts(C) == [b"hello"]
    assert world.transmissions(C, 1) == []


def test_a_repeated_id_gets_past_the_first_relay_and_not_past_the_second() -> None:
    """The second relay hears the repeat from the first, not from its originator."""
    relays = [0x51E0CC11, 0x51E0CC12]
    world = make_world(A, *relays, B, in_line=True)
    world.stations[B].is_on = False
    world.stations[A].send(text(B))
    world.time.run(60)
    world.stations[B].is_on = True

    world.stations[A].send(text(B))
    world.time.run(60)

    assert [len(world.transmissions(num, 77)) for num in relays] == [2, 1]
    assert world.texts(B) == []


def test_the_ack_of_a_text_is_sent_again_until_somebody_repeats_it() -> None:
    world = make_world(A, C, B, in_line=True)
    world.air.cut(B, C)

    world.stations[A].send(text(B))
    world.time.run(60)

    sent = [item.packet.port for item in world.air.log.items() if item.node == B]
    assert world.texts(B) == [b"hello"]
    assert sent == [Port.ROUTING] * 3
