"""Radios and their trees: one never delays another, nothing heard is lost on the way."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from meshllm.bridge import service as service_module
from meshllm.bridge import station as station_module
from meshllm.bridge.service import BridgeService
from meshllm.clock import SystemClock, Waker, utc_text
from meshllm.config import Settings, parse_link
from meshllm.config.settings import Radio as RadioEntry
from meshllm.errors import StoreWriteError
from meshllm.layout import Layout, channel_stem
from meshllm.observe import status
from meshllm.radio.base import (
    BROADCAST,
    Channel,
    Emit,
    Envelope,
    OtherHeard,
    PositionHeard,
    RadioEvent,
    RoutingHeard,
    TextHeard,
)
from meshllm.records import Latest, Message, compact_json
from meshllm.store import atomic, codec, locks
from meshllm.store.table import Table
from meshllm.testing.radio import INFO, FakeDevice

LIMIT_S = 5.0
SCALE = 50.0
ADA = 0xA11CE001
OTHER = replace(INFO, number=0xAAAA0002, long_name="Other")


def heard(
    text: str = "hi", *, packet_id: int = 1, to: int = INFO.number, **fields: Any
) -> TextHeard:
    return TextHeard(Envelope(ADA, to, packet_id, **fields), text)


class World:
    """A bridge whose radios are fakes: one device for each link of the settings."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.files = Layout(root / "data", root / "data/nodes", root / "prompts")
        self.devices: dict[str, Callable[[Emit], Any]] = {}
        self.clock = SystemClock(SCALE)
        self.service: BridgeService | None = None
        self._poller: threading.Thread | None = None
        self._stopped = threading.Event()

        def make(link: object, emit: Emit, *, clock: object, ports: object) -> Any:
            return self.devices[str(link)](emit)

        monkeypatch.setattr(service_module, "DeviceRadio", make)

    def start(self, **devices: Any) -> None:
        """Start a bridge with a radio for each name."""
        radios = []
        for name, device in devices.items():
            link = parse_link(f"tcp:{name}:1")
            self.devices[str(link)] = getattr(device, "make", device)
            radios.append(RadioEntry(link=link))
        settings = Settings(radios=tuple(radios), bridge_poll_interval_ms=20)
        self.service = BridgeService(settings, self.files, clock=self.clock, waker=Waker())
        self.service.start()
        self._stopped.clear()
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._poller.start()

    def _poll(self) -> None:
        assert self.service is not None
        while not self._stopped.wait(0.02):
            self.service.tick()

    def stop(self) -> None:
        if self.service is None:
            return
        self._stopped.set()
        assert self._poller is not None
        self._poller.join(LIMIT_S)
        self.service.stop()
        self.service = None

    def path(self, key: str = "!a11ce001", uid: str = "aaaa0001") -> Path:
        tree = self.files.tree(uid)
        if key.startswith("!"):
            return tree.dm_thread(key)
        return tree.channel_thread(channel_stem(key, index=0, others={}))

    def rows(self, key: str = "!a11ce001", uid: str = "aaaa0001") -> list[Message]:
        return list(Table(self.path(key, uid), Message).read().rows)

    def queue(
        self, text: str = "answer", uid: str = "aaaa0001", key: str = "!a11ce001", slot: int = 0
    ) -> None:
        row = Message(
            "dm" if key.startswith("!") else "channel", key, "501", "queued", f"!{uid}", "1",
            utc_text(self.clock.utc()), text, 0, "", compact_json({"channel_index": slot}),
        )  # fmt: skip
        Table(self.path(key, uid), Message).append([row])

    def wait(self, claim: Callable[[], bool]) -> None:
        """Wait until a claim about files holds, for a limited time."""
        pause = threading.Event()
        deadline = SystemClock().monotonic() + LIMIT_S
        while not claim():
            assert SystemClock().monotonic() < deadline, "it never came true"
            pause.wait(0.005)

    def wait_text(self, text: str, **where: str) -> None:
        self.wait(lambda: text in [row.content for row in self.rows(**where)])

    def status_file(self, uid: str = "aaaa0001") -> Path:
        return self.files.tree(uid).radio_status

    def wait_up(self, uid: str = "aaaa0001") -> None:
        path = self.files.tree(uid).radio_status
        self.wait(lambda: status.read(path).get("link_state") == "up")


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)

    yield made

    made.stop()


def names(events: list[EventDict]) -> list[str]:
    return [str(event["event"]) for event in events]


