"""A radio over Bluetooth: what goes wrong there and nowhere else. See ble_world for the set-up."""

import asyncio
import gc
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from bleak import BleakClient, BleakScanner
from bleak.exc import BleakError

from meshllm.bridge.link import Down, Link, LinkEvent, Up
from meshllm.clock import SystemClock
from meshllm.errors import LinkDownError
from meshllm.radio import ble
from meshllm.radio import device as device_module
from meshllm.radio.base import Channel, LinkLost, QueueStatus, TextHeard
from meshllm.sim import gatt
from meshllm.sim.packets import Packet, Port
from meshllm.testing.dbus import PrivateBus
from tests.contract.ble_world import ADDRESS, BUS_VARIABLE, NO_BUS, BleWorld, device
from tests.contract.worlds import ADA, LIMIT_S, SCALE, Inbox, text

T = TypeVar("T")


#: Threads of other tests' servers, which live as long as the session.
_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Note the threads that ran before this test."""
    _others.clear()
    _others.update(threading.enumerate())


def own_threads() -> list[str]:
    """Threads but those of the test and of the library that stay for the life of a process."""
    lasting = {"MainThread", "publishing", "sim"}
    new = [t.name for t in threading.enumerate() if t not in _others]
    # A client's keep-alive on another test's server may end whenever it likes.
    return [name for name in new if name not in lasting and "process_request" not in name]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def seconds(action: Callable[[], object]) -> float:
    began = SystemClock().monotonic()
    action()
    return SystemClock().monotonic() - began


@pytest.fixture(scope="module")
def bus() -> Iterator[PrivateBus]:
    with PrivateBus() as private:
        yield private


@pytest.fixture
def world(bus: PrivateBus) -> Iterator[BleWorld]:
    with ExitStack() as stack:
        yield BleWorld(stack, bus)
    assert own_threads() == []


# -- what the contract cases leave out ---------------------------------------------------------


@NO_BUS
def test_a_connection_tells_who_the_radio_is(world: BleWorld) -> None:
    info = world.radio().connect()

    assert (info.number, info.long_name) == (world.node.num, "Base Camp")
    assert info.channels == (Channel(0, "", "PRIMARY"), Channel(1, "Hiking", "SECONDARY"))
    assert ADA in [node.number for node in info.nodes]


@NO_BUS
@pytest.mark.parametrize("target", [ADDRESS.lower(), ADDRESS.replace(":", "-"), "BC_53AF"])
def test_an_address_in_any_form_or_the_name_finds_the_radio(world: BleWorld, target: str) -> None:
    assert world.to(target).connect().number == world.node.num


def read_only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the reads in the half second after each write, which hide a missing notice."""
    monkeypatch.setattr(ble, "EMPTY_READS", 1)
    monkeypatch.setattr(ble, "EMPTY_PAUSE_S", 0.0)


@NO_BUS
def test_a_text_is_heard_by_the_notice_alone(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only_when_told(monkeypatch)
    world.connected().probe()

    world.ada.say("are you there?", to=world.node)

    heard = world.inbox.wait(TextHeard)
    assert (heard.text, heard.envelope.sender) == ("are you there?", ADA)


@NO_BUS
def test_the_longest_text_goes_through(world: BleWorld) -> None:
    connected = world.connected()

    connected.send(text(501, "x" * 200))

    assert world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501).result == 0


@NO_BUS
def test_what_the_radio_kept_while_we_were_away_is_heard(world: BleWorld) -> None:
    packet_id = world.ada.say("anyone?", to=world.node)
    assert world.ada.wait_delivery(packet_id, LIMIT_S)

    world.connected()

    assert world.inbox.wait(TextHeard).text == "anyone?"


class LateSubscriber(gatt.Peripheral):
    """Hears a text just before its client asks to be told of texts."""

    text = b""

    def subscribe(self, uuid: str) -> None:
        if uuid == gatt.FROM_NUM:
            packet = Packet(sender=ADA, to=self.radio.num, id=7, port=Port.TEXT, payload=self.text)
            self.radio.phone.keep(packet)
        super().subscribe(uuid)


