"""The node's side of the client protocol, over a real socket."""

import threading
from collections.abc import Callable

import pytest
from meshtastic.protobuf import mesh_pb2

from meshllm.sim import wire
from meshllm.sim.client import StreamClient
from meshllm.sim.framing import frame
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.packets import (
    BROADCAST,
    Disconnect,
    Heartbeat,
    Packet,
    Port,
    QueueStatus,
    RoutingError,
    SendPacket,
    Unhandled,
    WantConfig,
)

MakeMesh = Callable[..., SimMesh]
Connect = Callable[[SimRadio], StreamClient]


def dm(to: int, words: bytes = b"hello", *, packet_id: int = 1, sender: int = 0) -> Packet:
    return Packet(sender=sender, to=to, id=packet_id, payload=words, want_ack=True, hop_limit=3)


def pass_time(mesh: SimMesh, seconds: float) -> None:
    passed = threading.Event()
    mesh.engine.call(lambda: mesh.engine.call_later(seconds, passed.set))
    assert passed.wait(10)


def verdicts(radio: SimRadio) -> list[str]:
    return [item.verdict for item in radio.received]


def test_configuration_comes_in_the_order_of_the_firmware(make_mesh: MakeMesh) -> None:
    mesh = make_mesh()
    radio, _ = mesh.add_radio(), mesh.add_person()

    with StreamClient(radio.address) as client:
        kinds = [kind for kind, _ in client.configure(123456)]

    order = list(dict.fromkeys(kinds))
    assert order == [
        "my_info",
        "deviceuiConfig",
        "node_info",
        "metadata",
        "channel",
        "config",
        "moduleConfig",
        "fileInfo",
        "config_complete_id",
    ]
    assert kinds[:4] == ["my_info", "deviceuiConfig", "node_info", "metadata"]
    assert (kinds.count("channel"), kinds.count("config")) == (8, 10)
    assert kinds[-4:] == ["node_info", "fileInfo", "fileInfo", "config_complete_id"]


@pytest.mark.parametrize(
    ("nonce", "own", "others", "files"),
    [(69420, True, False, True), (69421, False, True, False), (5, True, True, True)],
)
def test_special_nonces_ask_for_a_part(
    make_mesh: MakeMesh, nonce: int, own: bool, others: bool, files: bool
) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()

    with StreamClient(radio.address) as client:
        messages = client.configure(nonce)

    kinds = {kind for kind, _ in messages}
    nodes = [value.num for kind, value in messages if kind == "node_info"]
    assert ("my_info" in kinds, "fileInfo" in kinds) == (own, files)
    assert nodes == [radio.num, ada.num] if others else [radio.num]


def test_configuration_tells_name_key_preset_and_channels(make_mesh: MakeMesh) -> None:
    radio = make_mesh().add_radio("Base Camp", channels=["", "Hiking"])

    with StreamClient(radio.address) as client:
        messages = client.configure()

    own = next(value for kind, value in messages if kind == "node_info")
    lora = next(v.lora for kind, v in messages if kind == "config" and v.HasField("lora"))
    channels = [(v.settings.name, v.role) for kind, v in messages if kind == "channel"]
    assert (own.user.id, own.user.long_name, own.user.short_name) == (
        "!51e0aa01",
        "Base Camp",
        "BC",
    )
    assert len(own.user.public_key) == 32
    assert (lora.hop_limit, lora.modem_preset, lora.region) == (3, 0, 1)
    assert channels == [("", 1), ("Hiking", 2)] + [("", 0)] * 6


def test_nothing_but_configuration_comes_before_its_end(make_mesh: MakeMesh) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    assert ada.wait_delivery(ada.say("early", to=radio), 5) is not None

    with StreamClient(radio.address) as client:
        before = [kind for kind, _ in client.configure()]
        heard = client.packet()

    assert "packet" not in before
    assert heard.payload == b"early"


def test_junk_and_wake_bytes_are_skipped(make_mesh: MakeMesh) -> None:
    radio = make_mesh().add_radio()

    with StreamClient(radio.address) as client:
        client.write(b"\xc3" * 32 + b"junk\x94\x00\x94\xc3\xff\xff more junk")
        client.configure(9)
        client.write(b"\x00\x01")
        client.ask(Heartbeat())

        assert client.queue_state() == QueueStatus(0, 16, 16)


@pytest.mark.parametrize("cut", [1, 3, 4, 7])
def test_request_may_come_in_pieces(make_mesh: MakeMesh, cut: int) -> None:
    radio = make_mesh().add_radio()
    whole = frame(wire.request_bytes(Heartbeat(nonce=7)))
    whole += frame(wire.request_bytes(WantConfig(8)))

    with StreamClient(radio.address) as client:
        client.write(whole[:cut])
        assert client.is_silent(0.02)
        client.write(whole[cut:])

        assert client.queue_state() == QueueStatus(0, 16, 16)


