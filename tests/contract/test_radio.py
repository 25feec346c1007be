"""What a radio promises the bridge: the fake, the library on a simulated mesh, real firmware.

With MESHTASTICD (HOST:PORT of a node in simulator mode, or the path of a `meshtasticd` program)
the cases that need no second node run against real firmware, too. Not covered against firmware:
whatever needs a second node (texts heard, ACKs, keys learnt), its list of ids (simulator mode
keeps none), serial and Bluetooth (the native build serves TCP alone).
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from meshllm.clock import SystemClock
from meshllm.config.links import Link
from meshllm.errors import LinkDownError, RadioBusyError
from meshllm.radio import device as device_module
from meshllm.radio.base import (
    BROADCAST,
    Channel,
    LinkLost,
    QueueStatus,
    RoutingHeard,
    TextHeard,
    UserHeard,
)
from meshllm.radio.device import DeviceRadio
from meshllm.sim import wire
from meshllm.sim.packets import Port
from tests.contract.ble_world import BLE
from tests.contract.worlds import (
    ADA,
    FAKE,
    FIRMWARE,
    LIMIT_S,
    SLOW_SERIAL,
    TCP,
    FakeWorld,
    Inbox,
    SimWorld,
    World,
    text,
)

ALL = pytest.mark.parametrize("world", [FAKE, TCP, SLOW_SERIAL, BLE, FIRMWARE], indirect=True)
#: Where a fresh connection knows no ids, and a newer client puts the older one out.
TCP_ALONE = pytest.mark.parametrize("world", [FAKE, TCP, FIRMWARE], indirect=True)


@ALL
def test_a_connection_tells_who_the_radio_is(world: World) -> None:
    info = world.radio().connect()

    assert info.number != 0
    assert info.preset == "LONG_FAST"
    assert info.channels[0].role == "PRIMARY"
    assert info.firmware


def test_named_channels_and_our_own_names_are_told() -> None:
    for kind in (FakeWorld, SimWorld):
        with ExitStack() as stack:
            info = kind(stack).radio().connect()
            assert (info.long_name, [c.name for c in info.channels]) == (
                "Base Camp",
                ["", "Hiking"],
            )
            assert info.channels[1] == Channel(1, "Hiking", "SECONDARY")


@ALL
def test_a_text_is_heard(world: World) -> None:
    world.connected()

    world.say("are you there?")

    heard = world.inbox.wait(TextHeard)
    assert (heard.text, heard.envelope.sender) == ("are you there?", ADA)
    assert heard.envelope.to == world.number


@ALL
def test_the_queue_status_of_a_hand_over_names_its_id(world: World) -> None:
    world.connected().send(text(501, to=BROADCAST))

    status = world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)

    assert status.result == 0
    assert status.maxlen > 0


@ALL
def test_an_explicit_ack_comes_from_the_addressee(world: World) -> None:
    radio = world.connected()
    world.script("explicit")

    radio.send(text(501))
    world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)
    world.acknowledge()

    heard = world.inbox.wait(RoutingHeard)
    assert (heard.request_id, heard.error, heard.envelope.sender) == (501, "NONE", ADA)


@ALL
def test_an_implicit_ack_comes_from_our_own_radio(world: World) -> None:
    radio = world.connected()
    world.script("implicit")

    radio.send(text(501))
    world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)
    world.acknowledge()

    heard = world.inbox.wait(RoutingHeard)
    assert (heard.request_id, heard.envelope.sender) == (501, world.number)


@TCP_ALONE
def test_a_repeated_id_is_swallowed_on_one_connection_and_taken_on_the_next(world: World) -> None:
    world.need_ids()
    radio = world.connected()
    radio.send(text(501))
    world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)

    radio.send(text(501))
    radio.probe()  # its answer comes after whatever the repeat would bring
    assert world.inbox.statuses(501) == [0]
    assert world.on_air() == ["hi"]

    radio.close()
    again = Inbox()
    world.connected(again).send(text(501))
    assert again.wait(QueueStatus, lambda s: s.packet_id == 501).result == 0
    assert world.on_air() == ["hi", "hi"]


@ALL
def test_a_missing_key_is_learnt_by_asking_the_node(world: World) -> None:
    radio = world.connected()
    world.lose_key()
    radio.send(text(501))
    refusal = world.inbox.wait(RoutingHeard, lambda r: r.request_id == 501)
    assert (refusal.error, refusal.envelope.sender) == ("PKI_SEND_FAIL_PUBLIC_KEY", world.number)

    radio.request_user(ADA)
    assert world.inbox.wait(UserHeard).envelope.sender == ADA
    world.rest()
    radio.send(text(502))

    assert world.inbox.wait(QueueStatus, lambda s: s.packet_id == 502).result == 0
    assert world.on_air()[-1] == "hi"


@ALL
def test_a_request_for_a_node_info_is_taken_by_the_radio(world: World) -> None:
    radio = world.connected()

    radio.request_user(ADA)

    assert world.inbox.wait(QueueStatus, lambda s: s.packet_id != 0).result == 0


@ALL
def test_a_full_queue_takes_no_request(world: World) -> None:
    radio = world.connected()
    world.fill_queue()
    radio.probe()

    with pytest.raises(RadioBusyError):
        radio.request_user(ADA)


@ALL
def test_forgetting_leaves_the_send_queue_empty(world: World) -> None:
    """What fills the radio's list of ids is addressed to itself and takes no place there."""
    radio = world.connected()

    radio.forget_ids()

    status = [e for e in world.inbox.events if isinstance(e, QueueStatus)][-1]
    assert status.free > status.maxlen // 2  # less what the node sends on its own account
    assert world.inbox.of(LinkLost) == []


