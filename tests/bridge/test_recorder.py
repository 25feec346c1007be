"""Texts into thread files, each exactly once, whatever the radio repeats and the disk refuses."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.typing import EventDict

from meshllm.bridge import recorder as recorder_module
from meshllm.bridge.recorder import Arrival, Recorder
from meshllm.bridge.tables import Tables
from meshllm.errors import StoreWriteError
from meshllm.layout import NodeTree
from meshllm.radio.base import BROADCAST, Channel, Envelope, TextHeard
from meshllm.records import Message
from meshllm.store import atomic, locks
from meshllm.store.atomic import Modes
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from meshllm.testing.radio import INFO, OWN_NUMBER

ADA = 0xA11CE001


class World:
    """One recorder over real files."""

    def __init__(self, tree: NodeTree, *, max_threads: int = 100) -> None:
        self.tree = tree
        self.clock = ManualClock()
        self.max_threads = max_threads
        self.recorder = self._make()

    def _make(self) -> Recorder:
        tables = Tables(self.tree.quarantine, modes=Modes(), lock_timeout_s=1.0, clock=self.clock)
        return Recorder(self.tree, tables, clock=self.clock, max_threads=self.max_threads)

    def restart(self) -> None:
        self.recorder = self._make()

    def arrival(self, text: str = "hi", *, packet_id: int = 1, **fields: Any) -> Arrival:
        envelope = Envelope(
            sender=fields.pop("sender", ADA),
            to=fields.pop("to", OWN_NUMBER),
            packet_id=packet_id,
            channel_index=fields.pop("channel", 0),
            rx_time=fields.pop("rx_time", None),
        )
        kept = bool(fields.pop("kept", False))
        return Arrival(TextHeard(envelope, text, **fields), self.clock.utc(), 12.5, kept)

    def hear(self, text: str = "hi", **fields: Any) -> None:
        self.recorder.record([self.arrival(text, **fields)], INFO)

    def rows(self, path: Path | None = None) -> list[Message]:
        found = path or self.tree.dm_thread("!a11ce001")
        return list(Table(found, Message).read().rows)

    def contents(self) -> list[str]:
        return [row.content for row in self.rows()]


@pytest.fixture
def world(tree: NodeTree, events: list[EventDict]) -> World:
    return World(tree)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Count the writes of tables; refuse them while `is_full`."""
    state: dict[str, Any] = {"is_full": False, "writes": []}
    original = atomic.replace

    def counted(path: Path, chunks: Any, **options: Any) -> Any:
        if state["is_full"]:
            raise StoreWriteError(f"{path}: No space left on device")
        state["writes"].append(path.name)
        return original(path, chunks, **options)

    monkeypatch.setattr(atomic, "replace", counted)
    return state


@contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    """Hold a file's lock as another program would."""
    with locks.lock_path(path).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def reasons(events: list[EventDict], name: str) -> list[EventDict]:
    return [event for event in events if event["event"] == name]


def test_a_text_is_a_row(world: World) -> None:
    world.hear("grüß dich", packet_id=77)

    row = world.rows()[0]
    assert (row.message_id, row.direction, row.content) == ("77", "inbound", "grüß dich")


def test_a_repeat_is_dropped_even_after_a_restart(world: World) -> None:
    world.hear(packet_id=77)
    world.hear(packet_id=77)
    world.restart()
    world.hear(packet_id=77)

    assert world.contents() == ["hi"]


def test_two_repeats_in_one_burst_are_one_row(world: World) -> None:
    world.recorder.record([world.arrival(), world.arrival()], INFO)

    assert world.contents() == ["hi"]


def test_the_same_id_from_another_sender_is_another_text(world: World) -> None:
    world.hear(packet_id=77, to=BROADCAST)
    world.hear(packet_id=77, to=BROADCAST, sender=0xB0B00001)

    assert len(world.rows(world.tree.channel_thread("longfast"))) == 2


def test_the_same_id_with_another_text_is_another_text(
    world: World, events: list[EventDict]
) -> None:
    """A radio that lost its counter: the text must not be lost for it."""
    for _ in range(2):
        world.hear("first", packet_id=77)
        world.hear("second", packet_id=77)
        world.restart()

    assert world.contents() == ["first", "second"]
    ids = [row.message_id for row in world.rows()]
    assert ids[0] == "77"
    assert ids[1].startswith("77-")
    assert reasons(events, "packet_id_reused")


