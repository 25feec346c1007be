"""Rows of live and archived files, each once, whatever state the files are in. Writes nothing.

Takes no lock and holds no file in memory longer than it reads it. Damage costs the rows it hit and
becomes a `Problem`; nothing here raises because of what a file holds or may not be read.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from meshllm.errors import NotRegularError
from meshllm.layout import Shelf
from meshllm.records import Record
from meshllm.store import codec, regular

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be read of a file."""

    path: Path
    reason: str  #: of the first damaged place
    places: int = 0  #: damaged places; 0 when the whole file could not be read

    def __str__(self) -> str:
        """One line for an operator."""
        if not self.places:
            return f"{self.path}: {self.reason}"
        count = "1 damaged place" if self.places == 1 else f"{self.places} damaged places"
        return f"{self.path}: {count} left out, the first: {self.reason}"


@dataclass(slots=True)
class Problems:
    """What was met so far, once per file."""

    _by_path: dict[Path, Problem] = field(default_factory=dict)

    def add(self, path: Path, reason: str, places: int = 0) -> None:
        """Note a problem; what is known of the same file is replaced."""
        self._by_path[path] = Problem(path, reason, places)

    def clear(self, path: Path) -> None:
        """Forget what is no longer true of a file."""
        self._by_path.pop(path, None)

    def all(self) -> tuple[Problem, ...]:
        """Everything met, by path."""
        return tuple(self._by_path[path] for path in sorted(self._by_path))


def read_bytes(path: Path, problems: Problems) -> bytes:
    """Bytes of a file; b"" for a missing one, and for one that cannot be read, which is noted."""
    problems.clear(path)
    try:
        return regular.read_bytes(path)
    except FileNotFoundError:
        return b""
    except NotRegularError:
        problems.add(path, f"a {regular.kind_of(path)}, not a file")
    except OSError as error:
        problems.add(path, f"cannot be read: {error.strerror or error}")
    return b""


def read(path: Path, record_type: type[R], problems: Problems) -> tuple[R, ...]:
    """Rows of one file in file order."""
    data = read_bytes(path, problems)
    decoded = codec.decode(data, record_type)
    if decoded.damage:
        problems.add(path, decoded.damage[0].reason, len(decoded.damage))
    return decoded.rows


def parts(shelf: Shelf, problems: Problems) -> list[Path]:
    """Archive files that exist, in order."""
    problems.clear(shelf.folder)
    try:
        return [path for _, _, path in shelf.parts()]
    except OSError as error:
        problems.add(shelf.folder, f"cannot be listed: {error.strerror or error}")
        return []


def merged(live: Path, shelf: Shelf, record_type: type[R], problems: Problems) -> Iterator[R]:
    """Yield the rows of a live file and its archive, archived ones first, each once.

    A row in both counts as it is live. The live file is read first, so that what moves meanwhile
    is not missed. Memory: the live rows, one archive file and a number for each archived row.
    """
    now = read(live, record_type, problems)
    seen = {hash(row.identity) for row in now}
    for path in parts(shelf, problems):
        for row in read(path, record_type, problems):
            mark = hash(row.identity)  # 64 bits: a million rows collide once in 30 million runs
            if mark not in seen:
                seen.add(mark)
                yield row
    yield from now


def subfolders(folder: Path, problems: Problems) -> list[Path]:
    """Visible folders in a folder, sorted; none for a missing one."""
    return [path for path, is_folder in _entries(folder, problems) if is_folder]


def tables_in(folder: Path, problems: Problems) -> list[Path]:
    """Visible CSV files in a folder, sorted; none for a missing one."""
    found = _entries(folder, problems)
    return [path for path, is_folder in found if path.suffix == ".csv" and not is_folder]


def _entries(folder: Path, problems: Problems) -> list[tuple[Path, bool]]:
    problems.clear(folder)
    try:
        with os.scandir(folder) as entries:
            found = [(e.name, e.is_dir()) for e in entries if not e.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.add(folder, f"cannot be listed: {error.strerror or error}")
        return []
    return [(folder / name, is_folder) for name, is_folder in sorted(found)]