@ALL
def test_a_heartbeat_is_answered(world: World) -> None:
    world.connected().probe()


@ALL
def test_a_radio_that_went_mute_fails_its_heartbeat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "PROBE_S", 2.0)
    radio = world.connected()

    world.go_mute()

    with pytest.raises(LinkDownError):
        radio.probe()


@ALL
def test_a_loss_is_reported_and_the_radio_object_is_spent(world: World) -> None:
    radio = world.connected()

    world.lose()

    world.inbox.wait(LinkLost)
    with pytest.raises(LinkDownError):
        radio.send(text(501))
    with pytest.raises(LinkDownError):
        radio.probe()


@ALL
def test_our_own_close_is_no_loss(world: World) -> None:
    radio = world.connected()

    radio.close()
    radio.close()

    assert [e for e in world.inbox.events if isinstance(e, LinkLost)] == []


@ALL
def test_nothing_goes_through_a_radio_that_is_not_connected(world: World) -> None:
    radio = world.radio()

    with pytest.raises(LinkDownError):
        radio.send(text(501))
    radio.close()


@ALL
def test_a_full_queue_is_refused_and_does_not_hang_the_end(world: World) -> None:
    radio = world.connected()
    world.fill_queue()
    radio.probe()

    with pytest.raises(RadioBusyError):
        radio.send(text(501))

    began = SystemClock().monotonic()
    radio.close()
    assert SystemClock().monotonic() - began < 2.0


@ALL
def test_a_connection_that_is_refused_fails_quickly(world: World) -> None:
    world.switch_off()

    began = SystemClock().monotonic()
    with pytest.raises(LinkDownError):
        world.radio().connect()

    assert SystemClock().monotonic() - began < 5.0


@TCP_ALONE
def test_a_newer_client_puts_the_older_one_out(world: World) -> None:
    world.connected()

    world.connected(Inbox())

    world.inbox.wait(LinkLost)


# -- what only the library can get wrong -----------------------------------------------------


@pytest.fixture
def sim() -> Iterator[SimWorld]:
    with ExitStack() as stack:
        yield SimWorld(stack)


