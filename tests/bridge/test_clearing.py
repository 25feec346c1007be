"""What of the archive is not to be kept: whole months, the oldest first, never a young row."""

import contextlib
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from structlog.typing import EventDict

from meshllm.bridge import clearing
from meshllm.bridge.clearing import Clearing
from meshllm.clock import boot_at, utc_text
from meshllm.keeping import Limits, month_of
from meshllm.layout import NodeTree
from meshllm.records import Message, Node, Record, Sighting
from meshllm.store import locks, rotate
from meshllm.store.calendar import recorded_months
from meshllm.store.table import Table
from meshllm.testing.clock import NOON, ManualClock
from meshllm.testing.power import recording
from tests.bridge.world import ADA, OWN

DAY = timedelta(days=1)
MONTHS = ("2025-11", "2025-12", "2026-01", "2026-02")


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


def message(at: datetime, number: int = 1) -> Message:
    return Message("dm", ADA, str(number), "inbound", ADA, "", utc_text(at), "hello " * 20)


def put(path: Path, row: Record) -> None:
    Table(path, type(row)).append([row])


def fill(tree: NodeTree, *, peer: str = ADA) -> dict[str, Path]:
    """An archive of four months, 31 days long at most, and texts of today."""
    shelf = tree.shelf(tree.dm_thread(peer))
    for name in MONTHS:
        for day in range(1, 29):
            at = datetime.fromisoformat(f"{name}-{day:02}T08:00:00+00:00")
            put(shelf.part(name, 1), message(at, day))
    put(tree.dm_thread(peer), message(NOON))
    return {name: shelf.part(name, 1) for name in MONTHS}


def clear(tree: NodeTree, clock: ManualClock, **limits: int) -> Clearing:
    """Let an hour pass in which nothing else is due."""
    made = Clearing(tree, Limits(**limits), clock=clock)
    hour(made, clock)
    return made


def hour(made: Clearing, clock: ManualClock) -> None:
    for _ in range(360):
        made.tick(quiet_s=60.0)
        clock.advance(10.0)


def names(tree: NodeTree, peer: str = ADA) -> list[str]:
    return [path.name for _, _, path in tree.shelf(tree.dm_thread(peer)).parts()]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(up_s=200 * 3600.0)


def test_without_limits_nothing_is_read_or_deleted(tree: NodeTree, clock: ManualClock) -> None:
    fill(tree)
    shutil.rmtree(tree.root / "threads")

    clear(tree, clock)

    assert names(tree) == [f"{name}.csv" for name in MONTHS]


def test_months_that_are_old_enough_go_and_each_is_told(
    tree: NodeTree, clock: ManualClock, events: list[EventDict]
) -> None:
    sizes = [path.stat().st_size for path in fill(tree).values()]

    clear(tree, clock, days=31 + 28)

    assert names(tree) == ["2026-01.csv", "2026-02.csv"]
    told = [e for e in events if e["event"] == "archive_deleted"]
    assert [(e["archive"], e["period"], e["files"], e["bytes"], e["reason"]) for e in told] == [
        ("dms/a11ce001", "2025-11", 1, sizes[0], "age"),
        ("dms/a11ce001", "2025-12", 1, sizes[1], "age"),
    ]
    assert told[0]["node_uid"] == tree.node_uid


def test_a_month_is_old_enough_only_when_all_of_its_days_are(
    tree: NodeTree, clock: ManualClock
) -> None:
    fill(tree)

    clear(tree, clock, days=31 + 28 + 1)

    assert names(tree) == [f"{name}.csv" for name in MONTHS[1:]]


def test_the_oldest_of_all_threads_go_first_until_the_size_is_kept(
    tree: NodeTree, clock: ManualClock
) -> None:
    files = [*fill(tree).values(), *fill(tree, peer="!b0b00001").values()]
    size = sum(path.stat().st_size for path in files)

    clear(tree, clock, size_bytes=size - 1)

    assert names(tree) == [f"{name}.csv" for name in MONTHS[1:]]
    assert names(tree, "!b0b00001") == [f"{name}.csv" for name in MONTHS]


