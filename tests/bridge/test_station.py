"""Radios and their trees: one never delays another, nothing heard is lost on the way."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from meshllm.layout import Layout
from meshllm.observe import status
from meshllm.radio.base import BROADCAST, Emit, Envelope, OtherHeard, RadioEvent, TextHeard
from meshllm.records import Message, compact_json
from meshllm.store import atomic, codec
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

        def make(link: object, emit: Emit, *, clock: object) -> Any:
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
        return tree.dm_thread(key) if key.startswith("!") else tree.channel_thread(key.lower())

    def rows(self, key: str = "!a11ce001", uid: str = "aaaa0001") -> list[Message]:
        return list(Table(self.path(key, uid), Message).read().rows)

    def queue(self, text: str = "answer", uid: str = "aaaa0001") -> None:
        row = Message(
            "dm", "!a11ce001", "501", "queued", f"!{uid}", "1", utc_text(self.clock.utc()), text,
            0, "", compact_json({"channel_index": 0}),
        )  # fmt: skip
        Table(self.path(uid=uid), Message).append([row])

    def wait(self, claim: Callable[[], bool]) -> None:
        """Wait until a claim about files holds, for a limited time."""
        pause = threading.Event()
        deadline = SystemClock().monotonic() + LIMIT_S
        while not claim():
            assert SystemClock().monotonic() < deadline, "it never came true"
            pause.wait(0.005)

    def wait_text(self, text: str, **where: str) -> None:
        self.wait(lambda: text in [row.content for row in self.rows(**where)])

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
