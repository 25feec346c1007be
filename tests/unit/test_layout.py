"""File names: no text from the mesh leaves its folder, and no two threads share a file."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshllm import layout
from meshllm.layout import Layout, NodeTree

TREE = NodeTree(Path("/data/nodes/aaaa0001"))
_RESERVED = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(10))}


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("LongFast", "longfast"),
        ("Base Camp", "base_camp"),
        ("a-b_c", "a-b_c"),
        ("../../etc/passwd", "etcpasswd-3754d6"),
        ("CON", "con-a3dbc4"),
        ("", "x-e3b0c4"),
        (".", "x-cdb4ee"),
        ("🏕", "x-9fa535"),
    ],
)
def test_a_name_becomes_a_plain_stem(name: str, stem: str) -> None:
    assert layout.sanitise(name) == stem


@given(st.text(st.characters(), max_size=200))
@example("../../etc/passwd")
@example("CON")
@example("com1.csv")
@example("a\x00b")
@example("x" * 500)
@example("\ud800")
@example(" ")
def test_no_name_leaves_its_folder_or_hits_a_reserved_one(name: str) -> None:
    stem = layout.sanitise(name)
    path = TREE.channel_thread(layout.channel_stem(name, index=0, others={0: name}))

    assert path.parent == TREE.channels
    assert path.stem == stem
    assert 0 < len(stem) <= layout.MAX_NAME_CHARS + 7
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert stem not in _RESERVED


@given(st.text(max_size=60), st.text(max_size=60))
@example("Café", "Cafe")
@example("x" * 48, "x" * 49)
@example("a.b", "ab")
@example("İ", "i")
def test_two_names_meet_only_where_they_differ_in_case_and_spaces_alone(a: str, b: str) -> None:
    same = a.lower().replace(" ", "_") == b.lower().replace(" ", "_")

    if not same:
        assert layout.sanitise(a) != layout.sanitise(b)


def test_channels_of_equal_or_case_equal_names_get_files_of_their_own() -> None:
    others = {0: "Home", 2: "home", 5: "HOME", 6: "Away"}

    stems = {i: layout.channel_stem(name, index=i, others=others) for i, name in others.items()}

    assert stems == {0: "home", 2: "home-ch2", 5: "home-ch5", 6: "away"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("!a11ce001", 0xA11CE001),
        ("A11CE001", 0xA11CE001),
        ("!00000000", 0),
        ("!a11ce00", None),
        ("!a11ce0011", None),
        ("a11ce00g", None),
        ("!a11ce001\n", None),
        ("\u0661" * 8, None),
        ("", None),
    ],
)
def test_only_eight_hex_digits_are_a_node(text: str, number: int | None) -> None:
    assert layout.node_number(text) == number


@given(st.integers(0, 2**32 - 1))
def test_a_node_id_reads_back(number: int) -> None:
    assert layout.node_number(layout.node_id(number)) == number


def test_a_dm_thread_is_named_by_its_peers_digits() -> None:
    assert TREE.dm_thread("!A11CE001") == TREE.dms / "a11ce001.csv"
    assert TREE.dm_thread("../x").parent == TREE.dms


def test_thread_files_leave_out_hidden_and_foreign_ones(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path)
    for folder in tree.folders():
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.csv", ".a.csv.1234.tmp", ".b.csv", "a.csv.lock", "notes.txt"):
        (tree.dms / name).touch()

    assert tree.thread_files() == [tree.dms / "a.csv"]


def test_trees_are_folders_alone(tmp_path: Path) -> None:
    files = Layout(tmp_path, tmp_path / "nodes", tmp_path / "prompts")
    assert files.trees() == []

    for name in ("bbbb0002", "aaaa0001", ".hidden"):
        (tmp_path / "nodes" / name).mkdir(parents=True)
    (tmp_path / "nodes" / "file").touch()

    assert [tree.node_uid for tree in files.trees()] == ["aaaa0001", "bbbb0002"]


def test_an_alias_is_sanitised_into_the_trees_name() -> None:
    files = Layout(Path("/d"), Path("/d/nodes"), Path("/p"))

    assert files.tree("!AAAA0001").node_uid == "aaaa0001"
    assert files.tree("Base Camp").node_uid == "base_camp"
    assert files.tree("../../x").root.parent == Path("/d/nodes")
    assert files.prompt_page("../p").parent == Path("/p")


def test_every_live_file_has_a_shelf_of_its_own() -> None:
    stems = ["a11ce001", "longfast", "2026-01", "sightings", "dms", "undated"]
    files = [TREE.sightings]
    files += [TREE.dms / f"{stem}.csv" for stem in stems]
    files += [TREE.channels / f"{stem}.csv" for stem in stems]

    folders = [TREE.shelf(path).folder for path in files]

    assert len(set(folders)) == len(files)
    assert all(a not in b.parents for a in folders for b in folders)
    assert all(TREE.archive in folder.parents for folder in folders)
    assert TREE.shelf(TREE.sightings).part("2026", 1) == TREE.archive / "sightings/2026.csv"
    assert TREE.shelf(files[1]).part("2026-01", 2) == (
        TREE.archive / "dms/a11ce001/2026-01-part2.csv"
    )


def test_the_registry_of_model_calls_has_the_archive_of_the_specification() -> None:
    shelf = Layout(Path("/d"), Path("/d/nodes"), Path("/p")).prompts_shelf

    assert shelf.part("2026-01", 1) == Path("/p/archive/prompts-2026-01.csv")
