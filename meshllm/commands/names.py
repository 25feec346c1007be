"""Names of nodes: how we say them, and whom somebody means. Names are hostile text. Pure."""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import regex

from meshllm.commands.words import fold
from meshllm.layout import node_id, node_number
from meshllm.records import Latest, Node

MAX_LABEL_CHARS: Final = 4  #: graphemes; the firmware's short names have four bytes
MAX_LABEL_BYTES: Final = 16
MIN_PREFIX: Final = 2  #: a single letter is nobody's name unless it is the whole of it
MIN_FUZZY: Final = 4  #: shorter words are near to too many names
FUZZY: Final = 0.8  #: difflib's ratio from which a word is taken for a mistyped name
_GRAPHEME: Final = regex.compile(r"\X")
_DROPPED: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_COMMON: Final = (
    "a an am are at base bridge camp can car charge city clinic current day did do doctor does "
    "east else exit field fire food for from fuel gas go ground had hall has have he help here "
    "hill his home hospital house how in is island it lake "
    "last life lost low map market me medical message near nearest night north now office "
    "pharmacy place police port post power radio relay repeater rescue resort river road "
    "safe school sea she shelter shop short should solar south station summit temple that the "
    "their them there they this time to today top tower town valley village walk wall was water "
    "way we weather were west what when where who why will wood work would you your "
)
#: Words of questions that are no names unless somebody is called exactly so.
COMMON: Final = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Person:
    """A node with its newest facts."""

    node: Node
    latest: Latest
    label: str  #: its name as we say it: cleaned and short, unlike everybody else's

    @property
    def heard_at(self) -> str:
        """When it was heard last, as a cell; the two files are written at different moments."""
        return max(self.node.last_seen_at, self.latest.signal_at)


def label_of(node: Node) -> str:
    """Say a node's name in a few harmless characters: its short name, else the end of its id."""
    kept = "".join(
        char
        for char in unicodedata.normalize("NFC", " ".join(node.short_name[:40].split()))
        if unicodedata.category(char) not in _DROPPED
    )
    label = ""
    for piece in _GRAPHEME.findall(kept.strip())[:MAX_LABEL_CHARS]:
        if len((label + piece).encode("utf-8", "replace")) > MAX_LABEL_BYTES:
            break
        label += piece
    is_word = any(char.isalnum() or ord(char) > 0x2000 for char in label)
    return label.strip() if is_word else node.node_id[-4:]


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a name may mean."""

    people: tuple[Person, ...] = ()
    is_exact: bool = False  #: the whole name or id, not a part of it or something near it


def find(wanted: str, people: Sequence[Person]) -> Found:
    """Find whom a name means: the whole name or id, a unique beginning, a likely misspelling.

    `wanted` may be folded. Several people of one name are all returned.
    """
    name = fold(wanted).strip().removeprefix("the ")
    number = node_number(name)
    if number is not None:
        return Found(tuple(p for p in people if p.node.node_id == node_id(number)), is_exact=True)
    whole = tuple(p for p in people if name and name in _whole_names(p))
    if whole:
        return Found(whole, is_exact=True)
    if name in COMMON or len(name) < MIN_PREFIX:
        return Found()
    begun = tuple(p for p in people if any(n.startswith(name) for n in _spoken_names(p)))
    return Found(begun or _near(name, people))


def is_id(wanted: str) -> bool:
    """Say whether a text is a node id, which names somebody known or not."""
    return wanted.startswith("!") and node_number(wanted) is not None


def _whole_names(person: Person) -> set[str]:
    node = person.node
    names = {fold(node.short_name).strip(), fold(node.long_name).strip(), fold(person.label)}
    names.add(node.node_id[-4:])
    first, _, rest = fold(node.long_name).strip().partition(" ")
    if rest and len(first) > MIN_PREFIX and first not in COMMON:
        names.add(first)
    return names - {""}


def _spoken_names(person: Person) -> set[str]:
    long_name = fold(person.node.long_name).strip()
    return {fold(person.node.short_name).strip(), long_name, *re.split(r"\W+", long_name)} - {""}


def _near(name: str, people: Sequence[Person]) -> tuple[Person, ...]:
    if len(name) < MIN_FUZZY or " " in name:
        return ()
    scored = []
    for person in people:
        ratios = [
            difflib.SequenceMatcher(None, name, known[: 2 * len(name)]).ratio()
            for known in _spoken_names(person)
            if known[:1] == name[:1]
        ]
        if ratios and max(ratios) >= FUZZY:
            scored.append((max(ratios), person))
    best = max((ratio for ratio, _ in scored), default=0.0)
    return tuple(person for ratio, person in scored if ratio == best)
