"""The model of a power cut that the crash tests rely on, beside what the real store does."""

import os
from pathlib import Path

import pytest

from meshllm.records import Message
from meshllm.store.table import Table
from meshllm.testing.power import Names, recording

BOTH: tuple[Names, Names] = ("lost", "kept")
ROW = Message("dm", "!a", "1", "inbound", "!b", content="hi")


def put(path: Path, content: bytes, *, flush: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, content)
    if flush:
        os.fsync(descriptor)
    os.close(descriptor)


def flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("names", BOTH)
def test_what_was_there_before_stays(tmp_path: Path, names: Names) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"old")

    with recording(tmp_path) as disk:
        pass

    assert disk.after_power_cut(names).files == {"deep/a": b"old"}


def test_a_new_name_without_a_flush_of_its_folder_is_lost_or_kept(tmp_path: Path) -> None:
    with recording(tmp_path) as disk:
        put(tmp_path / "a", b"new", flush=True)

    assert [disk.after_power_cut(names).files for names in BOTH] == [{}, {"a": b"new"}]


def test_content_without_a_flush_of_its_file_is_lost_even_under_a_kept_name(tmp_path: Path) -> None:
    with recording(tmp_path) as disk:
        put(tmp_path / "a", b"new", flush=False)
        flush_folder(tmp_path)

    assert disk.live().files == {"a": b"new"}
    assert [disk.after_power_cut(names).files for names in BOTH] == [{"a": b""}, {"a": b""}]


def test_a_rename_without_a_flush_brings_the_old_file_back_or_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    with recording(tmp_path) as disk:
        put(tmp_path / "b", b"new", flush=True)
        (tmp_path / "b").rename(tmp_path / "a")
        lost, kept = (disk.after_power_cut(names).files for names in BOTH)
        flush_folder(tmp_path)

    assert lost == {"a": b"old"}
    assert kept == {"a": b"new"}
    assert disk.after_power_cut("lost").files == {"a": b"new"}


def test_a_removed_name_comes_back_until_its_folder_is_flushed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    with recording(tmp_path) as disk:
        (tmp_path / "a").unlink()
        before = disk.after_power_cut("lost").files
        flush_folder(tmp_path)

    assert before == {"a": b"old"}
    assert disk.after_power_cut("lost").files == {}


def test_a_file_dies_with_a_folder_that_was_not_flushed_into_its_parent(tmp_path: Path) -> None:
    with recording(tmp_path) as disk:
        (tmp_path / "deep").mkdir()
        put(tmp_path / "deep" / "a", b"new", flush=True)
        flush_folder(tmp_path / "deep")
        lost = disk.after_power_cut("lost")
        flush_folder(tmp_path)

    assert (lost.files, lost.folders) == ({}, frozenset())
    assert disk.after_power_cut("lost").files == {"deep/a": b"new"}


def test_a_call_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    with recording(tmp_path), pytest.raises(NotImplementedError, match="truncate"):
        os.truncate(tmp_path / "a", 1)


@pytest.mark.parametrize("names", BOTH)
def test_a_commit_of_the_store_survives_as_soon_as_it_returns(tmp_path: Path, names: Names) -> None:
    with recording(tmp_path) as disk:
        Table(tmp_path / "t.csv", Message).append([ROW])
    tree = disk.after_power_cut(names)
    tree.write(tmp_path / "after")

    assert Table(tmp_path / "after" / "t.csv", Message).read().rows == (ROW,)
    assert disk.live().files["t.csv"] == (tmp_path / "t.csv").read_bytes()


def test_a_disk_that_lies_keeps_nothing_that_came_later(tmp_path: Path) -> None:
    with recording(tmp_path, is_lying=True) as disk:
        Table(tmp_path / "t.csv", Message).append([ROW])

    assert disk.after_power_cut("kept").files["t.csv"] == b""
    assert disk.after_power_cut("lost").files == {}
