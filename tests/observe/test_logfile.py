"""Log files as both processes write them: nothing is lost quietly, and nothing ever raises."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.typing import EventDict

from meshllm.observe import log as logging_setup
from meshllm.observe import logfile
from meshllm.observe.logfile import LogFile
from meshllm.store.atomic import Modes
from meshllm.store.journal import Journal
from tests.observe.waiting import until


def journal(folder: Path) -> Journal:
    return Journal(
        folder / "logs" / "agent.jsonl", max_bytes=1_000_000, files=2, modes=Modes(file=0o640)
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "logs" / "agent.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def names(found: list[dict[str, Any]]) -> list[str]:
    return [str(line["event"]) for line in found]


@contextmanager
def logging_to(folder: Path, level: str = "info") -> Iterator[LogFile]:
    file = LogFile(journal(folder))
    logging_setup.configure(level, role="agent", stream=io.StringIO(), file=file)
    file.start()
    try:
        yield file
    finally:
        file.close()


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "FLUSH_S", 0.0)
    monkeypatch.setattr(logfile, "RETRY_S", 0.01)


def test_lines_of_many_threads_arrive_whole_and_in_order(tmp_path: Path) -> None:
    def talk(who: int) -> None:
        for number in range(200):
            structlog.get_logger().info("message_received", who=who, number=number, pad="ä" * 50)

    with logging_to(tmp_path):
        threads = [threading.Thread(target=talk, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = lines(tmp_path)
    assert len(found) == 800
    for who in range(4):
        assert [one["number"] for one in found if one["who"] == who] == list(range(200))


def test_a_line_has_what_a_reader_needs(tmp_path: Path) -> None:
    with logging_to(tmp_path):
        structlog.get_logger().info("message_received", node_uid="a1b2c3d4", sender="\x1b[2J\n")

    (line,) = lines(tmp_path)
    assert {"timestamp", "level", "event", "role"} <= set(line)
    assert (line["level"], line["role"], line["sender"]) == ("info", "agent", "\x1b[2J\n")
    assert line["timestamp"].endswith("Z")


def test_a_warning_takes_what_waits_before_it_to_the_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "FLUSH_S", 3600.0)

    with logging_to(tmp_path):
        structlog.get_logger().info("send_handed_over")
        structlog.get_logger().warning("send_failed")

        until(lambda: names(lines(tmp_path)) == ["send_handed_over", "send_failed"], "both lines")


def test_what_waits_is_written_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "FLUSH_S", 3600.0)

    with logging_to(tmp_path):
        structlog.get_logger().info("process_stopped")

    assert names(lines(tmp_path)) == ["process_stopped"]


def test_lines_from_before_the_start_are_kept_until_then(tmp_path: Path) -> None:
    """The process lock comes first: a second process must not write into the first one's file."""
    file = LogFile(journal(tmp_path))
    logging_setup.configure("info", role="agent", stream=io.StringIO(), file=file)
    structlog.get_logger().warning("settings_warning")
    assert not (tmp_path / "logs").exists()

    file.start()
    file.close()

    assert names(lines(tmp_path)) == ["settings_warning"]


def test_the_level_holds_for_the_file_too(tmp_path: Path) -> None:
    with logging_to(tmp_path, "warn"):
        structlog.get_logger().info("question_asked")
        structlog.get_logger().error("send_given_up")

    assert names(lines(tmp_path)) == ["send_given_up"]


def test_a_folder_that_takes_nothing_stops_nothing_and_is_used_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    (tmp_path / "logs").write_text("in the way")

    with logging_to(tmp_path) as file:
        structlog.get_logger().info("first")
        until(lambda: file._is_refused, "a refusal")
        structlog.get_logger().info("second")
        (tmp_path / "logs").unlink()
        until(lambda: "log_file_back" in names(lines(tmp_path)), "lines after the refusal")

    told = names(lines(tmp_path))
    assert [name for name in told if name in ("first", "second")] == ["first", "second"]
    assert told.count("log_file_refused") == 1
    assert file.lost == 0


def test_lines_that_memory_does_not_hold_are_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    monkeypatch.setattr(logfile, "MAX_WAITING_BYTES", 2000)
    (tmp_path / "logs").write_text("in the way")

    with logging_to(tmp_path) as file:
        structlog.get_logger().info("first")
        until(lambda: file._is_refused, "a refusal")
        for _ in range(30):
            structlog.get_logger().info("flood", pad="x" * 100)
        lost = file.lost
        (tmp_path / "logs").unlink()
        back = until(lambda: [x for x in lines(tmp_path) if x["event"] == "log_file_back"], "back")

    assert 0 < lost <= 30
    assert back[0]["lines_lost"] == lost
    assert names(lines(tmp_path)).count("flood") == 30 - lost


class Hanging(Journal):
    """A disk that answers nobody."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "x", max_bytes=9, files=1, modes=Modes())
        self.entered = threading.Event()
        self.release = threading.Event()

    def append(self, block: bytes) -> None:
        self.entered.set()
        self.release.wait()


def test_a_disk_that_hangs_holds_up_neither_the_service_nor_its_end(tmp_path: Path) -> None:
    disk = Hanging(tmp_path)
    file = LogFile(disk)
    file.start()

    file.write("one", is_urgent=True)
    assert disk.entered.wait(8)
    file.write("two", is_urgent=True)
    file.close(limit_s=0.01)

    assert file._thread.is_alive()
    disk.release.set()
    file._thread.join(8)
    assert not file._thread.is_alive()


@pytest.mark.parametrize("level", ["error", "info"])
def test_events_are_counted_whatever_the_level_of_the_log(level: str) -> None:
    class Tap:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def note(self, event: EventDict) -> None:
            self.seen.append(f"{event['level']} {event['event']}")

    tap, stream = Tap(), io.StringIO()
    logging_setup.configure(level, role="agent", stream=stream, tap=tap)

    structlog.get_logger().debug("packet_ignored")
    structlog.get_logger().info("question_asked")
    structlog.get_logger().error("command_failed", exc_info=ValueError("seen"))

    assert tap.seen == ["info question_asked", "error command_failed"]
    assert ("question_asked" in stream.getvalue()) == (level == "info")
    assert "ValueError: seen" in stream.getvalue()


def test_a_reader_beside_the_writer_sees_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    path = tmp_path / "logs" / "agent.jsonl"
    torn: list[str] = []

    def reading() -> bool:
        *whole, rest = (path.read_text() if path.exists() else "").split("\n")
        torn.extend(line for line in whole if not line.endswith("}"))
        return len(whole) >= 300 and not rest

    with logging_to(tmp_path):
        for number in range(300):
            structlog.get_logger().info("message_received", number=number)
            reading()
        until(reading, "all lines")

    assert torn == []
