import os
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from watchdog.observers.api import BaseObserver

from meshllm.clock import SystemClock
from meshllm.records import Message
from meshllm.store.table import Table
from meshllm.store.watch import FolderWatch

Reports = queue.Queue[Path]


@pytest.fixture
def reports() -> Reports:
    return queue.Queue()


@pytest.fixture
def watch(reports: Reports) -> Iterator[FolderWatch]:
    watching = FolderWatch(reports.put, poll_s=1.0)
    yield watching
    watching.close()


def waiting(reports: Reports) -> list[Path]:
    found = []
    while not reports.empty():
        found.append(reports.get_nowait())
    return found


def without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(BaseObserver, "schedule", refuse)


def test_one_commit_gives_one_event_with_the_final_name(
    tmp_path: Path, row: Message, watch: FolderWatch, reports: Reports
) -> None:
    table, marker = Table(tmp_path / "t.csv", Message), Table(tmp_path / "z.csv", Message)
    watch.watch(tmp_path)
    watch.watch(tmp_path)

    found = []
    for _ in range(3):
        table.append([row])
        found.append(reports.get(timeout=5))
    marker.ensure()

    assert found == [table.path] * 3
    assert reports.get(timeout=5) == marker.path


def test_the_event_comes_after_the_row_can_be_read(
    tmp_path: Path, row: Message, watch: FolderWatch, reports: Reports
) -> None:
    watch.watch(tmp_path)
    Table(tmp_path / "t.csv", Message).append([row])

    assert Table(reports.get(timeout=5), Message).read().rows == (row,)


def test_no_event_waits_for_the_other_half_of_a_move(
    tmp_path: Path, watch: FolderWatch, reports: Reports
) -> None:
    """The watching library holds a half move, and all that follows, for half a second."""
    folder = tmp_path / "dms"
    folder.mkdir()
    watch.watch(folder)

    def is_quick(number: int) -> bool:
        (folder / "notes.txt").write_text("x")
        (folder / "notes.txt").rename(tmp_path / "away")
        (folder / f"{number}.csv").write_text("x")
        try:
            return reports.get(timeout=0.3) == folder / f"{number}.csv"
        except queue.Empty:
            reports.get(timeout=5)
            return False

    assert any(is_quick(number) for number in range(5))


def test_only_tables_are_reported(tmp_path: Path, watch: FolderWatch, reports: Reports) -> None:
    watch.watch(tmp_path)
    for name in (".t.csv", "t.csv.lock", "notes.txt", ".t.csv.ab.tmp", "t.csv"):
        (tmp_path / name).write_text("x")

    assert reports.get(timeout=5) == tmp_path / "t.csv"
    watch.poll(0.0)
    assert waiting(reports) == []


def test_files_that_are_there_at_first_are_not_reported(
    tmp_path: Path, watch: FolderWatch, reports: Reports
) -> None:
    (tmp_path / "t.csv").write_text("x")
    watch.watch(tmp_path)
    watch.poll(0.0)

    assert waiting(reports) == []


def test_the_poll_finds_what_gives_no_event(
    tmp_path: Path, watch: FolderWatch, reports: Reports
) -> None:
    folder, path = tmp_path / "dms", tmp_path / "dms" / "t.csv"
    folder.mkdir()
    path.write_text("old")
    watch.watch(folder)

    (tmp_path / "saved").write_text("new")
    (tmp_path / "saved").rename(path)
    watch.poll(0.0)
    by_rename = waiting(reports)
    path.unlink()
    watch.poll(0.5)
    too_early = waiting(reports)
    watch.poll(1.0)

    assert (by_rename, too_early, waiting(reports)) == ([path], [], [path])


def test_a_folder_may_appear_later(tmp_path: Path, watch: FolderWatch, reports: Reports) -> None:
    folder = tmp_path / "dms"
    watch.watch(folder)
    watch.poll(0.0)
    folder.mkdir()
    (folder / "early.csv").write_text("x")
    watch.poll(1.0)
    found = reports.get(timeout=5)

    (folder / "late.csv").write_text("x")

    assert (found, reports.get(timeout=5)) == (folder / "early.csv", folder / "late.csv")


@pytest.mark.parametrize("seen_missing", [True, False])
def test_a_folder_that_is_made_again_is_watched_again(
    tmp_path: Path, watch: FolderWatch, reports: Reports, seen_missing: bool
) -> None:
    """Also when a poll never saw it missing: the new folder may have the old inode number."""
    folder = tmp_path / "dms"
    folder.mkdir()
    watch.watch(folder)
    folder.rmdir()
    if seen_missing:
        watch.poll(0.0)
    folder.mkdir()

    assert any(event_arrives(watch, folder / f"{n}.csv", reports, now=n + 1.0) for n in range(50))


def event_arrives(watch: FolderWatch, path: Path, reports: Reports, *, now: float) -> bool:
    """Say whether a new file is reported before any poll could."""
    watch.poll(now)
    waiting(reports)
    path.write_text("x")
    try:
        return reports.get(timeout=0.1) == path
    except queue.Empty:
        return False


def test_without_events_the_poll_goes_on_after_one_warning(
    tmp_path: Path, watch: FolderWatch, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_events(monkeypatch)
    structlog.reset_defaults()
    (tmp_path / "dms").mkdir()

    with capture_logs() as events:
        watch.watch(tmp_path)
        watch.watch(tmp_path / "dms")
        (tmp_path / "t.csv").write_text("x")
        watch.poll(0.0)

    assert waiting(reports) == [tmp_path / "t.csv"]
    assert events == [
        {
            "event": "folder_watch_unavailable",
            "log_level": "warning",
            "folder": str(tmp_path),
            "reason": "inotify watch limit reached",
            "poll_s": 1.0,
        }
    ]


def test_a_poll_over_500_files_is_quick(
    tmp_path: Path, watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is loose, for busy machines; about 2 ms were measured."""
    without_events(monkeypatch)
    for n in range(500):
        os.close(os.open(tmp_path / f"{n}.csv", os.O_CREAT))
    watch.watch(tmp_path)
    clock = SystemClock()

    start = clock.monotonic()
    watch.poll(0.0)

    assert clock.monotonic() - start < 0.1


def test_close_ends_the_reports(tmp_path: Path, watch: FolderWatch, reports: Reports) -> None:
    watch.watch(tmp_path)
    watch.close()
    watch.close()
    (tmp_path / "t.csv").write_text("x")
    watch.poll(0.0)

    assert waiting(reports) == []
