"""One file of everything: each row once, by time, harmless in a spreadsheet, whole or not there."""

import csv
import io
import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from meshllm.errors import StoreWriteError
from meshllm.reading.sorting import Entry, sorted_entries
from meshllm.records import Message, Node
from meshllm.store.stream import replacing
from tests.cli.folder import ADA, Folder, Runner, heard


def test_messages_of_all_radios_and_archives_come_once_and_by_time(
    run: Runner, folder: Folder
) -> None:
    second = folder.files.tree("bbbb0002")
    folder.thread(heard("900", "from the hill", at="2026-02-01T00:00:00Z"), tree=second)

    found = list(csv.DictReader(io.StringIO(run("export", "--data", folder.root).out)))

    assert [row["message_id"] for row in found] == [
        "11", "900", "101", "102", "103", "201", "202", "104",
    ]  # fmt: skip
    assert [row["node_uid"] for row in found][1] == "bbbb0002"
    assert tuple(found[0]) == ("node_uid", *Message.columns())


def test_cells_keep_the_formula_guard_in_csv_and_lose_it_in_json(
    run: Runner, folder: Folder
) -> None:
    folder.nodes(Node(ADA, "=cmd", "@SUM(A1)"))

    table = list(csv.DictReader(io.StringIO(run("export", "nodes", "--data", folder.root).out)))
    lines = run("export", "nodes", "--format", "jsonl", "--data", folder.root).out.splitlines()

    assert (table[0]["short_name"], table[0]["long_name"]) == ("'=cmd", "'@SUM(A1)")
    assert json.loads(lines[0])["short_name"] == "=cmd"


def test_json_lines_hold_numbers_and_objects(run: Runner, folder: Folder) -> None:
    lines = run("export", "sightings", "--format", "jsonl", "--data", folder.root).out

    row = json.loads(lines)
    assert (row["latitude"], row["telemetry"], row["node_uid"]) == (
        47.12345,
        {"battery": 80},
        "aaaa0001",
    )


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--since", "2026-03-01T11:30"], ["201", "202", "104"]),
        (["--until", "2026-03-01"], ["11"]),
        (["--since", "2026-03-01", "--until", "2026-03-01T10:00:20"], ["101"]),
    ],
)
def test_span_of_time(arguments: list[str], ids: list[str], run: Runner, folder: Folder) -> None:
    found = csv.DictReader(io.StringIO(run("export", *arguments, "--data", folder.root).out))

    assert [row["message_id"] for row in found] == ids


def test_prompts_are_picked_by_time_though_their_cells_are_written_otherwise(
    run: Runner, folder: Folder
) -> None:
    inside = ["--since", "2026-03-01T10:00:20", "--until", "2026-03-01T10:00:21"]
    outside = ["--until", "2026-03-01T10:00:20"]

    assert run("export", "prompts", *inside, "--data", folder.root).out.count("\n") == 2
    assert run("export", "prompts", *outside, "--data", folder.root).out.count("\n") == 1


def test_texts_do_not_drive_the_terminal_that_they_are_exported_to(
    run: Runner, folder: Folder
) -> None:
    assert "\x1b" not in run("export", "--data", folder.root, columns=100).out
    assert "\x1b" in run("export", "--data", folder.root).out


def test_file_is_replaced_whole(run: Runner, folder: Folder, tmp_path: Path) -> None:
    out = tmp_path / "all.csv"
    out.write_text("old")

    done = run("export", "--out", out, "--data", folder.root)

    assert (done.code, done.out) == (0, "")
    assert out.read_text(encoding="utf-8").count("\n") == 8
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".all")] == []


def test_file_stays_as_it_was_when_writing_fails(tmp_path: Path) -> None:
    out = tmp_path / "all.csv"
    out.write_text("old")

    def write_half() -> None:
        with replacing(out) as target:
            target.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("all.csv", "old")]


def test_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreWriteError, match="cannot write: No such file"),
        replacing(tmp_path / "nowhere/all.csv"),
    ):
        pass


def test_sorting_on_disk_gives_what_sorting_in_memory_gives() -> None:
    entries: list[Entry] = [(f"{n * 7919 % 101:03}", [n, "é\n\x00"]) for n in range(1000)]

    found = [(key, list(values)) for key, values in sorted_entries(entries, run_rows=64)]

    assert found == sorted(((k, list(v)) for k, v in entries), key=lambda entry: entry[0])


def test_memory_does_not_grow_with_the_rows() -> None:
    def entries(count: int) -> Iterator[Entry]:
        for n in range(count):
            yield f"{n * 7919 % 99991:06}", ["x" * 200, str(n)]

    def peak(sort: Callable[[Iterator[Entry]], Iterable[Entry]]) -> int:
        tracemalloc.start()
        for _ in sort(entries(8000)):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    texts_bytes = 8000 * 200
    assert peak(lambda rows: sorted_entries(rows, run_rows=500)) < texts_bytes / 2
    assert peak(sorted) > texts_bytes, "the control holds them all"
