"""Lists what lies in the folders: tables with their types, our other files, left-overs."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshllm.layout import Layout, NodeTree, Shelf
from meshllm.records import Latest, Message, Node, PromptRow, Record, Sighting
from meshllm.store import atomic

_TEMP: Final = ".tmp"
_STATUS: Final = frozenset({"radio.json", "agent.json"})


@dataclass(frozen=True, slots=True)
class Known:
    """A table that is there: its type, and where its damaged bytes are kept."""

    path: Path
    record_type: type[Record]
    quarantine: Path
    is_archive: bool = False
    is_prompts: bool = False


def tables(files: Layout) -> Iterator[Known]:
    """Every CSV file of the bus, live ones of a radio before its archived ones."""
    for tree in files.trees():
        yield from _tree(tree)
    prompts, kept = files.prompts_table, files.quarantine
    if os.path.lexists(prompts):
        yield Known(prompts, PromptRow, kept, is_prompts=True)
    for path in _parts(files.prompts_shelf):
        yield Known(path, PromptRow, kept, is_archive=True, is_prompts=True)


def _tree(tree: NodeTree) -> Iterator[Known]:
    kept = tree.quarantine
    fixed: list[tuple[Path, type[Record]]] = [
        (tree.nodes, Node),
        (tree.sightings, Sighting),
        (tree.latest, Latest),
    ]
    for path, record_type in fixed:
        if os.path.lexists(path):
            yield Known(path, record_type, kept)
    for path in tree.thread_files():
        yield Known(path, Message, kept)
    for path in _parts(tree.shelf(tree.sightings)):
        yield Known(path, Sighting, kept, is_archive=True)
    for live in (tree.channels, tree.dms):
        for folder in _folders(tree.archive / live.name):
            for path in _parts(Shelf(folder)):
                yield Known(path, Message, kept, is_archive=True)


def entries(roots: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file and folder below the roots, each once, links not followed."""
    seen: set[Path] = set()
    for root in roots:
        for folder, names, file_names in os.walk(root):
            here = Path(folder)
            if here in seen:
                names.clear()
                continue
            seen.add(here)
            for path in (here, *(here / name for name in file_names)):
                try:
                    found = path.lstat()
                except OSError:
                    continue  # it went meanwhile
                if not stat.S_ISLNK(found.st_mode):
                    yield path, found


def leftovers(files: Layout) -> list[Path]:
    """Temporary files that a killed writer left."""
    roots = (files.data_dir, files.nodes_dir, files.prompts_dir)
    return [path for path, _ in entries(roots) if is_leftover(path)]


def is_leftover(path: Path) -> bool:
    """Say whether a name is one of our temporary files: `.name.random.tmp`."""
    return path.name.startswith(".") and path.name.endswith(_TEMP) and path.name.count(".") >= 3


def target_of(leftover: Path) -> Path:
    """Name the file that a temporary file was to become."""
    return leftover.with_name(leftover.name[1 : -len(_TEMP)].rpartition(".")[0])


def is_ours(path: Path, files: Layout) -> bool:
    """Say whether our processes made this file, so that its mode follows the settings."""
    if path.name.endswith(".lock"):
        return True
    if path.is_relative_to(files.prompts_dir):
        return path == files.prompts_table or path.parent == files.prompts_shelf.folder
    if path.suffix == ".csv" or path.name in _STATUS:
        return True
    is_hidden = path.name.startswith(".")  # the reserve has a mode of its own
    return path.is_relative_to(files.nodes_dir) and path.suffix == "" and not is_hidden


def wanted_mode(path: Path, found: os.stat_result, modes: atomic.Modes) -> int:
    """Permission bits that the settings want for one of our files."""
    if stat.S_ISDIR(found.st_mode):
        return modes.folder
    return modes.lock if path.name.endswith(".lock") else modes.file


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


def _parts(shelf: Shelf) -> list[Path]:
    try:
        return [path for _, _, path in shelf.parts()]
    except OSError:
        return []
