"""Finds positions in free text, in the notations people use, and makes them coarse. Pure.

A number becomes the nearest one on a coarse grid. What cannot be made coarse, such as the link to a
map, goes as a whole. A description in words is no notation and is not found.
"""

import re
from collections.abc import Iterator
from typing import Final

from meshllm.site.spans import Span

KIND: Final = "position"
_HEMISPHERE: Final = r"[NSEWO]"
_NO_LETTER_BEFORE: Final = r"(?<![^\W\d_])"
_NO_LETTER_AFTER: Final = r"(?![^\W\d_])"
_SIGN: Final = r"[-+\u2212]?"
_DEGREE: Final = r"(?:[°º˚]|deg\b)"
_LABEL: Final = (
    r"(?:lat(?:itude?)?|lon(?:g(?:itude?)?)?|lng|breitengrad|l\u00e4ngengrad"
    r"|\u0448\u0438\u0440\u043e\u0442\u0430|\u0434\u043e\u043b\u0433\u043e\u0442\u0430"
    r"|\u0434\u043e\u0432\u0433\u043e\u0442\u0430)"
)
#: Four decimals are eleven metres: a number so exact is a position, whatever stands around it.
_EXACT: Final = re.compile(rf"(?<![\d.,]){_SIGN}\d{{1,3}}[.,]\d{{4,}}(?!\d)")
_FINE: Final = rf"{_SIGN}\d{{1,3}}[.,]\d{{2,}}"
_MARKED: Final = re.compile(
    rf"(?:{_NO_LETTER_BEFORE}{_LABEL}(?:\W{{0,4}}|\W{{1,2}}(?:is|es|est|ist)\W{{1,2}})"
    rf"|{_NO_LETTER_BEFORE}{_HEMISPHERE}[ \t]?)"
    rf"(?P<n>{_FINE})(?!\d)"
    rf"|(?<![\d.,])(?P<m>{_FINE})[ \t]*"
    rf"(?:{_DEGREE}(?![ \t]*[CFK]{_NO_LETTER_AFTER})|{_HEMISPHERE}{_NO_LETTER_AFTER})",
    re.IGNORECASE,
)
#: Two numbers side by side of which one has three decimals: a hundred metres.
_PAIR: Final = re.compile(
    rf"(?<![\d.,])(?P<a>{_SIGN}\d{{1,3}}(?P<p>[.,])\d+)"
    rf"(?:\s*[,;/|&)(]{{1,2}}\s*|\s+)(?:(?:and|und|et|y|x|by)\b\W{{0,3}})?(?P<b>{_SIGN}\d{{1,3}}(?P=p)\d+)(?!\d)"
)
_SEXAGESIMAL: Final = re.compile(
    rf"(?:{_NO_LETTER_BEFORE}(?P<h1>{_HEMISPHERE})[ \t]*)?(?<![\d.,])(?P<d>\d{{1,3}})"
    rf"[ \t]*{_DEGREE}[ \t]*(?P<m>\d{{1,2}}(?:[.,]\d+)?)(?:[ \t]*['\u2019\u2018\u2032´])?"
    r"(?:[ \t]*(?P<s>\d{1,2}(?:[.,]\d+)?)(?:[ \t]*(?:\"|″|”|''|′′|´´))?)?"
    rf"(?:[ \t]*(?P<h2>{_HEMISPHERE}){_NO_LETTER_AFTER})?",
    re.IGNORECASE,
)
_SPACED: Final = re.compile(
    rf"(?:{_NO_LETTER_BEFORE}(?P<h1>{_HEMISPHERE})[ \t]*)?(?<![\d.,:])(?P<d>\d{{1,3}})[ \t:]"
    r"(?P<m>\d{1,2}(?:[.,]\d+)?)['\u2019\u2032]?(?:[ \t:](?P<s>\d{1,2}(?:[.,]\d+)?)[\"″”]?)?"
    rf"(?:[ \t]*(?P<h2>{_HEMISPHERE}){_NO_LETTER_AFTER})?"
)
#: What receivers and APRS say: degrees and minutes without anything between.
_PACKED: Final = re.compile(
    rf"(?<![\d.])(?P<d>\d{{2,3}})(?P<m>\d\d\.\d+)[ \t]*,?[ \t]*(?P<h2>{_HEMISPHERE})"
    rf"{_NO_LETTER_AFTER}"
)
_MGRS: Final = re.compile(
    r"(?<!\w)(\d{1,2}[C-HJ-NP-X][ \t]?[A-HJ-NP-Z]{2})[ \t]?"
    r"(?:(\d{2,5})[ \t](\d{2,5})|(\d{4,10}))(?!\w)",
    re.IGNORECASE,
)
_UTM: Final = re.compile(
    r"(?<!\w)\d{1,2}[ \t]?[C-HJ-NP-X][ \t]+\d{5,6}(?:[.,]\d+)?[ \t]*m?[ \t]*E?"
    r"[ \t]*,?[ \t]*\d{6,7}(?:[.,]\d+)?(?:[ \t]*(?:m[ \t]*N|m|N)(?![^\W\d_]))?(?!\d)",
    re.IGNORECASE,
)
_PLUS_CODE: Final = re.compile(
    r"(?<!\w)[23456789CFGHJMPQRVWX]{4,8}\+[23456789CFGHJMPQRVWX]{2,7}(?!\w)", re.IGNORECASE
)
_LOCATOR: Final = re.compile(
    r"(?<!\w)([A-R]{2}\d\d)[A-X]{2}(?:\d\d(?:[A-X]{2}(?:\d\d)?)?)?(?!\w)", re.IGNORECASE
)
_THREE_WORDS: Final = re.compile(r"///[^\W\d_]+[.·][^\W\d_]+[.·][^\W\d_]+")
_LINK: Final = re.compile(
    r"(?:geo:[-+\d][^\s<>\"]*|(?:https?://)?(?:[\w-]+\.)*"
    r"(?:maps?\.[\w.-]+|goo\.gl|osm\.org|openstreetmap\.[a-z]+|google\.[a-z.]+/maps"
    r"|bing\.com/maps|w3w\.co|what3words\.com|plus\.codes|mapy\.[a-z]+|caltopo\.com"
    r"|gaiagps\.com|wikimapia\.org|opentopomap\.org|wego\.here\.com|waze\.com|sartopo\.com"
    r"|organicmaps\.app|omaps\.app|ge0\.me)(?:[/?#:][^\s<>\"]*)?)",
    re.IGNORECASE,
)
_WHOLE: Final = (
    (_LINK, "[map link]"),
    (_THREE_WORDS, "[position]"),
    (_PLUS_CODE, "[plus code]"),
    (_UTM, "[position]"),
)


