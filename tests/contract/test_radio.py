"""What a radio promises the bridge: the fake, the library on a simulated mesh, real firmware.

With MESHTASTICD=HOST:PORT of a node in simulator mode the parts that need no second node run
against real firmware, too.
"""

import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from meshllm.clock import SystemClock
from meshllm.config.links import Link, parse_link
from meshllm.errors import LinkDownError, RadioBusyError
from meshllm.radio import device as device_module
from meshllm.radio.base import (
    BROADCAST,
    Channel,
    Envelope,
    LinkLost,
    OutgoingText,
    QueueStatus,
    Radio,
    RadioEvent,
    RoutingHeard,
    TextHeard,
)
from meshllm.radio.device import DeviceRadio
from meshllm.sim.mesh import SimMesh
from meshllm.sim.outcome import Outcome
from meshllm.testing.radio import INFO, FakeDevice

LIMIT_S = 5.0
SCALE = 20.0
ADA = 0x51E0BB01
E = TypeVar("E")


class Inbox:
    """Everything that a radio reported."""

    def __init__(self) -> None:
        self.events: list[RadioEvent] = []
        self._news = threading.Condition()

    def put(self, event: RadioEvent) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait(self, kind: type[E], fits: Callable[[Any], bool] = lambda _: True) -> E:
        def found() -> E | None:
            return next((e for e in self.events if isinstance(e, kind) and fits(e)), None)

        with self._news:
            event = self._news.wait_for(found, LIMIT_S)
        assert event is not None, self.events
        return event

    def statuses(self, packet_id: int) -> list[int]:
        return [
            e.result for e in self.events if isinstance(e, QueueStatus) and e.packet_id == packet_id
        ]


