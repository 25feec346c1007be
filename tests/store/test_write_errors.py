import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from meshllm.clock import SystemClock
from meshllm.errors import StoreWriteError
from meshllm.records import Message
from meshllm.store import atomic, quarantine
from meshllm.store.table import Table

ERRORS = [errno.ENOSPC, errno.EROFS, errno.EACCES]


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, number: int, *, at: int = 0) -> None:
    """Let the `at`-th call of one os function, made for a temp file or after it, fail."""
    real = getattr(os, call)
    count = iter(range(100))

    def failing(*args: Any, **kwargs: Any) -> Any:
        concerned = call != "open" or str(args[0]).endswith(".tmp")
        if concerned and next(count) == at:
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, failing)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "fchmod", "write", "fsync", "rename"])
def test_a_refused_write_leaves_the_old_file_and_no_temp(
    tmp_path: Path, row: Message, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    table = Table(tmp_path / "t.csv", Message)
    table.append([row])
    before = files(tmp_path)

    with monkeypatch.context() as patch:
        refuse(patch, call, number)
        with pytest.raises(StoreWriteError, match=rf"t\.csv: cannot write: {os.strerror(number)}"):
            table.append([replace(row, message_id="1001")])

    assert files(tmp_path) == before
    assert table.read().rows == (row,)
    table.append([replace(row, message_id="1002")])
    assert [found.message_id for found in table.read().rows] == ["1000", "1002"]


def test_a_failed_folder_flush_is_reported_and_leaves_a_whole_file(
    tmp_path: Path, row: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(tmp_path / "t.csv", Message)
    table.append([row])

    with monkeypatch.context() as patch:
        refuse(patch, "fsync", errno.EIO, at=1)
        with pytest.raises(StoreWriteError):
            table.append([replace(row, message_id="1001")])

    assert sorted(files(tmp_path)) == ["t.csv", "t.csv.lock"]
    assert [found.message_id for found in table.read().rows] == ["1000", "1001"]


def test_a_short_write_is_continued(
    tmp_path: Path, row: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda number, content: real(number, content[:7]))

    Table(tmp_path / "t.csv", Message).append([row])

    assert Table(tmp_path / "t.csv", Message).read().rows == (row,)


def test_a_refused_write_of_the_original_leaves_the_damaged_table(
    tmp_path: Path, row: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(tmp_path / "t.csv", Message)
    table.append([row])
    table.path.write_bytes(table.path.read_bytes() + b"rubbish\n")
    before = table.path.read_bytes()

    with monkeypatch.context() as patch:
        refuse(patch, "write", errno.ENOSPC)
        with pytest.raises(StoreWriteError):
            quarantine.repair(table, tmp_path / "quarantine", SystemClock())

    assert table.path.read_bytes() == before
    assert list((tmp_path / "quarantine").iterdir()) == []


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_folders_and_locks_that_cannot_be_made_are_write_errors(
    tmp_path: Path, row: Message, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", failing)
        with pytest.raises(StoreWriteError, match="cannot create the folder"):
            Table(tmp_path / "new" / "t.csv", Message).append([row])
    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "acquire", failing)
        with pytest.raises(StoreWriteError, match=r"t\.csv\.lock: cannot lock"):
            Table(tmp_path / "t.csv", Message).append([row])


def test_a_bad_temp_folder_is_a_write_error(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="cannot write: No such file"):
        atomic.replace(tmp_path / "none" / "x", [b""], modes=atomic.Modes())
    with pytest.raises(StoreWriteError, match="cannot remove left-over files"):
        atomic.sweep(tmp_path / "none")


def test_write_text_replaces_a_whole_file(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "page.md", "old")
    atomic.write_text(tmp_path / "page.md", "né\ud800w", modes=atomic.Modes(file=0o644))

    page = tmp_path / "page.md"
    assert (page.read_bytes(), page.stat().st_mode & 0o777) == ("né?w".encode(), 0o644)
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
