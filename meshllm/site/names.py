"""Finds the names and ids of known nodes in any text, of any script. Pure.

A text is taken for words: letters and digits between spaces and punctuation, single characters in
scripts that have no spaces, single emoji. They are compared without case, accents and invisible
characters, and what stands between the words of a name does not matter. So "RidgeRunner" and "ridge
runner" are one name, and "Al" is not found in "already".
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import regex

from meshllm.site.pseudonyms import Pseudonyms
from meshllm.site.spans import Span

Word = tuple[int, int, str]  #: start, end and what is compared

_SOLID: Final = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Balinese}"
)
_WORD: Final = regex.compile(
    rf"[{_SOLID}]\p{{M}}*"
    rf"|(?:(?![{_SOLID}])[\p{{L}}\p{{N}}])"
    rf"(?:(?![{_SOLID}])[\p{{L}}\p{{M}}\p{{N}}\p{{Cf}}])*"
    r"|[\u24b6-\u24e9\U0001f130-\U0001f149]+"  # letters in circles and squares
    r"|(?=[\p{Extended_Pictographic}\p{Regional_Indicator}])\X"
    r"|(?![\u2400-\u2426])\p{S}"
)
_HEX8: Final = regex.compile(r"[0-9a-f]{8}", regex.IGNORECASE)
#: What can only be an id, of a node that is known or not: marked as one, or of digits and letters.
_ANY_ID: Final = regex.compile(
    r"(?:!|(?<![0-9a-z])0x)[0-9a-f]{8}(?![0-9a-z])"
    r"|(?<![0-9a-z])(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8}(?![0-9a-z])",
    regex.IGNORECASE,
)
_HIDDEN: Final = frozenset({"Mn", "Me", "Cf", "Cc"})
#: Letters that Unicode does not take apart, as they are typed on a small keyboard; U+0640 only
#: stretches a word.
_PLAIN: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "\u0131": "i"}
    | {"æ": "ae", "œ": "oe", "þ": "th", "\u0640": None}
)
#: Cyrillic and Greek letters that look like Latin ones, and those.
_ALIKE: Final = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458"
    "\u0501\u051b\u051d\u04bb\u04cf\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxsijdqwhlaeikvoptux",
)
_LATIN: Final = regex.compile(r"[a-z]")
MIN_GAP: Final = 4  #: characters that may stand between two words of a name at least
MIN_JOINED: Final = 6  #: letters of a name from which it is found however it is cut into words
MAX_WORDS: Final = 8  #: pieces into which it may be cut


def fold(word: str) -> str:
    """Reduce a word to what is compared."""
    text = unicodedata.normalize("NFKD", word).casefold()
    text = unicodedata.normalize("NFKD", text)
    shown = "".join(char for char in text if unicodedata.category(char) not in _HIDDEN)
    plain = shown.translate(_PLAIN)
    # Only in a word that mixes them: a word of one script is a word of that script.
    return plain.translate(_ALIKE) if _LATIN.search(plain) else plain


def words(text: str) -> list[Word]:
    """Cut a text into words."""
    found = ((m.start(), m.end(), fold(m.group())) for m in _WORD.finditer(text))
    return [one for one in found if one[2]]


@dataclass(frozen=True, slots=True)
class Term:
    """What is looked for: the words, and what stands there instead."""

    words: tuple[str, ...]
    kind: str
    instead: str
    gap: int = MIN_GAP


class Finder:
    """Looks for all terms at once, in time that hardly grows with their number."""

    def __init__(self, terms: Iterable[Term], ids: Iterable[str], pseudonyms: Pseudonyms) -> None:
        """Take terms, and the 8 hex digits of known nodes, which are found inside words, too."""
        self._ids = frozenset(ids)
        self._pseudonyms = pseudonyms
        self._by_first: dict[str, dict[tuple[str, ...], Term]] = {}
        self._joined: dict[str, Term] = {}
        for term in terms:
            self._by_first.setdefault(term.words[0], {}).setdefault(term.words, term)
            joined = "".join(term.words)
            if len(joined) >= MIN_JOINED:
                self._joined.setdefault(joined, term)

    def find(self, text: str) -> Iterator[Span]:
        """Yield every place where a term or an id stands; they may overlap."""
        listed = words(text)
        for at in range(len(listed)):
            yield from self._sequences(listed, at)
            yield from self._cut_up(listed, at)
        for start, end, word in listed:
            if _ANY_ID.fullmatch(word):  # in whatever kind of digits and letters
                yield Span(start, end, "node id", self._pseudonyms.node(word[-8:]))
        for match in _ANY_ID.finditer(text):
            yield self._id(match)
        for match in _HEX8.finditer(text, overlapped=True):
            if match.group().lower() in self._ids:
                yield self._id(match)

    def _id(self, match: "regex.Match[str]") -> Span:
        instead = self._pseudonyms.node(match.group()[-8:])
        return Span(match.start(), match.end(), "node id", instead)

    def _sequences(self, listed: list[Word], at: int) -> Iterator[Span]:
        for term in self._by_first.get(listed[at][2], {}).values():
            here = listed[at : at + len(term.words)]
            if tuple(word for _, _, word in here) == term.words and _is_near(here, term.gap):
                yield Span(here[0][0], here[-1][1], term.kind, term.instead)

    def _cut_up(self, listed: list[Word], at: int) -> Iterator[Span]:
        joined = ""
        for end in range(at + 1, min(at + MAX_WORDS, len(listed)) + 1):
            joined += listed[end - 1][2]
            term = self._joined.get(joined)
            if term is not None and _is_near(listed[at:end], MIN_GAP):
                yield Span(listed[at][0], listed[end - 1][1], term.kind, term.instead)


def _is_near(listed: list[Word], gap: int) -> bool:
    return all(later[0] - earlier[1] <= gap for earlier, later in pairwise(listed))
