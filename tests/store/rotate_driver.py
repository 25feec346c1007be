"""Runs rotations in forked children that die, or lose power, just before their k-th system call.

Usage: rotate_driver.py FOLDER. Leaves FOLDER/<operation>/<k>/ as a kill left it and, beside it,
FOLDER/<operation>/<k>.power/ as a power cut may leave it at worst: nothing survives that was not
flushed, no name that its folder's flush did not make durable.
"""

import os
import stat
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from meshllm.layout import Shelf
from meshllm.records import Message
from meshllm.store import rotate
from meshllm.store.table import Table
from tests.store.crash_driver import CALLS, DIED, in_child

LIVE = "t.csv"
MONTHS = {1: "2026-01", 2: "2026-01", 3: "2026-02", 4: "2026-02", 5: "2026-02", 6: "2026-02"}
GONE = ((1, 2), (3,), (4,))  #: units that move; 5 and 6 stay


def row(number: int) -> Message:
    day = f"{MONTHS.get(number, '2026-01')}-03T00:00:00Z"
    return Message("dm", "!a", str(number), "inbound", "!b", "", day, 'two\nlines, "x"')


def month(message: Message) -> str:
    return message.timestamp[:7]


def shelf(folder: Path) -> Shelf:
    return Shelf(folder / "archive" / "t")


def live(folder: Path) -> Table[Message]:
    return Table(folder / LIVE, Message)


def units() -> list[tuple[Message, ...]]:
    return [tuple(map(row, unit)) for unit in GONE]


def first(folder: Path) -> Callable[[], object]:
    """Rotate where nothing is archived yet: folders have to be made."""
    table = live(folder)
    table.append([row(number) for number in MONTHS])
    return lambda: rotate.rotate(table, units(), shelf(folder), month)


def later(folder: Path) -> Callable[[], object]:
    """Rotate into a month that has a file."""
    act = first(folder)
    Table(shelf(folder).part("2026-01", 1), Message).append([row(-1), row(-2)])
    return act


def naive(folder: Path) -> Callable[[], object]:
    """Shorten the live file first: the control that must be seen to lose rows."""
    table = live(folder)
    table.append([row(number) for number in MONTHS])
    going = [found for unit in units() for found in unit]

    def act() -> None:
        table.rewrite(lambda _, now: [found for found in now.rows if found not in going])
        Table(shelf(folder).part("2026-01", 1), Message).append(going)

    return act


OPERATIONS = (first, later, naive)


class Disk:
    """What a power cut leaves of a folder: contents by inode as flushed, names as flushed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._flushed: dict[int, bytes] = {}
        self._names: dict[Path, int] = {}
        for path in [root, *root.rglob("*")]:
            self._names[path] = path.stat().st_ino
            if path.is_file():
                self._flushed[path.stat().st_ino] = path.read_bytes()

    def flushed(self, descriptor: int) -> None:
        """Take note of an fsync."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._flushed[path.stat().st_ino] = path.read_bytes()
            return
        for gone in [name for name in self._names if name.parent == path and not name.exists()]:
            del self._names[gone]
        for entry in path.iterdir():
            self._names[entry] = entry.stat().st_ino

    def write(self, target: Path) -> None:
        """Build what is left: a file never flushed is empty, one in a lost folder is lost."""
        for path, inode in sorted(self._names.items()):
            copy = target / path.relative_to(self._root)
            if path == self._root or path.parent in self._names:
                if inode in self._flushed or (path.exists() and path.is_file()):
                    copy.write_bytes(self._flushed.get(inode, b""))
                else:
                    copy.mkdir(parents=True)


def with_power_cut(operation: Callable[[Path], Callable[[], object]]) -> Any:
    """Have the same death tell what a power cut would have left."""

    def prepared(folder: Path) -> Callable[[], object]:
        act = operation(folder)
        disk = Disk(folder)
        real_fsync, real_exit = os.fsync, os._exit
        uncounted = {name: getattr(os, name) for name in CALLS}

        def fsync(descriptor: int) -> None:
            real_fsync(descriptor)
            disk.flushed(descriptor)

        def leave(code: int) -> None:
            if code == DIED:
                for name, real in uncounted.items():
                    setattr(os, name, real)
                disk.write(folder.with_name(f"{folder.name}.power"))
            real_exit(code)

        os.fsync = fsync  # type: ignore[assignment] # one kind of argument is enough
        os._exit = leave  # type: ignore[assignment]
        return act

    return prepared


def main() -> None:
    root = Path(sys.argv[1])
    for operation in OPERATIONS:
        for fatal in count():
            folder = root / operation.__name__ / str(fatal)
            code = in_child(with_power_cut(operation), folder, fatal)
            if code == 0:
                break
            if code != DIED:
                sys.exit(f"{operation.__name__}: exit code {code}")


if __name__ == "__main__":
    main()
