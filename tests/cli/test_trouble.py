"""Folders in any state: missing, empty, damaged, copied, closed."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.reading.book import Book
from meshllm.reading.processes import look_at
from meshllm.records import Message
from meshllm.store import codec
from meshllm.store.locks import ProcessLock
from tests.cli.folder import Folder, Runner, heard, put, write

ROOT = Path(__file__).resolve().parents[2]
READING = [
    ["status"],
    ["threads"],
    ["messages"],
    ["nodes"],
    ["queue"],
    ["prompts", "list"],
    ["export"],
    ["export", "nodes", "--format", "jsonl"],
]


@pytest.mark.parametrize("verb", READING, ids=" ".join)
def test_missing_folder_is_one_message(verb: list[str], run: Runner, tmp_path: Path) -> None:
    done = run(*verb, "--data", tmp_path / "nowhere")

    assert (done.code, done.out) == (4, "")
    assert done.err.startswith(f"error: {tmp_path / 'nowhere'}: no such folder")


@pytest.mark.parametrize("verb", READING, ids=" ".join)
def test_empty_folder_is_no_error(verb: list[str], run: Runner, tmp_path: Path) -> None:
    done = run(*verb, "--data", tmp_path)

    assert (done.code, done.err) == (0, "")


def _odd(value: object, odd: object) -> object:
    """Put an odd value in the place of everything that a status file says."""
    if isinstance(value, dict):
        return {key: _odd(one, odd) for key, one in value.items()}
    return [_odd(one, odd) for one in value] if isinstance(value, list) else odd


@pytest.mark.parametrize("odd", ["1e999", str(10**400), "-Infinity", '{"a":1}', "[[]]", "true"])
def test_a_status_file_may_say_anything(odd: str, run: Runner, folder: Folder) -> None:
    for path in folder.root.rglob("*.json"):
        facts = json.dumps(_odd(json.loads(path.read_text()), "ODD")).replace('"ODD"', odd)
        path.chmod(0o600)
        path.write_text(facts)

    for verb in (*READING, ["why", "101"]):
        done = run(*verb, "--data", folder.root)
        assert done.out, verb


def test_an_error_that_quotes_the_mesh_cannot_drive_the_terminal(folder: Folder) -> None:
    """Of two messages of one id each is named with its thread, by the name that it has there."""
    for name in ("\x1b[2Jone", "two\u202e"):
        said = heard("777", name, at="2026-03-01T11:00:00Z")
        row = replace(said, thread_type="channel", thread_key=name)
        write(folder.tree.channel_thread(str(len(name))), [row], Message)

    done = subprocess.run(
        [sys.executable, "-m", "meshllm", "why", "777", "--data", folder.root],
        cwd=ROOT,
        capture_output=True,
        timeout=15,
        check=False,
    )

    assert done.returncode == 2
    assert rb"\x1b[2Jone" in done.stderr
    assert not {b"\x1b"[0], "\u202e".encode()[0]} & set(done.stderr)


@pytest.mark.parametrize("verb", READING, ids=" ".join)
def test_damage_costs_the_rows_it_hit_and_is_told(
    verb: list[str], run: Runner, folder: Folder
) -> None:
    thread = folder.tree.dm_thread("!a11ce001")
    put(thread, thread.read_bytes() + b'dm,"torn\n\0\0\0\n')
    folder.tree.radio_status.write_text("{")
    put(folder.files.agent_status, b"\xff\xfe[]")
    folder.tree.nodes.unlink()
    folder.tree.nodes.mkdir()
    put(folder.tree.latest, b"not,the,header\n")
    put(folder.files.prompts_table, b"\x00" * 64)

    done = run(*verb, "--data", folder.root)

    assert done.code == 0
    assert "warning: " in done.err
    assert "Traceback" not in done.err


def test_damaged_places_are_counted_and_the_other_rows_are_shown(
    run: Runner, folder: Folder
) -> None:
    thread = folder.tree.dm_thread("!a11ce001")
    put(thread, thread.read_bytes() + b"\0\0\nx,y\n")

    done = run("messages", "!a11ce001", "--json", "--data", folder.root)

    assert len(done.json) == 5
    assert f"{thread}: 2 damaged places left out, the first: zero bytes" in done.err


def test_copy_from_another_machine_is_read_in_any_shape(
    run: Runner, folder: Folder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a whole, only data/, only nodes/, and without agent.json or locks."""
    there = tmp_path_factory.mktemp("copy")
    shutil.copytree(folder.root, there / "all")
    shutil.copytree(folder.files.data_dir, there / "backup")
    shutil.copytree(folder.files.nodes_dir, there / "nodes-only")
    (there / "backup/agent.json").unlink()
    whole = run("messages", "--json", "--data", folder.root).json

    for shape in ("all", "all/data", "backup", "nodes-only"):
        assert run("messages", "--json", "--data", there / shape).json == whole, shape
    assert run("status", "--data", there / "backup").code == 0
    assert run("prompts", "list", "--json", "--data", there / "all/data").json != []