def test_all_parts_of_a_month_go_together(tree: NodeTree, clock: ManualClock) -> None:
    first = fill(tree)["2025-11"]
    second = tree.shelf(tree.dm_thread(ADA)).part("2025-11", 2)
    shutil.copy(first, second)

    clear(tree, clock, days=90)

    assert names(tree) == [f"{name}.csv" for name in MONTHS[1:]]
    assert locks.lock_path(second).exists()


def test_the_newest_month_and_the_last_two_days_stay_at_any_size(tree: NodeTree) -> None:
    fill(tree)
    clear(tree, ManualClock(start=NOON + 20 * DAY, up_s=9e5), size_bytes=1)
    assert names(tree) == ["2026-02.csv"]

    put(tree.shelf(tree.dm_thread(ADA)).part("2026-03", 1), message(NOON))
    clear(tree, ManualClock(start=NOON, up_s=9e5), size_bytes=1)
    assert names(tree) == ["2026-02.csv", "2026-03.csv"]

    clear(tree, ManualClock(start=NOON + 20 * DAY, up_s=9e5), size_bytes=1)
    assert names(tree) == ["2026-03.csv"]


def test_a_month_stays_as_long_as_a_question_of_it_may_be_open(
    tree: NodeTree, clock: ManualClock
) -> None:
    fill(tree)
    clock.advance(20 * 86_400)
    made = Clearing(tree, Limits(size_bytes=1), clock=clock, min_age_s=30 * 86_400)

    hour(made, clock)

    assert names(tree) == ["2026-02.csv"]


def test_live_rows_are_never_touched(tree: NodeTree, clock: ManualClock) -> None:
    fill(tree)
    put(tree.dm_thread(ADA), message(NOON - 900 * DAY, 77))
    before = tree.dm_thread(ADA).read_bytes()

    clear(tree, clock, days=1, size_bytes=1)

    assert tree.dm_thread(ADA).read_bytes() == before


def test_sightings_go_by_the_year(tree: NodeTree, clock: ManualClock) -> None:
    fill(tree)
    shelf = tree.shelf(tree.sightings)
    for year in ("2024", "2025", "2026"):
        put(
            shelf.part(year, 1),
            Sighting(ADA, observed_at=f"{year}-01-09T00:00:00Z", sighting_hash="1"),
        )

    clear(tree, clock, days=59)

    assert [path.name for _, _, path in shelf.parts()] == ["2026.csv"]


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_clock_that_jumps_by_years_deletes_nothing(
    tree: NodeTree, clock: ManualClock, *, is_seen: bool
) -> None:
    """Seen: the process ran already. Else only the gap in the records tells of it."""
    fill(tree)
    booted_at = boot_at(clock)
    clock.set_utc(NOON + 5000 * DAY)
    put(tree.dm_thread(ADA), message(clock.utc(), 99))
    made = Clearing(
        tree, Limits(days=125), clock=clock, booted_at=booted_at if is_seen else boot_at(clock)
    )

    hour(made, clock)
    clock.advance(30 * 86_400)
    hour(made, clock)

    assert names(tree) == [f"{name}.csv" for name in MONTHS]


def test_a_clock_that_is_behind_deletes_nothing(tree: NodeTree) -> None:
    fill(tree)

    clear(tree, ManualClock(start=NOON - 5000 * DAY), days=1, size_bytes=1)

    assert names(tree) == [f"{name}.csv" for name in MONTHS]


