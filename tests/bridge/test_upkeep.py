"""Which rows may leave the live files, judged by clocks that lie, and when they go."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import EventDict

from meshllm.bridge import upkeep as upkeep_module
from meshllm.bridge.recorder import Arrival, Recorder
from meshllm.bridge.tables import Tables
from meshllm.bridge.upkeep import (
    Now,
    Upkeep,
    UpkeepSettings,
    movable,
    movable_sightings,
)
from meshllm.clock import boot_at, boot_id, utc_text
from meshllm.layout import NodeTree
from meshllm.radio.base import Envelope, TextHeard
from meshllm.records import Message, Sighting, compact_json
from meshllm.store import locks, rotate
from meshllm.store.atomic import Modes
from meshllm.store.table import Table
from meshllm.testing.clock import NOON, ManualClock
from meshllm.testing.radio import INFO
from tests.bridge.world import ADA, ADA_NUMBER, OWN, OutboxWorld

DAY_S = 86_400.0
HOUR_S = 3600.0
LIMIT_S = 48 * HOUR_S
OLD, YOUNG = 3 * DAY_S, DAY_S
OTHER_BOOT = "00000000"


def asked(number: int, *, sender: str = ADA, kind: str = "dm", **fields: Any) -> Message:
    key = sender if kind == "dm" else "LongFast"
    return Message(kind, key, str(number), "inbound", sender, content=f"q{number}", **fields)


def answered(number: int, to: int, state: str = "delivered", **fields: Any) -> Message:
    queued = state in ("queued", "put off")
    status = {"queued": "", "put off": "failed", "failed": "failed"}.get(state, "sent")
    meta = fields.pop("meta", {}) | ({} if queued or state == "failed" else {"delivery": state})
    fields.setdefault("reply_to_id", str(to))
    return Message(
        fields.pop("kind", "dm"),
        ADA,
        str(number),
        "queued" if queued else "outbound",
        OWN,
        content=f"a{number}",
        send_status=status,
        meta_json=compact_json(meta),
        **fields,
    )


def notice(number: int, about: int, state: str = "delivered") -> Message:
    meta = {"kind": "notice", "notice_for": str(about)}
    return answered(number, about, state, reply_to_id="", meta=meta)


def going(
    rows: Sequence[Message], ages: Sequence[float | None] | None = None, *, live_rows: int = 0
) -> list[list[str]]:
    """Ids of what may go; all rows are old where no ages are given."""
    found = movable(
        rows,
        [OLD] * len(rows) if ages is None else ages,
        live_rows=live_rows,
        min_age_s=LIMIT_S,
    )
    return [[row.message_id for row in unit] for unit in found]


# Which rows may go


def test_a_question_goes_with_its_replies_and_the_notices_about_it() -> None:
    rows = [asked(1), notice(11, 1), asked(2), answered(12, 1), answered(13, 1), answered(14, 2)]

    assert going(rows) == [["1", "11", "12", "13"], ["2", "14"]]


@pytest.mark.parametrize("state", ["queued", "put off", "handed", "relayed"])
def test_what_is_unfinished_keeps_its_question_and_all_that_belongs_to_it(state: str) -> None:
    rows = [asked(1), answered(11, 1), answered(12, 1, state), asked(2), answered(13, 2)]

    assert going(rows) == [["2", "13"]]


@pytest.mark.parametrize("state", ["queued", "put off", "handed", "relayed"])
def test_an_unfinished_notice_keeps_its_question(state: str) -> None:
    assert going([asked(1), notice(11, 1, state), answered(12, 1)]) == []


@pytest.mark.parametrize("state", ["delivered", "unconfirmed", "failed"])
def test_what_is_final_may_go(state: str) -> None:
    assert going([asked(1), answered(11, 1, state)]) == [["1", "11"]]


def test_a_channel_text_has_no_ack_to_wait_for() -> None:
    rows = [asked(1, kind="channel"), answered(11, 1, "handed", kind="channel")]

    assert going(rows) == [["1", "11"]]


def test_the_newest_rows_stay_whatever_their_age() -> None:
    rows = [asked(n) for n in range(1, 6)]

    assert going(rows, live_rows=3) == [["1"], ["2"]]
    assert going(rows, live_rows=5) == going(rows, live_rows=9) == []


def test_a_question_stays_with_a_reply_among_the_newest_rows() -> None:
    rows = [asked(1), asked(2), asked(3), answered(11, 1)]

    assert going(rows, live_rows=1) == [["2"], ["3"]]


@pytest.mark.parametrize("age", [YOUNG, LIMIT_S, None, -DAY_S])
def test_a_row_stays_that_is_young_or_whose_age_nobody_knows(age: float | None) -> None:
    rows = [asked(1), asked(2), answered(11, 2)]

    assert going(rows, [OLD, OLD, age]) == [["1"]]


def test_an_open_question_stays_as_long_as_the_setting_lets_it_be_answered() -> None:
    week = UpkeepSettings(500, 7 * DAY_S)

    assert week.min_age_s == 7 * DAY_S
    assert UpkeepSettings(500, 60.0).min_age_s == LIMIT_S


def test_rows_that_cannot_be_told_apart_stay() -> None:
    rows = [asked(1), answered(11, 1), answered(11, 1, "unconfirmed"), asked(2)]

    assert going(rows) == [["2"]]


def test_one_id_of_two_people_goes_together() -> None:
    rows = [asked(1, kind="channel"), asked(1, kind="channel", sender="!b0b00001"), answered(11, 1)]

    assert going(rows) == [["1", "1", "11"]]
    assert going(rows, [OLD, YOUNG, OLD]) == []


STATES = ["queued", "put off", "handed", "relayed", "delivered", "unconfirmed", "failed"]


@st.composite
def threads(draw: st.DrawFn) -> list[Message]:
    rows: list[Message] = []
    for number in range(draw(st.integers(0, 14))):
        questions = [int(r.message_id) for r in rows if not r.is_outgoing]
        if draw(st.booleans()) and questions:
            target, state = draw(st.sampled_from(questions)), draw(st.sampled_from(STATES))
            is_notice = draw(st.booleans())
            rows.append((notice if is_notice else answered)(100 + number, target, state))
        else:
            rows.append(asked(number))
    return rows


@given(threads(), st.integers(0, 6), st.data())
def test_no_unfinished_row_moves_and_no_question_is_parted_from_its_answers(
    rows: list[Message], live_rows: int, data: st.DataObject
) -> None:
    ages = data.draw(
        st.lists(st.sampled_from([OLD, YOUNG, None]), min_size=len(rows), max_size=len(rows))
    )

    moved = {i for unit in going(rows, ages, live_rows=live_rows) for i in unit}

    for at, row in enumerate(rows):
        if row.message_id in moved:
            assert ages[at] == OLD
            assert at < len(rows) - live_rows
            assert row.direction != "queued"
            assert row.meta.get("delivery") not in ("handed", "relayed")
        target = row.reply_to_id or row.meta.get("notice_for")
        if row.is_outgoing:
            assert (row.message_id in moved) == (target in moved)


# How old they are


def at(moment: datetime, *, up_s: float | None = None, boot: str = "", **fields: Any) -> Message:
    meta = {} if up_s is None else {"boot": boot or boot_id(), "up_s": up_s}
    row = asked(1, timestamp=utc_text(moment), **fields)
    return replace(row, meta_json=compact_json(meta))


def sent_at(moment: datetime, **fields: Any) -> Message:
    return answered(11, 1, timestamp=utc_text(moment), **fields)


def hours(ages: Sequence[float | None]) -> list[int | None]:
    return [None if age is None else round(age / HOUR_S) for age in ages]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(up_s=10 * HOUR_S)


def test_without_a_jump_wall_time_says_how_old_rows_are(clock: ManualClock) -> None:
    now = Now.first(clock)
    rows = [
        at(NOON - timedelta(hours=80), up_s=5.0, boot=OTHER_BOOT),
        sent_at(NOON - timedelta(hours=79)),
        at(NOON - timedelta(hours=2), up_s=8 * HOUR_S),
        sent_at(NOON - timedelta(hours=1)),
    ]

    assert hours(now.ages(rows)) == [80, 79, 2, 1]


def test_a_clock_that_is_set_days_forward_makes_no_row_of_minutes_ago_old(
    clock: ManualClock,
) -> None:
    now = Now.first(clock)
    rows = [
        sent_at(NOON - timedelta(hours=3)),
        at(NOON - timedelta(hours=20), up_s=5.0, boot=OTHER_BOOT),
        at(NOON, up_s=10 * HOUR_S),
        sent_at(NOON),
    ]

    clock.set_utc(NOON + timedelta(days=30))

    assert hours(now.ages(rows)) == [3, 20, 0, 0]


def test_a_bridge_started_after_the_jump_sees_it_by_the_rows(clock: ManualClock) -> None:
    rows = [
        sent_at(NOON - timedelta(hours=11)),
        at(NOON, up_s=10 * HOUR_S),
        sent_at(NOON),
    ]
    clock.set_utc(NOON + timedelta(days=30))

    assert hours(Now.first(clock).ages(rows)) == [11, 0, 0]


def test_rows_of_an_earlier_boot_are_older_than_this_one_whatever_the_clock_says() -> None:
    clock = ManualClock(up_s=60 * HOUR_S)
    rows = [
        sent_at(NOON + timedelta(days=900)),
        at(NOON + timedelta(days=900), up_s=5.0, boot=OTHER_BOOT),
        sent_at(NOON + timedelta(days=900)),
    ]

    ages = hours(Now.first(clock).ages(rows))

    assert ages[:2] == [60, 60]
    assert ages[2] is not None
    assert ages[2] < 0


def test_a_row_put_back_behind_newer_ones_makes_none_of_them_old(clock: ManualClock) -> None:
    rows = [sent_at(NOON - timedelta(hours=1)), at(NOON, up_s=HOUR_S)]

    assert hours(Now.first(clock).ages(rows)) == [1, 9]


def test_nothing_is_older_than_a_row_before_it_whose_age_is_certain(clock: ManualClock) -> None:
    rows = [at(NOON, up_s=10 * HOUR_S), sent_at(NOON - timedelta(days=100))]

    assert hours(Now.first(clock).ages(rows)) == [0, 0]


def test_the_last_try_of_a_row_counts_not_when_it_was_queued(clock: ManualClock) -> None:
    tries = [{"id": 1, "at": utc_text(NOON - timedelta(hours=5)), "result": "handed"}]
    row = sent_at(NOON - timedelta(hours=90), meta={"tries": tries})

    assert hours(Now.first(clock).ages([row])) == [5]


def test_a_row_without_a_readable_time_is_as_old_as_what_follows_it(clock: ManualClock) -> None:
    rows = [
        replace(sent_at(NOON), timestamp="01.03.2026 12:00"),
        sent_at(NOON - timedelta(hours=70)),
        replace(sent_at(NOON), timestamp=""),
    ]

    assert hours(Now.first(clock).ages(rows)) == [70, 70, None]


def test_a_clock_set_back_makes_rows_younger_never_older(clock: ManualClock) -> None:
    now = Now.first(clock)
    clock.set_utc(NOON - timedelta(days=2))

    assert hours(now.ages([sent_at(NOON - timedelta(hours=60))])) == [12]


def test_time_that_runs_faster_counts_as_it_runs() -> None:
    clock = ManualClock(up_s=HOUR_S, scale=20.0)
    row = sent_at(NOON - timedelta(hours=1))

    assert hours(Now.first(clock).ages([row])) == [20]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 9 * HOUR_S)), max_size=8),
    st.floats(0, 4000 * HOUR_S),
)
def test_no_jump_forward_makes_a_row_of_this_boot_older_than_it_is(
    written: list[tuple[bool, float]], jump_s: float
) -> None:
    clock = ManualClock(up_s=10 * HOUR_S)
    now = Now.first(clock)
    ups = sorted(up_s for _, up_s in written)
    rows = [
        at(NOON - timedelta(hours=10) + timedelta(seconds=up_s), up_s=up_s)
        if is_inbound
        else sent_at(NOON - timedelta(hours=10) + timedelta(seconds=up_s))
        for (is_inbound, _), up_s in zip(written, ups, strict=True)
    ]

    clock.set_utc(NOON + timedelta(seconds=jump_s))

    for age, up_s in zip(now.ages(rows), ups, strict=True):
        assert age is not None
        assert age <= 10 * HOUR_S - up_s + 2


# Sightings


def seen(node: str, moment: datetime) -> Sighting:
    return Sighting(node, observed_at=utc_text(moment), sighting_hash="x")


def test_the_newest_sighting_of_each_node_stays() -> None:
    rows = [seen(node, NOON) for node in ("!a", "!b", "!a", "!c", "!a", "!d")]

    def gone(live_rows: int, age: float | None = OLD) -> list[int]:
        units = movable_sightings(rows, [age] * 6, live_rows=live_rows, min_age_s=LIMIT_S)
        return [next(n for n, r in enumerate(rows) if r is row) for (row,) in units]

    assert gone(0) == [0, 2]
    assert gone(4) == [0]
    assert gone(0, YOUNG) == gone(0, None) == []


# When


class World:
    """One tree of which the upkeep takes care, with few rows to a file."""

    def __init__(self, tree: NodeTree, live_rows: int = 50) -> None:
        self.tree = tree
        self.clock = ManualClock(up_s=200 * HOUR_S)
        self.settings = UpkeepSettings(live_rows)
        self.shortened: list[Path] = []
        self.made: Upkeep | None = None
        self._ids = itertools.count(1000)

    @property
    def upkeep(self) -> Upkeep:
        if self.made is None:
            self.made = Upkeep(
                self.tree,
                self.settings,
                modes=Modes(),
                clock=self.clock,
                on_moved=self.shortened.append,
            )
        return self.made

    def path(self, peer: str = ADA) -> Path:
        return self.tree.dm_thread(peer)

    def fill(self, count: int, *, peer: str = ADA, days_ago: float = 20.0) -> list[Message]:
        """Append answered questions of so many days ago, a minute apart."""
        begun = self.clock.utc() - timedelta(days=days_ago)
        rows = []
        for n in range(count // 2):
            moment = utc_text(begun + timedelta(minutes=n))
            number = next(self._ids)
            rows += [
                asked(number, sender=peer, timestamp=moment),
                answered(5000 + number, number, timestamp=moment),
            ]
        Table(self.path(peer), Message).append(rows)
        return rows

    def live(self, peer: str = ADA) -> list[Message]:
        return list(Table(self.path(peer), Message).read().rows)

    def history(self, peer: str = ADA) -> list[Message]:
        path = self.path(peer)
        return list(rotate.history(Table(path, Message), self.tree.shelf(path)))

    def run(self, seconds: float = 60.0) -> None:
        """Let time pass in which nothing else is to be done."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.clock.advance(min(self.upkeep.tick(quiet_s=60.0), seconds))


