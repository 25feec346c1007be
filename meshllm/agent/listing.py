"""Finds entries of the allow and block lists that name nobody and nothing. Applies no list."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from meshllm.agent.threads import ThreadBook
from meshllm.config import Settings
from meshllm.errors import TransientError
from meshllm.layout import NodeTree, node_number
from meshllm.observe import status
from meshllm.records import Node
from meshllm.store.table import Table

log = structlog.get_logger()

LISTS: Final = ("channel_allowlist", "channel_blocklist", "dm_allowlist", "dm_blocklist")
MAX_NEAR: Final = 3  #: near names told for one entry


@dataclass(frozen=True, slots=True)
class Unmatched:
    """An entry of a list that matches nothing that was heard so far."""

    setting: str
    entry: str
    near: tuple[str, ...]


def unmatched(
    lists: Mapping[str, Sequence[str]], *, channels: Iterable[str], people: Iterable[str]
) -> list[Unmatched]:
    """Name the entries that match no channel or, in lists of DMs, no person. Pure."""
    # Backwards, so that of two spellings the one with capitals is told.
    known_channels = {name.casefold(): name for name in sorted(channels, reverse=True)}
    known_people = {_canonical(name): name for name in sorted(people, reverse=True)}
    found = []
    for setting, entries in lists.items():
        is_channel = setting.startswith("channel")
        known = known_channels if is_channel else known_people
        for entry in entries:
            key = entry.casefold() if is_channel else _canonical(entry)
            if key not in known:
                near = difflib.get_close_matches(key, known, n=MAX_NEAR)
                found.append(Unmatched(setting, entry, tuple(known[name] for name in near)))
    return found


class ListCheck:
    """Tells the operator once a run of entries without effect, when all files were looked at."""

    def __init__(self, settings: Settings) -> None:
        """Take the lists; read nothing yet."""
        self._lists = {name: getattr(settings, name) for name in LISTS}
        self._is_done = not any(self._lists.values())

    def look(self, book: ThreadBook) -> None:
        """Check once; wait while there is no radio's folder or some files were not read."""
        if self._is_done or not book.tree_count or book.has_backlog:
            return
        self._is_done = True
        channels = set().union(*(channels_of(tree) for tree in book.trees))
        people = set().union(*(people_of(tree) for tree in book.trees))
        for one in unmatched(self._lists, channels=channels, people=people):
            log.warning(
                "list_entry_unmatched",
                setting=one.setting,
                entry=one.entry,
                near=list(one.near),
                consequence="the entry has no effect until something of that name is heard",
            )


def channels_of(tree: NodeTree) -> set[str]:
    """Return the names by which the channels of a radio may be listed."""
    names = {path.stem for path in tree.channels.glob("*.csv")}
    told = status.read(tree.radio_status).get("channels")
    for channel in told if isinstance(told, list) else ():
        if isinstance(channel, dict):
            names |= {str(channel.get(key) or "") for key in ("name", "file")}
    return names - {""}


def people_of(tree: NodeTree) -> set[str]:
    """Return ids and names of the nodes that a radio heard; none when its file is unreadable."""
    try:
        rows = Table(tree.nodes, Node).read().rows
    except TransientError:
        return set()
    return {name for row in rows for name in (row.node_id, row.short_name, row.long_name)} - {""}


def _canonical(name: str) -> str:
    number = node_number(name)
    return name.casefold() if number is None else f"!{number:08x}"