@NO_BUS
def test_a_text_that_comes_between_configuration_and_subscription_is_heard(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only_when_told(monkeypatch)
    world.bluez.subscribe_s = 0.3
    late = LateSubscriber(world.node, "00:00:5E:00:53:02", name="Late")
    late.text = b"now"
    world.admit(late)

    world.to("Late").connect()

    assert world.inbox.wait(TextHeard).text == "now"


@NO_BUS
def test_an_id_is_remembered_over_connections_until_the_radio_restarts(world: BleWorld) -> None:
    world.connected().send(text(501))
    world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)
    world.lose()

    second = world.connected(inbox := Inbox())
    second.send(text(501))
    second.probe()
    assert [s for s in inbox.of(QueueStatus) if s.packet_id == 501] == []
    assert len(world.node.sent) == 1

    world.restart()
    world.connected(last := Inbox()).send(text(501))
    assert last.wait(QueueStatus, lambda s: s.packet_id == 501).result == 0


@NO_BUS
def test_a_radio_made_to_forget_takes_an_id_again(world: BleWorld) -> None:
    connected = world.connected()
    connected.send(text(501))
    world.inbox.wait(QueueStatus, lambda s: s.packet_id == 501)
    world.rest()

    connected.forget_ids()
    connected.send(text(501))

    world.inbox.wait(QueueStatus, lambda _: world.inbox.statuses(501) == [0, 0])
    assert world.on_air() == ["hi", "hi"]


# -- losses -----------------------------------------------------------------------------------


@NO_BUS
def test_a_loss_while_idle_is_reported_once_and_the_radio_object_is_spent(world: BleWorld) -> None:
    connected = world.make(world.inbox.put)
    connected.connect()
    reader = connected._interface._receiveThread

    world.lose()

    world.inbox.wait(LinkLost)
    reader.join(LIMIT_S)
    with pytest.raises(LinkDownError):
        connected.send(text(501))
    with pytest.raises(LinkDownError):
        connected.probe()
    connected.close()
    assert len(world.inbox.of(LinkLost)) == 1


def on_write(world: BleWorld, number: int, action: Callable[[], None]) -> None:
    """Do something on the radio's thread instead of taking the client's write of that number."""

    class Faulty(list[bytes]):
        def append(self, value: bytes) -> None:
            super().append(value)
            if len(self) == number:
                action()

    world.peripheral.writes = Faulty(world.peripheral.writes)


@NO_BUS
def test_a_loss_during_the_handshake_is_a_failed_connect(world: BleWorld) -> None:
    on_write(world, 1, world.lose)

    assert "ended" in world.refusal() or "onnected" in world.refusal()
    assert own_threads() == []


@NO_BUS
def test_a_loss_during_a_send_fails_the_send(world: BleWorld) -> None:
    connected = world.connected()

    def freeze_and_lose() -> None:
        world.bluez.is_frozen = True
        world.lose()

    on_write(world, len(world.peripheral.writes) + 1, freeze_and_lose)
    connected.send(text(501))  # confirmed by the radio, which then is gone

    world.inbox.wait(LinkLost)
    with pytest.raises(LinkDownError):
        connected.send(text(502))
    assert len(world.inbox.of(LinkLost)) == 1


@NO_BUS
def test_a_write_that_nobody_confirms_fails_within_its_limit(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "IO_S", 0.3)
    monkeypatch.setattr(ble, "DISCONNECT_S", 0.3)
    connected = world.connected()
    world.bluez.is_frozen = True

    with pytest.raises(LinkDownError, match="no answer over Bluetooth"):
        connected.send(text(501))


@NO_BUS
def test_a_radio_that_is_silent_from_the_start_is_a_failed_connect(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "STALL_S", 0.3)
    world.conditions.is_silent = True

    assert "sent nothing" in world.refusal()
    assert not world.peripheral.is_connected


@NO_BUS
def test_a_read_that_nobody_answers_is_a_loss(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "IO_S", 0.3)
    monkeypatch.setattr(ble, "DISCONNECT_S", 0.3)
    world.connected()
    world.bluez.is_frozen = True

    world.ada.say("anyone?", to=world.node)

    world.inbox.wait(LinkLost)