@pytest.fixture
def world(tree: NodeTree, events: list[EventDict]) -> World:
    return World(tree)


def told(events: list[EventDict], name: str) -> list[EventDict]:
    return [event for event in events if event["event"] == name]


def test_a_thread_keeps_its_newest_rows_and_the_rest_is_archived(
    world: World, events: list[EventDict]
) -> None:
    rows = world.fill(120)

    world.run()

    assert world.live() == rows[70:]
    assert world.history() == rows
    [event] = told(events, "thread_rotated")
    assert event["file"] == "a11ce001.csv"
    assert (event["moved"], event["kept"]) == (70, 50)
    assert event["archive"] == ["archive/dms/a11ce001/2026-02.csv"]
    assert world.shortened == [world.path()]


def test_a_file_is_left_alone_until_it_has_grown_by_the_slack(world: World) -> None:
    world.fill(world.settings.most_rows)
    world.run()
    assert len(world.live()) == world.settings.most_rows == 100

    world.fill(2, days_ago=19)
    world.run()
    assert len(world.live()) == 102, "nobody said that it changed"

    world.upkeep.note(world.path())
    world.run()
    assert len(world.live()) == 50


def test_a_file_that_changes_all_the_time_is_looked_at_once_a_minute(world: World) -> None:
    world.fill(90)
    world.upkeep.tick(quiet_s=60.0)
    world.fill(40, days_ago=10)
    world.upkeep.note(world.path())

    world.run(50)
    assert len(world.live()) == 130

    world.run(20)
    assert len(world.live()) == 50


