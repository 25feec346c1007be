"""The ballast file, on real disks: small mounts where they may be made, plain folders anywhere."""

import errno
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from meshllm.errors import LockTimeoutError, StoreWriteError
from meshllm.records import Message
from meshllm.store import reserve as reserve_module
from meshllm.store.reserve import Reserve, has_room_for
from meshllm.store.space import DiskSpace, is_enough, refusal_of
from meshllm.store.table import Table
from tests.mounts import SmallDisk, small_disk

MB = 1_000_000
SIZE = 1 * MB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=8) as found:
        yield found


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


def names(events: list[EventDict]) -> list[str]:
    return [event["event"] for event in events]


def make(folder: Path, *, floor: int = 0) -> Reserve:
    return Reserve(folder / ".reserve", floor_bytes=floor, size_bytes=SIZE)


@pytest.mark.parametrize(
    ("free", "floor", "allowed"),
    [
        (60, 50, True),
        (54, 50, True),
        (53, 50, False),  # would take the disk below the limit
        (49, 50, True),  # below it already: what is left is worth protecting
        (12, 50, True),
        (11, 50, False),
        (8, 0, True),
        (7, 0, False),
    ],
)
def test_a_reserve_never_takes_the_disk_below_the_limit(
    free: int, floor: int, allowed: bool
) -> None:
    assert has_room_for(free, floor, 4) is allowed


def test_the_reserve_really_takes_space_and_is_nobody_elses(tmp_path: Path) -> None:
    reserve = make(tmp_path)
    reserve.look()

    found = (tmp_path / ".reserve").stat()
    assert reserve.is_kept
    assert not reserve.is_spent
    assert found.st_size == SIZE
    assert found.st_blocks * 512 >= SIZE
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_a_whole_reserve_of_an_earlier_run_is_taken_over(tmp_path: Path) -> None:
    make(tmp_path).look()
    before = (tmp_path / ".reserve").stat()

    again = make(tmp_path)
    again.look()

    assert again.is_kept
    assert (tmp_path / ".reserve").stat().st_ino == before.st_ino