@NO_BUS
def test_a_message_that_the_library_fails_on_is_a_loss(world: BleWorld) -> None:
    world.connected()

    world.node.phone.notices.append(b"\x22\x00")  # a node info without a number
    world.ada.say("anyone?", to=world.node)

    world.inbox.wait(LinkLost)


@NO_BUS
def test_a_bluetoothd_that_crashes_fails_the_next_heartbeat(world: BleWorld) -> None:
    connected = world.connected()

    world.bluez.stop()

    with pytest.raises(LinkDownError):
        connected.probe()


@NO_BUS
def test_a_message_bus_that_goes_away_is_a_loss() -> None:
    with ExitStack() as stack:
        bus = stack.enter_context(PrivateBus())
        world = BleWorld(stack, bus)
        world.connected()

        bus.__exit__(None, None, None)

        world.inbox.wait(LinkLost)


# -- what stands in the way of a connection ----------------------------------------------------


@NO_BUS
def test_a_wrong_address_says_which_radios_are_there(world: BleWorld) -> None:

    reason = world.refusal("00:00:5E:00:53:FF")

    assert "no radio 00:00:5E:00:53:FF in reach" in reason
    assert f"BC_53AF {ADDRESS}" in reason
    assert ble.GUIDE in reason
    assert world.bluez.scanning == frozenset()


@NO_BUS
@pytest.mark.parametrize(
    "obstacle", [{"in_reach": False}, {"is_with_phone": True}, {"in_reach": False, "is_paired": 1}]
)
def test_a_radio_that_does_not_advertise_is_not_in_reach(
    world: BleWorld, obstacle: dict[str, Any]
) -> None:
    for name, value in obstacle.items():
        setattr(world.conditions, name, value)

    assert "radios seen: none" in world.refusal()


@NO_BUS
def test_a_radio_too_weak_to_connect_to_fails_within_the_limit(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "CONNECT_S", 0.3)
    world.conditions.lets_connect = False

    assert "in reach, but no connection came about" in world.refusal()

    world.conditions.lets_connect = True
    world.connected()


@NO_BUS
def test_a_radio_that_asks_for_a_pin_must_be_paired_first(world: BleWorld) -> None:
    world.conditions.asks_pin = True

    reason = world.refusal()

    assert "not paired" in reason
    assert ble.GUIDE in reason
    assert not world.peripheral.is_connected
    world.conditions.is_paired = True
    world.connected()


@NO_BUS
def test_a_device_that_is_no_meshtastic_radio_is_told(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_log = {gatt.LOG_RADIO: gatt.CHARACTERISTICS[gatt.LOG_RADIO]}
    monkeypatch.setattr("meshllm.sim.bluez.CHARACTERISTICS", only_log)
    world.admit(gatt.Peripheral(world.node, "00:00:5E:00:53:01", name="Lamp"))

    assert "Lamp is no Meshtastic radio" in world.refusal("Lamp")


@NO_BUS
def test_a_switched_off_adapter_is_told(world: BleWorld) -> None:
    world.bluez.is_powered = False

    assert "bluetoothctl power on" in world.refusal()


@NO_BUS
def test_a_computer_without_an_adapter_is_told(world: BleWorld) -> None:
    world.bluez.has_adapter = False

    assert "this computer has no Bluetooth adapter" in world.refusal()


@NO_BUS
def test_a_bluetoothd_that_does_not_run_is_told(world: BleWorld) -> None:
    world.bluez.stop()

    assert "systemctl start bluetooth" in world.refusal()


def test_a_computer_without_a_message_bus_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUS_VARIABLE, f"unix:path={tmp_path}/nothing")

    def connect() -> None:
        with pytest.raises(LinkDownError, match="there is no D-Bus on this computer"):
            device(ADDRESS, Inbox().put).connect()

    assert seconds(connect) < LIMIT_S
    assert own_threads() == []