def test_nothing_moves_while_something_is_to_be_sent_soon(world: World) -> None:
    world.fill(120)

    for _ in range(5):
        world.upkeep.tick(quiet_s=0.5)
        world.clock.advance(60)
    assert len(world.live()) == 120

    world.upkeep.tick(quiet_s=5.0)
    assert len(world.live()) == 50


def test_a_clock_set_before_the_radio_was_there_is_known_from_the_start_of_the_process(
    world: World,
) -> None:
    world.settings = replace(world.settings, booted_at=boot_at(world.clock))
    rows = world.fill(120, days_ago=0)
    world.clock.set_utc(NOON + timedelta(days=30))

    world.run()

    assert world.live() == rows


def test_one_file_is_rotated_at_a_time(world: World) -> None:
    peers = [f"!a11ce00{n}" for n in range(1, 5)]
    for peer in peers:
        world.fill(120, peer=peer)

    shortened = []
    for _ in peers:
        world.upkeep.tick(quiet_s=60.0)
        world.upkeep.tick(quiet_s=60.0)
        shortened.append(len(world.shortened))
        world.clock.advance(upkeep_module.PAUSE_S)

    assert shortened == [1, 2, 3, 4]


def test_a_large_file_takes_several_moves(
    world: World, monkeypatch: pytest.MonkeyPatch, events: list[EventDict]
) -> None:
    monkeypatch.setattr(rotate, "MAX_BATCH_BYTES", 10_000)
    rows = world.fill(600)

    world.run(300)

    assert len(told(events, "thread_rotated")) > 3
    assert 50 <= len(world.live()) <= world.settings.most_rows
    assert world.history() == rows