def test_folder_that_cannot_be_written_is_read(run: Runner, folder: Folder) -> None:
    for path in [folder.root, *folder.root.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert run("messages", "--data", folder.root).code == 0
    finally:
        for path in [folder.root, *folder.root.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_told(run: Runner, folder: Folder) -> None:
    folder.tree.dm_thread("!a11ce001").chmod(0)

    assert "cannot be read" in run("messages", "--data", folder.root).err


def test_thread_that_is_in_the_archive_alone_is_found(run: Runner, folder: Folder) -> None:
    live = folder.tree.dm_thread("!0badcafe")
    folder.archived(
        live, "2026-01", heard("7", "bye", at="2026-01-01T00:00:00Z", sender="!0badcafe")
    )

    found = run("messages", "!0badcafe", "--json", "--data", folder.root).json

    assert [row["content"] for row in found] == ["bye"]


def test_row_that_moves_to_the_archive_meanwhile_is_not_missed(folder: Folder) -> None:
    """The live file is read first."""
    book = Book(folder.files)
    [thread] = [t for t in book.threads(folder.tree) if t.path.stem == "a11ce001"]
    rows = book.messages(thread)
    first = next(rows)
    moved = codec.decode(thread.path.read_bytes(), Message).rows
    folder.archived(thread.path, "2026-03", *moved)
    put(thread.path, codec.header(Message))

    assert [first.message_id, *(row.message_id for row in rows)] == [
        "11",
        "101",
        "102",
        "103",
        "104",
    ]


# -- processes ---------------------------------------------------------------------------------

NOW_S = 1772366400.0  #: 2026-03-01T12:00:00Z


@pytest.mark.parametrize(
    ("heartbeat", "goodbye", "state"),
    [
        ("", False, "never"),
        ("2026-03-01T11:59:00Z", False, "unclear"),
        ("2026-03-01T11:50:00Z", False, "dead"),
        ("2026-03-01T11:59:00Z", True, "stopped"),
    ],
)
def test_process_without_its_lock(
    heartbeat: str, goodbye: bool, state: str, tmp_path: Path
) -> None:
    seen = look_at(
        tmp_path / ".bridge.lock", heartbeat_at=heartbeat, now_s=NOW_S, said_goodbye=goodbye
    )

    assert (seen.state, seen.pid) == (state, None)


@pytest.mark.parametrize(
    ("heartbeat", "state"),
    [("2026-03-01T11:59:00Z", "running"), ("2026-03-01T11:50:00Z", "stuck"), ("", "running")],
)
def test_process_that_holds_its_lock(heartbeat: str, state: str, tmp_path: Path) -> None:
    lock = tmp_path / ".bridge.lock"
    with ProcessLock(lock, "bridge"):
        seen = look_at(lock, heartbeat_at=heartbeat, now_s=NOW_S)

    assert (seen.state, seen.pid) == (state, os.getpid())
    after = look_at(lock, heartbeat_at=heartbeat, now_s=NOW_S)
    assert after.state not in {"running", "stuck"}
