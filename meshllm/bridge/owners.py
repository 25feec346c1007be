"""Which station writes which tree, and where to take what another station heard for it.

Two configured links may lead to the same node: one station owns its tree, the other is refused.
A radio hands each packet out once, to whoever is connected, so what the refused one was given
is passed on. Nothing here waits for a station.
"""

import threading
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from meshllm.bridge.link import Heard
from meshllm.layout import NodeTree

log = structlog.get_logger()

MAX_STRAYS: Final = 2000  #: packets kept for a tree that nobody owns just now


class Owner(Protocol):
    """A station, as far as this module knows it."""

    def take(self, tree: NodeTree, heard: Sequence[Heard]) -> None:
        """Queue packets of this tree. Never waits: it is called under a lock."""


class Owners:
    """The trees in use. Safe from every station's thread."""

    def __init__(self) -> None:
        """Nothing is owned yet."""
        self._lock = threading.Lock()
        self._owners: dict[str, Owner] = {}  #: by node_uid
        self._strays: dict[str, list[Heard]] = {}

    def claim(self, tree: NodeTree, owner: Owner) -> bool:
        """Give a tree to one station only; what it had is free again, for it has another radio.

        So two serial radios that swapped their ports find each other's trees.
        """
        with self._lock:
            for uid in [uid for uid, other in self._owners.items() if other is owner]:
                del self._owners[uid]
            if self._owners.setdefault(tree.node_uid, owner) is not owner:
                return False
            strays = self._strays.pop(tree.node_uid, [])
            if strays:
                owner.take(tree, strays)
            return True

    def pass_on(self, tree: NodeTree, heard: Sequence[Heard]) -> None:
        """Take packets to whoever owns their tree, now or next."""
        with self._lock:
            owner = self._owners.get(tree.node_uid)
            if owner is not None:
                owner.take(tree, heard)
                return
            strays = self._strays.setdefault(tree.node_uid, [])
            room = MAX_STRAYS - len(strays)
            strays.extend(heard[:room])
        if len(heard) > room:
            log.error("packet_dropped", radio=tree.node_uid, reason="nobody owns its tree")
