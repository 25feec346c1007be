"""Tells an answer from a model's loop or recital of its instructions. Pure; changes no row.

All take cleaned text. Each says less than it could rather than take an answer for something else.
"""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Final

import regex

from meshllm.text import sentence_ends, whole_sentences

#: Width of what repeats (a wide character counts three) and how often it must come in a row to be
#: a loop. A distress call is said three times, so short words need more than that.
_TIERS: Final = ((30, 2.0), (20, 3.0), (12, 4.0), (0, 8.0))
MIN_LOOP_WIDTH: Final = 40  #: all repetitions together
MIN_USEFUL_WIDTH: Final = 12  #: what is left before a loop is an answer only when it is longer
REPEATED_SENTENCE: Final = 3  #: a sentence that comes so often is said once
MIN_SENTENCE_WIDTH: Final = 14
TAIL_CHARS: Final = 4000  #: where a loop at the end is looked for
#: So many letters and digits in a row are copied, not chosen: seven or eight words.
LEAK_WIDTH: Final = 36

_WIDE: Final = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
_ORDINAL: Final = regex.compile(r"(?:(?<=\s)|(?<=^))\d{1,3}\)\s")
_SAID: Final = regex.compile(r"[\p{L}\p{N}]")
_SAYS: Final = regex.compile(r"[\p{L}\p{N}\p{So}]|\.-|-\.|- -|\. \.")
_STOPS: Final = regex.compile(r"[\p{Sentence_Terminal}…\"')»”]*")


@dataclass(frozen=True, slots=True)
class Unlooped:
    """A text without its repetitions; "" when nothing useful came before them."""

    text: str
    is_loop: bool


def says_something(text: str) -> bool:
    """Say whether there is a letter, a figure, a picture or Morse code in the text."""
    return _SAYS.search(text) is not None


def without_loop(text: str) -> Unlooped:
    """Say each thing once: drop a period at the end, and sentences that come again and again."""
    tail = text[-TAIL_CHARS:]
    end = _end_of_first_round(tail)
    kept = text if end is None else text[: len(text) - len(tail)] + tail[:end]
    kept = _without_repeated_sentences(kept)
    if kept == text:
        return Unlooped(text, is_loop=False)
    return Unlooped(kept if _width(kept) >= MIN_USEFUL_WIDTH else "", is_loop=True)


def is_leak(text: str, system_text: str) -> bool:
    """Say whether the text recites at least LEAK_WIDTH letters and digits of the system text.

    Case, spaces and punctuation do not hide a copy. A translation, a paraphrase or an encoding of
    the system text is not found.
    """
    said, secret = _letters(text), _letters(system_text)
    windows = set(_windows(secret))
    return any(window in windows for window in _windows(said))


def _windows(letters: str) -> list[str]:
    size = LEAK_WIDTH // 3 if _mostly_wide(letters) else LEAK_WIDTH
    return [letters[at : at + size] for at in range(len(letters) - size + 1)]


def _mostly_wide(letters: str) -> bool:
    return 2 * len(_WIDE.findall(letters)) > len(letters)


def _letters(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if char.isalnum())


def _width(text: str) -> int:
    return len(text) + 2 * len(_WIDE.findall(text))


def _without_repeated_sentences(text: str) -> str:
    sentences = whole_sentences(text)
    keys = [
        _letters(_ORDINAL.sub("", sentence)) if _is_phrase(sentence) else ""
        for sentence in sentences
    ]
    often = {
        key
        for key, count in Counter(keys).items()
        if count >= REPEATED_SENTENCE and _width(key) >= MIN_SENTENCE_WIDTH
    }
    if not often:
        return text
    seen: set[str] = set()
    kept = []
    for sentence, key in zip(sentences, keys, strict=True):
        if key not in often or key not in seen:
            kept.append(sentence)
        seen.add(key)
    return ("" if _mostly_wide(_letters(text)) else " ").join(kept)


def _end_of_first_round(text: str) -> int | None:
    """Return where the first round of what repeats up to the end is over; None without a loop."""
    offsets = _compared(text)
    chars = "".join(text[at].lower()[:1] for at in offsets)
    found = _period(chars)
    if found is None:
        return None
    length, period = found
    first = len(chars) - length + period
    end = len(text[: offsets[first - 1] + 1].rstrip())
    sentence = next((at for at in sentence_ends(text) if at >= end), len(text))
    last = offsets[min(first + period, len(chars)) - 1] + 1
    stops = _STOPS.match(text, end)
    return sentence if sentence < last or stops is None else int(stops.end())


def _compared(text: str) -> list[int]:
    """Return the offsets that count for a repetition: no ordinals, which differ in each round."""
    skipped = {at for match in _ORDINAL.finditer(text) for at in range(*match.span())}
    return [at for at in range(len(text)) if at not in skipped]


def _period(chars: str) -> tuple[int, int] | None:
    """Return length and period of the longest tail that is a loop; in linear time (KMP)."""
    tail = chars[::-1]
    borders = [0] * len(tail)
    best: tuple[int, int] | None = None
    for at in range(1, len(tail)):
        border = borders[at - 1]
        while border and tail[at] != tail[border]:
            border = borders[border - 1]
        borders[at] = border + (tail[at] == tail[border])
        length, period = at + 1, at + 1 - borders[at]
        if borders[at] and 2 * period <= length + 1 and _is_loop(tail, length, period):
            best = (length, period)
    return best


def _is_loop(tail: str, length: int, period: int) -> bool:
    unit = tail[:period]
    width = _width(unit)
    if width * length / period < MIN_LOOP_WIDTH or not _SAID.search(unit):
        return False
    times = next(times for least, times in _TIERS if (width if _is_phrase(unit) else 0) >= least)
    return length + 1 >= times * period  # the space after the last round is not there


def _is_phrase(text: str) -> bool:
    """Say whether it is more than one word; a word may be said several times for a reason."""
    return " " in text.strip() or _WIDE.search(text) is not None
