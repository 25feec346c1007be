"""What can go wrong between a bridge and its radio, on purpose."""

from collections.abc import Callable

import pytest
from meshtastic.protobuf import mesh_pb2

from meshllm.sim import wire
from meshllm.sim.client import StreamClient
from meshllm.sim.framing import frame
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.outcome import Outcome
from meshllm.sim.packets import Heartbeat, Packet, Port, RoutingError
from meshllm.sim.people import Person

MakeMesh = Callable[..., SimMesh]
Connect = Callable[[SimRadio], StreamClient]


@pytest.fixture
def pair(make_mesh: MakeMesh) -> tuple[SimRadio, Person]:
    mesh = make_mesh()
    return mesh.add_radio(), mesh.add_person()


def dm(to: int, *, packet_id: int = 1, words: bytes = b"hello") -> Packet:
    return Packet(to=to, id=packet_id, payload=words, want_ack=True, hop_limit=3)


def results(client: StreamClient, count: int) -> list[tuple[int, int, RoutingError | None]]:
    """The next routing packets as (from, request id, error)."""
    packets = [client.packet(lambda p: p.port == Port.ROUTING) for _ in range(count)]
    return [(p.sender, p.request_id, wire.parse_routing(p.payload)) for p in packets]


def test_newest_client_evicts_the_older(pair: tuple[SimRadio, Person], connect: Connect) -> None:
    radio, _ = pair
    older = connect(radio)
    newer = connect(radio)

    assert older.read() is None
    newer.ask(Heartbeat())
    assert newer.queue_state().free == 16
    assert radio.connections == 2


def test_stalled_radio_answers_nothing_and_goes_on_where_it_was(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)

    radio.stall()
    client.send(dm(ada.num))
    ada.say("while stalled", to=radio)
    assert client.is_silent(0.1)
    radio.resume()

    kinds = [kind for kind, _ in client.read_until(lambda m: m[0] == "queueStatus")]
    assert "packet" in kinds
    assert ada.wait_for("hello", 5) is not None


def test_client_that_comes_during_a_stall_is_served_after_it(
    pair: tuple[SimRadio, Person],
) -> None:
    radio, _ = pair
    radio.stall()

    with StreamClient(radio.address) as client:
        client.ask(Heartbeat())
        assert client.is_silent(0.1)
        radio.resume()

        assert client.queue_state().free == 16


def test_half_open_link_swallows_everything_and_stays_open(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)

    radio.half_open()
    client.send(dm(ada.num))
    client.ask(Heartbeat())
    ada.wait_delivery(ada.say("lost", to=radio), 5)

    assert client.is_silent(0.1)
    assert radio.received == ()