def test_a_question_is_recorded_and_its_answer_sent(world: World) -> None:
    device = FakeDevice(kept=[heard("question")])
    world.start(one=device)
    world.wait_text("question")

    world.queue()

    assert device.wait(lambda d: [t.text for t in d.sent] == ["answer"])
    world.wait(lambda: world.rows()[-1].meta.get("delivery") == "handed")


def test_what_the_radio_kept_is_recorded_with_the_radios_time(world: World) -> None:
    then = int(world.clock.utc().timestamp()) - 7200
    device = FakeDevice(kept=[heard("old", rx_time=then), heard("new", packet_id=2)])

    world.start(one=device)
    world.wait_text("new")

    old, new = world.rows()
    assert old.meta["rx_time"] == then
    assert old.timestamp < new.timestamp


def test_a_broken_radio_does_not_delay_another(world: World, events: list[EventDict]) -> None:
    hanging = FakeDevice(info=OTHER, connect_gate=threading.Event())
    device = FakeDevice(kept=[heard("question")])

    def broken(emit: Emit) -> Any:
        raise RuntimeError("factory fails")

    world.start(broken=broken, hanging=hanging, works=device)
    world.wait_text("question")
    world.queue()

    assert device.wait(lambda d: len(d.sent) == 1)
    assert "link_crashed" in names(events)
    assert hanging.connect_gate is not None
    hanging.connect_gate.set()


def test_a_second_link_to_one_radio_is_refused_and_takes_nothing_more(
    world: World, events: list[EventDict]
) -> None:
    first, second = FakeDevice(), FakeDevice()
    world.start(one=first)
    world.wait_up()
    world.stop()

    world.start(one=first, two=second)
    assert first.wait(lambda d: d.connections == 2)
    assert second.wait(lambda d: d.connections == 1)
    world.wait(lambda: "radio_refused" in names(events) and "link_dropped" in names(events))

    winner = first if first.current is not None else second
    winner.emit(heard("question"))
    world.wait_text("question")
    assert names(events).count("radio_refused") == 1


def test_another_radio_on_the_same_port_gets_a_tree_of_its_own(
    world: World, events: list[EventDict]
) -> None:
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()
    device.emit(heard("to the first"))
    world.wait_text("to the first")

    device.info = OTHER
    device.kept = [heard("to the other", to=OTHER.number, packet_id=2)]
    device.lose()
    world.wait_text("to the other", uid="aaaa0002")

    assert [row.content for row in world.rows()] == ["to the first"]
    assert "radio_swapped" in names(events)


