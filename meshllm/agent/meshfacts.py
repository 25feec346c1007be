"""Facts about the mesh for the model, and what of its answer they do not bear out. Reads no file.

A small model asked about the mesh invents figures that look measured. So it is given what the files
say, and an answer with a figure that nobody measured gives way to the facts themselves.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from meshllm.agent.figures import invented
from meshllm.commands.base import Context
from meshllm.commands.names import COMMON, Person
from meshllm.commands.nodes import DAY_S, facts_of
from meshllm.commands.words import fold
from meshllm.text import one_line, utf8_len

MAX_TABLE_BYTES: Final = 600  #: of the prompt; a Pi reads that in about ten seconds
MIN_NAME: Final = 3  #: shorter names stand in too many sentences that do not mean them
MAX_ALIAS: Final = 20  #: characters of the asker's own word for a node
_PREFACE: Final = "I can only say what I heard. "

#: Whoever asks so wants to know how something is done or works, not what the radio has heard.
_GENERAL: Final = re.compile(
    r"\b(?:how (?:do|does|can|could|should|to|would)\b(?! (?:you|we) (?:hear|see))"
    r"|why|explain|define"
    r"|should i|can i|could i|recommend|buy|build|make|repair|fix|install|configure|set ?up|flash"
    r"|what(?:'s| is| are) (?:an?|the (?:best|maximum|max|difference|purpose|range of an?))\b"
    r"|difference|meaning|invented|history of|write|story|poem|joke|translate)\b"
)
_STATE: Final = (
    r"(?:online|offline|heard|hear|hears|near|nearby|near me|closest|nearest|far|farthest|furthest"
    r"|around|active|best|worst|strongest|weakest|low|lowest|highest|signal|snr|rssi|battery"
    r"|batteries|hops?|range|reach|reachable|now|today|last|seen|see|here|close|direct|directly)"
)
_ABOUT: Final = tuple(
    re.compile(pattern)
    for pattern in (
        (
            r"\b(?:which|whose|how many|any|list|all)(?: of)?(?: the| other)? "
            r"(?:(?!gas|fire|train|bus|police|weather|petrol|fuel|charging|railway|metro)\w+ )?"
            rf"(?:nodes?|stations?)\b(?! in \b).*\b{_STATE}\b"
        ),
        (
            r"\bhow many (?:nodes|stations|people) are (?:there )?"
            r"(?:on|in) (?:the|our|this|your) (?:mesh|net)"
        ),
        (
            r"\bwho(?:'s| is| are| was| else is)? (?:\w+ )?"
            r"(?:online|nearby|reachable|in range|out there|on the mesh"
            r"|(?:closest|nearest)"
            r"(?= ?(?:[?.!,]|$)| (?:to (?:me|us|you)|now|here|node|station)\b))\b"
        ),
        r"\bwho (?:can|do|did|have) (?:you|i|we) (?:hear|heard|reach|see)\b",
        (
            r"\bwho has the (?:best|worst|strongest|weakest|lowest|highest|least|most) "
            r"(?:signal|battery|snr|rssi|hops)\b"
        ),
        r"\bwhose (?:battery|signal)\b",
        (
            r"\b(?:my|our|your) (?:snr|rssi|hops?|signal|node|mesh|radio link)\b.*"
            r"\b(?:good|bad|strong|weak|ok|okay|now|today|better|worse|level|enough|how|what|like)\b"
        ),
        r"\b(?:what|how)\b.*\b(?:my|our|your) (?:snr|rssi|hops?|signal|mesh)\b",
        (
            r"\b(?:is|are) (?:the|our|this) (?:mesh|nodes?) (?:\w+ )?"
            r"(?:ok|okay|up|down|busy|alive|online)\b"
        ),
    )
)
#: What is said of nodes, and of few foxes or roses that a node may be named after.
_TOPIC: Final = re.compile(
    r"\b(?:online|offline|heard|hears?|signal|snr|rssi|batter(?:y|ies)|hops?|reach(?:able)?|nodes?"
    r"|mesh|radio|distance|position|location|gps|charged?|station|repeater|router)\b"
)
#: What is said of anything; it counts where a sentence asks it of the name itself.
_WEAK_TOPIC: Final = re.compile(rf"\b(?:{_STATE}|where|when|alive|power|contact)\b")
_ASKED_OF: Final = (
    r"\b(?:is|has|was|did|does|to|from|or|and|of|with|see|seen) (?:the )?{name}(?=[?.!,]|$|'s\b"
    r"| (?:and|or|near\w*|now|today|here|close\w*|far\w*|around|alive|last|been|still|from|to)\b)"
)
_KINDS: Final = r"\b(?:a|an|any|every|no|some|wild) {name}\b"


@dataclass(frozen=True, slots=True)
class MeshFacts:
    """What goes to the model, and what goes out instead of an answer that invents."""

    table: str
    told: str
    question: str

    def invented(self, answer: str, *, asked: str = "") -> tuple[str, ...]:
        """Return the figures of an answer that stand in neither the facts nor the question.

        `asked` is the whole last message, where the model was told of the asker, too.
        """
        question = f"{self.question}\n{asked}"
        return invented(answer, facts=self.table, question=question, counts=self._counts)

    @property
    def _counts(self) -> int:
        """How many nodes are listed: an answer may count them."""
        return self.table.count("\n")


def named_people(text: str, people: Sequence[Person]) -> dict[str, Person]:
    """Find the nodes that a text names by their whole names; the words it uses come with them."""
    words = f" {' '.join(re.findall(r'[^ ,;:!?.()]+', fold(text)))} ".replace("'s ", " ")
    found: dict[str, Person] = {}
    for person in people:
        node = person.node
        first = fold(node.long_name).partition(" ")[0]
        names = (fold(node.short_name), fold(node.long_name), node.node_id[1:], first)
        for name in names:
            is_name = len(name) >= MIN_NAME and name not in COMMON
            if is_name and f" {name} " in words:
                found.setdefault(name, person)
                break
    return found


def is_about_mesh(text: str, *, names: Collection[str] = ()) -> bool:
    """Say whether a question is about what our radio hears now; in doubt it is not.

    `names` are its words for nodes. A wrong yes costs a good answer its figures, a wrong no only
    leaves the model without facts.
    """
    folded = " ".join(fold(text).split())
    if _GENERAL.search(folded):
        return False
    meant = [name for name in names if not _stands(name, _KINDS, folded)]
    if meant and _TOPIC.search(folded):
        return True
    if _WEAK_TOPIC.search(folded) and any(_stands(name, _ASKED_OF, folded) for name in meant):
        return True
    return any(pattern.search(folded) for pattern in _ABOUT)


def _stands(name: str, pattern: str, text: str) -> bool:
    return re.search(pattern.replace("{name}", re.escape(name)), text) is not None


def gather(text: str, context: Context, people: Callable[[], Sequence[Person]]) -> MeshFacts | None:
    """Collect the facts for a question; None when it is not about the mesh, or nothing was heard.

    The nodes that the question names come first, then those heard last.
    """
    everybody = [p for p in people() if p.node.node_id != context.own_id]
    named = named_people(text, everybody)
    if not everybody or not is_about_mesh(text, names=named):
        return None
    chosen = {person.node.node_id: (word, person) for word, person in named.items()}
    for person in everybody:
        chosen.setdefault(person.node.node_id, ("", person))
    count = _heard_today(context, everybody)
    lines = [_line(context, word, person, everybody) for word, person in chosen.values()]
    table = _fitting([count, *lines], MAX_TABLE_BYTES, "\n")
    told = _fitting([_PREFACE + count, *lines], context.room_bytes, " ")
    return MeshFacts(table, told, text)


def _heard_today(context: Context, people: Sequence[Person]) -> str:
    ages = (context.ages.age_s(person.heard_at) for person in people)
    today = sum(1 for age_s in ages if age_s is not None and age_s <= DAY_S)
    return f"{today} node{'' if today == 1 else 's'} heard in 24 h."


def _line(context: Context, word: str, person: Person, people: Sequence[Person]) -> str:
    # The asker's own word for it, which stands in the question anyhow, links the two.
    alias = "" if fold(person.label) == word else f" ({one_line(word)[:MAX_ALIAS]})"
    name = f"{person.label}{alias if word else ''}"
    if person.node.node_id == context.asked.sender_id:
        name += " (the asker)"
    return f"{name}: {'; '.join(facts_of(context, person, people))}."


def _fitting(lines: Sequence[str], max_bytes: int, joint: str) -> str:
    """Join as many lines as fit; the first is always there."""
    kept = lines[0]
    for line in lines[1:]:
        if utf8_len(kept) + len(joint) + utf8_len(line) > max_bytes:
            break
        kept += joint + line
    return kept
