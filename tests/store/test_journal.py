"""Log files on real disks: whole lines, a bounded size, and a way back from every refusal."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshllm.errors import StoreWriteError
from meshllm.store.atomic import Modes
from meshllm.store.journal import Journal
from tests.mounts import small_disk

LINE = b"0123456789abcde\n"


def make(folder: Path, *, most: int = 10_000, files: int = 3, keep_free: int = 0) -> Journal:
    path = folder / "logs" / "bridge.jsonl"
    return Journal(path, max_bytes=most, files=files, modes=Modes(), keep_free_bytes=keep_free)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "logs").iterdir())}


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The kernel takes part of a write, then none: as on a disk that fills up under it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_old_lines_move_on_and_the_oldest_go(tmp_path: Path) -> None:
    journal = make(tmp_path, most=2 * len(LINE), files=3)

    for number in range(9):
        journal.append(b"%015d\n" % number)

    assert content(tmp_path) == {
        "bridge.jsonl": b"%015d\n" % 8,
        "bridge.jsonl.1": b"%015d\n%015d\n" % (6, 7),
        "bridge.jsonl.2": b"%015d\n%015d\n" % (4, 5),
    }


def test_a_single_file_begins_anew(tmp_path: Path) -> None:
    journal = make(tmp_path, most=len(LINE), files=1)

    journal.append(LINE)
    journal.append(b"second\n")

    assert content(tmp_path) == {"bridge.jsonl": b"second\n"}


def test_a_smaller_number_of_files_takes_the_surplus_away(tmp_path: Path) -> None:
    for number in range(6):
        make(tmp_path, most=len(LINE), files=6).append(b"%015d\n" % number)
    assert len(content(tmp_path)) == 6

    make(tmp_path, most=len(LINE), files=2).append(LINE)

    assert content(tmp_path) == {"bridge.jsonl": LINE, "bridge.jsonl.1": b"%015d\n" % 5}


def test_a_rotation_cut_short_by_a_kill_loses_no_line(tmp_path: Path) -> None:
    journal = make(tmp_path, most=len(LINE), files=4)
    for number in range(2):
        journal.append(b"%015d\n" % number)
    journal.path.with_name("bridge.jsonl.1").rename(journal.path.with_name("bridge.jsonl.2"))

    make(tmp_path, most=len(LINE), files=4).append(LINE)  # the process had died after that rename

    assert content(tmp_path) == {
        "bridge.jsonl": LINE,
        "bridge.jsonl.1": b"%015d\n" % 1,
        "bridge.jsonl.3": b"%015d\n" % 0,
    }


def test_the_next_start_begins_on_a_new_line_after_a_kill_in_the_middle_of_one(
    tmp_path: Path,
) -> None:
    make(tmp_path).append(LINE + b'{"event": "message_rec')

    make(tmp_path).append(LINE)

    assert content(tmp_path)["bridge.jsonl"] == LINE + b'{"event": "message_rec\n' + LINE


def test_a_line_that_the_disk_took_in_part_is_taken_back(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.append(LINE)

    with no_file_beyond(len(LINE) + 5), pytest.raises(StoreWriteError):
        journal.append(LINE)
    journal.append(b"later\n")

    assert content(tmp_path)["bridge.jsonl"] == LINE + b"later\n"


def test_a_full_disk_refuses_and_takes_lines_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=2) as disk:
        journal = make(disk.path)
        journal.append(LINE)
        disk.fill()

        for _ in range(2):
            with pytest.raises(StoreWriteError, match="No space"):
                journal.append(LINE * 500)
        disk.empty()
        journal.append(b"later\n")
        journal.close()

        assert content(disk.path)["bridge.jsonl"] == LINE + b"later\n"


def test_the_rest_of_a_disk_is_left_to_messages(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        journal = make(disk.path, keep_free=4_000_000)
        journal.append(LINE)
        disk.fill(leave=3_900_000)

        with pytest.raises(StoreWriteError, match="kept for messages"):
            journal.append(LINE)
        journal.close()


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_something_else_under_the_name_is_refused_without_waiting(
    kind: str, tmp_path: Path
) -> None:
    journal = make(tmp_path)
    journal.path.parent.mkdir()
    elsewhere = tmp_path / "elsewhere"
    if kind == "fifo":
        os.mkfifo(journal.path)
    elif kind == "folder":
        journal.path.mkdir()
    else:
        journal.path.symlink_to(elsewhere)

    with pytest.raises(StoreWriteError, match=r"bridge\.jsonl"):
        journal.append(LINE)
    assert not elsewhere.exists()


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "moved away"])
def test_a_file_taken_away_by_an_operator_is_made_anew(removed: bool, tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.append(LINE)
    if removed:
        journal.path.unlink()
        journal.path.parent.rmdir()
    else:
        journal.path.rename(tmp_path / "kept.jsonl")

    journal.append(b"later\n")

    assert content(tmp_path) == {"bridge.jsonl": b"later\n"}


def test_the_file_has_the_modes_of_the_settings_and_its_owner_writes(tmp_path: Path) -> None:
    journal = make(tmp_path)

    journal.append(LINE)

    assert journal.path.stat().st_mode & 0o777 == 0o640
    assert journal.path.parent.stat().st_mode & 0o777 == 0o750