def test_months_of_which_only_live_files_tell_count(tree: NodeTree, clock: ManualClock) -> None:
    shelf = tree.shelf(tree.dm_thread(ADA))
    put(shelf.part("2025-10", 1), message(NOON - 140 * DAY))
    put(tree.nodes, Node(OWN, "o", "Own", "2025-11-05T00:00:00Z", "2026-03-01T00:00:00Z"))
    put(tree.sightings, Sighting(ADA, observed_at="2025-12-09T00:00:00Z", sighting_hash="1"))
    put(shelf.part("2026-01", 1), message(NOON - 40 * DAY))
    put(tree.dm_thread("!b0b00001"), message(NOON - 5 * DAY))
    assert set[int]().union(*recorded_months(tree)) == {
        month_of(NOON - n * DAY) for n in (140, 110, 80, 40, 5, 0)
    }

    clear(tree, clock, days=120)

    assert names(tree) == ["2026-01.csv"]


def test_nothing_goes_while_something_is_to_be_sent_soon(
    tree: NodeTree, clock: ManualClock
) -> None:
    fill(tree)
    made = Clearing(tree, Limits(size_bytes=1), clock=clock)
    clock.advance(clearing.LOOK_S)

    for _ in range(9):
        made.tick(quiet_s=0.5)
        clock.advance(60.0)

    assert names(tree) == [f"{name}.csv" for name in MONTHS]


def test_a_refusal_is_told_and_tried_again(
    tree: NodeTree, clock: ManualClock, events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tree)
    path = tree.shelf(tree.dm_thread(ADA)).part("2025-11", 1)
    path.unlink()
    (path / "in the way").mkdir(parents=True)

    made = clear(tree, clock, days=90)
    [told, *_] = [e for e in events if e["event"] == "archive_not_cleared"]
    assert told["retry_in_s"] == clearing.AGAIN_S

    shutil.rmtree(path)
    hour(made, clock)
    assert names(tree) == [f"{name}.csv" for name in MONTHS[1:]]


class DeathError(BaseException):
    """Ends the process at once."""


def test_a_death_before_any_step_leaves_each_file_whole_or_gone_and_the_next_look_ends_it(
    tree: NodeTree, clock: ManualClock
) -> None:
    fill(tree)
    now, up_s = clock.utc(), clock.monotonic()
    template = tree.root.with_name("template")
    shutil.copytree(tree.root, template)
    live = tree.dm_thread(ADA)

    for fatal in range(99):
        shutil.rmtree(tree.root)
        shutil.copytree(template, tree.root)
        steps = 0

        def before(call: str, path: str, fatal: int = fatal) -> None:
            nonlocal steps
            if steps == fatal:
                raise DeathError
            steps += 1

        with recording(tree.root, before), contextlib.suppress(DeathError):
            clear(tree, ManualClock(start=now, up_s=up_s), days=59)
        for path in tree.shelf(live).parts():
            assert Table(path[2], Message).read().damage == ()
        clear(tree, ManualClock(start=now, up_s=up_s), days=59)
        assert names(tree) == ["2026-01.csv", "2026-02.csv"]
        assert len(list(rotate.history(Table(live, Message), tree.shelf(live)))) == 57
        if steps < fatal:
            break
    assert fatal > 3


@given(
    st.integers(0, 200),
    st.integers(0, 20_000),
    st.integers(0, 400),
    st.sampled_from([0, 4000, -4000]),
)
def test_whatever_the_settings_no_young_row_goes(
    tmp_path_factory: pytest.TempPathFactory, days: int, size: int, later: int, off: int
) -> None:
    tree = NodeTree(tmp_path_factory.mktemp("tree") / "aaaa0001")
    shelf = tree.shelf(tree.dm_thread(ADA))
    now = NOON + later * DAY
    for age in (200, 80, 50, 20, 3, 1):
        at = now - age * DAY
        put(shelf.part(f"{at:%Y-%m}", 1), message(at, age))
    clock = ManualClock(start=now, up_s=9e5)
    made = Clearing(tree, Limits(days=days, size_bytes=size), clock=clock)
    clock.set_utc(now + off * DAY)

    hour(made, clock)

    left = [row.message_id for row in rotate.history(Table(tree.dm_thread(ADA), Message), shelf)]
    assert {"1"} <= set(left)
    assert left == sorted(left, key=int, reverse=True)