class World(ABC):
    """One radio and one person, Ada, made of whatever the case is about."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.number = 0
        self.inbox = Inbox()
        self.open()

    def radio(self, inbox: Inbox | None = None) -> Radio:
        """Make a radio that is closed with the test."""
        radio = self.make((inbox or self.inbox).put)
        self.stack.callback(radio.close)
        return radio

    def connected(self, inbox: Inbox | None = None) -> Radio:
        radio = self.radio(inbox)
        self.number = radio.connect().number
        return radio

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def make(self, emit: Callable[[RadioEvent], None]) -> Radio: ...

    @abstractmethod
    def say(self, text: str) -> None: ...

    @abstractmethod
    def script(self, *who: str) -> None:
        """Ada's or a relay's ACKs for the next text."""

    def acknowledge(self) -> None:
        """Bring those ACKs where they do not come by themselves."""
        return

    @abstractmethod
    def on_air(self) -> list[str]: ...

    @abstractmethod
    def lose(self) -> None: ...

    @abstractmethod
    def go_mute(self) -> None: ...

    @abstractmethod
    def fill_queue(self) -> None: ...

    @abstractmethod
    def switch_off(self) -> None: ...


class FakeWorld(World):
    def open(self) -> None:
        self.device = FakeDevice()
        self.origins: tuple[str, ...] = ()

    def make(self, emit: Callable[[RadioEvent], None]) -> Radio:
        return self.device.make(emit)

    def say(self, text: str) -> None:
        self.device.emit(TextHeard(Envelope(ADA, INFO.number, 7), text))

    def script(self, *who: str) -> None:
        self.origins = who

    def acknowledge(self) -> None:
        for origin in self.origins:
            sender = INFO.number if origin == "implicit" else ADA
            request_id = self.device.sent[-1].packet_id
            self.device.emit(RoutingHeard(Envelope(sender, INFO.number, 8), request_id, "NONE"))

    def on_air(self) -> list[str]:
        return [text.text for text in self.device.sent]

    def lose(self) -> None:
        self.device.lose()

    def go_mute(self) -> None:
        self.device.is_mute = True

    def fill_queue(self) -> None:
        self.device.free = 0

    def switch_off(self) -> None:
        self.device.is_off = True


class SimWorld(World):
    def open(self) -> None:
        mesh = SimMesh(clock=SystemClock(SCALE), instant_air=True)
        self.node = mesh.add_radio("Base Camp", channels=("", "Hiking"))
        self.ada = mesh.add_person("Ada Example", num=ADA, channels=("", "Hiking"))
        self.stack.enter_context(mesh)

    def make(self, emit: Callable[[RadioEvent], None]) -> Radio:
        link = parse_link(f"tcp:{self.node.address}")
        return DeviceRadio(link, emit, clock=SystemClock(SCALE))

    def say(self, text: str) -> None:
        self.ada.say(text, to=self.node)

    def script(self, *who: Any) -> None:
        self.node.script_next(Outcome.acks(*who))

    def on_air(self) -> list[str]:
        return [handed.packet.payload.decode() for handed in self.node.sent]

    def lose(self) -> None:
        self.node.disconnect()

    def go_mute(self) -> None:
        self.node.half_open()

    def fill_queue(self) -> None:
        self.node.set_free(0)

    def switch_off(self) -> None:
        self.node.switch_off()


class FirmwareWorld(World):
    """A node of the real firmware. It has no Ada: what needs her is left to the others."""

    def open(self) -> None:
        self.link = parse_link(f"tcp:{os.environ['MESHTASTICD']}")

    def make(self, emit: Callable[[RadioEvent], None]) -> Radio:
        return DeviceRadio(self.link, emit, clock=SystemClock())

    def say(self, text: str) -> None:
        pytest.skip("needs a second node")

    def script(self, *who: str) -> None:
        pytest.skip("needs a second node")

    def on_air(self) -> list[str]:
        pytest.skip("the firmware does not tell")

    def lose(self) -> None:
        """A newer client puts the older one out."""
        self.connected(Inbox())

    def go_mute(self) -> None:
        pytest.skip("the firmware cannot be told to")

    def fill_queue(self) -> None:
        pytest.skip("the firmware cannot be told to")

    def switch_off(self) -> None:
        pytest.skip("the firmware cannot be told to")


NO_FIRMWARE = pytest.mark.skipif(
    "MESHTASTICD" not in os.environ, reason="MESHTASTICD is not set: no real firmware at hand"
)
KINDS = [
    pytest.param(FakeWorld, id="fake"),
    pytest.param(SimWorld, id="library+sim"),
    pytest.param(FirmwareWorld, id="firmware", marks=[pytest.mark.firmware, NO_FIRMWARE]),
]


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        yield request.param(stack)


def text(packet_id: int, content: str = "hi", *, to: int = ADA, **fields: Any) -> OutgoingText:
    return OutgoingText(packet_id, to, content, **{"want_ack": to != BROADCAST, **fields})


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


def test_a_text_is_heard(world: World) -> None:
    world.connected()

    world.say("are you there?")

    heard = world.inbox.wait(TextHeard)
    assert (heard.text, heard.envelope.sender) == ("are you there?", ADA)
    assert heard.envelope.to == world.number


def test_the_queue_status_of_a_hand_over_names_its_id(world: World) -> None:
    world.connected().send(text(501, to=BROADCAST))

    status = world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)

    assert status.result == 0
    assert status.maxlen > 0


def test_an_explicit_ack_comes_from_the_addressee(world: World) -> None:
    radio = world.connected()
    world.script("explicit")

    radio.send(text(501))
    world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)
    world.acknowledge()

    heard = world.inbox.wait(RoutingHeard)
    assert (heard.request_id, heard.error, heard.envelope.sender) == (501, "NONE", ADA)


def test_an_implicit_ack_comes_from_our_own_radio(world: World) -> None:
    radio = world.connected()
    world.script("implicit")

    radio.send(text(501))
    world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)
    world.acknowledge()

    heard = world.inbox.wait(RoutingHeard)
    assert (heard.request_id, heard.envelope.sender) == (501, world.number)


def test_a_repeated_id_is_swallowed_on_one_connection_and_taken_on_the_next(world: World) -> None:
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


def test_a_heartbeat_is_answered(world: World) -> None:
    world.connected().probe()


def test_a_radio_that_went_mute_fails_its_heartbeat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "PROBE_S", 2.0)
    radio = world.connected()

    world.go_mute()

    with pytest.raises(LinkDownError):
        radio.probe()


def test_a_loss_is_reported_and_the_radio_object_is_spent(world: World) -> None:
    radio = world.connected()

    world.lose()

    world.inbox.wait(LinkLost)
    with pytest.raises(LinkDownError):
        radio.send(text(501))
    with pytest.raises(LinkDownError):
        radio.probe()


def test_our_own_close_is_no_loss(world: World) -> None:
    radio = world.connected()

    radio.close()
    radio.close()

    assert [e for e in world.inbox.events if isinstance(e, LinkLost)] == []


def test_nothing_goes_through_a_radio_that_is_not_connected(world: World) -> None:
    radio = world.radio()

    with pytest.raises(LinkDownError):
        radio.send(text(501))
    radio.close()


def test_a_full_queue_is_refused_and_does_not_hang_the_end(world: World) -> None:
    radio = world.connected()
    world.fill_queue()
    radio.probe()

    with pytest.raises(RadioBusyError):
        radio.send(text(501))

    began = SystemClock().monotonic()
    radio.close()
    assert SystemClock().monotonic() - began < 2.0


def test_a_connection_that_is_refused_fails_quickly(world: World) -> None:
    world.switch_off()

    began = SystemClock().monotonic()
    with pytest.raises(LinkDownError):
        world.radio().connect()

    assert SystemClock().monotonic() - began < 5.0


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


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        (Link("serial", "/dev/no-such-radio"), "no such device /dev/no-such-radio"),
        (Link("ble", "AA:BB:CC:DD:EE:FF"), "not supported yet"),
    ],
)
def test_a_link_that_cannot_be_opened_says_why(link: Link, reason: str) -> None:
    radio = DeviceRadio(link, Inbox().put, clock=SystemClock())

    with pytest.raises(LinkDownError, match=reason):
        radio.connect()


def test_several_serial_radios_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for ports, reason in (([], "no radio on any"), (["/dev/a", "/dev/b"], "/dev/a, /dev/b")):
        monkeypatch.setattr(device_module, "serial_ports", lambda found=ports: found)
        radio = DeviceRadio(Link("serial", "auto"), Inbox().put, clock=SystemClock())

        with pytest.raises(LinkDownError, match=reason):
            radio.connect()