def test_a_packet_without_an_id_is_known_by_its_text_for_a_while(world: World) -> None:
    world.hear(packet_id=0)
    world.clock.advance(9)
    world.hear(packet_id=0)
    world.restart()
    world.hear(packet_id=0)
    assert world.contents() == ["hi"]

    world.hear("other", packet_id=0)
    world.clock.advance(11)
    world.hear(packet_id=0)

    assert world.contents() == ["hi", "other", "hi"]
    assert len({row.message_id for row in world.rows()}) == 3


def test_a_burst_is_one_commit_a_file(world: World, disk: dict[str, Any]) -> None:
    burst = [world.arrival(f"dm {n}", packet_id=n + 1) for n in range(20)]
    burst += [world.arrival(f"ch {n}", packet_id=n + 50, to=BROADCAST) for n in range(20)]

    world.recorder.record(burst, INFO)

    assert sorted(disk["writes"]) == ["a11ce001.csv", "longfast.csv"]
    assert world.contents() == [f"dm {n}" for n in range(20)]


def test_texts_for_others_and_our_own_are_no_rows(world: World) -> None:
    world.hear(to=0xB0B00001)
    world.hear(sender=OWN_NUMBER, to=BROADCAST)

    assert world.tree.thread_files() == []


def test_texts_that_the_radio_kept_have_its_time(world: World) -> None:
    then = world.clock.utc() - timedelta(hours=2)

    world.hear(kept=True, rx_time=int(then.timestamp()))

    assert world.rows()[0].timestamp == "2026-03-01T10:00:00Z"


def test_a_kept_text_has_the_uptime_at_which_the_radio_heard_it(world: World) -> None:
    """A question asked hours ago is not young because we were away."""
    then = world.clock.utc() - timedelta(hours=2)

    world.hear("kept", kept=True, rx_time=int(then.timestamp()))
    world.hear("fresh", packet_id=2, rx_time=int(then.timestamp()))

    assert [row.meta["up_s"] for row in world.rows()] == [12.5 - 7200, 12.5]


def test_what_the_disk_refuses_is_kept_in_order_and_written_later(
    world: World, disk: dict[str, Any], events: list[EventDict]
) -> None:
    world.hear("before", packet_id=1)
    disk["is_full"] = True
    world.hear("during", packet_id=2)
    world.hear("during", packet_id=2)
    world.hear("more", packet_id=3)
    assert world.recorder.tick() == pytest.approx(recorder_module.BACKLOG_RETRY_S)
    world.clock.advance(6)
    assert world.recorder.tick() is not None

    disk["is_full"] = False
    world.clock.advance(6)
    assert world.recorder.tick() is None

    assert world.contents() == ["before", "during", "more"]
    assert reasons(events, "message_not_written")[0]["dropped"] == 0


