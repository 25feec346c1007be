"""What the files of one radio say of the mesh: its people, the radio, the agent. Writes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from meshllm.commands.names import Person, label_of
from meshllm.errors import TransientError
from meshllm.layout import NodeTree
from meshllm.observe import status
from meshllm.records import Latest, Message, Node
from meshllm.store.table import Table


class Mesh:
    """Reads the files of one radio when asked. Each call reads what is there now."""

    def __init__(self, tree: NodeTree, agent_status: Path) -> None:
        """Read nothing yet."""
        self._tree = tree
        self._agent_status = agent_status
        self._nodes = Table(tree.nodes, Node)
        self._latest = Table(tree.latest, Latest)

    def people(self) -> tuple[Person, ...]:
        """Everybody in nodes.csv, newest heard first. Raises TransientError."""
        newest = {row.node_id: row for row in self._latest.read().rows}
        people = [
            Person(node, newest.get(node.node_id) or Latest(node.node_id), label_of(node))
            for node in self._nodes.read().rows
        ]
        people.sort(key=lambda person: (person.heard_at, person.node.node_id), reverse=True)
        return _told_apart(people)

    def known_people(self) -> tuple[Person, ...]:
        """Return the same; nobody when the files cannot be read now."""
        try:
            return self.people()
        except TransientError:
            return ()

    def radio(self) -> dict[str, Any]:
        """radio.json; {} when it is missing."""
        return status.read(self._tree.radio_status)

    def agent(self) -> dict[str, Any]:
        """agent.json; {} when it is missing."""
        return status.read(self._agent_status)

    def channels_of(self, asked: Message) -> frozenset[str]:
        """Name the channels whose positions may be told to the asker: their own and the primary."""
        listed = self.radio().get("channels")
        names = _channel_names(listed if isinstance(listed, list) else ())
        told = {names.get(_PRIMARY, "")}
        if asked.thread_type == "channel":
            told.add(asked.thread_key)
        else:
            meta = asked.meta
            index = meta.get("channel_index")
            if isinstance(index, int) and not meta.get("pki"):
                told.add(names.get(index, ""))
        return frozenset(told - {""})


_PRIMARY: Final = 0  #: index of the primary channel in every radio


def _channel_names(channels: Sequence[object]) -> dict[int, str]:
    return {
        channel["index"]: str(channel.get("name", ""))
        for channel in channels
        if isinstance(channel, dict) and isinstance(channel.get("index"), int)
    }


def _told_apart(people: Sequence[Person]) -> tuple[Person, ...]:
    """Add the end of the id to names that several have."""
    count: dict[str, int] = {}
    for person in people:
        key = person.label.casefold()
        count[key] = count.get(key, 0) + 1
    return tuple(
        replace(person, label=f"{person.label}-{person.node.node_id[-4:]}")
        if count[person.label.casefold()] > 1
        else person
        for person in people
    )
