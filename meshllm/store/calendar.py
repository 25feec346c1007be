"""Finds the months in which a radio's tree has records. Judges none, takes no lock.

What cannot be read tells of no month, which only makes other files look younger.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from meshllm.errors import TransientError
from meshllm.keeping import Month, last_month, month_in
from meshllm.layout import NodeTree
from meshllm.records import Message, Node, Record, Sighting
from meshllm.store import codec, regular

R = TypeVar("R", bound=Record)


def recorded_months(tree: NodeTree) -> Iterator[set[Month]]:
    """Yield the months of one file after the other, so that the caller may pause between two."""
    names: set[Month] = set()
    sightings = tree.shelf(tree.sightings)
    for shelf in tree.shelves():
        if shelf.folder != sightings.folder:
            names |= {m for period, _, _ in shelf.parts() if (m := last_month(period)) is not None}
    yield names
    yield _months(tree.nodes, Node, lambda row: (row.first_seen_at, row.last_seen_at))
    for path in (tree.sightings, *(path for _, _, path in sightings.parts())):
        yield _months(path, Sighting, lambda row: (row.observed_at,))
    for path in tree.thread_files():
        yield _months(path, Message, lambda row: (row.timestamp,))


def _months(path: Path, record_type: type[R], times: Callable[[R], tuple[str, ...]]) -> set[Month]:
    try:
        rows = codec.decode(regular.read_bytes(path), record_type).rows
    except (OSError, TransientError):
        return set()
    return {m for row in rows for cell in times(row) if (m := month_in(cell)) is not None}