@pytest.mark.parametrize("left", ["half", "hole", "link", "empty"])
def test_a_half_made_or_false_reserve_is_made_anew(tmp_path: Path, left: str) -> None:
    path = tmp_path / ".reserve"
    other = tmp_path / "precious"
    other.write_bytes(b"x" * SIZE)
    if left == "half":
        path.write_bytes(b"x" * (SIZE // 2))
    elif left == "hole":
        with path.open("wb") as file:
            file.truncate(SIZE)
    elif left == "link":
        path.symlink_to(other)
    else:
        path.touch()

    make(tmp_path).look()

    found = path.lstat()
    assert stat.S_ISREG(found.st_mode)
    assert (found.st_size, found.st_blocks * 512 >= SIZE) == (SIZE, True)
    assert other.read_bytes() == b"x" * SIZE


def test_a_folder_in_its_place_is_left_alone_and_told_once(
    tmp_path: Path, events: list[EventDict]
) -> None:
    (tmp_path / ".reserve").mkdir()
    reserve = make(tmp_path)

    reserve.look()
    reserve.look()

    assert not reserve.is_kept
    assert names(events) == ["reserve_not_made"]


def test_on_a_full_disk_the_reserve_gives_way_to_the_write(
    disk: SmallDisk, row: Message, events: list[EventDict]
) -> None:
    table = Table(disk.path / "t.csv", Message)
    table.append([row])
    reserve = make(disk.path)
    reserve.look()
    disk.fill()
    newer = replace(row, message_id="1001")
    with pytest.raises(StoreWriteError) as refused:
        table.append([newer])

    reserve.write(lambda: table.append([newer]))

    assert refusal_of(refused.value) == "full"
    assert [found.message_id for found in table.read().rows] == ["1000", "1001"]
    assert (reserve.is_kept, reserve.is_spent) == (False, True)
    assert not (disk.path / ".reserve").exists()
    assert names(events) == ["reserve_spent"]


def test_a_write_that_finds_no_space_is_run_again_without_the_reserve(tmp_path: Path) -> None:
    """The same on any machine: a write that is refused as long as the ballast lies there."""
    reserve = make(tmp_path)
    reserve.look()
    outcomes: list[str] = []

    def write() -> str:
        if (tmp_path / ".reserve").exists():
            outcomes.append("refused")
            raise StoreWriteError("t.csv") from OSError(errno.EDQUOT, "quota")
        outcomes.append("written")
        return "done"

    assert reserve.write(write) == "done"
    assert outcomes == ["refused", "written"]
    assert reserve.is_spent


def test_a_spent_reserve_is_made_again_when_there_is_room(
    disk: SmallDisk, row: Message, events: list[EventDict]
) -> None:
    reserve = make(disk.path)
    reserve.look()
    disk.fill()
    reserve.write(lambda: Table(disk.path / "t.csv", Message).append([row]))
    reserve.look()
    assert reserve.is_spent

    disk.empty()
    reserve.look()

    assert (reserve.is_kept, reserve.is_spent) == (True, False)
    assert names(events) == ["reserve_spent", "reserve_made"]


def test_without_a_reserve_a_full_disk_still_refuses(disk: SmallDisk, row: Message) -> None:
    disk.fill()
    reserve = make(disk.path)
    reserve.look()

    with pytest.raises(StoreWriteError):
        reserve.write(lambda: Table(disk.path / "t.csv", Message).append([row]))

    assert not reserve.is_spent


def test_one_reserve_serves_all_who_meet_the_full_disk_at_once(
    disk: SmallDisk, row: Message, events: list[EventDict]
) -> None:
    reserve = make(disk.path)
    reserve.look()
    tables = [Table(disk.path / f"{n}.csv", Message) for n in range(4)]
    disk.fill()
    start = threading.Barrier(len(tables))

    def write(table: Table[Message]) -> Callable[[], None]:
        def act() -> None:
            table.append([row])

        def run() -> None:
            start.wait(5)
            reserve.write(act)

        return run

    threads = [threading.Thread(target=write(table)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)

    assert [table.read().rows for table in tables] == [(row,)] * 4
    assert names(events) == ["reserve_spent"]


def test_a_write_refused_before_another_gave_the_reserve_up_is_run_again(tmp_path: Path) -> None:
    reserve = make(tmp_path)
    reserve.look()
    outcomes: list[str] = []

    def refused_while_it_lies_there(name: str) -> None:
        lay_there = (tmp_path / ".reserve").exists()
        if name == "slow" and lay_there:
            reserve.write(lambda: refused_while_it_lies_there("quick"))
        if lay_there:
            raise StoreWriteError("t.csv") from OSError(errno.ENOSPC, "full")
        outcomes.append(name)

    reserve.write(lambda: refused_while_it_lies_there("slow"))

    assert outcomes == ["quick", "slow"]


def test_another_kind_of_trouble_does_not_spend_it(tmp_path: Path, row: Message) -> None:
    reserve = make(tmp_path)
    reserve.look()

    def busy() -> None:
        raise LockTimeoutError("busy")

    def missing() -> None:
        Table(tmp_path / "a" / "t.csv", Message).append([row])

    (tmp_path / "a").write_bytes(b"a file where a folder should be")
    for act, error in ((busy, LockTimeoutError), (missing, StoreWriteError)):
        with pytest.raises(error):
            reserve.write(act)

    assert reserve.is_kept


def test_low_space_is_told_once_each_way(disk: SmallDisk, events: list[EventDict]) -> None:
    space = DiskSpace((disk.path, disk.path / "none"), 4, consequence="none")
    space.look()
    before = (space.has_room, space.free_mb)
    disk.fill()
    space.look()
    space.look()
    full = (space.has_room, space.free_mb)
    disk.empty()
    space.look()

    assert before[0] is True
    assert before[1] is not None
    assert before[1] >= 7
    assert full == (False, 0)
    assert space.has_room
    assert names(events) == ["disk_space_low", "disk_space_back"]


@pytest.mark.parametrize(
    ("free", "limit", "had_room", "enough"),
    [
        (50, 50, True, True),
        (49, 50, True, False),
        (50, 50, False, False),  # else every write around the limit would be news
        (51, 50, False, True),
        (1004, 1000, False, False),
        (0, 0, False, True),
    ],
)
def test_space_must_be_back_by_some_margin(
    free: int, limit: int, had_room: bool, enough: bool
) -> None:
    assert is_enough(free, limit, had_room=had_room) is enough


def test_the_fixed_size_covers_what_several_radios_copy_at_once() -> None:
    live_file = 550 * 400  #: rows of a live file before it is rotated, and bytes of a long one
    assert live_file * 10 < reserve_module.SIZE_BYTES
