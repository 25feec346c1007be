"""Plain words: a text as rules read it, and patterns over the whole of it. Knows no command.

Every pattern must fit the whole text, so that a real question that merely contains its words goes
to the model: a wrong answer is worse than a slow one.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

MAX_CHARS: Final = 80  #: a longer text is no command, and costs no pattern
_QUOTES: Final = str.maketrans({"\u2019": "'", "\u2018": "'", "`": "'", "\u00b4": "'"})
_POLITE: Final = (
    "please|pls|bitte|por favor|thanks|thank you|danke|gracias|hey|hi|hello|hallo|hola|ok|okay"
    "|librarian|будь ласка|привіт|дякую"
)


def fold(text: str) -> str:
    """Write a text so that case, accents and width make no difference."""
    spread = unicodedata.normalize("NFKD", text.translate(_QUOTES)).casefold()
    spread = unicodedata.normalize("NFKD", spread)  # folding case can make accents of its own
    return "".join(char for char in spread if unicodedata.category(char) != "Mn")


_BEFORE: Final = re.compile(rf"(?:{fold(_POLITE)})[\s,.:;!-]+(?=\S)")
_AFTER: Final = re.compile(rf"(?<=\S)[\s,]+(?:{fold(_POLITE)})$")
_ENDS: Final = " \t.,;:?\u2026\u00bf\u00a1\"'"


def plain(text: str) -> str:
    """Fold a text and drop what only makes it polite: greetings, thanks, punctuation at the ends.

    A last "!" stays, one of them: "help!" is not "help".
    """
    folded = " ".join(fold(text[: 4 * MAX_CHARS]).split())
    is_shouted = "!" in folded[len(folded.rstrip(_ENDS + "!")) :]
    folded = folded.strip(_ENDS).rstrip(_ENDS + "!")
    if len(folded) > 1 and folded[0] in "/!" and folded[1].isalpha():
        folded = folded[1:]
    while shorter := _BEFORE.match(folded):
        folded = folded[shorter.end() :]
    while shorter := _AFTER.search(folded):
        folded = folded[: shorter.start()]
    folded = folded.strip(_ENDS)
    return f"{folded}!" if is_shouted else folded


def phrases(*patterns: str, may_shout: bool = True) -> Callable[[str], tuple[str, ...] | None]:
    """Match a text that is wholly one of some patterns; its groups are the arguments.

    The patterns are regular expressions and are folded as the text is, so they must not hold
    escapes in capitals such as "not a space".
    """
    ending = "!?" if may_shout else ""
    whole = [re.compile(f"(?:{fold(pattern)}){ending}") for pattern in patterns]

    def match(text: str) -> tuple[str, ...] | None:
        if len(text) > MAX_CHARS:
            return None
        for pattern in whole:
            if found := pattern.fullmatch(text):
                return tuple(group.strip().rstrip("!") for group in found.groups() if group)
        return None

    return match
