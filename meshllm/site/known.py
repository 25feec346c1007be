"""Collects every node that was ever heard of, out of the trees and the prompt log. Writes nothing.

Names change, and nodes.csv holds the newest; earlier ones stand in the prompts of their time, in
the line of data that follows a question.
"""

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeVar

import regex

from meshllm.errors import TransientError, UserError
from meshllm.layout import Layout, NodeTree, node_number
from meshllm.records import Latest, Node, Record
from meshllm.site.names import MIN_GAP, Term, Word, fold, words
from meshllm.site.pseudonyms import Pseudonyms
from meshllm.store import regular
from meshllm.store.table import Table

R = TypeVar("R", bound=Record)

_DATA_LINE: Final = re.compile(r"^(?:<pre>)?Data: (.*)$", re.MULTILINE)
#: Section of a prompt that lists nodes: a count, then a line for each, which begins with its name.
_FACTS: Final = re.compile(r"^Mesh facts \(data\):\n[^\n]*\n((?:[^\n<]+\n)*)", re.MULTILINE)
_REMARK: Final = re.compile(r" \([^()]*\)$")
_ID: Final = re.compile(r"!([0-9a-f]{8})(?![0-9a-f])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_GRAPHEME: Final = regex.compile(r"\X")
LABEL_CHARS: Final = 4  #: so many characters of a short name are shown in answers
MIN_PART: Final = 3  #: letters of a part of a long name that stands for the whole
_COMMON: Final = (
    "a an and at base bay beach big black blue bridge camp car central city club creek dead deaf "
    "deed down east echo face fade farm feed field fire fixed forest garden gateway green hall "
    "handheld hill hilltop home house hut island jeep lake left little lodge lookout main medic "
    "mesh meshtastic middle mobile mountain my new node north of old on one our park peak pocket "
    "point pole pond post radio red relay repeater rescue ridge right river roof router school "
    "search shelter solar south spare station street summit team temp test the top tower town "
    "tracker trail truck two unit upper valley van village water weather west white wood "
)
#: Words that names are made of and that name nobody: as a part of a name they stay, and as the end
#: of an id. A whole name of one of them goes all the same.
ORDINARY: Final = frozenset(_COMMON.split())
#: Words of the conversation itself; a radio is often called so, and nobody is named by it.
OWN_WORDS: Final = ("librarian", "user", "assistant", "system")


@dataclass(slots=True)
class Known:
    """Nodes that may stand in a text."""

    ids: set[str] = field(default_factory=set)  #: 8 hex digits, lower case
    owners: dict[str, set[str]] = field(default_factory=dict)  #: of names: their digits
    radios: dict[str, str] = field(default_factory=dict)  #: folder of a tree -> its node's digits

    def add(self, node_id: str, *names: str) -> None:
        """Add a node; an id that is none adds its names alone."""
        number = node_number(node_id)
        digits = f"{number:08x}" if number is not None else ""
        if digits:
            self.ids.add(digits)
        for name in names:
            if name.strip():
                self.owners.setdefault(name, set()).update({digits} - {""})

    def add_page(self, text: str) -> None:
        """Add what a page of the log tells: ids anywhere, names in data and in mesh facts."""
        self.ids.update(_ID.findall(text))
        for line in _DATA_LINE.findall(text):
            for name in _names_in(html.unescape(line.removesuffix("</pre>"))):
                self.add("", name)
        for section in _FACTS.findall(text):
            for line in section.splitlines():
                self.add("", *_labels_in(html.unescape(line)))


def of_trees(layout: Layout) -> Known:
    """Collect from all trees. Raises UserError when a table cannot be read whole."""
    known = Known()
    for tree in layout.trees():
        for node in _rows(Table(tree.nodes, Node)):
            known.add(node.node_id, node.short_name, node.long_name, _label(node.short_name))
        for latest in _rows(Table(tree.latest, Latest)):
            known.add(latest.node_id)
        for path in tree.dms.glob("*.csv"):
            known.add(path.stem)
        _add_radio(known, tree)
    return known


def _rows(table: Table[R]) -> tuple[R, ...]:
    """Return all rows: a name that cannot be read cannot be replaced, either."""
    fix = "names in it could not be replaced (try: doctor --repair)"
    try:
        snapshot = table.read()
    except TransientError as error:
        raise UserError(f"{error}; {fix}") from error
    if snapshot.damage:
        raise UserError(f"{table.path}: damaged; {fix}")
    return snapshot.rows


def _label(short_name: str) -> str:
    """Return the start of a short name that answers show; radios hold no longer ones."""
    return "".join(_GRAPHEME.findall(" ".join(short_name.split()))[:LABEL_CHARS])


def _add_radio(known: Known, tree: NodeTree) -> None:
    try:
        facts = json.loads(regular.read_bytes(tree.radio_status))
    except (OSError, ValueError, RecursionError, TransientError):
        facts = {}  # its names stand in nodes.csv, too
    if not isinstance(facts, dict):
        facts = {}
    node_id = str(facts.get("node_id", "")) or tree.node_uid
    known.add(node_id, *(str(facts.get(name) or "") for name in ("short_name", "long_name")))
    number = node_number(node_id)
    if number is not None:
        known.radios[tree.node_uid] = f"{number:08x}"
    if node_number(tree.node_uid) is None:
        known.add(node_id, tree.node_uid)  # an alias names the radio as well


def _names_in(data: str) -> Iterator[str]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return
    yield from _name_values(parsed)


def _name_values(value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    for key, below in value.items():
        if key in {"short_name", "long_name"} and isinstance(below, str):
            yield below
        yield from _name_values(below)


def _labels_in(line: str) -> Iterator[str]:
    """Yield the name a fact begins with, also without what stands behind it in brackets."""
    name, colon, _ = line.partition(": ")
    while colon and name:
        yield name
        shorter = _REMARK.sub("", name)
        name = shorter if shorter != name else ""


def terms(known: Known, pseudonyms: Pseudonyms, plain_words: Iterable[str]) -> list[Term]:
    """Make what is looked for of what is known; `plain_words` stay wherever they stand alone."""
    plain = {tuple(w for _, _, w in words(word)) for word in (*plain_words, *OWN_WORDS)}
    made = list(_id_terms(known, pseudonyms))
    parts: list[Term] = []
    for name in sorted(known.owners):
        instead = pseudonym_of(name, known, pseudonyms)
        for spelling in sorted({name, _CONTROL.sub("", name)}):
            listed = words(spelling)
            if listed:  # else it is punctuation alone
                made.append(Term(_compared(listed), "name", instead, _gap(listed)))
                parts += _parts(listed, instead)
    return [term for term in (*made, *parts) if term.words not in plain]


def pseudonym_of(name: str, known: Known, pseudonyms: Pseudonyms) -> str:
    """Say what stands instead of a name: its owner's pseudonym where it has one owner."""
    owners = known.owners.get(name, set())
    return pseudonyms.node(next(iter(owners))) if len(owners) == 1 else pseudonyms.name(fold(name))


def ends(known: Known, pseudonyms: Pseudonyms) -> dict[str, str]:
    """Map the last 4 digits of ids, by which a prompt names people, to what stands instead."""
    found: dict[str, list[str]] = defaultdict(list)
    for digits in sorted(known.ids):
        found[digits[-4:]].append(digits)
    return {
        end: pseudonyms.node(whole[0] if len(whole) == 1 else end) for end, whole in found.items()
    }


def _id_terms(known: Known, pseudonyms: Pseudonyms) -> Iterator[Term]:
    for digits in sorted(known.ids):
        yield Term((str(int(digits, 16)),), "node number", pseudonyms.node(digits))
        yield Term((digits,), "node id", pseudonyms.node(digits))  # also when cut into pieces
    for end, instead in ends(known, pseudonyms).items():
        if end not in ORDINARY:
            yield Term((end,), "end of a node id", instead)


def _compared(listed: list[Word]) -> tuple[str, ...]:
    return tuple(word for _, _, word in listed)


def _gap(listed: list[Word]) -> int:
    return max(MIN_GAP, *(later[0] - earlier[1] for earlier, later in pairwise(listed)), 0)


def _parts(listed: list[Word], instead: str) -> Iterator[Term]:
    """Yield the words of a longer name, by which people call its owner."""
    for word in _compared(listed) if len(listed) > 1 else ():
        if len(word) >= MIN_PART and word not in ORDINARY and not word.isdigit():
            yield Term((word,), "part of a name", instead)
