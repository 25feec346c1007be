"""Opens everything of a data folder: trees, threads, nodes, prompts, status files. Writes nothing.

Works while the processes run and while they are down, on media that cannot be written, and on
copies made on another machine. Takes no lock and reads no clock. What is damaged or may not be read
is left out and listed in `problems`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshllm.errors import UserError
from meshllm.layout import Layout, NodeTree, Shelf
from meshllm.reading.tables import (
    Problem,
    Problems,
    merged,
    read,
    read_bytes,
    subfolders,
    tables_in,
)
from meshllm.records import Latest, Message, Node, PromptRow, Sighting

_MAX_NUMBER: Final = 2**63  #: more is no figure of ours, and more than some arithmetic bears


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread of one radio; its live file may be missing where all of it is archived."""

    tree: NodeTree
    path: Path  #: the live file
    thread_type: str

    @property
    def shelf(self) -> Shelf:
        """Where its old rows are."""
        return self.tree.shelf(self.path)


class Book:
    """Reads a data folder when asked. Each call reads what is there now."""

    def __init__(self, layout: Layout) -> None:
        """Read nothing yet."""
        self.layout = layout
        self._problems = Problems()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be read so far."""
        return self._problems.all()

    def trees(self) -> list[NodeTree]:
        """One tree per radio."""
        return [NodeTree(path) for path in subfolders(self.layout.nodes_dir, self._problems)]

    def threads(self, tree: NodeTree) -> list[Thread]:
        """Threads of a radio, channels first; also those that are in the archive alone."""
        return [
            Thread(tree, path, thread_type)
            for folder, thread_type in ((tree.channels, "channel"), (tree.dms, "dm"))
            for path in self._thread_files(tree, folder)
        ]

    def live(self, thread: Thread) -> tuple[Message, ...]:
        """Rows of the live file, in file order: whatever is unfinished is here."""
        return read(thread.path, Message, self._problems)

    def messages(self, thread: Thread) -> Iterator[Message]:
        """All rows of a thread, archived ones first, each once, one archive file at a time."""
        return merged(thread.path, thread.shelf, Message, self._problems)

    def nodes(self, tree: NodeTree) -> tuple[Node, ...]:
        """Rows of nodes.csv."""
        return read(tree.nodes, Node, self._problems)

    def latest(self, tree: NodeTree) -> dict[str, Latest]:
        """Newest facts, by node id."""
        return {row.node_id: row for row in read(tree.latest, Latest, self._problems)}

    def sightings(self, tree: NodeTree) -> Iterator[Sighting]:
        """All sightings, archived ones first, each once."""
        shelf = tree.shelf(tree.sightings)
        return merged(tree.sightings, shelf, Sighting, self._problems)

    def prompts(self) -> Iterator[PromptRow]:
        """All model calls, archived ones first, each once."""
        shelf = self.layout.prompts_shelf
        return merged(self.layout.prompts_table, shelf, PromptRow, self._problems)

    def prompt_page(self, prompt_id: str) -> str:
        """Text of a model call's page; "" when it is missing. Undecodable bytes become U+FFFD."""
        path = self.layout.prompt_page(prompt_id)
        return read_bytes(path, self._problems).decode("utf-8", "replace")

    def radio(self, tree: NodeTree) -> dict[str, Any]:
        """radio.json; {} when it is missing or damaged, the latter being noted."""
        return self._json(tree.radio_status)

    def agent(self) -> dict[str, Any]:
        """agent.json; {} when it is missing or damaged, the latter being noted."""
        return self._json(self.layout.agent_status)

    def _json(self, path: Path) -> dict[str, Any]:
        data = read_bytes(path, self._problems)
        if not data:
            return {}
        try:
            parsed = json.loads(data, parse_int=_number, parse_float=_number, parse_constant=_none)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, dict):
            return parsed
        self._problems.add(path, "not a JSON object")
        return {}

    def _thread_files(self, tree: NodeTree, folder: Path) -> list[Path]:
        live = set(tables_in(folder, self._problems))
        shelves = subfolders(tree.archive / folder.name, self._problems)
        return sorted(live | {folder / f"{shelf.name}.csv" for shelf in shelves})


def open_book(layout: Layout) -> Book:
    """Open a data folder. Raises UserError when there is none; an empty one is fine."""
    if not layout.data_dir.is_dir() and not layout.nodes_dir.is_dir():
        hint = "the first start makes it (./run.sh); --data DIR looks at another one"
        raise UserError(f"{layout.data_dir}: no such folder", [hint])
    return Book(layout)


def layout_of(folder: Path) -> Layout:
    """Find the parts of a folder somebody names: data/, what it is in, or a folder of trees.

    Copies come in all three shapes. Prompts lie inside, or beside data/ as they are installed.
    Raises UserError when there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", ["name a data folder, or a copy of one"])
    inner = folder / "data"
    if not (folder / "nodes").is_dir() and inner.is_dir():
        return Layout(inner, inner / "nodes", folder / "prompts")
    inside, beside = folder / "prompts", folder.absolute().parent / "prompts"
    prompts = inside if inside.is_dir() or folder.absolute().name != "data" else beside
    nodes = folder / "nodes"
    if not nodes.is_dir() and any(folder.glob("*/threads")):
        nodes = folder
    return Layout(folder, nodes, prompts)


def _number(digits: str) -> float | None:
    """Read a number of a status file; None for one without bounds, such as 1e999."""
    value: float = float(digits) if set(digits) & set(".eE") else int(digits)
    return value if abs(value) < _MAX_NUMBER else None


def _none(_: str) -> None:
    """Read NaN and Infinity, which no JSON has, as nothing."""