# asyncio itself does not close the half of a loop that it made.
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_a_process_out_of_files_fails_to_connect_and_leaves_no_thread() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(ConnectionError, match="no event loop"):
            ble.Connection(lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        gc.collect()
    assert own_threads() == []


@NO_BUS
def test_a_bluetoothd_that_hangs_fails_within_the_limit_and_is_used_again_later(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("SCAN_S", "CONNECT_S", "GRACE_S"):
        monkeypatch.setattr(ble, limit, 0.1)
    world.bluez.is_frozen = True

    assert "no answer over Bluetooth within 0.3 s" in world.refusal()

    world.bluez.is_frozen = False
    monkeypatch.undo()
    world.connected()


# -- nothing is left behind --------------------------------------------------------------------


@NO_BUS
def test_a_close_keeps_its_deadline_while_bluetoothd_hangs(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "CLOSE_S", 0.3)
    monkeypatch.setattr(ble, "DISCONNECT_S", 0.6)
    connected = world.connected()
    world.bluez.is_frozen = True

    assert seconds(connected.close) < device_module.CLOSE_S
    (left,) = ble._ending
    left.join(LIMIT_S)
    assert not left.is_alive()
    world.bluez.is_frozen = False


@NO_BUS
def test_a_reconnect_waits_for_the_disconnect_that_is_under_way(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "CLOSE_S", 0.05)
    world.bluez.disconnect_s = 0.5
    world.connected().close()
    assert world.peripheral.is_connected

    world.connected(again := Inbox()).probe()

    assert again.of(LinkLost) == []
    assert world.peripheral.connections == 2
    world.bluez.disconnect_s = 0.0


@NO_BUS
def test_connections_made_lost_and_failed_leave_nothing_behind(
    world: BleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "SCAN_S", 0.15)

    connections: list[weakref.ref[ble.Connection]] = []

    def once(number: int) -> None:
        current = device(ADDRESS, Inbox().put)
        world.conditions.in_reach = number % 4 != 3
        if number % 4 == 2:
            on_write(world, len(world.peripheral.writes) + 1, world.lose)
        if number % 4 < 2:
            current.connect()
            connections.append(weakref.ref(current._interface._connection))
        else:
            with pytest.raises(LinkDownError):
                current.connect()
        if number % 4 == 1:
            world.lose()
        current.close()

    for number in range(4):
        once(number)
    files = open_files()
    clients = world.bluez.clients()
    for number in range(24):
        once(number)
        assert own_threads() == []

    # What bleak keeps of the last closed loop, it releases with the next: one socket, not one each.
    assert open_files() <= files
    assert world.bluez.clients() <= clients <= 1
    gc.collect()
    assert [ref() for ref in connections if ref() is not None] == []
    assert world.bluez.scanning == frozenset()


CHILD = """
import sys, time
from meshllm.clock import SystemClock
from meshllm.config.links import parse_link
from meshllm.radio.device import DeviceRadio
radio = DeviceRadio(parse_link("ble:" + sys.argv[1]), lambda _: None, clock=SystemClock())
radio.connect()
print("connected", flush=True)
sys.stdin.read()
"""


OPENING_CHILD = """
import sys, threading
from meshllm.clock import SystemClock
from meshllm.config.links import parse_link
from meshllm.radio.device import DeviceRadio
radio = DeviceRadio(parse_link("ble:" + sys.argv[1]), lambda _: None, clock=SystemClock())
threading.Thread(target=radio.connect, daemon=True).start()
sys.stdin.read()
"""


def run_child(stack: ExitStack, program: str = CHILD) -> subprocess.Popen[bytes]:
    return stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", program, ADDRESS],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    )


def wait_connected(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == b"connected\n"


@NO_BUS
def test_a_process_that_ends_without_closing_ends_and_takes_the_link_down(world: BleWorld) -> None:
    child = run_child(world.stack)
    wait_connected(child)
    assert world.peripheral.is_connected

    child.communicate(timeout=LIMIT_S)

    assert child.returncode == 0
    assert not world.peripheral.is_connected


@NO_BUS
def test_a_process_that_ends_while_it_connects_takes_the_link_down(world: BleWorld) -> None:
    world.conditions.is_silent = True
    written = threading.Event()
    on_write(world, 1, written.set)
    child = run_child(world.stack, OPENING_CHILD)
    assert written.wait(LIMIT_S)

    child.communicate(timeout=LIMIT_S)

    assert child.returncode == 0
    assert not world.peripheral.is_connected


@NO_BUS
def test_the_link_that_a_killed_process_left_is_taken_over(world: BleWorld) -> None:
    child = run_child(world.stack)
    wait_connected(child)
    child.send_signal(signal.SIGKILL)
    child.wait(LIMIT_S)
    assert world.peripheral.is_connected  # so no scan can find it

    world.connected().probe()

    assert world.peripheral.connections == 1


def ups_and_downs(events: list[LinkEvent]) -> list[type]:
    return [type(event) for event in events if isinstance(event, Up | Down)]


class Events:
    """Everything that a link reported."""

    def __init__(self) -> None:
        self.seen: list[LinkEvent] = []
        self._news = threading.Condition()

    def put(self, event: LinkEvent) -> None:
        with self._news:
            self.seen.append(event)
            self._news.notify_all()

    def wait(self, check: Callable[[list[LinkEvent]], bool]) -> bool:
        with self._news:
            return self._news.wait_for(lambda: check(self.seen), LIMIT_S)


@NO_BUS
def test_a_lost_radio_is_connected_to_again_by_the_bridge(world: BleWorld) -> None:
    clock, events = SystemClock(SCALE), Events()
    link = Link("Base Camp", world.make, events.put, clock=clock)
    link.start()
    try:
        assert events.wait(lambda seen: any(isinstance(e, Up) for e in seen))
        world.restart()

        assert events.wait(lambda seen: ups_and_downs(seen) == [Up, Down, Up])
    finally:
        link.stop(LIMIT_S)


# -- the stand-in itself -----------------------------------------------------------------------


def with_bleak(action: Callable[[BleakClient], Awaitable[T]], *, connect: bool = True) -> T:
    """Use bleak's own client, as its documentation has it."""

    async def run() -> T:
        device = await BleakScanner.find_device_by_address(ADDRESS, timeout=LIMIT_S)
        assert device is not None
        client = BleakClient(device)
        if not connect:
            return await action(client)
        async with client:
            return await action(client)

    return asyncio.run(run())


async def refused(action: Awaitable[Any]) -> str:
    with pytest.raises((BleakError, ValueError)) as caught:
        await action
    return str(caught.value).lower()


@NO_BUS
def test_the_stand_in_refuses_what_a_radio_refuses(world: BleWorld) -> None:
    async def ask(client: BleakClient) -> list[str]:
        return [
            await refused(client.write_gatt_char(gatt.FROM_RADIO, b"x", response=True)),
            await refused(client.write_gatt_char(gatt.TO_RADIO, bytes(513), response=True)),
            await refused(client.write_gatt_char(gatt.TO_RADIO, b"x", response=False)),
            await refused(client.read_gatt_char(gatt.TO_RADIO)),
            await refused(client.start_notify(gatt.FROM_RADIO, print)),
            await refused(client.read_gatt_char("0000ffff-0000-1000-8000-00805f9b34fb")),
        ]

    to_read_only, too_long, without_response, unreadable, mute, unknown = with_bleak(ask)

    assert "write not permitted" in to_read_only
    assert "invalid attribute value length" in too_long
    assert "not supported" in without_response
    assert "read not permitted" in unreadable
    assert "not supported" in mute
    assert "not found" in unknown
    assert world.peripheral.writes == []


@NO_BUS
def test_the_stand_in_says_nothing_before_it_is_asked_for_its_configuration(
    world: BleWorld,
) -> None:
    world.ada.say("early", to=world.node)

    assert with_bleak(lambda client: client.read_gatt_char(gatt.FROM_RADIO)) == b""


@NO_BUS
def test_the_stand_in_reads_nothing_unconnected(world: BleWorld) -> None:
    with pytest.raises(BleakError, match=r"(?i)not (been )?(connected|performed)"):
        with_bleak(lambda client: client.read_gatt_char(gatt.FROM_RADIO), connect=False)


LIBRARY = """
import os, sys
from meshtastic.ble_interface import BLEInterface
print(BLEInterface(sys.argv[1], timeout=10).myInfo.my_node_num, flush=True)
os._exit(0)  # its own close waits for itself without end
"""


@NO_BUS
@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_librarys_own_interface_connects_to_the_stand_in(world: BleWorld) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", LIBRARY, ADDRESS], capture_output=True, timeout=50, check=True
    )

    assert finished.stdout.decode().strip() == str(world.node.num)
