"""Tells which questions no language model should answer alone, and with which line. Pure.

The rules are word patterns, precise rather than complete: a question that they miss goes to the
model, whose own manners remain; a harmless one that they caught would get no answer at all.
Every pattern needs a helpless person or a harmful intent in the words, not a topic alone.
"""

import re
import unicodedata
from enum import StrEnum
from functools import cache, lru_cache
from typing import Final

from meshllm.agent.dangers import LINES, PATTERNS

EMERGENCY_NOTICE: Final = "emergency"  #: notice kind of the hand-over line
_SPACES: Final = re.compile(r"\s+")
_INVISIBLE: Final = {"Cf", "Cc", "Cn", "Co"}


class Danger(StrEnum):
    """What a question is about that needs more than a model."""

    EMERGENCY = "emergency"  #: a life in danger: the hand-over line at once, then the model
    SELF_HARM = "self_harm"  #: a line that hands over to people; the model is not asked
    WEAPON = "weapon"  #: refused
    POISON = "poison"  #: refused
    VIOLENCE = "violence"  #: refused

    @property
    def is_refused(self) -> bool:
        """True where a fixed line is the whole answer."""
        return self is not Danger.EMERGENCY


@lru_cache(maxsize=256)
def danger(text: str) -> Danger | None:
    """Name the danger in a question; None for nearly all. A life in danger comes first."""
    plain = _plain(text)
    for name, pattern in _patterns():
        if pattern.search(plain):
            return Danger(name)
    return None


def refusal_line(found: Danger, text: str) -> str:
    """Return the fixed answer to a refused question, in its language where that is one of ours."""
    lines = LINES["self_harm" if found is Danger.SELF_HARM else "refused"]
    return lines.get(_language(text), lines["en"])


def is_safety_line(text: str) -> bool:
    """True for a fixed line of this module, such as another librarian would send."""
    return any(text.startswith(tuple(lines.values())) for lines in LINES.values())


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Compile the rules of all languages into one pattern for each danger, in their order."""
    return tuple(
        (name, re.compile(_one_spelling("|".join(f"(?:{rule})" for rule in rules))))
        for name, rules in PATTERNS
    )


def _plain(text: str) -> str:
    """Fold case, accents of Latin letters, widths and spaces; drop what nobody sees."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    seen = "".join(c for c in folded if c.isspace() or unicodedata.category(c) not in _INVISIBLE)
    latin = "".join(_base(c) for c in seen.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return _SPACES.sub(" ", _one_spelling(latin)).strip()


def _one_spelling(text: str) -> str:
    """Write the Arabic letters that people spell in several ways in one; nukta signs apart."""
    return unicodedata.normalize("NFKC", text).translate(_ARABIC)


def _base(char: str) -> str:
    """Take the accent off a Latin letter; others mean something else without theirs."""
    if not "\u00c0" <= char <= "\u024f":
        return char
    return "".join(c for c in unicodedata.normalize("NFD", char) if not unicodedata.combining(c))


_ARABIC: Final = str.maketrans("\u0623\u0625\u0622\u0649", "\u0627\u0627\u0627\u064a")
_SCRIPTS: Final = (
    ("ru", re.compile(r"[\u044b\u044d\u044a\u0451]")),
    ("uk", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
)
_WORDS: Final = (
    ("de", re.compile(r"\b(?:ich|wie|nicht|mich|eine?n?|und|der|das|baut?|bauen)\b")),
    ("es", re.compile(r"\b(?:como|quiero|una?|el|los|hacer|me|que|para|hago|puedo)\b")),
    ("fr", re.compile(r"\b(?:comment|je|une?|le|les|faire|veux|pour|fabriquer|est)\b")),
)


def _language(text: str) -> str:
    for language, script in _SCRIPTS:
        if script.search(text):
            return language
    plain = _plain(text)
    counted = {language: len(words.findall(plain)) for language, words in _WORDS}
    best = max(counted, key=lambda language: counted[language])
    return best if counted[best] >= 2 else "en"
