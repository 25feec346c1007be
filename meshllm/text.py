"""Pure text work: lengths, hostile text made visible, sentence ends, byte-exact splitting.

Sends and stores nothing. A character here is a grapheme cluster; limits count UTF-8 bytes.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

import regex

ELLIPSIS: Final = "…"
#: Ends the last part when something is left and these bytes are free; "…" alone is always there.
MORE_HINT: Final = " (more?)"
#: Ends what `rest` holds when even that had to be cut.
DROPPED_NOTE: Final = "… (the end is lost: too long)"
MIN_LIMIT: Final = 16  #: a part mark, an ellipsis and one character need this much
MAX_PARTS: Final = 99  #: a part mark has two digits at most
MAX_REST_BYTES: Final = 2000  #: `rest` is stored in a cell of the last part's row
#: A sentence or word end is taken as the cut when the part is at least this full.
SENTENCE_FILL: Final = 0.5
CLAUSE_FILL: Final = 0.8  #: the same after a comma, and in writing without spaces
WORD_FILL: Final = 0.4
#: How far past a full budget generation may run to finish its sentence.
BUDGET_GRACE: Final = 1.25

_CLOSERS: Final = regex.escape("\"')]}»”’」』）")
_LATIN_ENDS: Final = ".!?…"
#: Latin ends need a space after them, all others (danda, 。, ؟) end a sentence whatever follows.
_SENTENCE_END: Final = regex.compile(
    rf"(?:[{_LATIN_ENDS}]+[{_CLOSERS}]*(?=\s|\Z)"
    rf"|[[\p{{Sentence_Terminal}}\u0f0d\u0f0e]--[{_LATIN_ENDS}．]]+[{_CLOSERS}]*"
    r"|(?<=\p{Greek});(?=\s|\Z))",
    regex.V1,
)
_LAST_WORD: Final = regex.compile(r"(?:\p{Nd}\s)?([\p{L}\p{M}\p{N}.]+)\Z")
_INITIALS: Final = regex.compile(r"\p{L}{1,2}(?:\.\p{L}{1,2})+")
_LONGEST_ABBREVIATION: Final = 12
#: Stand before a name or a number, so that what follows with a capital is no new sentence.
_ABBREVIATIONS: Final = frozenset(
    regex.findall(
        r"\S+",
        "mr mrs ms dr prof st mt no nr fig vol capt sgt lt col gen rev hon vs approx ca sr sra "
        "srta dra núm pág aprox str bzw abb env mme см див рис вул проф ім обл стор напр рр тов гл "
        "стр ул श्री डॉ प्रो",
    )
)
_SHORT_WORD: Final = 5  #: a stop after so few letters and before a small one is an abbreviation's

_CLAUSE_END: Final = regex.compile(r"[，、；：]|[,;:،؛](?=\s)")
_GRAPHEME: Final = regex.compile(r"\X")
_SURROGATE: Final = regex.compile(r"[\ud800-\udfff]")
_SAID: Final = regex.compile(r"[\p{L}\p{N}]")
_NUMBER_END: Final = regex.compile(r"\p{Nd}\Z")
_PART_MARK: Final = regex.compile(r"\((\d{1,2})/(\d{1,2})\) ")
_UNIT: Final = (
    r"(?:[kKMG]?Hz|[кМГ]?Гц|km/h|mi|[kcm]?m|ft|[km]?g|lb|oz|m?l|L|dBm?|m?V|m?Ah?|k?Wh?|%|°\s?[CF]?"
    r"|км|см|мм|м|кг|г|мл|л|хв|год|мин|ч|В|Вт|min|h|s|am|pm|a\.m\.|p\.m\.)(?!\w)"
)
_ANGLE: Final = (
    r"(?:[NSEW]\s?)?[-−+]?\d{1,3}(?:[.,]\d{2,8}\s?°?|\s?°\s?\d{1,2}(?:[.,]\d{1,6})?\s?['′’]?"
    r"(?:\s?\d{1,2}(?:[.,]\d{1,4})?\s?[\"″”])?)(?:\s?[NSEWО](?!\w))?"
)
#: What is torn only when no part can hold it: addresses, positions, phone numbers, frequencies.
_UNBROKEN: Final = regex.compile(
    r"(?:https?|ftp|tel|geo|mailto):[!-~]*[A-Za-z0-9/=_#&%+-]|www\.[!-~]*[A-Za-z0-9/=_#&%+-]"
    rf"|{_ANGLE}\s?[,;/]?\s{{0,2}}{_ANGLE}"
    r"|\b\d{1,2}[C-HJ-NP-X]\s?[A-HJ-NP-Z]{2}\s?\d{2,5}\s?\d{2,5}\b"
    r"|(?<![\w.])(?:\+|00)?\(?\d{1,4}\)?(?:[ \-./]\(?\d{1,5}\)?){2,6}(?!\w)"
    rf"|\d[\d.,:/+\-–]{{0,15}}\s(?:[-–]\s\d[\d.,]{{0,10}}\s)?{_UNIT}",
    regex.IGNORECASE,
)
_UNSAFE_ON_TERMINAL: Final = regex.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


@dataclass(frozen=True)
class Split:
    """A reply in parts, each ready for the air, and what did not fit.

    `rest` may be split as the next reply, numbered from 1 again; it begins with "…" where a
    sentence was cut. Every such split takes something off, so that "more" comes to an end.
    """

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


def sentence_ends(text: str, *, is_growing: bool = False) -> Iterator[int]:
    """Yield the offsets behind sentence ends in writing of any script.

    No end: abbreviations, initials, ordinals, decimal points, "…" before a small letter. While the
    text is growing, a full stop at its very end may turn out to be in a number or an address.
    """
    for match in _SENTENCE_END.finditer(text):
        if _ends_sentence(text, match, is_growing=is_growing):
            yield match.end()


def whole_sentences(text: str) -> list[str]:
    """Return the sentences that say something, without the space around them."""
    ends = [0, *sentence_ends(text), len(text)]
    found = (text[start:end].strip() for start, end in pairwise(ends))
    return [sentence for sentence in found if _SAID.search(sentence)]


def cut_when_full(text: str, budget_bytes: int) -> str | None:
    """Return what to keep of a growing text once it has filled its budget, else None.

    Kept is all up to the last sentence end within the budget, if that is at least half of it; else
    the text may grow by a quarter to finish its sentence, and is then kept whole.
    """
    size = utf8_len(text)
    if size < budget_bytes:
        return None
    sized = [(utf8_len(text[:end]), end) for end in sentence_ends(text, is_growing=True)]
    for most in (1.0, BUDGET_GRACE):
        for kept, end in reversed(sized):
            if budget_bytes * SENTENCE_FILL <= kept <= budget_bytes * most:
                return text[:end]
    return text if size >= budget_bytes * BUDGET_GRACE else None


def split_reply(
    text: str, *, limit_bytes: int = 200, limit_chars: int | None = None, max_parts: int = 2
) -> Split:
    """Split into the fewest parts that fit both limits, marks counted.

    A sentence that a part can hold is never cut; a longer one is cut between words, else between
    graphemes; web addresses, positions, phone numbers and frequencies stay whole where a part can
    hold them. When `max_parts` cannot hold the text, the last part ends with "…" or `MORE_HINT`,
    and `rest` has the remainder, at most MAX_REST_BYTES and honest about a loss. Raises ValueError
    for limits that no part mark fits in.
    """
    chars = limit_bytes if limit_chars is None else limit_chars
    if min(limit_bytes, chars) < MIN_LIMIT or not 1 <= max_parts <= MAX_PARTS:
        raise ValueError(f"limits too small: {limit_bytes} bytes, {chars} chars, {max_parts} parts")
    # Beyond this all would be dropped anyway; so hostile lengths cost nothing.
    line = one_line(text)[: max_parts * limit_bytes + 2 * MAX_REST_BYTES]
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


def unmarked(part: str) -> str:
    """Take the part mark and the hint that something is left off a part."""
    mark = _PART_MARK.match(part)
    text = part[mark.end() :] if mark else part
    return text.removesuffix(MORE_HINT).removesuffix(ELLIPSIS)


def _escape(match: "regex.Match[str]") -> str:
    code = ord(match.group())
    named = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    if named:
        return named
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _ends_sentence(text: str, match: "regex.Match[str]", *, is_growing: bool) -> bool:
    mark = match.group()
    if mark[0] not in _LATIN_ENDS:
        return True
    if match.end() == len(text) and is_growing and mark[0] == ".":
        return False
    following = text[match.end() : match.end() + 2].lstrip()[:1]
    stop = mark.rstrip("\"')]}»”’」』）")
    if stop == ".":
        return not _is_abbreviated(text, match.start(), before_small=following.islower())
    if set(stop) <= {".", "…"} or len(stop) < len(mark):
        return not following.islower()
    return True


def _is_abbreviated(text: str, at: int, *, before_small: bool) -> bool:
    """Say whether the full stop at that offset belongs to the word before it."""
    if at + 1 >= len(text):
        return False
    found = _LAST_WORD.search(text[max(0, at - _LONGEST_ABBREVIATION) : at])
    word = found[1] if found else ""
    if word.isdigit():
        return len(word) <= 2
    if _INITIALS.fullmatch(word):
        return True
    if found and found[0] != word:  # "5 m", "12 V": a unit
        return before_small
    if len(word) == 1 and word.isalpha():
        return True
    return word.lower() in _ABBREVIATIONS or (before_small and len(word) <= _SHORT_WORD)


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
        ends = {at[end] for end in sentence_ends(line) if end in at}
        self._sentences = sorted(ends | {len(self.pieces)})
        self._unbroken = [
            (at[match.start()], at[match.end()])
            for match in _UNBROKEN.finditer(line)
            if match.start() in at and match.end() in at and smallest.holds(match.group())
        ]
        self._unbroken_ends = [last for _, last in self._unbroken]
        inside = {index for first, last in self._unbroken for index in range(first + 1, last)}
        clauses = {at[m.end()] for m in _CLAUSE_END.finditer(line) if m.end() in at}
        words = {index for index, piece in enumerate(self.pieces) if piece == " "} - inside
        # A number is best kept with what it counts.
        numbers = {i for i in words if i and _NUMBER_END.search(self.pieces[i - 1])}
        firm = words - numbers.difference(self._unbroken_ends)
        self._places = (
            (clauses - inside | ends, CLAUSE_FILL),
            (firm, WORD_FILL),
            (words, WORD_FILL),
        )

    def pack(self, room: _Room, total: int, fill: float) -> tuple[list[tuple[int, int]], int]:
        """Fill up to `total` parts; `fill` is how full one is before a long sentence waits."""
        spans: list[tuple[int, int]] = []
        start = 0
        while start < len(self.pieces) and len(spans) < total:
            end = self._cut(start, room, room, fill)
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
        """Fill all parts with as many whole sentences as can be, and say that something is left."""
        room = limit.less(_mark(total, total))
        packed = [self._filled(room, total, fill) for fill in (SENTENCE_FILL, 1.0)]
        spans = max(packed, key=lambda spans: bisect_right(self._sentences, spans[-1][1]))
        *parts, last = self.marked(spans)
        end = spans[-1][1]
        is_whole = end in self._sentences
        hinted = last + ("" if is_whole else ELLIPSIS) + MORE_HINT
        last = hinted if limit.holds(hinted) else last + ELLIPSIS
        # Too little room would hold nothing but the ellipsis, for ever.
        lead = "" if is_whole or room.size < 3 * MIN_LIMIT else ELLIPSIS
        return Split((*parts, last), self._rest(self._skip_space(end), lead))

    def _filled(self, room: _Room, total: int, fill: float) -> list[tuple[int, int]]:
        spans, start = self.pack(room, total - 1, fill)
        return [*spans, (start, self._cut(start, room.less(ELLIPSIS), room, fill))]

    def _rest(self, start: int, lead: str) -> str:
        text = lead + self._text(start, len(self.pieces))
        if utf8_len(text) <= MAX_REST_BYTES:
            return text
        room = _Room(MAX_REST_BYTES, MAX_REST_BYTES).less(lead + DROPPED_NOTE)
        end = self._cut(start, room, room, SENTENCE_FILL)
        return lead + self._text(start, end) + DROPPED_NOTE

    def _text(self, start: int, end: int) -> str:
        return "".join(self.pieces[start:end])

    def _skip_space(self, index: int) -> int:
        return index + (index < len(self.pieces) and self.pieces[index] == " ")

    def _cut(self, start: int, room: _Room, full: _Room, fill: float) -> int:
        """Return the best index to end a part that begins at `start`; always beyond it.

        `full` is what a part can hold at best: a sentence that fits there is not begun here.
        """
        end = self._last_fitting(start, room)
        if end == len(self.pieces):
            return end
        end = self._before_unbroken(start, end)
        sentence = self._sentence_cut(start, end, full, fill)
        if sentence:
            return sentence
        span = end - start
        for places, share in self._places:
            for index in range(end, start + max(0, int(span * share) - 1), -1):
                if index in places:
                    return index
        return end

    def _sentence_cut(self, start: int, end: int, full: _Room, fill: float) -> int:
        """Return the last sentence end up to `end`, 0 where the next sentence is to begin here."""
        number = bisect_right(self._sentences, end)
        last = self._sentences[number - 1] if number else 0
        if last <= start:
            return 0
        following = self._sentences[min(number, len(self._sentences) - 1)]
        begins = self._skip_space(last)
        is_kept_whole = self._fits(begins, following, full)
        return last if is_kept_whole or last - start >= fill * (end - start) else 0

    def _before_unbroken(self, start: int, end: int) -> int:
        number = bisect_right(self._unbroken_ends, end)
        if number < len(self._unbroken):
            first, last = self._unbroken[number]
            if start < first < end < last:
                return first - (self.pieces[first - 1] == " " and first - 1 > start)
        return end

    def _fits(self, start: int, end: int, room: _Room) -> bool:
        size = self._bytes[end] - self._bytes[start]
        return size <= room.size and self._chars[end] - self._chars[start] <= room.chars

    def _last_fitting(self, start: int, room: _Room) -> int:
        by_size = bisect_right(self._bytes, self._bytes[start] + room.size) - 1
        by_chars = bisect_right(self._chars, self._chars[start] + room.chars) - 1
        return max(start + 1, min(by_size, by_chars))


def _pieces(line: str, smallest: _Room) -> list[str]:
    """Graphemes, except that one which no part can hold falls into its code points."""
    pieces: list[str] = []
    for grapheme in _GRAPHEME.findall(line):
        pieces.extend([grapheme] if smallest.holds(grapheme) else grapheme)
    return pieces
