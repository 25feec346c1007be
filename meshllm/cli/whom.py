"""Whom and what an operator means by a name: a node, a radio, a thread. Guesses nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from meshllm.cli import show
from meshllm.commands.names import Person, find, label_of
from meshllm.errors import ExitCode, UserError
from meshllm.layout import NodeTree, node_id, node_number, peer_stem
from meshllm.reading.book import Book, Thread
from meshllm.records import Latest


class UnclearError(UserError):
    """What was named does not exist, or is several things."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Names:
    """What nodes are called, over all radios or one."""

    people: tuple[Person, ...]

    def name(self, node: str) -> str:
        """Long name of a node, else its short name; "" for an unknown one."""
        for person in self.people:
            if person.node.node_id == node:
                return person.node.long_name or person.node.short_name
        return ""

    def node(self, wanted: str) -> str:
        """Return the one node id that a name or id means. Raises UnclearError with candidates."""
        number = node_number(wanted)
        if wanted.startswith("!") and number is not None:
            return node_id(number)
        found = find(wanted, self.people)
        ids = {person.node.node_id for person in found.people}
        if len(ids) == 1 and found.is_exact:
            return ids.pop()
        if not ids and number is not None:
            return node_id(number)
        raise _unclear(wanted, found.people, len(ids))


def _unclear(wanted: str, people: Sequence[Person], count: int) -> UnclearError:
    listed = [_candidate(person) for person in _once(people)]
    if not listed:
        return UnclearError(f"no node is called {wanted!r}", ["`nodes` lists them; an id works"])
    if count == 1:
        return UnclearError(f"no node is called exactly {wanted!r}; the nearest:", listed)
    return UnclearError(f"{wanted!r} may be {count} nodes; say which by its id:", listed)


def names_of(book: Book, trees: Sequence[NodeTree]) -> Names:
    """Read the names that the radios know; the newest comes first."""
    people = []
    for tree in trees:
        latest = book.latest(tree)
        people += [
            Person(node, latest.get(node.node_id) or Latest(node.node_id), label_of(node))
            for node in book.nodes(tree)
        ]
    people.sort(key=lambda person: (person.heard_at, person.node.node_id), reverse=True)
    return Names(tuple(people))


def trees_of(book: Book, wanted: str | None) -> list[NodeTree]:
    """Pick the radios an operator means: all, or the one of that folder, id or name."""
    trees = book.trees()
    if wanted is None:
        return trees
    stem = peer_stem(wanted)
    found = [tree for tree in trees if stem == tree.node_uid or wanted in _radio_names(book, tree)]
    if len(found) == 1:
        return found
    problem = "several radios are" if found else "no radio is"
    known = radios_listed(book, trees) or ["none yet"]
    raise UnclearError(f"{problem} called {wanted!r}; there are:", known)


def radios_listed(book: Book, trees: Sequence[NodeTree]) -> list[str]:
    """One line for each radio, for messages."""
    return [f"{tree.node_uid} {show.safe(book.radio(tree).get('long_name', ''))}" for tree in trees]


def threads_of(book: Book, trees: Sequence[NodeTree], wanted: str, names: Names) -> list[Thread]:
    """Find the threads of a node, a channel or a file name. Raises UnclearError."""
    threads = [thread for tree in trees for thread in book.threads(tree)]
    stem = peer_stem(wanted.removeprefix("#"))
    found = [thread for thread in threads if thread.path.stem == stem]
    if found:
        return found
    node = names.node(wanted)
    found = [thread for thread in threads if thread.path.stem == peer_stem(node)]
    if not found:
        raise UnclearError(f"no thread with {wanted!r} ({node})", ["`threads` lists them"])
    return found


def _radio_names(book: Book, tree: NodeTree) -> set[object]:
    said = book.radio(tree)
    names = (said.get(key) for key in ("node_id", "short_name", "long_name"))
    return {name for name in names if isinstance(name, str) and name}


def _once(people: Sequence[Person]) -> list[Person]:
    return list({person.node.node_id: person for person in reversed(people)}.values())[::-1]


def _candidate(person: Person) -> str:
    node = person.node
    return f"{node.node_id} {show.safe(node.short_name)} {show.safe(node.long_name)}"