def test_new_connection_works_beside_a_half_open_one(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    old = connect(radio)
    radio.half_open()
    ada.wait_delivery(ada.say("lost", to=radio), 5)

    new = connect(radio)
    ada.say("heard", to=radio)

    assert new.packet(lambda p: p.port == Port.TEXT).payload == b"heard"
    assert old.is_silent(0.05)


def test_cut_ends_the_connection_in_the_middle_of_a_frame(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, _ = pair
    client = connect(radio)

    radio.cut()

    assert client.read() is None


@pytest.mark.parametrize("at_byte", [0, 1, 2, 3, 4, 5, 20])
def test_packet_in_a_cut_frame_is_lost(
    pair: tuple[SimRadio, Person], connect: Connect, at_byte: int
) -> None:
    """The node takes a packet off its queue when it writes it, whether or not it arrives whole."""
    radio, ada = pair
    client = connect(radio)

    radio.cut(at_byte=at_byte)
    ada.say("cut off", to=radio)
    assert client.read() is None
    again = connect(radio)
    ada.say("whole", to=radio)

    assert again.packet(lambda p: p.port == Port.TEXT).payload == b"whole"


def test_disconnect_ends_the_connection_between_frames(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, _ = pair
    client = connect(radio)

    radio.disconnect()

    assert client.read() is None


def test_reboot_closes_the_port_for_a_while(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)

    radio.reboot(down_s=1e6)
    assert client.read() is None
    with pytest.raises(ConnectionRefusedError):
        StreamClient(radio.address)
    radio.switch_on()

    back = connect(radio)
    ada.say("welcome", to=radio)
    assert back.packet(lambda p: p.port == Port.TEXT).payload == b"welcome"


def test_reboot_on_a_kept_link_is_told_and_needs_a_new_configuration(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)

    radio.reboot(keep_link=True)
    assert client.read() == ("rebooted", True)
    ada.say("kept", to=radio)
    assert client.is_silent(0.1)
    client.configure()

    assert client.packet(lambda p: p.port == Port.TEXT).payload == b"kept"


def test_rebooted_radio_shows_a_repeat_again(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)
    ada.say("again", to=radio, packet_id=5)
    client.packet(lambda p: p.port == Port.TEXT)

    ada.say("again", to=radio, packet_id=5)
    assert ada.deliveries.wait_count(2, 5)
    radio.reboot(keep_link=True)
    client.configure()
    ada.say("again", to=radio, packet_id=5)

    assert client.packet(lambda p: p.port == Port.TEXT).id == 5


def test_radio_switched_off_is_neither_reached_nor_heard(pair: tuple[SimRadio, Person]) -> None:
    radio, ada = pair

    radio.switch_off()
    packet_id = ada.say("anyone?", to=radio)
    delivery = ada.wait_delivery(packet_id, 5)

    assert delivery is not None
    assert (delivery.error, delivery.reported_by) == (RoutingError.MAX_RETRANSMIT, ada.num)
    with pytest.raises(ConnectionRefusedError):
        StreamClient(radio.address)


def test_junk_between_all_frames_is_harmless(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    radio.junk = b"DEBUG | noise \x94 \xc3\n"
    client = connect(radio)

    client.send(dm(ada.num))

    assert client.queue_state().packet_id == 1


def test_raw_bytes_are_written_as_they_are(pair: tuple[SimRadio, Person], connect: Connect) -> None:
    radio, _ = pair
    client = connect(radio)

    radio.inject(b"junk" + frame(wire.rebooted()) + b"more")

    assert client.read() == ("rebooted", True)


@pytest.mark.parametrize(
    "packet",
    [
        Packet(sender=0, to=0, id=0),
        Packet(sender=7, to=0x51E0AA01, id=2**32 - 1, hop_limit=7, hop_start=0, rx_snr=-1e9),
        Packet(sender=7, to=0x51E0AA01, id=3, rx_time=2**32 - 1, rx_rssi=-(2**31), channel=255),
        Packet(sender=7, to=0x51E0AA01, id=4, port=511, payload=b"\0" * 233),
        Packet(sender=7, to=0x51E0AA01, id=5, port=0, encrypted=b"\xff" * 200),
    ],
)
def test_absurd_packets_reach_the_client_as_they_are(
    pair: tuple[SimRadio, Person], connect: Connect, packet: Packet
) -> None:
    radio, _ = pair
    client = connect(radio)

    radio.inject(packet)

    assert client.packet() == packet


def test_packet_that_no_wire_can_carry_is_refused_to_the_test(
    pair: tuple[SimRadio, Person],
) -> None:
    radio, _ = pair

    with pytest.raises(ValueError, match="range"):
        radio.inject(Packet(id=-1))


def test_full_send_queue_can_be_pretended(pair: tuple[SimRadio, Person], connect: Connect) -> None:
    radio, _ = pair
    client = connect(radio)

    radio.set_free(0)
    client.ask(Heartbeat())
    assert client.queue_state().free == 0
    radio.set_free(None)
    client.ask(Heartbeat())

    assert client.queue_state().free == 16


def test_queue_state_may_never_come(pair: tuple[SimRadio, Person], connect: Connect) -> None:
    radio, ada = pair
    radio.silence_queue_status()
    client = connect(radio)

    client.send(dm(ada.num))

    kind, ack = client.read_until(lambda _m: True)[0]
    assert (kind, ack.request_id) == ("packet", 1)
    client.ask(Heartbeat())
    assert client.queue_state().packet_id == 0


@pytest.mark.parametrize(
    ("outcome", "origins"),
    [
        (Outcome.acks("implicit", "explicit"), ["own", "far"]),
        (Outcome.acks("explicit", "implicit"), ["far", "own"]),
        (Outcome.acks("explicit", "explicit"), ["far", "far"]),
        (Outcome.acks("implicit"), ["own"]),
        (Outcome.acks("explicit", apart_s=0.0), ["far"]),
    ],
)
def test_acks_come_as_scripted(
    pair: tuple[SimRadio, Person], connect: Connect, outcome: Outcome, origins: list[str]
) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(outcome)

    client.send(dm(ada.num))

    wanted = [(radio.num if o == "own" else ada.num, 1, RoutingError.NONE) for o in origins]
    assert results(client, len(origins)) == wanted
    assert ada.wait_for("hello", 5) is not None
    assert client.is_silent(0.05)


def test_ack_may_be_missing_though_the_text_arrived(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(Outcome.acks())

    client.send(dm(ada.num))
    client.queue_state()

    assert ada.wait_for("hello", 5) is not None
    assert client.is_silent(0.1)


def test_stranger_ack_names_an_id_never_sent(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(Outcome.acks("stranger"))

    client.send(dm(ada.num))

    [(sender, request_id, error)] = results(client, 1)
    assert (sender, error) == (ada.num, RoutingError.NONE)
    assert request_id not in (0, 1)


@pytest.mark.parametrize("error", [error.name for error in RoutingError if error])
def test_every_nak_can_be_asked_for_by_name(
    pair: tuple[SimRadio, Person], connect: Connect, error: str
) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(Outcome.nak(error))

    client.send(dm(ada.num))

    assert results(client, 1) == [(radio.num, 1, RoutingError[error])]
    assert ada.heard == ()
    assert [entry for entry in radio.on_air if entry.packet.id == 1] == []


def test_nak_may_come_from_the_far_node(pair: tuple[SimRadio, Person], connect: Connect) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(Outcome.nak("NO_CHANNEL", far=True))

    client.send(dm(ada.num))

    assert results(client, 1) == [(ada.num, 1, RoutingError.NO_CHANNEL)]


def test_max_retransmit_may_come_though_the_text_arrived(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(Outcome.delivered_but_nak())

    client.send(dm(ada.num))

    assert results(client, 1) == [(radio.num, 1, RoutingError.MAX_RETRANSMIT)]
    assert ada.wait_for("hello", 5) is not None


@pytest.mark.parametrize("res", [9, 32, 33, 34])
def test_refusal_at_the_queue_reports_the_number(
    pair: tuple[SimRadio, Person], connect: Connect, res: int
) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(Outcome.refused(res, nak=False))

    client.send(dm(ada.num))

    assert client.queue_state().res == res
    assert client.is_silent(0.05)
    assert ada.heard == ()


def test_refusal_by_name_brings_the_nak_too(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    client = connect(radio)
    radio.script_next(Outcome.refused("DUTY_CYCLE_LIMIT"))

    client.send(dm(ada.num))

    assert client.queue_state().res == 9
    assert results(client, 1) == [(radio.num, 1, RoutingError.DUTY_CYCLE_LIMIT)]


def test_outcomes_are_used_in_order_by_texts_only(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh(1000.0)
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)
    radio.script_next(Outcome.lost().without_queue_status(), Outcome.natural())

    client.send(Packet(id=9, port=256, hop_limit=1), dm(ada.num, packet_id=1))
    client.ask(Heartbeat())
    assert {client.queue_state().packet_id for _ in range(2)} == {0, 9}
    again = connect(radio)
    again.send(dm(ada.num, packet_id=2))

    assert results(again, 1) == [(ada.num, 2, RoutingError.NONE)]
    assert [heard.packet_id for heard in ada.heard] == [2]


def test_malformed_frames_for_the_client_can_be_made(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, _ = pair
    client = connect(radio)

    radio.inject(frame(b"\xff\xff\xff"))

    with pytest.raises(wire.MalformedError):
        client.read()


def test_old_positions_can_be_replayed_after_the_configuration(
    pair: tuple[SimRadio, Person], connect: Connect
) -> None:
    radio, ada = pair
    payload = wire.position_payload(1.5, -2.5, altitude=9)
    radio.inject(Packet(sender=ada.num, id=5, port=Port.POSITION, payload=payload, rx_time=1))

    replayed = connect(radio).packet()

    position = mesh_pb2.Position.FromString(replayed.payload)
    assert (position.latitude_i, position.longitude_i, replayed.rx_time) == (15000000, -25000000, 1)
