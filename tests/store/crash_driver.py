"""Runs store operations in forked children that die just before their k-th call of the system.

Usage: crash_driver.py FOLDER. For each operation leaves FOLDER/<operation>/<k>/ as the death left
it, and FOLDER/<operation>/calls.json: what an undisturbed run called, in order.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from meshllm.clock import SystemClock
from meshllm.records import Message
from meshllm.store import codec, quarantine
from meshllm.store.table import Table

CALLS = (
    "open",
    "write",
    "writev",
    "fchmod",
    "fsync",
    "rename",
    "replace",
    "mkdir",
    "unlink",
    "close",
)
DIED = 77
RUBBISH = b'dm,"open\n'


def row(number: int, direction: str = "queued") -> Message:
    return Message("dm", "!a", str(number), direction, "!b", content='two\nlines, "x"')


def sent(now: Message) -> Message:
    return replace(now, direction="outbound", send_status="sent")


def prepare(folder: Path) -> Table[Message]:
    table = Table(folder / "t.csv", Message)
    table.append([row(1, "inbound"), row(2)])
    return table


def append(folder: Path) -> Callable[[], object]:
    table = prepare(folder)
    return lambda: table.append([row(3), row(4)])


def update(folder: Path) -> Callable[[], object]:
    table = prepare(folder)
    return lambda: table.update({row(2).key: sent})


def create(folder: Path) -> Callable[[], object]:
    return lambda: Table(folder / "t.csv", Message).append([row(1)])


def repair(folder: Path) -> Callable[[], object]:
    path = prepare(folder).path
    path.write_bytes(path.read_bytes() + RUBBISH)
    table = Table(path, Message)
    return lambda: quarantine.repair(table, folder / "quarantine", SystemClock())


def naive(folder: Path) -> Callable[[], object]:
    """Truncate and write: the control that must be seen to fail."""
    path = prepare(folder).path
    content = path.read_bytes() + codec.encode([row(3), row(4)])

    def write() -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, content[:200])
        os.write(descriptor, content[200:])
        os.close(descriptor)

    return write


OPERATIONS = (append, update, create, repair, naive)


class Counter:
    """Stands before the system calls; keeps a list of them, and dies before one."""

    def __init__(self, fatal: int) -> None:
        self.calls: list[list[str]] = []
        self._fatal = fatal
        self._names: dict[int, str] = {}

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return real(*args, **kwargs)
            if len(self.calls) == self._fatal:
                os._exit(DIED)
            what = self._names.get(args[0], "?") if isinstance(args[0], int) else str(args[0])
            self.calls.append(
                [name, Path(what).name, *map(str, args[1:2] if name == "rename" else [])]
            )
            result = real(*args, **kwargs)
            if name == "open":
                self._names[result] = what
            return result

        return call


def in_child(operation: Callable[[Path], Callable[[], object]], folder: Path, fatal: int) -> int:
    """Run one operation in a forked child; return its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    folder.mkdir(parents=True)
    act = operation(folder)
    counter = Counter(fatal)
    counter.install()
    act()
    counter._fatal = -1
    (folder.parent / "calls.json").write_text(json.dumps(counter.calls))
    os._exit(0)


def deaths(operation: Callable[[Path], Callable[[], object]], folder: Path) -> Iterator[int]:
    for fatal in count():
        yield in_child(operation, folder / operation.__name__ / str(fatal), fatal)


def main() -> None:
    for operation in OPERATIONS:
        for code in deaths(operation, Path(sys.argv[1])):
            if code == 0:
                break
            if code != DIED:
                sys.exit(f"{operation.__name__}: exit code {code}")


if __name__ == "__main__":
    main()
