"""Rotation: nothing is lost or doubled between a live file and its archive, whatever happens."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from meshllm.errors import DamagedFileError, LockTimeoutError, StoreWriteError
from meshllm.layout import Shelf
from meshllm.records import Message, PromptRow, Sighting
from meshllm.store import codec, locks, rotate
from meshllm.store.table import Table
from tests.store import rotate_driver
from tests.store.rotate_driver import MONTHS, live, month, row, shelf, units

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("rotate_driver.py")
ALL = [row(number) for number in MONTHS]
GOING = [found for unit in units() for found in unit]
STAYING = [found for found in ALL if found not in GOING]


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def table(tmp_path: Path) -> Table[Message]:
    made = live(tmp_path)
    made.append(ALL)
    return made


def turn(table: Table[Message], wanted: Sequence[Sequence[Message]] = ()) -> rotate.Rotation:
    return rotate.rotate(table, wanted or units(), shelf(table.path.parent), month)


def archived(folder: Path) -> dict[str, list[Message]]:
    return {
        path.stem: list(Table(path, Message).read().rows) for _, _, path in shelf(folder).parts()
    }


def everything(folder: Path) -> list[Message]:
    return list(rotate.history(live(folder), shelf(folder)))


# What a rotation does


def test_rows_move_to_the_file_of_their_month_and_keep_their_order(
    table: Table[Message], tmp_path: Path
) -> None:
    done = turn(table)

    assert done.moved == 4
    assert done.kept == 2
    assert [path.name for path in done.archives] == ["2026-01.csv", "2026-02.csv"]
    assert archived(tmp_path) == {"2026-01": ALL[:2], "2026-02": ALL[2:4]}
    assert list(table.read().rows) == ALL[4:]


def test_units_that_lie_between_each_other_keep_the_order_of_the_file(
    table: Table[Message], tmp_path: Path
) -> None:
    turn(table, [(row(3), row(5)), (row(4), row(6))])

    assert archived(tmp_path) == {"2026-02": [row(3), row(4), row(5), row(6)]}


def test_an_archive_file_is_a_table_like_any_other(table: Table[Message], tmp_path: Path) -> None:
    turn(table)

    path = shelf(tmp_path).part("2026-01", 1)
    assert path.read_bytes() == codec.header(Message) + codec.encode(ALL[:2])
    assert path.stat().st_mode & 0o777 == 0o440


def test_nothing_to_move_touches_nothing(table: Table[Message], tmp_path: Path) -> None:
    before = table.path.stat()

    done = rotate.rotate(table, [], shelf(tmp_path), month)

    assert done.moved == 0
    assert table.path.stat().st_ino == before.st_ino
    assert not (tmp_path / "archive").exists()


def test_rows_appended_meanwhile_stay(table: Table[Message]) -> None:
    wanted = units()
    Table(table.path, Message).append([row(7)])

    turn(table, wanted)

    assert [found.message_id for found in table.read().rows] == ["5", "6", "7"]


def test_a_row_that_changed_meanwhile_keeps_its_whole_unit_live(
    table: Table[Message], tmp_path: Path
) -> None:
    wanted = units()
    newer = replace(row(2), send_status="sent")
    table.update({newer.key: lambda _: newer})

    turn(table, wanted)

    assert list(table.read().rows) == [row(1), newer, row(5), row(6)]
    assert everything(tmp_path) == [row(3), row(4), row(1), newer, row(5), row(6)]


def test_a_second_try_takes_the_newer_state_into_the_archive(
    table: Table[Message], tmp_path: Path
) -> None:
    wanted = units()
    newer = replace(row(2), send_status="sent")
    table.update({newer.key: lambda _: newer})
    turn(table, wanted)

    turn(table, [(row(1), newer)])

    assert archived(tmp_path) == {"2026-01": [row(1), newer], "2026-02": ALL[2:4]}
    assert list(table.read().rows) == STAYING


def test_an_id_that_comes_again_after_months_is_another_message(
    table: Table[Message], tmp_path: Path
) -> None:
    turn(table)
    again = replace(row(1), content="another text under the same packet id")
    table.append([again])

    turn(table, [(again,)])

    assert archived(tmp_path)["2026-01"] == [row(1), row(2), again]
    assert [found for found in everything(tmp_path) if found.key == again.key] == [row(1), again]


def test_a_row_that_cannot_be_kept_as_it_is_stays(tmp_path: Path) -> None:
    table = Table(tmp_path / "sightings.csv", Sighting)
    exact = "!a,1.25,,,,2025-01-02T00:00:00Z,h\n"
    longer = "!a,1.123456789,,,,2025-01-01T00:00:00Z,h\n"
    table.path.write_bytes(codec.header(Sighting) + (longer + exact).encode())

    rows = table.read().rows
    done = rotate.rotate(table, [(r,) for r in rows], Shelf(tmp_path / "a"), lambda _: "2025")

    assert done.moved == 1
    assert table.read().rows[0].observed_at == "2025-01-01T00:00:00Z"


def test_the_registry_of_model_calls_can_be_rotated_by_month(tmp_path: Path) -> None:
    table = Table(tmp_path / "prompts.csv", PromptRow)
    rows = [PromptRow(f"p{n}", "a", "2026-01-01 00:00:00", "m", "dm", "!a", "1") for n in range(3)]
    table.append(rows)

    place = Shelf(tmp_path / "archive", prefix="prompts-")
    rotate.rotate(table, [(r,) for r in rows[:2]], place, lambda r: r.datetime[:7])

    assert [path.name for _, _, path in place.parts()] == ["prompts-2026-01.csv"]
    assert list(rotate.history(table, place)) == rows


# Parts


def test_a_large_month_goes_on_in_a_second_part(
    table: Table[Message], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_rows = len(codec.header(Message) + codec.encode([row(-1), row(1)]))
    monkeypatch.setattr(rotate, "MAX_PART_BYTES", two_rows)
    table.append([row(-1), row(-2), row(-3)])
    turn(table, [(row(-n),) for n in (1, 2, 3)])

    turn(table)

    assert archived(tmp_path) == {
        "2026-01": [row(-1), row(-2)],
        "2026-01-part2": [row(-3), row(1)],
        "2026-01-part3": [row(2)],
        "2026-02": [row(3), row(4)],
    }
    assert everything(tmp_path) == [*(row(-n) for n in (1, 2, 3)), *ALL]


def test_a_try_that_failed_finds_what_it_archived_over_two_parts(
    table: Table[Message], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotate, "MAX_PART_BYTES", len(codec.header(Message)) + 1)
    with locks.hold(table.path), pytest.raises(LockTimeoutError):
        _elsewhere(lambda: turn(Table(table.path, Message, lock_timeout_s=0.05)))
    one_row_each = {
        "2026-01": [row(1)],
        "2026-01-part2": [row(2)],
        "2026-02": [row(3)],
        "2026-02-part2": [row(4)],
    }
    assert archived(tmp_path) == one_row_each

    turn(table)

    assert archived(tmp_path) == one_row_each
    assert list(table.read().rows) == STAYING


def test_a_batch_has_a_bound_and_never_splits_a_unit(
    table: Table[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotate, "MAX_BATCH_BYTES", len(codec.encode([row(1)])))

    assert turn(table).moved == 2
    assert turn(table, units()[1:]).moved == 1
    assert turn(table, units()[2:]).moved == 1


def test_only_so_many_archive_files_are_written_at_once(tmp_path: Path) -> None:
    rows = [replace(row(n), timestamp=f"2025-{n:02}-01T00:00:00Z") for n in range(1, 10)]
    table = live(tmp_path)
    table.append(rows)

    done = turn(table, [(r,) for r in rows])

    assert done.moved == len(done.archives) == rotate.MAX_BATCH_PERIODS


def test_names_of_parts_are_in_order_and_foreign_files_are_none(tmp_path: Path) -> None:
    place = shelf(tmp_path)
    place.folder.mkdir(parents=True)
    names = ["2025", "2026-01", "2026-01-part2", "2026-01-part10", "2026-02", "undated"]
    for name in [*names[::-1], "notes", "2026-01-part1", "2026-1", ".2026-01", "2026-01-2"]:
        (place.folder / f"{name}.csv").touch()
    (place.folder / "2026-01.csv.lock").touch()

    assert [path.stem for _, _, path in place.parts()] == names
    assert all(place.part(period, number) == path for period, number, path in place.parts())


# Damage and refusal


def test_a_damaged_archive_file_is_left_and_the_next_part_begun(
    table: Table[Message], tmp_path: Path, events: list[EventDict]
) -> None:
    path = shelf(tmp_path).part("2026-01", 1)
    path.parent.mkdir(parents=True)
    path.write_bytes(codec.header(Message) + codec.encode([row(-1)]) + b'dm,"open')
    before = path.read_bytes()

    turn(table)

    assert path.read_bytes() == before
    assert archived(tmp_path)["2026-01-part2"] == [row(1), row(2)]
    [told] = [event for event in events if event["event"] == "archive_damaged"]
    assert told["file"] == "t/2026-01.csv"
    assert everything(tmp_path) == [row(-1), *ALL]


@pytest.mark.timeout(5)
def test_what_is_no_file_in_the_archive_is_passed_over(
    table: Table[Message], tmp_path: Path
) -> None:
    place = shelf(tmp_path)
    place.folder.mkdir(parents=True)
    os.mkfifo(place.part("2026-01", 1))
    place.part("2026-02", 1).symlink_to(table.path)

    turn(table)

    assert place.part("2026-02", 1).is_symlink()
    assert list(Table(place.part("2026-01", 2), Message).read().rows) == ALL[:2]
    assert everything(tmp_path) == ALL


def test_a_damaged_live_file_keeps_everything(table: Table[Message], tmp_path: Path) -> None:
    wanted = units()
    table.path.chmod(0o640)
    table.path.write_bytes(table.path.read_bytes() + b"rubbish\n")
    before = table.path.read_bytes()

    with pytest.raises(DamagedFileError):
        turn(table, wanted)

    assert table.path.read_bytes() == before
    assert everything(tmp_path) == ALL


def test_a_locked_file_is_left_for_later(table: Table[Message], tmp_path: Path) -> None:
    short = Table(table.path, Message, lock_timeout_s=0.05)
    place = shelf(tmp_path)

    with locks.hold(table.path), pytest.raises(LockTimeoutError):
        _elsewhere(lambda: turn(short))
    assert list(table.read().rows) == ALL

    place.folder.mkdir(parents=True, exist_ok=True)
    with locks.hold(place.part("2026-01", 1)), pytest.raises(LockTimeoutError):
        _elsewhere(lambda: turn(short))
    assert list(table.read().rows) == ALL

    turn(table)
    assert archived(tmp_path) == {"2026-01": ALL[:2], "2026-02": ALL[2:4]}


def _elsewhere(act: Any) -> None:
    """Run in another thread: a lock is not taken twice by one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result(5)


