"""Nodes, sightings and newest facts: little is written, nothing grows without bound."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.typing import EventDict

from meshllm.bridge.registry import Registry
from meshllm.clock import utc_text
from meshllm.errors import StoreWriteError
from meshllm.layout import NodeTree
from meshllm.radio.base import (
    Envelope,
    KnownNode,
    PositionHeard,
    RadioInfo,
    TelemetryHeard,
    UserHeard,
)
from meshllm.records import Latest, Node, Sighting
from meshllm.store import atomic
from meshllm.store.atomic import Modes
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from meshllm.testing.radio import OWN_NUMBER

ADA = 0xA11CE001
ADA_ID = "!a11ce001"
NOON = "2026-03-01T12:00:00Z"
NOON_TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World:
    """One registry over real files."""

    def __init__(self, tree: NodeTree, *, max_nodes: int = 100) -> None:
        self.tree = tree
        self.clock = ManualClock()
        self.max_nodes = max_nodes
        self.registry = self._make()

    def _make(self) -> Registry:
        return Registry(
            self.tree,
            modes=Modes(),
            lock_timeout_s=1.0,
            clock=self.clock,
            max_nodes=self.max_nodes,
        )

    def restart(self) -> None:
        self.registry = self._make()

    def now(self) -> str:
        return utc_text(self.clock.utc())

    def envelope(self, sender: int = ADA, **fields: Any) -> Envelope:
        return Envelope(sender, OWN_NUMBER, 1, **fields)

    def hear(self, sender: int = ADA, **fields: Any) -> None:
        self.registry.heard(self.envelope(sender, **fields), at=self.now())
        self.registry.flush()

    def name(self, long_name: str, short_name: str = "A", sender: int = ADA) -> None:
        self.registry.named(UserHeard(self.envelope(sender), short_name, long_name))
        self.registry.flush()

    def place(self, latitude: float = 52.0, *, altitude_m: int | None = None) -> None:
        self.hear()
        heard = PositionHeard(self.envelope(), latitude, 13.5, altitude_m=altitude_m)
        self.registry.positioned(heard, channel="LongFast", at=self.now())

    def measure(self, battery: float) -> None:
        self.hear()
        heard = TelemetryHeard(self.envelope(), {"deviceMetrics": {"batteryLevel": battery}})
        self.registry.measured(heard, at=self.now())

    def nodes(self) -> list[Node]:
        return list(Table(self.tree.nodes, Node).read().rows)

    def latest(self) -> list[Latest]:
        return list(Table(self.tree.latest, Latest).read().rows)

    def sightings(self) -> list[Sighting]:
        return list(Table(self.tree.sightings, Sighting).read().rows)


@pytest.fixture
def world(tree: NodeTree, events: list[EventDict]) -> World:
    return World(tree)


def test_a_new_node_and_a_new_name_are_written_at_once(world: World) -> None:
    world.hear()
    world.name("Ada Example", "ADA")

    assert world.nodes() == [Node(ADA_ID, "ADA", "Ada Example", NOON, NOON)]


def test_last_seen_is_written_once_a_minute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hear(rssi=-70)
    writes: list[str] = []
    original = atomic.replace

    def counted(path: Path, chunks: Any, **options: Any) -> Any:
        writes.append(path.name)
        return original(path, chunks, **options)

    monkeypatch.setattr(atomic, "replace", counted)
    for _ in range(180):
        world.clock.advance(1)
        world.hear(rssi=-70)

    assert sorted(writes) == ["latest.csv"] * 3 + ["nodes.csv"] * 3
    assert world.nodes()[0].last_seen_at == "2026-03-01T12:03:00Z"


def test_what_is_gathered_is_written_at_the_end(world: World) -> None:
    world.hear(snr_db=6.0, rssi=-70, hop_start=3, hop_limit=2)

    world.registry.flush(force=True)

    assert world.latest() == [Latest(ADA_ID, 6.0, -70, 1, NOON)]


def test_a_node_heard_again_after_a_restart_is_one_row(world: World) -> None:
    world.hear()
    world.restart()
    world.clock.advance(120)
    world.hear()
    world.registry.flush(force=True)

    assert world.nodes() == [Node(ADA_ID, first_seen_at=NOON, last_seen_at="2026-03-01T12:02:00Z")]


def test_nodes_are_bounded_and_the_bound_is_told_once(
    tree: NodeTree, events: list[EventDict]
) -> None:
    world = World(tree, max_nodes=3)

    for number in range(10):
        world.hear(0xD0000000 + number)
        world.name("forged", sender=0xD0000000 + number)
        world.registry.positioned(
            PositionHeard(world.envelope(0xD0000000 + number), 1.0, 2.0), channel="x", at=NOON
        )
    world.registry.flush(force=True)

    assert len(world.nodes()) == len(world.latest()) == len(world.sightings()) == 3
    assert [e["event"] for e in events].count("node_limit_reached") == 1


def test_the_radios_own_list_is_taken_over(world: World) -> None:
    heard = int((world.clock.utc() - timedelta(hours=1)).timestamp())
    info = RadioInfo(
        OWN_NUMBER,
        nodes=(
            KnownNode(ADA, "ADA", "Ada", heard),
            KnownNode(0xB0B00001, "BOB", "Bob", 5),
            KnownNode(0xC0C00001, "", "", 2**31 + 2**30),
        ),
    )

    world.registry.adopt(info)
    world.registry.flush()

    assert world.nodes() == [
        Node(ADA_ID, "ADA", "Ada", "2026-03-01T11:00:00Z", "2026-03-01T11:00:00Z"),
        Node("!b0b00001", "BOB", "Bob", NOON, NOON),
        Node("!c0c00001", "", "", NOON, NOON),
    ]


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.text(min_size=1, max_size=64))
def test_any_name_is_kept_as_it_was_claimed(world: World, claimed: str) -> None:
    world.hear()
    world.name(claimed)
    world.restart()

    assert world.nodes()[0].long_name == claimed


@pytest.mark.parametrize("claimed", ["=cmd|' /C calc'!A0", "a\nb", "a\rb", "\x1b[31m", "\x00", '"'])
def test_a_hostile_name_breaks_no_file(world: World, claimed: str) -> None:
    world.hear()
    world.name(claimed)
    world.hear(0xB0B00001)

    assert [n.long_name for n in world.nodes()] == [claimed, ""]


def test_one_sighting_a_day_and_only_of_something_new(world: World) -> None:
    world.place()
    world.place(53.0)
    assert len(world.sightings()) == 1

    world.clock.advance(86_400)
    world.place()
    assert len(world.sightings()) == 1

    world.clock.advance(86_400)
    world.place(53.0)
    assert [s.latitude for s in world.sightings()] == [52.0, 53.0]


def test_a_restart_is_nothing_new(world: World) -> None:
    world.hear()
    world.registry.measured(
        TelemetryHeard(world.envelope(), {"deviceMetrics": {"batteryLevel": 80.0}}), at=NOON
    )
    world.registry.flush(force=True)
    world.restart()
    world.clock.advance(86_400)

    world.measure(80.0)
    world.restart()
    world.clock.advance(86_400)
    world.measure(81.0)

    assert len(world.sightings()) == 1


def test_two_nodes_are_sighted_each_for_itself(world: World) -> None:
    world.place()
    world.hear(0xB0B00001)
    world.registry.positioned(
        PositionHeard(world.envelope(0xB0B00001), 52.0, 13.5), channel="LongFast", at=NOON
    )

    assert [s.node_id for s in world.sightings()] == [ADA_ID, "!b0b00001"]


def test_newest_facts_keep_the_time_of_each(world: World) -> None:
    world.place()
    world.clock.advance(30)
    world.measure(87.0)
    world.registry.flush(force=True)

    row = world.latest()[0]
    assert (row.position_at, row.battery_at) == (NOON, "2026-03-01T12:00:30Z")
    assert (row.latitude, row.battery, row.position_channel) == (52.0, 87, "LongFast")


def test_a_refused_write_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, chunks: Any, **options: Any) -> Any:
        raise StoreWriteError(f"{path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "replace", refuse)
        world.hear()
        world.place()
    world.clock.advance(61)
    world.registry.flush()

    assert [n.node_id for n in world.nodes()] == [ADA_ID]


def test_damaged_and_removed_rows_come_back(world: World, events: list[EventDict]) -> None:
    world.hear()
    world.hear(0xB0B00001)
    path = world.tree.nodes
    path.chmod(0o640)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'broken,"row\n' + lines[2])

    world.clock.advance(61)
    world.hear()
    world.clock.advance(61)
    world.hear()
    assert {n.node_id for n in world.nodes()} == {ADA_ID, "!b0b00001"}

    path.chmod(0o640)
    path.write_bytes(lines[0])
    world.clock.advance(61)
    world.hear()
    world.clock.advance(61)
    world.registry.flush()
    assert [n.node_id for n in world.nodes()] == [ADA_ID]


# -- a clock that is set -------------------------------------------------------------------------


@pytest.mark.parametrize("is_restarted", [False, True])
def test_times_of_a_clock_that_ran_ahead_give_way_to_the_next_hearing(
    world: World, is_restarted: bool
) -> None:
    world.clock.set_utc(NOON_TIME + timedelta(days=9))
    world.place(52.0)
    world.measure(90.0)
    world.registry.flush(force=True)
    if is_restarted:
        world.restart()

    world.clock.set_utc(NOON_TIME)
    world.place(53.0)
    world.clock.advance(61)
    world.registry.flush()

    assert [node.last_seen_at for node in world.nodes()] == [NOON]
    assert world.latest()[0].position_at == NOON
    assert [row.observed_at for row in world.sightings()] == ["2026-03-10T12:00:00Z", NOON]


def test_once_a_day_holds_again_after_a_clock_was_set_back(world: World) -> None:
    world.clock.set_utc(NOON_TIME + timedelta(days=9))
    world.place(52.0)
    world.clock.set_utc(NOON_TIME)
    for degrees in (53.0, 54.0, 55.0):
        world.clock.advance(600)
        world.place(degrees)
    world.restart()
    world.place(56.0)

    assert [row.latitude for row in world.sightings()] == [52.0, 53.0]


def test_a_clock_that_was_behind_blocks_nothing_once_it_is_set(world: World) -> None:
    world.place(51.0)
    world.clock.set_utc(NOON_TIME - timedelta(days=400))
    for degrees in (52.0, 53.0):
        world.place(degrees)

    world.clock.set_utc(NOON_TIME + timedelta(days=2))
    world.place(54.0)
    world.clock.advance(61)
    world.registry.flush()

    assert [row.latitude for row in world.sightings()] == [51.0, 52.0, 54.0]
    assert world.nodes() == [Node(ADA_ID, "", "", NOON, "2026-03-03T12:00:00Z")]


def test_a_radio_whose_clock_runs_ahead_dates_no_node(world: World) -> None:
    later = int((NOON_TIME + timedelta(days=3)).timestamp())
    world.registry.adopt(RadioInfo(OWN_NUMBER, nodes=(KnownNode(ADA, "ADA", "Ada", later),)))
    world.registry.flush()

    assert world.nodes() == [Node(ADA_ID, "ADA", "Ada", NOON, NOON)]
