"""Finds the figures of an answer that nobody gave it. Pure; knows no mesh.

A figure is a number with the unit behind it. It is borne out when the facts hold one of the same
unit that rounds to it, or when the question holds it. Small bare counts are language, not
measurement, and pass.
"""

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

MAX_COUNT: Final = 3  #: bare numbers up to this pass: "two of them", "1 or 2 days"
#: Units that are the same quantity, with their factors; what is not here stands for itself.
_UNITS: Final[dict[str, tuple[str, float]]] = (
    dict.fromkeys(("s", "sec", "secs", "second", "seconds"), ("time", 1.0))
    | dict.fromkeys(("min", "mins", "minute", "minutes"), ("time", 60.0))
    | dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), ("time", 3600.0))
    | dict.fromkeys(("d", "day", "days"), ("time", 86400.0))
    | dict.fromkeys(("m", "metre", "metres", "meter", "meters"), ("length", 1.0))
    | dict.fromkeys(
        ("km", "kilometre", "kilometres", "kilometer", "kilometers"), ("length", 1000.0)
    )
    | dict.fromkeys(("mi", "mile", "miles"), ("length", 1609.344))
    | dict.fromkeys(("ft", "feet", "foot"), ("length", 0.3048))
    | dict.fromkeys(("%", "percent"), ("percent", 1.0))
    | dict.fromkeys(("db", "dbm"), ("level", 1.0))
    | dict.fromkeys(("v", "volt", "volts"), ("volts", 1.0))
    | dict.fromkeys(("hop", "hops"), ("hops", 1.0))
)
_WORDS: Final = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_LEVELS: Final = re.compile(r"\b(?:snr|rssi)\b\W*$", re.IGNORECASE)
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}:\d\d(?::\d\d)?")
_NUMBER: Final = re.compile(rf"{_MOMENT.pattern}|\d+(?:[.,\u066b]\d+)*")
_UNIT: Final = re.compile(r"\s?(%|[^\W\d_]+)")
_SPELLED: Final = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)
_NAME_WITH_DIGIT: Final = re.compile(r"!?\w*(?:[^\W\d_]\w*\d|\d\w*[^\W\d_])\w*")
_TENS: Final = re.compile(
    rf"\b({'|'.join(word for word, value in _WORDS.items() if value >= 20)})[- ]"
    rf"({'|'.join(word for word, value in _WORDS.items() if 0 < value < 10)})\b",
    re.IGNORECASE,
)
#: Two units that make one figure, with how many of the second are in the first.
_SPANS: Final = tuple(
    (
        re.compile(
            rf"\b(\d{{1,3}}|an?)\s?{large}\s?(?:and\s|,\s)?(\d{{1,2}})\s?({small})\b",
            re.IGNORECASE,
        ),
        size,
    )
    for large, small, size in (
        ("(?:d|days?)", "h|hrs?|hours?", 24),
        ("(?:h|hrs?|hours?)", "m|mins?|minutes?", 60),
        ("(?:m|mins?|minutes?)", "s|secs?|seconds?", 60),
    )
)
_MINUTES_AGO: Final = re.compile(r"(?<=\d)\s?m(?=\s+ago\b)", re.IGNORECASE)
_THOUSANDS: Final = re.compile(r"(?<![\d.,:])(\d{1,3})[ '\u2019](\d{3})(?=\s?(?:m|\u043c)\b)")
_FRACTION: Final = re.compile("(\\d*) ?([\u00bc-\u00be])")
_NUMBERING: Final = re.compile(r"(?:(?<=\s)|^)(\d{1,2})[.)](?=\s)")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number as it is written."""

    shown: str
    value: float  #: without sign
    step: float  #: value of its last digit; 0 for moments and versions, which are no numbers
    unit: str  #: quantity, "" for a bare number
    factor: float


def invented(answer: str, *, facts: str, question: str, counts: int = 0) -> tuple[str, ...]:
    """Return the figures of an answer that neither the facts nor the question bear out.

    `counts` is the largest bare number that counts what the facts list.
    """
    given = f"{facts}\n{question}" + ("\n0 hops" if re.search(r"\bdirect\b", facts) else "")
    names = {match.group().casefold() for match in _NAME_WITH_DIGIT.finditer(_normal(given))}
    known = tuple(_figures(_normal(given), names))
    return tuple(
        figure.shown
        for figure in _figures(_without_numbering(_normal(answer)), names)
        if not _is_count(figure, counts) and not any(_bears_out(one, figure) for one in known)
    )


def _is_count(figure: Figure, counts: int) -> bool:
    return not figure.unit and figure.step == 1 and figure.value <= max(MAX_COUNT, counts)


def _bears_out(fact: Figure, said: Figure) -> bool:
    """Say whether a fact, rounded or cut as the answer writes it, is what it says."""
    if said.step == 0:
        return fact.shown.lstrip("0") == said.shown.lstrip("0")
    if fact.unit != said.unit != "":
        return False
    if not said.unit:
        return abs(fact.value - said.value) < 1e-9
    exact, wanted = fact.value * fact.factor, said.value * said.factor
    # Either may be the coarser one: 2 h may stand for 120 min, 1.5 h for 90 min.
    return abs(exact - wanted) < max(said.step * said.factor, 1e-9) * 0.51 + 1e-9


def _normal(text: str) -> str:
    """Write every number in one way: ASCII digits, one figure for what is said in two words."""
    text = unicodedata.normalize("NFKC", _FRACTION.sub(_decimal, text))
    text = "".join(
        str(unicodedata.digit(char)) if char.isdigit() and not char.isascii() else char
        for char in text
    )
    text = _TENS.sub(lambda found: str(_WORDS[found[1].lower()] + _WORDS[found[2].lower()]), text)
    text = _THOUSANDS.sub(r"\1\2", _MINUTES_AGO.sub(" min", text))
    for span, size in _SPANS:
        text = span.sub(partial(_in_small_units, size=size), text)
    return text


def _decimal(found: re.Match[str]) -> str:
    return str(int(found[1] or 0) + unicodedata.numeric(found[2]))


def _in_small_units(found: re.Match[str], size: int) -> str:
    """Write "1 h 30 min" as "90 min"."""
    whole = int(found[1]) if found[1].isdigit() else 1
    unit = "min" if found[3].lower() == "m" else found[3]
    return f"{whole * size + int(found[2])} {unit}"


def _figures(text: str, names: set[str]) -> Iterator[Figure]:
    rest = _NAME_WITH_DIGIT.sub(
        lambda found: " " * len(found.group()) if _is_name(found.group(), names) else found.group(),
        text,
    )
    for match in _NUMBER.finditer(rest):
        value, step = _value(match.group())
        unit, factor = _unit_after(rest, match.end())
        if not unit and _LEVELS.search(
            rest[max(0, match.start() - 8) : match.start()].rstrip("-\u2212+ ")
        ):
            unit, factor = "level", 1.0
        yield Figure(match.group(), value, step, unit, factor)
    for match in _SPELLED.finditer(rest):
        unit, factor = _unit_after(rest, match.end())
        # "one" and "second" are too often no numbers; measured values are not spelled below four.
        yield Figure(match.group(), float(_WORDS[match.group().lower()]), 1.0, unit, factor)


def _is_name(token: str, names: set[str]) -> bool:
    has_unit = re.fullmatch(r"\d+([^\W\d_]+)", token)
    is_figure = has_unit is not None and has_unit[1].casefold() in _UNITS
    return not is_figure and token.casefold() in names


def _unit_after(text: str, end: int) -> tuple[str, float]:
    found = _UNIT.match(text, end)
    return _UNITS.get(found[1].casefold(), ("", 1.0)) if found else ("", 1.0)


def _value(written: str) -> tuple[float, float]:
    """Read a number; a comma is a decimal sign unless three digits follow it."""
    if _MOMENT.fullmatch(written):
        return math.nan, 0.0
    text = written.replace("\u066b", ".")
    text = re.sub(r",(?=\d{3}(?:\D|$))", "", text).replace(",", ".")
    whole, _, decimals = text.partition(".")
    if "." in decimals:  # no number has two points
        return float(whole), 0.0
    return float(f"{whole}.{decimals or 0}"), 10.0 ** -len(decimals)


def _without_numbering(text: str) -> str:
    """Blank the numbers of a list that counts up from 1."""
    expected = 1
    for match in _NUMBERING.finditer(text):
        if int(match[1]) == expected:
            expected += 1
            text = text[: match.start(1)] + " " * len(match[1]) + text[match.end(1) :]
    return text
