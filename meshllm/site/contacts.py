"""Finds addresses, numbers and keys that people type, which name them or open their channels."""

import re
from collections.abc import Iterator
from typing import Final

from meshllm.site.spans import Span

_EMAIL: Final = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_HARDWARE: Final = re.compile(r"(?<![0-9A-Fa-f:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?!\w)")
#: The link that shares a channel holds its key.
_SHARED: Final = re.compile(
    r"(?:https?://)?(?:www\.)?meshtastic\.org/[ecv](?:[/#?]\S*|(?!\w))|meshtastic://\S*",
    re.IGNORECASE,
)
#: Of 16 or 32 bytes, in base64 or as hex digits; or a torn off piece of such a link.
_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{43}=|[A-Za-z0-9+/_-]{22}==)(?![A-Za-z0-9+/=])"
    r"|(?<![0-9A-Za-z])(?:0[xX])?(?:[0-9A-Fa-f]{32}){1,2}(?![0-9A-Za-z])"
    r"|(?<![A-Za-z0-9+/_-])(?=[a-z0-9+/_-]*[A-Z])(?=[A-Z0-9+/_-]*[a-z])(?=[A-Za-z+/_-]*[0-9])"
    r"(?:[A-Za-z0-9+/]{43}|[A-Za-z0-9+/]{22}|[A-Za-z0-9_-]{22,})(?![A-Za-z0-9+/_-])"
)
_NUMBER: Final = re.compile(
    r"(?<![\w.,])(?:\+[ \t]?)?\(?\d[\d()./\-\u00a0\u2010-\u2013 \t]{5,}\d(?!\w)"
)
_FORMS: Final = (
    (_SHARED, "channel link", "[channel link]"),
    (_EMAIL, "e-mail address", "[e-mail]"),
    (_HARDWARE, "hardware address", "[hardware address]"),
    (_KEY, "key", "[key]"),
)
_MIN_DIGITS: Final = 7
_SURE_DIGITS: Final = 9  #: so many in groups are a number to call, not an amount


def find(text: str) -> Iterator[Span]:
    """Yield every place."""
    for pattern, kind, instead in _FORMS:
        for match in pattern.finditer(text):
            yield Span(match.start(), match.end(), kind, instead)
    for match in _NUMBER.finditer(text):
        if _is_number_to_call(match[0]):
            yield Span(match.start(), match.end(), "long number", "[number]")


def _is_number_to_call(text: str) -> bool:
    groups = [group for group in re.split(r"\D+", text) if group]
    digits = sum(map(len, groups))
    if digits < _MIN_DIGITS:
        return False
    if len(groups) == 1 or re.match(r"\+|\(|0\d", text):
        return True
    is_in_two = digits == _MIN_DIGITS and re.fullmatch(r"\d{3}[-\u2010-\u2013]\d{4}", text)
    return bool(is_in_two) or (digits >= _SURE_DIGITS and all(len(g) > 1 for g in groups[1:]))
