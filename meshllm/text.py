"""Pure text work: clean model output, split byte-exactly with part marks, show hostile text.

Sends and stores nothing. A character here is a grapheme cluster; limits count UTF-8 bytes.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import regex

ELLIPSIS: Final = "…"
MIN_LIMIT: Final = 16  #: a part mark, an ellipsis and one character need this much
MAX_PARTS: Final = 99  #: a part mark has two digits at most
#: A sentence or word end is taken as the cut when the part is at least this full.
SENTENCE_FILL: Final = 0.5
CLAUSE_FILL: Final = 0.8  #: the same for writing without spaces, where any character may end a part
WORD_FILL: Final = 0.4
#: How far past a full budget generation may run to finish its sentence.
BUDGET_GRACE: Final = 1.25

_TERMINATORS: Final = ".!?…।॥؟۔"  #: end a sentence when space follows
_WIDE_TERMINATORS: Final = "。！？｡"  #: end one whatever follows
_WIDE_BREAKS: Final = "，、；：」』）"  #: where Chinese and Japanese may break a line
_CLOSERS: Final = "\"')]}»”’"
_SENTENCE_END: Final = regex.compile(
    rf"(?:[{_TERMINATORS}]+[{regex.escape(_CLOSERS)}]*(?=\s)"
    rf"|[{_WIDE_TERMINATORS}]+[」』）”’]*"
    rf"|(?<!\d)[{_TERMINATORS}][{regex.escape(_CLOSERS)}]*$)"
)
_GRAPHEME: Final = regex.compile(r"\X")
_SURROGATE: Final = regex.compile(r"[\ud800-\udfff]")
_URL: Final = regex.compile(r"(?:https?://|www\.)[!-~]+", regex.IGNORECASE)
_PART_MARK: Final = regex.compile(r"\((\d{1,2})/(\d{1,2})\) ")

_THOUGHT: Final = regex.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", regex.DOTALL | regex.I)
_THOUGHT_ENDING: Final = regex.compile(r".*</think(?:ing)?>", regex.DOTALL | regex.I)
_THOUGHT_OPENING: Final = regex.compile(r"<think(?:ing)?>.*", regex.DOTALL | regex.I)

_ESCAPE_SEQUENCE: Final = regex.compile(
    r"\x1b\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)?|[\x1b\x9b]\[?[0-?]{0,50}[ -/]{0,10}[@-~]?"
)
_CONTROL: Final = regex.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
#: Invisible characters with no use in a short message. Joiners and direction marks are not here:
#: emoji, Persian, Arabic and Hebrew need them.
_INVISIBLE: Final = regex.compile(
    r"[\u00ad\u180e\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
_UNSAFE_ON_TERMINAL: Final = regex.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

_MARKDOWN: Final = tuple(
    (regex.compile(pattern, regex.MULTILINE), replacement)
    for pattern, replacement in (
        (r"^[ \t]*(?:```|~~~)[^\n]*$", ""),  # code fences; the code stays
        (r"^[ \t]*(?=[^\n]*(?:-[ \t]*){3}|[^\n]*\*{3}|[^\n]*_{3})[-*_|:+ \t]+$", ""),  # rules
        (r"^[ \t]{0,3}#{1,6}[ \t]+", ""),
        (r"^[ \t]*(?:>[ \t]?)+", ""),
        (r"^[ \t]*[*+•][ \t]+", "- "),
        (
            r"!?\[([^\[\]\n]{1,300})\]\(\s?<?([^()\s<>]{1,500})>?(?:\s\"[^\"\n]{0,200}\")?\)",
            r"\1 \2",
        ),
        (r"<(https?://[^<>\s]{1,500})>", r"\1"),
        (r"`{1,3}([^`\n]{1,500})`{1,3}", r"\1"),
        (r"\*\*(?=\S)([^\n]{1,500}?)(?<=\S)\*\*", r"\1"),
        (r"(?<!\w)__(?=\S)([^\n]{1,500}?)(?<=\S)__(?!\w)", r"\1"),
        (r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,500}?)(?<=\S)\*(?![\w*])", r"\1"),
        (r"(?<!\w)_(?=[^\s_])([^_\n]{1,500}?)(?<=\S)_(?!\w)", r"\1"),
        (r"~~(?=\S)([^~\n]{1,500}?)~~", r"\1"),
        (r"\\([*_`#\[\]()~>|!])", r"\1"),
    )
)
_OWN_PREFIX: Final = regex.compile(
    r"\A(?:\(\d{1,2}/\d{1,2}\)|(?:librarian|assistant)\s?[:：])\s*", regex.IGNORECASE
)
_QUOTES: Final = (('"', '"'), ("'", "'"), ("“", "”"), ("«", "»"), ("„", "“"), ("「", "」"))


@dataclass(frozen=True)
class Split:
    """A reply in parts, each ready for the air, and what did not fit."""

    parts: tuple[str, ...]
    rest: str


def utf8_len(text: str) -> int:
    """Bytes of the text on the air; a lone surrogate counts like its replacement, three."""
    return len(text.encode("utf-8", "surrogatepass"))


def one_line(text: str) -> str:
    """Turn every run of white space into one space and lone surrogates into U+FFFD."""
    whole: str = _SURROGATE.sub("\ufffd", text)
    return " ".join(whole.split())


def safe_for_terminal(text: str) -> str:
    """Show control, direction and invisible characters as escapes, so that none takes effect."""
    shown: str = _UNSAFE_ON_TERMINAL.sub(_escape, text)
    return shown


def is_part_marked(text: str) -> bool:
    """Say whether the text begins with a part mark such as "(1/2) "."""
    return _PART_MARK.match(text) is not None


def strip_thinking(text: str) -> str:
    """Drop reasoning: closed blocks, all before an orphan closing tag, all after an open one."""
    for thought in (_THOUGHT, _THOUGHT_ENDING, _THOUGHT_OPENING):
        text = thought.sub("", text)
    return text


def clean_model_text(text: str) -> str:
    """Turn generated text into one plain line: no reasoning, Markdown, controls, own prefixes."""
    text = _ESCAPE_SEQUENCE.sub("", text)
    text = _INVISIBLE.sub("", _CONTROL.sub("", text))
    text = _OWN_PREFIX.sub("", strip_thinking(text).strip(), count=1)
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return _strip_wrapping(unicodedata.normalize("NFC", one_line(text)))


def cut_when_full(text: str, budget_bytes: int) -> str | None:
    """Return what to keep of a growing text once it has filled its budget, else None.

    Kept is all up to the last sentence end, if that is at least half the budget; else the text may
    grow by a quarter to finish its sentence, and is then kept whole.
    """
    size = utf8_len(text)
    if size < budget_bytes:
        return None
    for end in reversed([match.end() for match in _SENTENCE_END.finditer(text)]):
        kept = utf8_len(text[:end])
        if kept <= budget_bytes * BUDGET_GRACE and kept >= budget_bytes * SENTENCE_FILL:
            return text[:end]
    return text if size >= budget_bytes * BUDGET_GRACE else None


def split_reply(
    text: str, *, limit_bytes: int = 200, limit_chars: int | None = None, max_parts: int = 2
) -> Split:
    """Split into the fewest parts that fit both limits, marks counted.

    Cuts fall at a sentence end, else between words, else between graphemes; a web address stays
    whole where a part can hold it. When `max_parts` cannot hold the text, the last part ends with
    "…" and `rest` has the remainder. Raises ValueError for limits that no part mark fits in.
    """
    chars = limit_bytes if limit_chars is None else limit_chars
    if min(limit_bytes, chars) < MIN_LIMIT or not 1 <= max_parts <= MAX_PARTS:
        raise ValueError(f"limits too small: {limit_bytes} bytes, {chars} chars, {max_parts} parts")
    line = one_line(text)
    if not line:
        return Split((), "")
    limit = _Room(limit_bytes, chars)
    if limit.holds(line):
        return Split((line,), "")
    strip = _Strip(line, limit.less(_mark(max_parts, max_parts) + ELLIPSIS))
    for total in range(2, max_parts + 1):
        room = limit.less(_mark(total, total))
        for fill in (SENTENCE_FILL, 1.0):
            spans, end = strip.pack(room, total, fill)
            if end == len(strip.pieces):
                return Split(strip.marked(spans), "")
    return strip.truncated(limit, max_parts)


def _escape(match: "regex.Match[str]") -> str:
    code = ord(match.group())
    named = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    if named:
        return named
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _strip_wrapping(text: str) -> str:
    """Drop the model's own part mark, its name and quotes around the whole, in any order."""
    while True:
        shorter = _unquoted(_OWN_PREFIX.sub("", text, count=1))
        if shorter == text:
            return text
        text = shorter


