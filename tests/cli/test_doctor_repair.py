"""`doctor --repair`: what it mends, what it keeps, what it leaves to others."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm.config import Settings
from meshllm.doctor.machine import Machine
from meshllm.doctor.place import Place
from meshllm.doctor.repair import Step, repair
from meshllm.errors import ExitCode, UserError
from meshllm.layout import Layout
from meshllm.records import Message, PromptRow
from meshllm.site import page as pages
from meshllm.store import codec, headers, locks
from meshllm.store.locks import ProcessLock
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from tests.cli.folder import ADA, Folder, Runner, heard, ours

AT = "2026-03-01T10:00:00Z"


def place_of(files: Layout) -> Place:
    """An installation on this machine, so that its locks are seen."""
    return Place(Settings(), files, files.data_dir.parent / "config.yaml", Machine(), ManualClock())


@pytest.fixture
def place(folder: Folder) -> Place:
    """The full folder with the modes that our writers leave, so that nothing is to be mended."""
    made = place_of(folder.files)
    repair(made)
    assert repair(made) == []
    return made


@pytest.fixture
def thread(folder: Folder) -> Path:
    """Rows in every state that matters to a repair."""
    return folder.thread(
        heard("1", "where?", at=AT),
        ours("2", "there", at=AT, direction="outbound", status="sent", delivery="handed"),
        ours("3", "and there", at=AT, direction="outbound", status="sent", delivery="delivered"),
        ours("4", "not yet sent", at=AT),
    )


def spoil(path: Path, data: bytes) -> bytes:
    """Write bytes as a program does that knows nothing of the bus."""
    path.chmod(0o600)
    path.write_bytes(data)
    return data


def rows(path: Path) -> dict[str, Message]:
    return {row.message_id: row for row in Table(path, Message).read().rows}


def texts(steps: list[Step], outcome: str) -> list[str]:
    return [step.text for step in steps if step.outcome == outcome]


def everything(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(root)): (p.stat().st_mode, p.read_bytes())
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.name.endswith(".lock")
    }


# Tables


def test_good_rows_stay_queued_ones_go_and_the_damaged_bytes_are_kept(
    place: Place, thread: Path
) -> None:
    damaged = spoil(thread, thread.read_bytes() + b"\0\0\0\nhalf,a,row\n")

    mended = [step for step in repair(place) if step.path == thread and "mended" in step.text]

    assert [step.outcome for step in mended] == ["done"]
    assert "3 rows kept, 1 queued ones taken out, not sent" in mended[0].text
    assert sorted(rows(thread)) == ["1", "2", "3"]
    originals = list(place.files.tree("aaaa0001").quarantine.glob("*.csv"))
    assert [path.read_bytes() for path in originals] == [damaged]
    assert repair(place) == []


def test_what_the_radio_took_is_left_unconfirmed_and_is_not_sent_again(
    place: Place, thread: Path
) -> None:
    spoil(thread, thread.read_bytes() + b"half\n")

    repair(place)

    taken, sure = rows(thread)["2"], rows(thread)["3"]
    assert (taken.direction, taken.meta["delivery"], taken.meta["reason"]) == (
        "outbound",
        "unconfirmed",
        "DAMAGED_FILE",
    )
    assert sure.meta["delivery"] == "delivered"


@pytest.mark.parametrize(
    "head", [b"", b"A;B;C\n", b"my notes, and more\n", b"\xef\xbb\xbfthread_typ\xff,,,,,,,,,,\n"]
)
def test_rows_below_a_lost_header_are_kept(place: Place, thread: Path, head: bytes) -> None:
    body = thread.read_bytes().partition(b"\n")[2]
    spoil(thread, head + body)

    repair(place)

    assert sorted(rows(thread)) == ["1", "2", "3"]
    assert thread.read_bytes().startswith(codec.header(Message))


@pytest.mark.parametrize("swap", [("sender_id", "content"), ("thread_key", "thread_type")])
def test_rows_whose_columns_were_moved_are_not_guessed_at(
    place: Place, thread: Path, swap: tuple[str, str]
) -> None:
    one, other = (name.encode() for name in swap)
    head, _, body = thread.read_bytes().partition(b"\n")
    moved = head.replace(one, b"?").replace(other, one).replace(b"?", other)
    damaged = spoil(thread, moved + b"\n" + body)

    repair(place)

    assert rows(thread) == {}
    [original] = place.files.tree("aaaa0001").quarantine.glob("*.csv")
    assert original.read_bytes() == damaged


def test_an_empty_file_gets_its_header(place: Place) -> None:
    path = place.files.tree("aaaa0001").sightings
    spoil(path, b"")

    assert "a header was written; nothing was lost" in texts(repair(place), "done")
    assert path.read_bytes().startswith(b"node_id,")


def test_a_fifo_and_a_link_make_way_and_what_a_link_leads_to_stays(
    place: Place, tmp_path: Path
) -> None:
    tree = place.files.tree("aaaa0001")
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    for path in (tree.sightings, tree.latest):
        path.unlink()
    os.mkfifo(tree.sightings)
    tree.latest.symlink_to(precious)

    repair(place)

    assert precious.read_text() == "mine"
    assert tree.sightings.is_file()
    assert not tree.latest.is_symlink()
    assert {p.suffix for p in tree.quarantine.iterdir()} >= {".fifo", ".link"}
    assert repair(place) == []


def test_archives_and_prompts_are_mended_and_their_originals_lie_off_the_site(
    place: Place, folder: Folder, thread: Path
) -> None:
    archive = folder.archived(thread, "2026-01", heard("9", "old", at="2026-01-01T00:00:00Z"))
    prompts = place.files.prompts_table
    for path in (archive, prompts):
        spoil(path, path.read_bytes() + b"half\n")

    repair(place)

    assert sorted(rows(archive)) == ["9"]
    assert len(Table(prompts, PromptRow).read().rows) == 1
    assert len(list(place.files.quarantine.glob("prompts.*.csv"))) == 1
    assert not list(place.files.prompts_dir.rglob("*half*"))
    assert repair(place) == []


@settings(max_examples=40)
@given(noise=st.lists(st.binary(max_size=60), max_size=4), cut=st.integers(0, 400))
def test_whatever_the_damage_a_repair_ends_in_a_whole_table_that_sends_nothing(
    tmp_path_factory: pytest.TempPathFactory, noise: list[bytes], cut: int
) -> None:
    folder = Folder(tmp_path_factory.mktemp("noise"))
    path = folder.thread(heard("1", "where?", at=AT), ours("4", "not yet sent", at=AT))
    whole = path.read_bytes()
    damaged = spoil(path, whole[:cut] + b"\n".join(noise) + whole[cut:])
    place = place_of(folder.files)

    repair(place)

    after = codec.decode(path.read_bytes(), Message)
    assert after.tidy or damaged == path.read_bytes()
    if codec.decode(damaged, Message).damage:
        assert [row for row in after.rows if row.direction == "queued"] == []
        kept = [p.read_bytes() for p in folder.tree.quarantine.glob("*.csv")]
        assert kept == [damaged]
    assert [step for step in repair(place) if "mended" in step.text] == []


def test_a_header_is_never_guessed_from_a_table_of_another_kind() -> None:
    nodes = b"node_id,short_name,long_name,first_seen_at,last_seen_at\n!a1b2c3d4,A,B,,\n"

    assert headers.without_header(nodes, Message) is None


# Left-overs, modes, prompts


def test_left_overs_go_each_under_the_lock_of_its_file(place: Place, thread: Path) -> None:
    temp = thread.parent / f".{thread.name}.0123abcd.tmp"
    status = place.files.data_dir / ".agent.json.0123abcd.tmp"
    mine = thread.parent / ".notes.tmp"
    for path in (temp, status, mine):
        path.write_bytes(b"half")

    with locks.hold(thread):
        refused = repair_elsewhere(place)
        assert temp.exists()
    repair(place)

    assert any("locked by another process" in text for text in refused)
    assert not temp.exists()
    assert not status.exists()
    assert mine.exists(), "not one of ours"


def repair_elsewhere(place: Place) -> list[str]:
    """Repair on another thread, for which a lock is held as by another process."""
    told: list[str] = []
    other = threading.Thread(
        target=lambda: told.extend(texts(repair(place, lock_timeout_s=0.05), "failed"))
    )
    other.start()
    other.join()
    return told


def test_only_our_own_files_get_the_modes_of_the_settings(place: Place, thread: Path) -> None:
    readme = place.files.data_dir / "README.md"
    layout = place.files.prompts_dir / "_layouts"
    layout.mkdir()
    readme.write_text("read me")
    thread.chmod(0o666)
    readme.chmod(0o644)

    steps = repair(place)

    assert [step.path for step in steps] == [thread]
    assert thread.stat().st_mode & 0o777 == place.settings.file_mode
    assert readme.stat().st_mode & 0o777 == 0o644
    assert repair(place) == []


def page(place: Place, prompt_id: str, moment: str) -> Path:
    row = PromptRow(prompt_id, "aaaa0001", moment, "m", "dm", ADA, "101")
    path = place.files.prompt_page(prompt_id)
    path.write_text(pages.render(pages.Page(row, "ok", (), (pages.Block("user", "x"),), "y", "z")))
    return path


def test_pages_without_a_row_get_one_in_order_of_time_once(place: Place) -> None:
    page(place, "b-later", "2026-03-01 11:00:00")
    page(place, "a-sooner", "2026-02-01 11:00:00")

    first, second = texts(repair(place), "done"), repair(place)

    assert first == ["added 2 rows out of pages"]
    assert second == []
    found = [row.prompt_id for row in Table(place.files.prompts_table, PromptRow).read().rows]
    assert found[-2:] == ["a-sooner", "b-later"]


def test_rows_in_the_archive_of_the_registry_are_not_added_again(place: Place) -> None:
    page(place, "old-1", "2026-01-01 11:00:00")
    archive = place.files.prompts_shelf.part("2026-01", 1)
    row = PromptRow("old-1", "aaaa0001", "2026-01-01 11:00:00", "m", "dm", ADA, "101")
    Table(archive, PromptRow, place.modes).append([row])

    assert [step.path for step in repair(place) if "rows out of pages" in step.text] == []


# Beside running processes, before doing, as whom


def test_files_of_a_running_bridge_are_left_to_it_and_archives_are_mended(
    place: Place, folder: Folder, thread: Path
) -> None:
    archive = folder.archived(thread, "2026-01", heard("9", "old", at="2026-01-01T00:00:00Z"))
    for path in (archive, thread):
        spoil(path, path.read_bytes() + b"half\n")
    before = thread.read_bytes()

    with ProcessLock(place.files.bridge_lock, "bridge"):
        steps = repair(place)

    refused = [step for step in steps if step.outcome == "refused"]
    assert [step.path for step in refused] == [thread]
    assert "running bridge mends it" in refused[0].text
    assert thread.read_bytes() == before
    assert sorted(rows(archive)) == ["9"]


def test_rows_of_pages_wait_while_the_agent_runs(place: Place) -> None:
    page(place, "a-1", "2026-02-01 11:00:00")

    with ProcessLock(place.files.agent_lock, "agent"):
        steps = repair(place)

    assert [step.outcome for step in steps] == ["refused"]
    assert "stop the agent" in steps[0].text


def test_locks_are_given_back(place: Place) -> None:
    repair(place)

    for lock in (place.files.bridge_lock, place.files.agent_lock):
        with ProcessLock(lock, "test"):
            pass


def test_dry_run_says_the_same_and_touches_nothing(
    place: Place, thread: Path, tmp_path: Path
) -> None:
    spoil(thread, thread.read_bytes() + b"half\n")
    (thread.parent / f".{thread.name}.0123abcd.tmp").write_bytes(b"half")
    page(place, "a-1", "2026-02-01 11:00:00")
    before = everything(tmp_path)

    would = repair(place, is_dry=True)

    assert everything(tmp_path) == before
    assert {step.outcome for step in would} == {"would"}
    done = repair(place)
    assert [step.path for step in would] == [step.path for step in done]


def test_another_user_is_sent_to_the_owner(place: Place) -> None:
    stranger = replace(place, machine=Machine(uid=4242, groups=frozenset()))

    with pytest.raises(UserError, match="belongs to") as refused:
        repair(stranger)

    assert "sudo -u" in refused.value.problems[0]


def test_a_folder_that_is_not_there_has_nothing_to_repair(tmp_path: Path) -> None:
    assert repair(place_of(Folder(tmp_path / "none").files)) == []


def test_command_tells_each_step_and_the_code_tells_what_is_left(
    run: Runner, place: Place, thread: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("log_level: info\n")
    spoil(thread, thread.read_bytes() + b"half\n")

    with ProcessLock(place.files.bridge_lock, "bridge"):
        refused = run("doctor", "--repair", "--config", config)
    done = run("doctor", "--repair", "--json", "--config", config)
    again = run("doctor", "--repair", "--config", config)

    assert (refused.code, done.code, again.code) == (ExitCode.FOUND_TROUBLE, 0, 0)
    assert refused.out.startswith("refused")
    facts = done.json
    assert isinstance(facts, dict)
    assert facts["dry_run"] is False
    assert {step["outcome"] for step in facts["steps"]} == {"done"}
    assert again.out == "nothing to repair\n"
