"""Places in a text and what stands there instead. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: Time stamps stay: they are kept away from everything that looks for numbers.
_TIMESTAMP: Final = re.compile(
    r"(?<![\d-])((?:19|20)\d\d-[01]\d-[0-3]\d"
    r"(?:[T ][0-2]\d:[0-5]\d(?::[0-5]\d)?(?:Z| UTC)?)?)(?![\d-])"
)
#: What shows nothing and would tear a number or an address.
_HIDDEN: Final = re.compile(
    r"(?<=[\w.,:/@+])[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+"
    r"(?=[\d.,:/@+])|(?<=[\d.,:/@+])"
    r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+(?=\w)"
)
#: Signs of other keyboards for those that numbers and addresses are written with.
_SIGNS: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x066B: ".",
    0x066C: ",",
    0x060C: ",",
    0x3001: ",",
    0x3000: " ",
    0x00A0: " ",
    0x202F: " ",
    0x2212: "-",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A place that must not be shown."""

    start: int
    end: int
    kind: str
    instead: str


@dataclass(frozen=True, slots=True)
class Found:
    """A text without what must not be shown, and what that was: kind and words."""

    text: str
    terms: tuple[tuple[str, str], ...]


def around_timestamps(text: str) -> list[tuple[bool, str]]:
    """Cut a text into pieces; True marks those that are time stamps."""
    return [(bool(n % 2), piece) for n, piece in enumerate(_TIMESTAMP.split(text))]


def without_hidden(text: str) -> str:
    """Close the gaps that characters without a look tear into numbers and addresses."""
    return _HIDDEN.sub("", text)


def usual_signs(text: str) -> str:
    """Return the text in usual signs for looking only: every character stays where it was."""
    return text.translate(_SIGNS)


def replace(text: str, spans: Iterable[Span]) -> Found:
    """Put what stands instead in the place of every span.

    Where two overlap, the first or longer one tells what stands there, and what the other has
    beyond it goes, too: nothing that any span covers is left.
    """
    pieces: list[str] = []
    terms: list[tuple[str, str]] = []
    done = 0
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if span.start >= done:
            pieces += (text[done : span.start], span.instead)
            terms.append((span.kind, text[span.start : span.end]))
        done = max(done, span.end)
    pieces.append(text[done:])
    return Found("".join(pieces), tuple(terms))
