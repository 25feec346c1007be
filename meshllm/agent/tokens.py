"""Says how many tokens a text costs at most, about, and what a prompt may cost. Runs no model.

The tokenizer belongs to the model, so this is an estimate: high for every script on purpose. A
prompt beyond the context window is refused as a whole, one that is shorter than it could be is
only shorter. Byte-level tokenizers, those of Qwen among them, never need more than a token a byte.
"""

from dataclasses import dataclass
from typing import Final

import regex

from meshllm.agent.context import Turn

#: What the role marks around a turn cost. ChatML takes 5; a template whose marks are no tokens of
#: their own takes nearly 20. Less, and a thread of many short messages exceeds the window.
TURN_TOKENS: Final = 20
#: Kept free in the window: the mark that opens the answer, and what an estimate is wrong by.
SPARE_TOKENS: Final = 64
_LETTERS: Final = regex.compile(r"[A-Za-z]+")
#: Ideographs, kana and Hangul syllables in common use: mostly one token, rare ones up to three.
_EAST_ASIAN: Final = regex.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class Room:
    """How much a prompt, or part of it, may cost: both hold."""

    chars: int
    tokens: int

    def holds(self, cost: "Room") -> bool:
        """Say whether a cost fits."""
        return cost.chars <= self.chars and cost.tokens <= self.tokens

    def __add__(self, other: "Room") -> "Room":
        """Add two costs."""
        return Room(self.chars + other.chars, self.tokens + other.tokens)

    def __sub__(self, other: "Room") -> "Room":
        """Take a cost away."""
        return Room(self.chars - other.chars, self.tokens - other.tokens)

    @property
    def half(self) -> "Room":
        """Half of both."""
        return Room(self.chars // 2, self.tokens // 2)


NOTHING: Final = Room(0, 0)


def prompt_room(*, max_chars: int, context_tokens: int, num_predict: int) -> Room:
    """Say what a prompt may cost where the answer may have `num_predict` tokens."""
    return Room(max_chars, context_tokens - num_predict - SPARE_TOKENS)


def tokens(text: str) -> int:
    """Estimate from above how many tokens a text has.

    Words of ASCII letters: one and one more for every second further letter; digits and
    punctuation one each; spaces go with the word behind them. Beyond ASCII one a character of two
    UTF-8 bytes, one and a half for East Asian writing in common use, two for other characters of
    three bytes, four for those of four: the emoji, of which none needs more.
    """
    words = _LETTERS.findall(text)
    count = sum(1 + (len(word) - 1) // 2 for word in words)
    count += sum(1 for char in text if char < "\x80" and not char.isalpha() and char != " ")
    east_asian = len(_EAST_ASIAN.findall(text))
    two = sum(1 for char in text if "\x80" <= char < "\u0800")
    three = sum(1 for char in text if "\u0800" <= char < "\U00010000") - east_asian
    four = sum(1 for char in text if char >= "\U00010000")
    return count + two + (east_asian * 3 + 1) // 2 + three * 2 + four * 4


def cost(text: str) -> Room:
    """Say what a text costs."""
    return Room(len(text), tokens(text))


def turn_cost(turn: Turn) -> Room:
    """Say what a turn costs, its role marks included."""
    return cost(turn.text) + Room(0, TURN_TOKENS)


def clip(text: str, room: Room) -> str:
    """Return the longest beginning of a text that fits."""
    if room.holds(cost(text)):
        return text
    fitting, beyond = 0, max(0, min(len(text), room.chars)) + 1
    while fitting + 1 < beyond:
        middle = (fitting + beyond) // 2
        if room.holds(cost(text[:middle])):
            fitting = middle
        else:
            beyond = middle
    return text[:fitting].rstrip()


def trim(turns: tuple[Turn, ...], room: Room) -> tuple[Turn, ...]:
    """Drop the oldest turns once they do not fit, down to about half of the room.

    The next turns are then added without another cut: every cut makes the server read all that
    is left again. What is left begins with a person's turn; the newest exchange stays alone where
    it takes more than half.
    """
    if room.holds(_total(turns)):
        return turns
    return _newest(turns, room.half) or _newest(turns, room)


def _total(turns: tuple[Turn, ...]) -> Room:
    return sum(map(turn_cost, turns), NOTHING)


def _newest(turns: tuple[Turn, ...], room: Room) -> tuple[Turn, ...]:
    used = NOTHING
    begin = len(turns)
    for at in range(len(turns) - 1, -1, -1):
        used += turn_cost(turns[at])
        if not room.holds(used):
            break
        if turns[at].role == "user":
            begin = at
    return turns[begin:]
