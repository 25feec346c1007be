"""The official library, unmodified, against a simulated radio."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from meshtastic.tcp_interface import TCPInterface
from pubsub import pub

from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.people import Person

MakeMesh = Callable[..., SimMesh]


class Inbox:
    """Everything that the library publishes, in order."""

    def __init__(self) -> None:
        self.packets: queue.Queue[dict[str, Any]] = queue.Queue()

    def on_receive(self, packet: dict[str, Any], interface: object) -> None:
        self.packets.put(packet)

    def next(self, portnum: str) -> dict[str, Any]:
        while True:
            packet = self.packets.get(timeout=5)
            if packet.get("decoded", {}).get("portnum") == portnum:
                return packet


@dataclass
class Setup:
    radio: SimRadio
    ada: Person
    inbox: Inbox
    open: Callable[[], Any]


@pytest.fixture
def setup(make_mesh: MakeMesh, closing: ExitStack) -> Iterator[Setup]:
    mesh = make_mesh(10.0)
    radio, ada = mesh.add_radio(channels=["", "Hiking"]), mesh.add_person(channels=["", "Hiking"])
    inbox = Inbox()
    pub.subscribe(inbox.on_receive, "meshtastic.receive")

    def connect() -> Any:
        host, _, port = radio.address.rpartition(":")
        interface = TCPInterface(host, portNumber=int(port), timeout=5)
        closing.callback(interface.close)
        return interface

    yield Setup(radio, ada, inbox, connect)
    pub.unsubscribe(inbox.on_receive, "meshtastic.receive")


def test_library_connects_and_learns_the_mesh(setup: Setup) -> None:
    interface = setup.open()

    assert interface.myInfo.my_node_num == setup.radio.num
    assert interface.metadata.firmware_version == "2.7.26.sim"
    assert set(interface.nodes) == {setup.radio.node_id, setup.ada.node_id}
    assert interface.localNode.localConfig.lora.hop_limit == 3
    names = [channel.settings.name for channel in interface.localNode.channels]
    assert names == ["", "Hiking", "", "", "", "", "", ""]


def test_library_connects_without_the_node_list(setup: Setup) -> None:
    host, _, port = setup.radio.address.rpartition(":")
    interface = TCPInterface(host, portNumber=int(port), timeout=5, noNodes=True)
    try:
        assert set(interface.nodes) == {setup.radio.node_id}
    finally:
        interface.close()


def test_library_receives_a_dm(setup: Setup) -> None:
    setup.open()

    packet_id = setup.ada.say("hello", to=setup.radio)

    packet = setup.inbox.next("TEXT_MESSAGE_APP")
    delivery = setup.ada.wait_delivery(packet_id, 5)
    assert (packet["id"], packet["from"], packet["to"]) == (
        packet_id,
        setup.ada.num,
        setup.radio.num,
    )
    assert (packet["decoded"]["text"], packet["pkiEncrypted"]) == ("hello", True)
    assert (packet["hopStart"], packet["hopLimit"], packet["fromId"]) == (3, 3, setup.ada.node_id)
    assert delivery is not None
    assert delivery.reported_by == setup.radio.num


def test_library_gets_texts_that_came_before_it_connected(setup: Setup) -> None:
    assert setup.ada.wait_delivery(setup.ada.say("early", to=setup.radio), 5) is not None

    setup.open()

    assert setup.inbox.next("TEXT_MESSAGE_APP")["decoded"]["text"] == "early"


def test_library_sends_a_dm_and_hears_the_ack(setup: Setup) -> None:
    interface = setup.open()

    sent = interface.sendText("hi Ada", destinationId=setup.ada.num, wantAck=True)

    heard = setup.ada.wait_for("hi Ada", 5)
    ack = setup.inbox.next("ROUTING_APP")
    assert heard is not None
    assert (heard.packet_id, heard.sender, heard.sender_name) == (
        sent.id,
        setup.radio.num,
        "Base Camp",
    )
    assert (heard.is_dm, heard.pki, heard.hops) == (True, True, 0)
    assert (ack["from"], ack["decoded"]["requestId"]) == (setup.ada.num, sent.id)
    assert ack["decoded"]["routing"]["errorReason"] == "NONE"


def test_library_talks_on_a_channel(setup: Setup) -> None:
    interface = setup.open()

    setup.ada.say("walk?", channel=1)
    packet = setup.inbox.next("TEXT_MESSAGE_APP")
    interface.sendText("yes", channelIndex=1, replyId=packet["id"])
    heard = setup.ada.wait_for("yes", 5)

    assert (packet["channel"], packet["toId"]) == (1, "^all")
    assert heard is not None
    assert (heard.channel, heard.reply_id, heard.is_dm) == (1, packet["id"], False)


def test_library_reads_position_telemetry_and_user(setup: Setup) -> None:
    setup.open()

    setup.ada.send_position(48.5, -11.25, altitude=520)
    setup.ada.send_telemetry(battery=77, voltage=3.9)
    setup.ada.send_user()

    position = setup.inbox.next("POSITION_APP")["decoded"]["position"]
    telemetry = setup.inbox.next("TELEMETRY_APP")["decoded"]["telemetry"]
    user = setup.inbox.next("NODEINFO_APP")["decoded"]["user"]
    assert (position["latitude"], position["longitude"], position["altitude"]) == (
        48.5,
        -11.25,
        520,
    )
    assert telemetry["deviceMetrics"]["batteryLevel"] == 77
    assert (user["id"], user["longName"]) == (setup.ada.node_id, "Ada Example")


def test_library_publishes_undecodable_packets_without_decoded(setup: Setup) -> None:
    setup.ada.wipe()
    setup.ada.station.learn(setup.radio.station.user)
    setup.open()

    setup.ada.say("secret", to=setup.radio)

    packet = setup.inbox.packets.get(timeout=5)
    assert "decoded" not in packet
    assert packet["encrypted"]


def test_library_gives_no_text_for_invalid_utf8(setup: Setup) -> None:
    setup.open()

    setup.ada.say(b"\xff\xfe", to=setup.radio)

    decoded = setup.inbox.next("TEXT_MESSAGE_APP")["decoded"]
    assert (decoded["payload"], "text" in decoded) == (b"\xff\xfe", False)


def test_library_reconnects_by_itself_after_a_cut(setup: Setup) -> None:
    """It does so once, one real second later, and publishes nothing about it."""
    setup.open()

    setup.radio.cut()
    setup.ada.say("still there?", to=setup.radio)

    assert setup.inbox.next("TEXT_MESSAGE_APP")["decoded"]["text"] == "still there?"
    assert setup.radio.connections == 2


def test_library_hears_of_a_reboot_on_a_kept_link(setup: Setup) -> None:
    lost, established = threading.Event(), threading.Event()

    def on_lost(interface: object) -> None:
        lost.set()

    def on_established(interface: object) -> None:
        if lost.is_set():
            established.set()

    setup.open()
    pub.subscribe(on_lost, "meshtastic.connection.lost")
    pub.subscribe(on_established, "meshtastic.connection.established")
    try:
        setup.radio.reboot(keep_link=True)

        assert lost.wait(5)
        assert established.wait(5)
    finally:
        pub.unsubscribe(on_lost, "meshtastic.connection.lost")
        pub.unsubscribe(on_established, "meshtastic.connection.established")


def test_library_sets_the_clock_of_a_node_without_one(make_mesh: MakeMesh, setup: Setup) -> None:
    setup.radio.station.wall = lambda: 0
    interface = setup.open()

    setup.ada.say("before", to=setup.radio)
    before = setup.inbox.next("TEXT_MESSAGE_APP")
    interface.localNode.setTime(1_800_000_000)
    assert setup.radio.wait_sent(1, 5)
    setup.ada.say("after", to=setup.radio)
    after = setup.inbox.next("TEXT_MESSAGE_APP")

    assert "rxTime" not in before
    assert 1_800_000_000 <= after["rxTime"] <= 1_800_000_010


def test_library_reads_what_the_radio_says_of_itself(setup: Setup) -> None:
    setup.open()

    setup.radio.report_metrics(battery=101, channel_utilisation=12.5, own_airtime=1.5)

    packet = setup.inbox.next("TELEMETRY_APP")
    metrics = packet["decoded"]["telemetry"]["deviceMetrics"]
    assert packet["from"] == setup.radio.num
    assert metrics == {"batteryLevel": 101, "channelUtilization": 12.5, "airUtilTx": 1.5}