def test_two_radios_that_swapped_their_ports_find_their_trees(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serial names are dealt out anew when radios are plugged in again."""
    monkeypatch.setattr(station_module, "REFUSED_PAUSE_S", 5.0)
    one, two = FakeDevice(), FakeDevice(info=OTHER)
    world.start(one=one, two=two)
    world.wait_up()
    world.wait_up("aaaa0002")

    one.info, two.info = OTHER, INFO
    one.lose()
    two.lose()
    world.queue("from two", uid="aaaa0001")
    world.queue("from one", uid="aaaa0002")

    assert one.wait(lambda d: [t.text for t in d.sent] == ["from one"])
    assert two.wait(lambda d: [t.text for t in d.sent] == ["from two"])


def test_a_text_that_comes_as_the_link_breaks_is_recorded_at_once(world: World) -> None:
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()
    radio = device.current
    assert radio is not None
    device.is_off = True
    device.lose()
    path = world.files.tree("aaaa0001").radio_status
    world.wait(lambda: status.read(path).get("link_state") == "down")

    radio.emit(heard("last words"))

    world.wait_text("last words")


def test_what_is_heard_until_the_end_is_recorded(world: World) -> None:
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()

    for number in range(100):
        device.emit(heard(str(number), packet_id=number + 1))
    world.stop()

    assert [row.content for row in world.rows()] == [str(n) for n in range(100)]


def test_a_text_that_cannot_be_written_at_the_end_is_told(
    world: World, events: list[EventDict]
) -> None:
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()

    with locks.hold(world.path(), LIMIT_S, mode=0o660):
        device.emit(heard("locked out", packet_id=77))
        world.wait(lambda: "message_not_written" in names(events))
        world.stop()

    assert [e["message_id"] for e in events if e["event"] == "message_lost"] == ["77"]
    assert world.rows() == []


def test_a_position_sent_to_us_alone_is_of_no_channel(world: World) -> None:
    """A channel's name beside it would let anybody on that channel ask for it."""
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()

    for sender, pki in ((ADA, True), (0xB0B00001, False)):
        device.emit(PositionHeard(Envelope(sender, INFO.number, 7, pki=pki), 52.0, 13.5))
    world.stop()

    latest = Table(world.files.tree("aaaa0001").latest, Latest).read().rows
    told = {row.node_id: (row.latitude, row.position_channel) for row in latest}
    assert told == {"!a11ce001": (52.0, ""), "!b0b00001": (52.0, "LongFast")}


def test_texts_are_kept_while_the_tree_cannot_be_opened(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    refusals = [True, True]
    original = atomic.make_folders

    def refuse(*paths: Path, **options: Any) -> None:
        if refusals and threading.current_thread().name.startswith("station"):
            refusals.pop()
            raise StoreWriteError("No space left on device")
        original(*paths, **options)

    monkeypatch.setattr(atomic, "make_folders", refuse)

    world.start(one=FakeDevice(kept=[heard("question")]))

    world.wait_text("question")
    assert names(events).count("tree_not_opened") == 2


def test_an_event_that_crashes_a_step_takes_no_other_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    monkeypatch.setattr(station_module, "CRASH_PAUSE_S", 0.1)
    poison = OtherHeard(Envelope(ADA, BROADCAST, 9), "POISON")
    original = station_module.Station._packet

    def packet(self: Any, bound: Any, heard_: Any, event: RadioEvent) -> None:
        if event == poison:
            raise RuntimeError("a bug")
        original(self, bound, heard_, event)  # type: ignore[arg-type]

    monkeypatch.setattr(station_module.Station, "_packet", packet)
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()

    for event in (heard("before"), poison, heard("after", packet_id=2)):
        device.emit(event)

    world.wait_text("after")
    assert [row.content for row in world.rows()] == ["before", "after"]
    assert names(events).count("station_crashed") == 1


def test_queued_rows_of_a_damaged_file_are_not_sent(world: World, events: list[EventDict]) -> None:
    device = FakeDevice(kept=[heard("question")])
    world.files.tree("aaaa0001").dms.mkdir(parents=True)
    world.queue("recovered")
    path = world.path()
    path.chmod(0o640)
    path.write_bytes(path.read_bytes() + b'broken,"row\n')

    world.start(one=device)
    world.wait_text("question")
    world.wait(lambda: "rows_quarantined" in names(events))

    assert [row.content for row in world.rows()] == ["question"]
    assert device.sent == []


def test_a_damaged_file_without_work_is_mended_after_the_start(
    world: World, events: list[EventDict]
) -> None:
    path = world.path()
    path.parent.mkdir(parents=True)
    path.write_bytes(codec.header(Message) + b"rubbish\n")

    world.start(one=FakeDevice())

    world.wait(lambda: "rows_quarantined" in names(events))
    assert path.read_bytes() == codec.header(Message)


def test_folders_have_the_permissions_of_the_settings(world: World) -> None:
    world.start(one=FakeDevice())
    world.wait_up()

    tree = world.files.tree("aaaa0001")
    assert {oct(p.stat().st_mode & 0o777) for p in tree.folders()} == {"0o750"}


def test_the_end_is_told_and_comes_in_time(world: World) -> None:
    gate = threading.Event()
    world.start(one=FakeDevice(), hanging=FakeDevice(connect_gate=gate))
    world.wait_up()

    began = SystemClock().monotonic()
    world.stop()

    gate.set()
    assert SystemClock().monotonic() - began < 5.0
    found = status.read(world.files.tree("aaaa0001").radio_status)
    assert (found["link_state"], found["link_cause"]) == ("down", "stopped")


# -- two links to one radio ----------------------------------------------------------------------


def refuse_second(world: World, events: list[EventDict], second: FakeDevice) -> FakeDevice:
    """Start two links to one node; the one of `second` comes too late. Return the first."""
    first = FakeDevice()
    second.connect_gate = threading.Event()
    world.start(one=first, two=second)
    world.wait_up()
    second.connect_gate.set()
    world.wait(lambda: "radio_refused" in names(events))
    return first


def test_what_a_refused_link_is_given_is_recorded_by_the_radios_own_station(
    world: World, events: list[EventDict]
) -> None:
    then = int(world.clock.utc().timestamp()) - 1
    second = FakeDevice(kept=[heard("kept", rx_time=then), heard("also kept", packet_id=2)])
    radios: list[Any] = []
    make = second.make
    second.make = lambda emit: radios.append(make(emit)) or radios[-1]  # type: ignore[method-assign, func-returns-value]

    refuse_second(world, events, second)
    radios[0].emit(heard("after the refusal", packet_id=3))
    world.wait_text("after the refusal")

    assert [row.content for row in world.rows()] == ["kept", "also kept", "after the refusal"]
    assert "station_crashed" not in names(events)


def test_an_ack_that_a_refused_link_is_given_counts(world: World, events: list[EventDict]) -> None:
    first, second = FakeDevice(), FakeDevice(connect_gate=threading.Event())
    world.path().parent.mkdir(parents=True)
    world.queue()
    world.start(one=first, two=second)
    assert first.wait(lambda d: len(d.sent) == 1)
    second.kept = [RoutingHeard(Envelope(ADA, INFO.number, 9), first.sent[0].packet_id, "NONE")]

    assert second.connect_gate is not None
    second.connect_gate.set()

    world.wait(lambda: world.rows()[-1].meta.get("delivery") == "delivered")


def test_what_is_passed_on_waits_until_the_owner_has_its_tree(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    is_full = threading.Event()
    is_full.set()
    original = atomic.make_folders

    def refuse(*paths: Path, **options: Any) -> None:
        if is_full.is_set() and threading.current_thread().name.startswith("station"):
            raise StoreWriteError("No space left on device")
        original(*paths, **options)

    monkeypatch.setattr(atomic, "make_folders", refuse)
    first, second = FakeDevice(), FakeDevice(connect_gate=threading.Event(), kept=[heard("kept")])
    world.start(one=first, two=second)
    world.wait(lambda: "tree_not_opened" in names(events))
    assert second.connect_gate is not None
    second.connect_gate.set()
    world.wait(lambda: "radio_refused" in names(events))

    is_full.clear()

    world.wait_text("kept")
    assert [row.content for row in world.rows()] == ["kept"]


def test_a_refusal_is_logged_once_however_often_it_is_tried(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    monkeypatch.setattr(station_module, "REFUSED_PAUSE_S", 1.0)
    second = FakeDevice()

    refuse_second(world, events, second)

    assert second.wait(lambda d: d.connections >= 3)
    assert names(events).count("radio_refused") == 1


# -- a radio that changes ------------------------------------------------------------------------


def test_the_tree_of_a_radio_that_is_gone_does_not_say_up(
    world: World, events: list[EventDict]
) -> None:
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()

    device.info = OTHER
    device.lose()
    world.wait_up("aaaa0002")

    found = status.read(world.files.tree("aaaa0001").radio_status)
    assert found["link_state"] == "down"
    assert found["link_cause"] == "another radio answers on this link"


def test_a_text_that_the_disk_refuses_outlives_the_swap_of_its_radio(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()
    is_full = threading.Event()
    is_full.set()
    original = atomic.replace

    def refuse(path: Path, chunks: Any, **options: Any) -> Any:
        if is_full.is_set() and path == world.path():
            raise StoreWriteError(f"{path}: No space left on device")
        return original(path, chunks, **options)

    monkeypatch.setattr(atomic, "replace", refuse)
    device.emit(heard("refused"))
    world.wait(lambda: "message_not_written" in names(events))

    device.info = OTHER
    device.lose()
    world.wait_up("aaaa0002")
    is_full.clear()

    world.wait_text("refused")
    assert world.rows(uid="aaaa0002") == []


def test_what_a_radio_without_a_region_refused_goes_out_when_it_has_one(
    world: World, events: list[EventDict]
) -> None:
    device = FakeDevice(
        info=replace(INFO, region="UNSET"), results=[34] * 9, kept=[heard("question")]
    )
    world.start(one=device)
    world.wait_text("question")
    world.queue()
    device.lose()
    assert device.wait(lambda d: d.connections == 2)

    def told() -> tuple[object, object]:
        found = status.read(world.status_file())
        return found.get("queued"), found.get("link_cause")

    world.wait(lambda: told() == (1, "the radio has no region"))
    world.wait(lambda: world.rows()[-1].meta.get("reason") == "TX_DISABLED")

    device.info, device.results = INFO, []
    device.lose()

    assert device.wait(lambda d: "answer" in [t.text for t in d.sent])
    assert [names(events).count(name) for name in ("region_unset", "region_set")] == [1, 1]


PARTIAL = replace(INFO, channels=INFO.channels[:1])


def test_a_text_on_a_slot_that_was_not_told_is_recorded_and_the_radio_asked_again(
    world: World, events: list[EventDict]
) -> None:
    device = FakeDevice(info=PARTIAL)
    world.start(one=device)
    world.wait_up()
    device.info = INFO

    device.emit(heard("librarian, first", to=BROADCAST, channel_index=1))
    assert device.wait(lambda d: d.connections == 2)
    world.queue("answer", key="channel 1", slot=1)
    assert device.wait(lambda d: [(t.text, t.channel_index) for t in d.sent] == [("answer", 1)])
    device.emit(heard("librarian, second", to=BROADCAST, channel_index=1, packet_id=2))
    world.wait_text("librarian, second", key="hiking")

    assert [row.content for row in world.rows("channel 1")] == ["librarian, first", "answer"]
    assert [names(events).count(e) for e in ("channel_untold", "channel_renamed")] == [1, 1]
    assert device.connections == 2


def test_a_slot_that_was_told_once_keeps_its_name_while_the_radio_leaves_it_out(
    world: World, events: list[EventDict]
) -> None:
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()
    world.stop()
    device.info = PARTIAL
    world.start(one=device)
    assert device.wait(lambda d: d.connections == 2 and d.current is not None)

    device.emit(heard("librarian", to=BROADCAST, channel_index=1))
    world.wait_text("librarian", key="hiking")
    assert device.wait(lambda d: d.connections == 3 and d.current is not None)
    world.queue("answer", key="Hiking", slot=1)

    assert device.wait(lambda d: [(t.text, t.channel_index) for t in d.sent] == [("answer", 1)])
    device.emit(heard("more", to=BROADCAST, channel_index=1, packet_id=2))
    world.wait_text("more", key="hiking")
    assert device.connections == 3  # asked once, not at every text
    assert "channel_renamed" not in names(events)


def test_a_queued_answer_for_a_channel_that_is_gone_is_given_up_with_the_reason(
    world: World, events: list[EventDict]
) -> None:
    device = FakeDevice(info=replace(INFO, channels=(INFO.channels[0], Channel(1, "Trails", "X"))))
    world.path("Hiking").parent.mkdir(parents=True)
    world.queue("answer", key="Hiking", slot=1)

    world.start(one=device)

    world.wait(lambda: world.rows("Hiking")[0].meta.get("reason") == "NO_CHANNEL")
    assert device.sent == []


def test_a_kept_text_from_before_the_radio_was_left_has_a_wrong_clock(world: World) -> None:
    """A radio time is believed for as long as we were away, and no longer."""
    device = FakeDevice()
    world.start(one=device)
    world.wait_up()
    now = int(world.clock.utc().timestamp())
    device.kept = [
        heard("two hours behind", rx_time=now - 7200),
        heard("right", rx_time=now - 10, packet_id=2),
        heard("years ahead", rx_time=now + 10**8, packet_id=3),
    ]
    device.lose()
    world.wait_text("years ahead")

    behind, right, ahead = world.rows()
    assert right.timestamp == utc_text(datetime.fromtimestamp(now - 10, UTC))
    assert behind.timestamp == ahead.timestamp > right.timestamp


# -- trouble of one radio is not another's -------------------------------------------------------


def test_a_file_that_hangs_does_not_delay_another_radio(world: World) -> None:
    """A named pipe that nobody writes blocks whoever opens it, as a dying disk does."""
    tree = world.files.tree("aaaa0002")
    tree.dms.mkdir(parents=True)
    pipe = tree.dms / "b0b00001.csv"
    os.mkfifo(pipe)
    stuck, device = FakeDevice(info=OTHER), FakeDevice()
    world.start(stuck=stuck, works=device)
    world.wait_up()
    assert stuck.wait(lambda d: d.connections == 1)

    stuck.wait(lambda d: d.current is not None)
    stuck.emit(heard("patience", to=OTHER.number))
    device.emit(heard("question"))
    world.wait_text("question")
    world.queue()
    assert device.wait(lambda d: len(d.sent) == 1)

    assert world.rows(uid="aaaa0002") == []
    opened = os.open(pipe, os.O_WRONLY)  # the reader is there: it hangs in it
    pipe.unlink()
    os.close(opened)
    world.wait_text("patience", uid="aaaa0002")


def test_a_locked_thread_does_not_delay_another_radio(world: World) -> None:
    slow, device = FakeDevice(info=OTHER), FakeDevice()
    world.start(slow=slow, works=device)
    world.wait_up()
    world.wait_up("aaaa0002")

    with locks.hold(world.path(uid="aaaa0002"), LIMIT_S, mode=0o660):
        slow.emit(heard("locked out", to=OTHER.number))
        device.emit(heard("question"))
        world.wait_text("question")
        world.queue()
        assert device.wait(lambda d: len(d.sent) == 1)
        assert world.rows(uid="aaaa0002") == []

    world.wait_text("locked out", uid="aaaa0002")