def test_rows_of_the_last_two_days_stay_however_many(world: World) -> None:
    rows = world.fill(300, days_ago=1.5)

    world.run()
    assert world.live() == rows

    world.run(DAY_S)
    assert 50 <= len(world.live()) <= world.settings.most_rows
    assert world.history() == rows


def test_a_row_that_must_stay_keeps_its_place(world: World) -> None:
    rows = world.fill(40)
    waiting = answered(9000, 1, "queued", timestamp=rows[0].timestamp)
    Table(world.path(), Message).append([waiting])
    rest = world.fill(120, days_ago=10)

    world.run()

    assert world.live()[0] == waiting
    assert world.live()[1:] == rest[-50:]


def test_rows_without_a_time_are_archived_under_a_name_of_their_own(world: World) -> None:
    first = replace(answered(9000, 1), timestamp="1. Feb 2026")
    Table(world.path(), Message).append([first])
    rows = world.fill(120)

    world.run()

    assert world.history() == [*rows[:70], first, *rows[70:]]
    shelf = world.tree.shelf(world.path())
    assert [path.name for _, _, path in shelf.parts()] == ["2026-02.csv", "undated.csv"]


def test_a_refused_move_is_told_and_tried_again(world: World, events: list[EventDict]) -> None:
    rows = world.fill(120)
    blocked = world.tree.archive
    blocked.write_text("a file where a folder should be")

    world.run()
    assert world.live() == rows
    [event] = told(events, "rotation_failed")
    assert event["file"] == "a11ce001.csv"
    assert event["retry_in_s"] == upkeep_module.LOOK_AGAIN_S

    blocked.unlink()
    world.run(upkeep_module.LOOK_AGAIN_S)
    assert world.history() == rows
    assert len(world.live()) == 50