def test_a_sender_stuck_inside_the_library_is_released_by_the_end(
    sim: SimWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library waits for room without a limit, and its own close waits behind that."""
    radio = sim.connected()
    assert isinstance(radio, DeviceRadio)
    monkeypatch.setattr(radio, "_wait_for_room", lambda _interface: None)
    sim.fill_queue()
    radio.probe()
    ended = threading.Event()

    def send() -> None:
        with pytest.raises(LinkDownError):
            radio.send(text(501))
        ended.set()

    monkeypatch.setattr(device_module, "SEND_S", 0.3)
    threading.Thread(target=send, daemon=True).start()

    assert ended.wait(LIMIT_S)
    began = SystemClock().monotonic()
    radio.close()
    assert SystemClock().monotonic() - began < 2.0


def test_a_text_goes_out_as_the_bridge_meant_it(sim: SimWorld) -> None:
    radio = sim.connected()

    radio.send(text(501, "grüß dich", channel_index=0, reply_id=77))
    sim.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)

    packet = sim.node.sent[0].packet
    assert (packet.id, packet.to, packet.payload.decode()) == (501, ADA, "grüß dich")
    assert (packet.want_ack, packet.reply_id, packet.sender) == (True, 77, sim.number)
    assert packet.hop_limit > 0


def test_what_the_radio_kept_while_we_were_away_is_heard(sim: SimWorld) -> None:
    packet_id = sim.ada.say("anyone?", to=sim.node)
    assert sim.ada.wait_delivery(packet_id, LIMIT_S)

    sim.connected()

    assert sim.inbox.wait(TextHeard).text == "anyone?"


def test_a_text_that_is_not_utf8_is_heard(sim: SimWorld) -> None:
    sim.connected()

    sim.ada.say(b"a\xffb", to=sim.node)

    assert sim.inbox.wait(TextHeard).raw == b"a\xffb"


def test_a_cut_in_the_middle_of_the_handshake_is_a_failed_connect(sim: SimWorld) -> None:
    sim.node.cut(at_byte=60)

    with pytest.raises(LinkDownError, match="during the handshake"):
        sim.radio().connect()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_host_that_takes_the_connection_and_says_nothing_fails_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = Link("tcp", "127.0.0.1", server.getsockname()[1])
        radio = DeviceRadio(link, Inbox().put, clock=SystemClock())
        began = SystemClock().monotonic()

        with pytest.raises(LinkDownError):
            radio.connect()

        assert SystemClock().monotonic() - began < device_module.HANDSHAKE_S + 1
        radio.close()


def test_a_silent_host_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "HANDSHAKE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = Link("tcp", "127.0.0.1", server.getsockname()[1])
        radio = DeviceRadio(link, Inbox().put, clock=SystemClock())

        with pytest.raises(LinkDownError, match="connect"):
            radio.connect()


def test_a_request_for_a_node_info_carries_our_own(sim: SimWorld) -> None:
    """A node that answers stores ours; an incomplete one would rename us there."""
    radio = sim.connected()

    radio.request_user(ADA)

    packet = sim.node.wait_sent(1, LIMIT_S)[0].packet
    own = wire.parse_user(sim.number, packet.payload)
    assert own == sim.node.station.user
    assert (packet.to, packet.port, packet.want_response) == (ADA, Port.NODEINFO, True)


def test_forgetting_stays_off_the_air(sim: SimWorld) -> None:
    radio = sim.connected()

    radio.forget_ids()

    assert sim.node.phone.handed.wait_count(device_module.REMEMBERED_IDS, LIMIT_S)
    assert sim.node.on_air == ()
    assert {item.packet.to for item in sim.node.received} == {sim.number}
    assert len({item.packet.id for item in sim.node.received}) == device_module.REMEMBERED_IDS


def test_forgetting_fails_on_a_radio_that_went_mute(
    sim: SimWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "PROBE_S", 2.0)
    radio = sim.connected()
    sim.go_mute()

    with pytest.raises(LinkDownError, match="no answer"):
        radio.forget_ids()
