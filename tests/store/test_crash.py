"""Kill points: a child dies just before each of its system calls; the file must be old or new."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshllm.clock import SystemClock
from meshllm.records import Message
from meshllm.store import quarantine
from meshllm.store.table import Table

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("crash_driver.py")
SAFE = ("append", "update", "create", "repair")
Call = list[str]


@pytest.fixture(scope="module")
def graves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash")
    subprocess.run(
        [sys.executable, str(DRIVER), str(folder)],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return folder


def deaths(graves: Path, operation: str) -> list[Path]:
    """Folders in the order of their deaths; the last one is of the run that lived."""
    folders = [path for path in (graves / operation).iterdir() if path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name))


def content(folder: Path) -> bytes | None:
    path = folder / "t.csv"
    return path.read_bytes() if path.exists() else None


def calls_of(graves: Path, operation: str) -> list[Call]:
    found: list[Call] = json.loads((graves / operation / "calls.json").read_text())
    return found


def is_temp(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def flushes_of(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call[0] == "fsync"]


@pytest.mark.parametrize("operation", SAFE)
def test_every_death_leaves_the_old_or_the_new_file(graves: Path, operation: str) -> None:
    folders = deaths(graves, operation)
    states = [content(folder) for folder in folders]

    assert len(folders) > 10
    assert states[0] != states[-1]
    switch = states.index(states[-1])
    assert states == [states[0]] * switch + [states[-1]] * (len(states) - switch)


def test_the_control_that_truncates_and_writes_is_caught(graves: Path) -> None:
    states = [content(folder) for folder in deaths(graves, "naive")]

    assert any(state not in (states[0], states[-1]) for state in states)


@pytest.mark.parametrize("operation", SAFE)
def test_the_next_writer_goes_on_and_sweeps(graves: Path, operation: str, tmp_path: Path) -> None:
    extra = Message("dm", "!a", "99", "inbound", "!b")
    for grave in deaths(graves, operation):
        folder = Path(shutil.copytree(grave, tmp_path / grave.name))
        table = Table(folder / "t.csv", Message)
        quarantine.repair(table, folder / "quarantine", SystemClock())

        table.append([extra])

        assert len(list((folder / "quarantine").glob("*.csv"))) == (operation == "repair")
        assert table.read().rows[-1] == extra
        assert table.read().damage == ()
        assert [path for path in folder.iterdir() if is_temp(path.name)] == []


def test_a_repair_keeps_the_original_before_the_table_changes(graves: Path) -> None:
    folders = deaths(graves, "repair")
    damaged = content(folders[0])
    for folder in folders:
        saved = [p.read_bytes() for p in (folder / "quarantine").glob("*.csv")]

        assert saved in ([], [damaged])
        assert content(folder) == damaged or saved == [damaged]


@pytest.mark.parametrize(("operation", "flushes"), [("append", 2), ("update", 2)])
def test_a_commit_flushes_the_file_and_then_the_folder_and_nothing_else(
    graves: Path, operation: str, flushes: int
) -> None:
    assert len(flushes_of(calls_of(graves, operation))) == flushes


@pytest.mark.parametrize("operation", SAFE)
def test_the_order_of_calls_survives_a_power_cut(graves: Path, operation: str) -> None:
    calls = calls_of(graves, operation)
    renames = [n for n, call in enumerate(calls) if call[0] in ("rename", "replace")]

    assert renames
    for at in renames:
        temp = calls[at][1]
        assert [call[0] for call in calls[:at] if call[1] == temp][-1] == "fsync"
        after = [call for call in calls[at:] if call[1] == temp or call[0] in ("fsync", "rename")]
        assert [call[0] for call in after[:3]] == ["rename", "fsync", "close"]
        assert not is_temp(after[1][1])


@pytest.mark.parametrize("operation", SAFE)
def test_only_temp_files_are_ever_written(graves: Path, operation: str) -> None:
    written = {call[1] for call in calls_of(graves, operation) if call[0] in ("write", "writev")}

    assert written
    assert all(is_temp(name) for name in written)