def test_a_damaged_thread_is_left_to_its_repair(world: World) -> None:
    world.fill(120)
    path = world.path()
    path.chmod(0o640)
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    before = path.read_bytes()

    world.run()

    assert path.read_bytes() == before
    assert not world.tree.archive.exists()


def test_sightings_go_into_a_file_a_year(world: World, events: list[EventDict]) -> None:
    day = timedelta(days=1)
    rows = [seen(f"!a11ce00{n % 3}", NOON - 400 * day + n * day) for n in range(397)]
    still = seen("!b0b00001", NOON - 900 * day)
    table = Table(world.tree.sightings, Sighting)
    table.append([still, *rows])

    world.run()

    shelf = world.tree.shelf(world.tree.sightings)
    assert [path.name for _, _, path in shelf.parts()] == ["2025.csv", "2026.csv"]
    assert list(table.read().rows) == [still, *rows[-50:]]
    assert set(rotate.history(table, shelf)) == {still, *rows}
    assert len(told(events, "sightings_rotated")) == 1


# What others make of it


def arrival(world: World, packet_id: int, text: str = "hello") -> Arrival:
    envelope = Envelope(ADA_NUMBER, INFO.number, packet_id)
    up_s = world.clock.monotonic()
    return Arrival(TextHeard(envelope, text), world.clock.utc(), up_s, kept=False)