def find(text: str, step: float) -> Iterator[Span]:
    """Yield every position; `step` is the width of the coarse grid in degrees."""
    for pattern, instead in _WHOLE:
        yield from (_span(match, instead) for match in pattern.finditer(text))
    for match in _LOCATOR.finditer(text):
        yield _span(match, f"[locator {match[1].upper()}]")
    for match in _MGRS.finditer(text):
        if _is_even(match):
            yield _span(match, f"[grid square {''.join(match[1].split()).upper()}]")
    yield from _angles(text, step)
    yield from _decimals(text, step)


def _span(match: re.Match[str], instead: str, group: str | int = 0) -> Span:
    return Span(match.start(group), match.end(group), KIND, instead)


def _is_even(match: re.Match[str]) -> bool:
    """Say whether easting and northing have as many digits: else it is something else."""
    return len(match[2]) == len(match[3]) if match[2] else len(match[4]) % 2 == 0


def _angles(text: str, step: float) -> Iterator[Span]:
    for match in _SEXAGESIMAL.finditer(text):
        yield _angle(match, step)
    for pattern in (_SPACED, _PACKED):
        for match in pattern.finditer(text):
            if match["h2"] or match.groupdict().get("h1"):
                yield _angle(match, step)


def _angle(match: re.Match[str], step: float) -> Span:
    groups = match.groupdict()
    degrees, minutes, seconds = (_number(groups.get(name) or "0") for name in "dms")
    side = (groups.get("h1") or groups.get("h2") or "").upper()
    return _span(match, f"{_coarse(degrees + minutes / 60 + seconds / 3600, step)}°{side}")


def _decimals(text: str, step: float) -> Iterator[Span]:
    for exact in _EXACT.finditer(text):
        if abs(_number(exact[0])) <= 180:
            yield _span(exact, _coarse(_number(exact[0]), step))
    for marked in _MARKED.finditer(text):
        group = "n" if marked["n"] else "m"
        if abs(_number(marked[group])) <= 180:
            yield _span(marked, _coarse(_number(marked[group]), step), group)
    at = 0
    while (pair := _PAIR.search(text, at)) is not None:
        at = pair.end("a")
        if _is_position(pair["a"], pair["b"]):
            at = pair.end()
            for group in "ab":
                yield _span(pair, _coarse(_number(pair[group]), step), group)


def _is_position(one: str, other: str) -> bool:
    low, high = sorted(abs(_number(text)) for text in (one, other))
    decimals = sorted(len(re.split(r"[.,]", text)[1]) for text in (one, other))
    return low <= 90 and high <= 180 and decimals[0] >= 2 and decimals[1] >= 3


def _number(text: str) -> float:
    return float(text.replace(",", ".").replace("\u2212", "-"))


def _coarse(value: float, step: float) -> str:
    decimals = len(f"{step:.6f}".rstrip("0").partition(".")[2])
    return f"~{round(value / step) * step:.{decimals}f}"