@pytest.mark.parametrize("write", range(3), ids=["first month", "second month", "live file"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
def test_a_full_disk_in_the_middle_loses_nothing_and_a_later_try_ends_it(
    table: Table[Message],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: int,
    number: int,
) -> None:
    real, count = os.write, iter(range(100))

    def failing(*arguments: Any) -> int:
        if next(count) == write:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        with pytest.raises(StoreWriteError):
            turn(table)
    assert list(table.read().rows) == ALL
    assert sorted(r.message_id for r in everything(tmp_path)) == [r.message_id for r in ALL]

    turn(table)
    assert archived(tmp_path) == {"2026-01": ALL[:2], "2026-02": ALL[2:4]}
    assert list(table.read().rows) == STAYING
    assert list(tmp_path.rglob("*.tmp")) == []


# Reading both


def test_what_moves_while_history_is_read_is_not_missed(
    table: Table[Message], tmp_path: Path
) -> None:
    reading = rotate.history(table, shelf(tmp_path))
    turn(live(tmp_path), units()[:1])
    found = [next(reading)]
    turn(live(tmp_path), units()[1:])

    assert sorted([*found, *reading], key=lambda r: r.message_id) == ALL


def test_a_row_in_both_counts_once_as_it_is_live(table: Table[Message], tmp_path: Path) -> None:
    path = shelf(tmp_path).part("2026-01", 1)
    Table(path, Message).append([row(-1), replace(row(1), send_status="failed")])

    assert everything(tmp_path) == [row(-1), *ALL]


# Death at every step


@pytest.fixture(scope="module")
def graves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rotations")
    subprocess.run(
        [sys.executable, str(DRIVER), str(folder)],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return folder


def deaths(graves: Path, operation: str) -> list[Path]:
    """Every state left by a kill or a power cut."""
    return [path for path in (graves / operation).iterdir() if path.is_dir()]


@pytest.mark.parametrize("operation", ["first", "later"])
def test_every_death_leaves_each_row_live_or_archived_and_the_next_run_ends_it(
    graves: Path, operation: str, tmp_path: Path
) -> None:
    earlier = [row(-1), row(-2)] if operation == "later" else []
    found = deaths(graves, operation)
    assert len(found) > 60
    assert any(path.name.endswith(".power") for path in found)
    for grave in found:
        folder = Path(shutil.copytree(grave, tmp_path / grave.name))
        assert set(everything(folder)) == {*earlier, *ALL}, grave

        present = set(live(folder).read().rows)
        turn(live(folder), [unit for unit in units() if present.issuperset(unit)] or [()])

        assert list(live(folder).read().rows) == STAYING, grave
        assert archived(folder) == {"2026-01": [*earlier, *ALL[:2]], "2026-02": ALL[2:4]}, grave
        assert everything(folder) == [*earlier, *ALL], grave
        assert list((folder / "archive").rglob("*.tmp")) == [], grave


def test_the_control_that_shortens_the_live_file_first_is_caught(graves: Path) -> None:
    assert any(set(everything(grave)) != set(ALL) for grave in deaths(graves, "naive"))


@pytest.mark.parametrize("operation", ["first", "later"])
def test_the_archive_is_durable_before_the_live_file_is_written(
    graves: Path, operation: str
) -> None:
    calls = json.loads((graves / operation / "calls.json").read_text())
    renames = [(at, call[2]) for at, call in enumerate(calls) if call[0] == "rename"]

    assert [name for _, name in renames] == ["2026-01.csv", "2026-02.csv", rotate_driver.LIVE]
    for at, _ in renames:
        assert calls[at - 1][0] == "fsync"
        assert calls[at + 1][0] == "fsync"
