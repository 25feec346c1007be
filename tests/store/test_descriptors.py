import os
import threading
from pathlib import Path

from meshllm.records import Message
from meshllm.store import held
from meshllm.store.descriptors import MAX_RETIRED, Descriptor, Retirement, retirement
from meshllm.store.table import Table


def opened(path: Path) -> Descriptor:
    return Descriptor(os.open(path, os.O_RDONLY))


def open_files() -> int:
    retirement.wait()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_retired_descriptors_are_closed_and_the_thread_ends(tmp_path: Path) -> None:
    retiring = Retirement()
    before = open_files()
    for _ in range(2):
        for _ in range(MAX_RETIRED + 6):
            retiring.add(opened(tmp_path))
        retiring.wait()

    assert open_files() == before
    assert "store-retirement" not in {thread.name for thread in threading.enumerate()}


def test_a_descriptor_in_use_stays_open(tmp_path: Path) -> None:
    retiring = Retirement()
    descriptor = opened(tmp_path)
    retiring.add(descriptor)
    retiring.wait()

    assert os.fstat(descriptor.number).st_ino == tmp_path.stat().st_ino


def test_many_tables_and_commits_leave_few_files_open(tmp_path: Path, row: Message) -> None:
    before = open_files()
    tables = [Table(tmp_path / str(n % 20) / f"{n}.csv", Message) for n in range(60)]
    for table in tables * 2:
        table.append([row])

    assert open_files() - before <= held.MAX_FILES + 16 + 1


def test_held_bytes_are_bounded(tmp_path: Path) -> None:
    files = held.HeldFiles(max_files=9, max_bytes=100)
    kept = []
    for n in range(4):
        path = tmp_path / str(n)
        path.write_bytes(b"x" * 40)
        files.put(path, Message, held.load(path, Message, previous=None))
        kept.append([files.get(tmp_path / str(m), Message) is not None for m in range(n + 1)])

    assert kept == [[True], [True, True], [False, True, True], [False, False, True, True]]
    retirement.wait()