def test_unreadable_requests_are_passed_over(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)
    longest = mesh_pb2.ToRadio()
    longest.packet.to = ada.num
    longest.packet.id = 5
    longest.packet.decoded.payload = b"x" * (wire.MAX_PAYLOAD_BYTES + 1)

    client.write(frame(b"\xff\xff\xff"))
    client.write(frame(longest.SerializeToString()))
    client.write(frame(b""))
    client.ask(Unhandled("xmodemPacket"), Heartbeat())

    assert client.queue_state() == QueueStatus(0, 16, 16)
    assert client.is_silent(0.05)
    assert verdicts(radio) == ["unreadable", "unreadable"]


def test_heartbeats_of_one_piece_are_answered_once(make_mesh: MakeMesh, connect: Connect) -> None:
    client = connect(make_mesh().add_radio())

    client.ask(Heartbeat(), Heartbeat(), Heartbeat())

    assert client.queue_state() == QueueStatus(0, 16, 16)
    assert client.is_silent(0.05)


def test_heartbeat_with_nonce_one_makes_the_node_present_itself(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    mesh = make_mesh()
    radio = mesh.add_radio()
    ada = mesh.add_person(introduced=False)

    connect(radio).ask(Heartbeat(nonce=1))

    assert ada.packets.wait_for(lambda p: p.port == Port.NODEINFO, 5) is not None
    assert ada.station.key_of(radio.num) == radio.station.user.public_key


def test_accepted_packet_is_answered_with_its_id_and_one_place_less(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    mesh = make_mesh(instant_air=False)
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    client.send(dm(ada.num))

    assert client.queue_state() == QueueStatus(0, 15, 16, 1)
    assert ada.wait_for("hello", 5) is not None


def test_packet_without_id_gets_one(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    client.send(dm(ada.num, packet_id=0))

    heard = ada.wait_for("hello", 5)
    assert heard is not None
    assert client.queue_state().packet_id == heard.packet_id != 0


def test_own_texts_are_not_echoed(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    client.send(dm(ada.num))
    client.packet(lambda p: p.port == Port.ROUTING)
    ada.say("the end", to=radio)

    assert client.packet(lambda p: p.port == Port.TEXT).payload == b"the end"


def test_only_the_newest_two_queue_states_of_a_burst_come(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    mesh = make_mesh()
    client = connect(mesh.add_radio())

    client.send(*(Packet(id=n, port=256, hop_limit=1) for n in (1, 2, 3, 4)))

    assert [client.queue_state().packet_id for _ in range(2)] == [3, 4]
    assert client.is_silent(0.05)


def test_repeated_id_is_swallowed_on_the_same_connection_only(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)
    client.send(dm(ada.num))
    client.packet(lambda p: p.request_id == 1)

    client.send(dm(ada.num))
    assert client.is_silent(0.1)
    again = connect(radio)
    again.send(dm(ada.num))

    assert again.queue_state().packet_id == 1
    assert again.packet(lambda p: p.request_id == 1).sender == ada.num
    assert verdicts(radio) == ["accepted", "repeated", "accepted"]
    assert len(ada.heard) == 1


def test_only_twenty_ids_are_remembered(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio = mesh.add_radio()
    client = connect(radio)

    for number in (*range(1, 22), 2, 1):
        client.send(Packet(id=number, port=256, hop_limit=1))
    assert radio.phone.handed.wait_count(23, 5)

    assert [item.packet.id for item in radio.received if item.verdict == "repeated"] == [2]


def test_second_text_within_two_seconds_is_dropped_and_looks_accepted(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    mesh = make_mesh(10.0, instant_air=False)
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    client.send(dm(ada.num, b"one", packet_id=1), dm(ada.num, b"two", packet_id=2))
    states = [client.queue_state() for _ in range(2)]
    client.packet(lambda p: p.request_id == 1)

    assert [(s.res, s.packet_id) for s in states] == [(0, 1), (0, 2)]
    assert verdicts(radio) == ["accepted", "too_soon"]
    assert [heard.text for heard in ada.heard] == ["one"]


def test_dropped_text_is_refused_openly_only_to_a_client_that_names_itself(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    mesh = make_mesh(1.0)
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)
    me = radio.num

    client.send(dm(ada.num, packet_id=1), dm(ada.num, packet_id=2))
    client.send(dm(ada.num, packet_id=3, sender=me))
    refusal = client.packet(lambda p: p.request_id in (2, 3))

    assert (refusal.sender, refusal.request_id) == (me, 3)
    assert wire.parse_routing(refusal.payload) is RoutingError.RATE_LIMIT_EXCEEDED
    lost = mesh.air.log.wait_for(lambda entry: entry.packet.request_id == 2, 5)
    assert lost is not None
    assert lost.packet.to == 0


def test_text_after_two_seconds_is_sent(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh(50.0)
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    client.send(dm(ada.num, b"one", packet_id=1))
    assert ada.wait_for("one", 5) is not None
    pass_time(mesh, 2.5)
    client.send(dm(ada.num, b"two", packet_id=2))

    assert ada.wait_for("two", 5) is not None


def test_traceroute_too_soon_brings_a_notice(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh(1.0)
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    client.send(*(Packet(to=ada.num, id=n, port=Port.TRACEROUTE, hop_limit=3) for n in (1, 2)))
    notice = client.read_until(lambda m: m[0] == "clientNotification")[-1][1]

    assert notice.reply_id == 2
    assert verdicts(radio) == ["accepted", "too_soon"]


def test_position_of_the_client_is_limited_too(make_mesh: MakeMesh, connect: Connect) -> None:
    radio = make_mesh(1.0).add_radio()
    client = connect(radio)

    client.send(*(Packet(id=n, port=Port.POSITION, hop_limit=3) for n in (1, 2)))
    client.queue_state()

    assert verdicts(radio) == ["accepted", "too_soon"]


@pytest.mark.parametrize(
    ("to_ada", "size", "res"),
    [(True, 221, RoutingError.TOO_LARGE), (False, 233, 7), (False, 234, 7), (True, 220, 0)],
)
def test_too_large_is_told_twice_at_once(
    make_mesh: MakeMesh, connect: Connect, to_ada: bool, size: int, res: int
) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    client.send(dm(ada.num if to_ada else BROADCAST, b"x" * size))

    assert client.queue_state().res == res
    if res:
        refusal = client.packet()
        assert (refusal.sender, refusal.to, refusal.request_id) == (radio.num, radio.num, 1)
        assert wire.parse_routing(refusal.payload) is RoutingError.TOO_LARGE
        assert verdicts(radio) == ["refused"]


def test_unknown_key_is_refused_at_the_queue(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    radio.forget_key(ada.num)
    client = connect(radio)

    client.send(dm(ada.num))

    assert client.queue_state() == QueueStatus(39, 16, 16, 1)
    refusal = client.packet()
    assert wire.parse_routing(refusal.payload) is RoutingError.PKI_SEND_FAIL_PUBLIC_KEY


def test_texts_for_an_absent_client_are_kept_and_delivered_once(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    ids = [ada.say(f"text {n}", to=radio) for n in range(3)]
    assert all(ada.wait_delivery(packet_id, 5) for packet_id in ids)

    first = connect(radio)
    texts = [first.packet(lambda p: p.port == Port.TEXT).payload for _ in range(3)]
    second = connect(radio)

    assert texts == [b"text 0", b"text 1", b"text 2"]
    assert second.is_silent(0.05)


def test_full_client_queue_drops_the_oldest_for_a_text_and_anything_else_itself(
    make_mesh: MakeMesh, connect: Connect
) -> None:
    radio = make_mesh().add_radio()
    for number in range(1, 35):
        radio.inject(Packet(sender=9, to=radio.num, id=number, payload=b"t"))
    radio.inject(Packet(sender=9, to=radio.num, id=99, port=Port.POSITION))

    client = connect(radio)
    ids = [client.packet().id for _ in range(32)]

    assert ids == list(range(3, 35))
    assert client.is_silent(0.05)


def test_kept_texts_die_with_a_reboot(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    delivery = ada.wait_delivery(ada.say("lost", to=radio), 5)

    radio.reboot(keep_link=True)
    ada.say("kept", to=radio)

    assert delivery is not None
    assert (delivery.error, delivery.reported_by) == (RoutingError.NONE, radio.num)
    assert connect(radio).packet(lambda p: p.port == Port.TEXT).payload == b"kept"


def test_goodbye_ends_the_connection(make_mesh: MakeMesh, connect: Connect) -> None:
    radio = make_mesh().add_radio()
    client = connect(radio)

    client.ask(Disconnect(), Heartbeat())

    assert client.read() is None


def test_silent_client_is_put_out_after_fifteen_minutes(make_mesh: MakeMesh) -> None:
    radio = make_mesh(1000.0).add_radio()

    with StreamClient(radio.address, timeout_s=5.0) as client:
        client.configure()

        assert client.read() is None


def test_node_without_a_clock_gives_no_receive_time(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    timeless, timed = mesh.add_radio(has_clock=False), mesh.add_radio("Hill Top")
    ada = mesh.add_person()

    ada.say("all")

    times = [connect(radio).packet().rx_time for radio in (timeless, timed)]
    assert times[0] == 0
    assert times[1] > 1_500_000_000


def test_invalid_utf8_reaches_the_client_untouched(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    packet_id = ada.say(b"caf\xe9\xff", to=radio)

    assert client.packet(lambda p: p.port == Port.TEXT).payload == b"caf\xe9\xff"
    assert ada.wait_delivery(packet_id, 5) is not None


def test_encrypted_packet_of_a_client_is_not_sent(make_mesh: MakeMesh, connect: Connect) -> None:
    radio = make_mesh().add_radio()
    client = connect(radio)

    client.ask(SendPacket(Packet(id=1, encrypted=b"secret")), Heartbeat())
    client.queue_state()

    assert verdicts(radio) == ["unreadable"]