def test_the_memory_for_what_the_disk_refuses_is_bounded(
    world: World,
    disk: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    events: list[EventDict],
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_BACKLOG", 3)
    disk["is_full"] = True
    for n in range(5):
        world.hear(str(n), packet_id=n + 1)

    disk["is_full"] = False
    world.clock.advance(6)
    world.recorder.tick()

    assert world.contents() == ["0", "1", "2"]
    assert sum(e["dropped"] for e in reasons(events, "message_not_written")) == 2


def test_a_write_that_failed_after_the_file_was_in_place_is_no_second_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's flush may fail when the new content already stands."""
    original = atomic.replace

    def late(path: Path, chunks: Any, **options: Any) -> Any:
        original(path, chunks, **options)
        raise StoreWriteError(f"{path}: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "replace", late)
        world.hear(packet_id=77)
    world.clock.advance(6)
    world.recorder.tick()

    assert world.contents() == ["hi"]


def test_threads_are_bounded_and_known_ones_go_on(tree: NodeTree, events: list[EventDict]) -> None:
    world = World(tree, max_threads=2)
    for n in range(5):
        world.hear(sender=0xD0000000 + n, packet_id=n + 1)
    world.restart()
    world.hear("again", sender=0xD0000001, packet_id=99)

    assert [p.stem for p in tree.thread_files()] == ["d0000000", "d0000001"]
    assert len(world.rows(tree.dm_thread("!d0000001"))) == 2
    told = [e for e in events if e["event"] == "thread_limit_reached"]
    assert [(e["sender"], e["left_out"]) for e in told] == [("!d0000002", 0)]


@pytest.mark.parametrize("name", ["../../etc/passwd", "CON", "a/b", "..", " ", "x" * 300, "\x00"])
def test_no_channel_name_leaves_its_folder(world: World, name: str) -> None:
    info = replace(INFO, channels=(Channel(0, name, "PRIMARY"),))

    world.recorder.record([world.arrival(to=BROADCAST)], info)

    files = world.tree.thread_files()
    assert len(files) == 1
    assert world.rows(files[0])[0].thread_key == name
    assert sorted(p.name for p in world.tree.root.parent.parent.parent.iterdir()) == ["data"]


def test_two_channels_of_one_name_have_two_files(world: World) -> None:
    info = replace(INFO, channels=(Channel(0, "Home", ""), Channel(3, "home", "")))
    burst = [
        world.arrival(packet_id=n + 1, to=BROADCAST, channel=slot) for n, slot in enumerate((0, 3))
    ]

    world.recorder.record(burst, info)

    assert {p.stem for p in world.tree.thread_files()} == {"home", "home-ch3"}


def test_a_damaged_thread_is_repaired_and_the_text_recorded(
    world: World, events: list[EventDict]
) -> None:
    world.hear("before", packet_id=1)
    path = world.tree.dm_thread("!a11ce001")
    path.chmod(0o640)
    path.write_bytes(path.read_bytes() + b'broken,"row\n')

    world.hear("after", packet_id=2)

    assert world.contents() == ["before", "after"]
    assert len(list(world.tree.quarantine.glob("*.csv"))) == 1


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.integers(1, 2**31))
def test_any_text_is_recorded_as_it_was(world: World, texts: list[str], first: int) -> None:
    before = len(world.rows())

    world.recorder.record(
        [world.arrival(t, packet_id=first * 2 + n) for n, t in enumerate(texts)], INFO
    )
    world.restart()

    rows = world.rows()[before:]
    known = {row.content for row in world.rows()}
    assert set(texts) <= known
    assert len(rows) <= len(texts)


def test_what_was_heard_first_stands_first_after_the_disk_refused_it(
    world: World, disk: dict[str, Any], events: list[EventDict]
) -> None:
    world.hear("first", packet_id=1)
    disk["is_full"] = True
    world.hear("second", packet_id=2)
    world.hear("third", packet_id=3)
    disk["is_full"] = False
    world.hear("fourth", packet_id=4)

    world.clock.advance(6)
    world.recorder.tick()

    assert world.contents() == ["first", "second", "third", "fourth"]
    assert world.recorder.waiting == 0


def test_a_long_refusal_is_told_a_few_times_only(
    world: World, disk: dict[str, Any], events: list[EventDict]
) -> None:
    disk["is_full"] = True
    for n in range(1, 1201):
        world.hear(f"text {n}", packet_id=n)
    for _ in range(60):
        world.clock.advance(6)
        world.recorder.tick()

    assert world.recorder.waiting == recorder_module.MAX_BACKLOG
    told = reasons(events, "message_not_written")
    assert len(told) < 12
    assert sum(e["dropped"] for e in told) >= 1
    disk["is_full"] = False
    world.clock.advance(6)
    world.recorder.tick()
    assert len(world.contents()) == recorder_module.MAX_BACKLOG


def test_a_text_whose_file_is_locked_at_the_end_is_written_once_the_lock_is_free(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    path = world.tree.dm_thread("!a11ce001")
    with ExitStack() as editor:
        editor.enter_context(held_by_another(path))
        world.hear(packet_id=77)
        pauses: list[float] = []

        def let_go(seconds: float) -> None:
            pauses.append(seconds)
            editor.close()

        monkeypatch.setattr(recorder_module, "pause_real", let_go)
        recorder_module.close([world.recorder])

    assert world.contents() == ["hi"]
    assert len(pauses) == 1
    assert reasons(events, "message_lost") == []


def test_texts_that_end_with_the_process_are_told_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(recorder_module, "pause_real", pauses.append)
    with held_by_another(world.tree.dm_thread("!a11ce001")):
        world.hear(packet_id=77)
        world.hear("more", packet_id=78)

        recorder_module.close([world.recorder])

    told = reasons(events, "message_lost")
    assert [(e["message_id"], e["thread_key"], e["waiting"]) for e in told] == [
        ("77", "!a11ce001", 2),
        ("78", "!a11ce001", 2),
    ]
    assert all("locked by another process" in str(e["reason"]) for e in told)
    assert sum(pauses) < 1.0  # the station has two seconds for all of its end


def test_an_end_with_nothing_in_memory_waits_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(recorder_module, "pause_real", pauses.append)
    world.hear()

    recorder_module.close([world.recorder])

    assert pauses == []