def _unquoted(text: str) -> str:
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        wraps = len(text) > 1 and text.startswith(opening) and text.endswith(closing)
        if wraps and opening not in inner and closing not in inner:
            return inner.strip()
    return text


def _mark(part: int, total: int) -> str:
    return f"({part}/{total}) " if total > 1 else ""


@dataclass(frozen=True)
class _Room:
    """How much one part may hold."""

    size: int
    chars: int

    def less(self, taken: str) -> "_Room":
        return _Room(self.size - utf8_len(taken), self.chars - len(taken))

    def holds(self, text: str) -> bool:
        return utf8_len(text) <= self.size and len(text) <= self.chars


class _Strip:
    """A line as graphemes with running sizes, and the places where it may be cut."""

    def __init__(self, line: str, smallest: _Room) -> None:
        self.pieces = _pieces(line, smallest)
        self._bytes = [0, *accumulate(utf8_len(piece) for piece in self.pieces)]
        self._chars = [0, *accumulate(len(piece) for piece in self.pieces)]
        at = {offset: index for index, offset in enumerate(self._chars)}
        self._sentences = {
            at[match.end()] for match in _SENTENCE_END.finditer(line) if match.end() in at
        }
        self._clauses = {
            index for index, piece in enumerate(self.pieces, start=1) if piece[-1] in _WIDE_BREAKS
        } | self._sentences
        self._words = {index for index, piece in enumerate(self.pieces) if piece == " "}
        self._links = [
            (at[match.start()], at[match.end()])
            for match in _URL.finditer(line)
            if match.start() in at and match.end() in at and smallest.holds(match.group())
        ]

    def pack(self, room: _Room, total: int, fill: float) -> tuple[list[tuple[int, int]], int]:
        """Fill up to `total` parts; `fill` is how full a part is before a sentence end is taken."""
        spans: list[tuple[int, int]] = []
        start = 0
        while start < len(self.pieces) and len(spans) < total:
            end = self._cut(start, room, fill)
            spans.append((start, end))
            start = self._skip_space(end)
        return spans, start

    def marked(self, spans: Sequence[tuple[int, int]]) -> tuple[str, ...]:
        total = len(spans)
        return tuple(
            _mark(number, total) + self._text(start, end)
            for number, (start, end) in enumerate(spans, start=1)
        )

    def truncated(self, limit: _Room, total: int) -> Split:
        room = limit.less(_mark(total, total))
        spans, start = self.pack(room, total - 1, SENTENCE_FILL)
        end = self._cut(start, room.less(ELLIPSIS), SENTENCE_FILL)
        *parts, last = self.marked([*spans, (start, end)])
        rest = self._text(self._skip_space(end), len(self.pieces))
        return Split((*parts, last + ELLIPSIS), rest)

    def _text(self, start: int, end: int) -> str:
        return "".join(self.pieces[start:end])

    def _skip_space(self, index: int) -> int:
        return index + (index < len(self.pieces) and self.pieces[index] == " ")

    def _cut(self, start: int, room: _Room, fill: float) -> int:
        """Return the best index to end a part that begins at `start`; always beyond it."""
        end = self._last_fitting(start, room)
        if end == len(self.pieces):
            return end
        for first, last in self._links:
            if start < first < end < last:
                end = first - (self.pieces[first - 1] == " " and first - 1 > start)
                break
        span = end - start
        for places, share in (
            (self._sentences, fill),
            (self._clauses, CLAUSE_FILL),
            (self._words, WORD_FILL),
        ):
            for index in range(end, start + max(0, int(span * share) - 1), -1):
                if index in places:
                    return index
        return end

    def _last_fitting(self, start: int, room: _Room) -> int:
        end = start + 1
        while (
            end < len(self.pieces)
            and self._bytes[end + 1] - self._bytes[start] <= room.size
            and self._chars[end + 1] - self._chars[start] <= room.chars
        ):
            end += 1
        return end


def _pieces(line: str, smallest: _Room) -> list[str]:
    """Graphemes, except that one which no part can hold falls into its code points."""
    pieces: list[str] = []
    for grapheme in _GRAPHEME.findall(line):
        pieces.extend([grapheme] if smallest.holds(grapheme) else grapheme)
    return pieces