def test_a_repeated_packet_is_recognised_after_a_rotation(
    world: World, events: list[EventDict]
) -> None:
    world.fill(200)
    tables = Tables(world.tree.quarantine, modes=Modes(), lock_timeout_s=1.0, clock=world.clock)
    recorder = Recorder(world.tree, tables, clock=world.clock, max_threads=10)
    recorder.record([arrival(world, 77)], INFO)
    world.made = Upkeep(
        world.tree,
        world.settings,
        modes=Modes(),
        clock=world.clock,
        on_moved=recorder.forget,
    )

    world.run()
    recorder.record([arrival(world, 77)], INFO)

    assert [row.message_id for row in world.live()].count("77") == 1
    assert len(world.live()) == 51, "a question stays with its reply"
    assert told(events, "duplicate_dropped")


def test_an_answer_that_was_settled_late_is_not_missed_when_it_goes(
    world: World, events: list[EventDict]
) -> None:
    rows = world.fill(120)
    tables = Tables(world.tree.quarantine, modes=Modes(), lock_timeout_s=1.0, clock=world.clock)
    recorder = Recorder(world.tree, tables, clock=world.clock, max_threads=10)
    late = rows[1].with_meta(reason="it was held for weeks")
    tables.update(world.path(), {late.key: lambda _: late})
    world.made = Upkeep(
        world.tree,
        world.settings,
        modes=Modes(),
        clock=world.clock,
        on_moved=recorder.forget,
    )

    world.run()

    assert list(tables.read(world.path())) == rows[70:]
    assert not told(events, "rows_vanished")


def test_ids_that_wait_for_the_disk_are_not_forgotten(
    world: World, events: list[EventDict]
) -> None:
    world.fill(4)
    tables = Tables(world.tree.quarantine, modes=Modes(), lock_timeout_s=0.05, clock=world.clock)
    recorder = Recorder(world.tree, tables, clock=world.clock, max_threads=10)
    with locks.hold(world.path()):
        _elsewhere(lambda: recorder.record([arrival(world, 77)], INFO))
        recorder.forget(world.path())
        _elsewhere(lambda: recorder.record([arrival(world, 77)], INFO))

    world.clock.advance(10)
    recorder.tick()

    assert [row.message_id for row in world.live()].count("77") == 1


def _elsewhere(act: Any) -> None:
    """Run in another thread: a lock is not taken twice by one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result(5)


@pytest.mark.parametrize("error", ["NONE", "MAX_RETRANSMIT"])
def test_an_ack_that_comes_after_its_row_was_archived_changes_nothing(
    tmp_path: Path, events: list[EventDict], error: str
) -> None:
    world = OutboxWorld(tmp_path)
    world.queue("answer")
    packet_id = world.hand_over()
    world.ack(packet_id)
    world.clock.advance(3 * DAY_S)
    table = Table(world.path(), Message)
    rows = table.read().rows
    shelf = world.tree.shelf(world.path())
    assert rotate.rotate(table, [rows], shelf, upkeep_module.month).moved == 1

    world.ack(packet_id, error=error)
    world.outbox.scan(world.path())
    world.run(600)

    assert list(rotate.history(table, shelf)) == list(rows)
    assert table.read().rows == ()
    assert len(world.port.sent) == 1
