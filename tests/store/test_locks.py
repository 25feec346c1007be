import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from meshllm.errors import (
    AlreadyRunningError,
    ExitCode,
    LockTimeoutError,
    StoreWriteError,
    UserError,
)
from meshllm.records import Message
from meshllm.store import locks
from meshllm.store.table import Table

HOLDER = """
import sys
from pathlib import Path
from meshllm.store import locks
with {lock}:
    print("held", flush=True)
    sys.stdin.read()
"""

WRITER = """
import sys
from pathlib import Path
from meshllm.records import Message
from meshllm.store.table import Table
table = Table(Path(sys.argv[1]), Message)
sys.stdin.readline()
for n in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
    table.append([Message("dm", "!a", str(n), "queued", "!b")])
"""


@contextmanager
def process(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def holding(lock: str) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds a lock until it is told to end, or is killed."""
    with process(HOLDER.format(lock=lock)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child


def test_a_stuck_process_makes_the_lock_time_out_and_nothing_is_written(
    tmp_path: Path, row: Message
) -> None:
    path = tmp_path / "t.csv"
    table = Table(path, Message, lock_timeout_s=0.05)
    table.append([row])
    before = path.read_bytes()

    with holding(f"locks.hold(Path({str(path)!r}))") as child:
        with pytest.raises(LockTimeoutError, match=r"t\.csv: locked by another process"):
            table.append([replace(row, message_id="1001")])
        assert table.read().rows == (row,)
        child.communicate(timeout=5)

    assert path.read_bytes() == before
    table.append([replace(row, message_id="1001")])
    assert len(table.read().rows) == 2


def test_two_processes_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"

    with process(WRITER, str(path), "0") as one, process(WRITER, str(path), "40") as two:
        for child in (one, two):
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        codes = [one.wait(15), two.wait(15)]

    assert codes == [0, 0]
    rows = Table(path, Message).read().rows
    assert sorted(int(row.message_id) for row in rows) == list(range(80))


def test_two_threads_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    outcomes: list[type[Exception]] = []

    def attempt() -> None:
        try:
            with locks.hold(path, 0.02):
                pass
        except LockTimeoutError as error:
            outcomes.append(type(error))

    with locks.hold(path):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(5)

    assert outcomes == [LockTimeoutError]


def test_a_thread_that_locks_twice_is_a_bug(tmp_path: Path) -> None:
    with (
        locks.hold(tmp_path / "t.csv"),
        pytest.raises(RuntimeError, match="holds the lock already"),
        locks.hold(tmp_path / "t.csv"),
    ):
        pass


def test_a_lock_file_is_left_in_place_and_reused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with locks.hold(path):
        inode = locks.lock_path(path).stat().st_ino
    with locks.hold(path):
        pass

    status = locks.lock_path(path).stat()
    assert (status.st_ino, status.st_mode & 0o777) == (inode, 0o660)


def test_more_locks_than_are_kept_still_exclude(tmp_path: Path) -> None:
    with locks.hold(tmp_path / "first"):
        for n in range(locks.KEPT_LOCKS + 1):
            with locks.hold(tmp_path / str(n)):
                pass
        with pytest.raises(LockTimeoutError), locks.hold(tmp_path / "first", 0.01):
            pass


def test_a_lock_that_cannot_be_made_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(StoreWriteError, match="cannot lock"),
        locks.hold(tmp_path / "file" / "t.csv"),
    ):
        pass


def test_a_second_process_is_told_who_runs(tmp_path: Path) -> None:
    path = tmp_path / ".bridge.lock"

    with holding(f"locks.ProcessLock(Path({str(path)!r}), 'bridge')") as child:
        with pytest.raises(AlreadyRunningError) as caught:
            locks.ProcessLock(path, "bridge").acquire()

        told = f"the bridge is already running (pid {child.pid}) on {tmp_path}"
        assert (str(caught.value), caught.value.exit_code) == (told, ExitCode.ALREADY_RUNNING)
        assert path.read_text() == f"{child.pid}\n"


def test_a_killed_process_and_its_stale_id_block_nobody(tmp_path: Path) -> None:
    path = tmp_path / ".agent.lock"
    with holding(f"locks.ProcessLock(Path({str(path)!r}), 'agent')") as child:
        child.kill()
        child.wait(5)

    with locks.ProcessLock(path, "agent"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_an_unreadable_process_id_is_called_unknown(tmp_path: Path) -> None:
    path = tmp_path / ".agent.lock"
    lock = locks.ProcessLock(path, "agent")
    with lock:
        path.write_bytes(b"\xff\n")
        with pytest.raises(AlreadyRunningError, match="pid unknown"):
            locks.ProcessLock(path, "agent").acquire()


def test_a_process_lock_may_be_released_by_another_thread_and_twice(tmp_path: Path) -> None:
    lock = locks.ProcessLock(tmp_path / ".agent.lock", "agent")
    lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join(5)

    with locks.ProcessLock(tmp_path / ".agent.lock", "agent"):
        lock.release()
        with pytest.raises(AlreadyRunningError):
            lock.acquire()


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only")]
)
def test_a_data_folder_that_cannot_be_written_names_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    lock = locks.ProcessLock(tmp_path / ".bridge.lock", "bridge")
    monkeypatch.setattr(FileLock, "acquire", refuse)

    with pytest.raises(UserError) as caught:
        lock.acquire()

    assert str(caught.value) == (
        f"{tmp_path}/.bridge.lock: cannot lock the data folder: {error.strerror}\n"
        f"  make {tmp_path} a folder this user can write, or set DATA_DIR;"
        " `./run.sh doctor` names files of another user"
    )
