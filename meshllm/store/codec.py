r"""Rows to bytes and back: quoting, the formula guard, a strict parser that finds damage. No I/O.

The form is UTF-8 without BOM, a header row, commas, `\n` line ends and RFC 4180 quoting. Reading
also takes a BOM, CRLF line ends, blank lines and a missing last newline; the result is then not
`tidy`. Everything else that is not exactly a row is damage, and parsing resumes after the next
newline.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final, Generic, TypeVar

from meshllm.records import BadCellError, Record

R = TypeVar("R", bound=Record)

BOM: Final = b"\xef\xbb\xbf"
_GUARDED: Final = re.compile(r"'*[=+\-@\t\r\n]")  #: a spreadsheet may run such a cell
_SUSPECT: Final = frozenset("'=+-@\t\r\n")  #: first characters for which the pattern is asked
_CELL: Final = rb'("[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+)'
_BLANK: Final = re.compile(rb"\r?\n|\r?\Z")


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a table that are no row."""

    offset: int
    length: int
    reason: str

    def __str__(self) -> str:
        """Say where it is, for a person with an editor."""
        return f"{self.reason}, {self.length} bytes from byte {self.offset} on"


@dataclass(frozen=True, slots=True)
class Decoded(Generic[R]):
    """What a table's bytes hold: rows, where each starts, where parsing ended, what is no row."""

    rows: tuple[R, ...] = ()
    starts: tuple[int, ...] = ()
    end: int = 0
    damage: tuple[Damage, ...] = ()
    tidy: bool = True

    def first(self, count: int) -> "Decoded[R]":
        """Keep the first `count` rows of a tidy table."""
        if count >= len(self.rows):
            return self
        return Decoded(self.rows[:count], self.starts[:count], self.starts[count])

    def span(self, index: int) -> tuple[int, int]:
        """Where the bytes of a row of a tidy table begin and end."""
        after = self.starts[index + 1] if index + 1 < len(self.starts) else self.end
        return self.starts[index], after

    def with_row(self, index: int, row: R, *, growth: int) -> "Decoded[R]":
        """Put another row, whose bytes are `growth` longer, in the place of one."""
        rows = (*self.rows[:index], row, *self.rows[index + 1 :])
        later = (start + growth for start in self.starts[index + 1 :])
        return Decoded(rows, (*self.starts[: index + 1], *later), self.end + growth)


def header(record_type: type[Record]) -> bytes:
    """Render the header line."""
    return ",".join(record_type.columns()).encode() + b"\n"


def encode(rows: Iterable[Record]) -> bytes:
    """Render rows, each with its line end. A lone surrogate becomes a question mark."""
    return b"".join(map(encode_row, rows))


def encode_row(row: Record) -> bytes:
    """Render one row."""
    cells = list(row.cells())
    for index in row.text_columns():
        cell = cells[index]
        if cell[:1] in _SUSPECT:
            cell = cells[index] = _guard(cell)
        # Four searches for a character cost half of one for a pattern, and this is every cell.
        if '"' in cell or "," in cell or "\n" in cell or "\r" in cell:
            cells[index] = '"' + cell.replace('"', '""') + '"'
    return (",".join(cells) + "\n").encode("utf-8", "replace")


def decode(data: bytes, record_type: type[R]) -> Decoded[R]:
    """Parse a whole table, header first."""
    if not data or data == BOM:
        return Decoded(end=len(data), tidy=not data)
    match = _pattern(len(record_type.columns())).match(data, len(BOM) * data.startswith(BOM))
    if match is None or not _is_header(match, record_type):
        return Decoded(end=len(data), damage=(Damage(0, len(data), "wrong header"),), tidy=False)
    tidy = match[0] == header(record_type) and match.start() == 0
    return extend(data, record_type, known=Decoded(end=match.end(), tidy=tidy))


def extend(data: bytes, record_type: type[R], *, known: Decoded[R]) -> Decoded[R]:
    """Parse rows from where `known`, a beginning of the same bytes that ends after a line, ends."""
    return _Parser(data, record_type).run(known)


def reuse(data: bytes, old: bytes, known: Decoded[R]) -> Decoded[R] | None:
    """Return the part of `known`, parsed from `old`, that `data` begins with; None for nothing.

    Ends before the first changed row. Finds it by halving, since most changes are near the end.
    """
    if not known.tidy or not known.end:
        return None
    if data.startswith(old):
        return known
    ends = (*known.starts, known.end)
    differs = bisect_left(ends, True, key=lambda end: not data.startswith(old[:end]))
    return known.first(differs - 1) if differs else None


def parse_row(line: bytes, record_type: type[R]) -> R:
    """Parse the bytes of one row. Raises BadCellError when they are anything else."""
    decoded = extend(line, record_type, known=Decoded())
    if decoded.damage or len(decoded.rows) != 1:
        raise BadCellError(decoded.damage[0].reason if decoded.damage else "not one row")
    return decoded.rows[0]


class _Parser(Generic[R]):
    """One pass over a table's bytes."""

    def __init__(self, data: bytes, record_type: type[R]) -> None:
        self._data = data
        self._type = record_type
        self._match = _pattern(len(record_type.columns())).match
        self._guarded = record_type.text_columns()
        self._rows: list[R] = []
        self._starts: list[int] = []
        self._damage: list[Damage] = []
        self._tidy = True

    def run(self, known: Decoded[R]) -> Decoded[R]:
        """Parse from where `known` ends."""
        position = known.end
        size = len(self._data)
        while position < size:
            match = self._match(self._data, position)
            reason = self._take(match) if match else ""
            if match is None or reason:
                position = self._skip(position, match, reason)
            else:
                position = match.end()
        return Decoded(
            (*known.rows, *self._rows),
            (*known.starts, *self._starts),
            size,
            (*known.damage, *self._damage),
            known.tidy and self._tidy and not self._damage,
        )

    def _take(self, match: re.Match[bytes]) -> str:
        """Add the row of a match; say why not when it cannot be one."""
        try:
            row = self._type.from_cells(self._cells(match))
        except UnicodeDecodeError:
            return "not UTF-8"
        except BadCellError as error:
            return str(error)
        self._rows.append(row)
        self._starts.append(match.start())
        if self._data[match.end() - 1] != 0x0A or self._data[match.end() - 2] == 0x0D:
            self._tidy = False
        return ""

    def _cells(self, match: re.Match[bytes]) -> tuple[str, ...]:
        cells = [
            raw.decode() if raw[:1] != b'"' else raw[1:-1].decode().replace('""', '"')
            for raw in match.groups()
        ]
        if b"'" in match[0]:
            for index in self._guarded:
                if cells[index][:1] == "'" and _GUARDED.match(cells[index]):
                    cells[index] = cells[index][1:]
        return tuple(cells)

    def _skip(self, position: int, match: re.Match[bytes] | None, reason: str) -> int:
        """Note what is no row and return where to go on: after the next newline."""
        blank = _BLANK.match(self._data, position)
        if blank:
            self._tidy = False
            return blank.end()
        newline = self._data.find(b"\n", position)
        end = len(self._data) if newline < 0 else newline + 1
        if match is None:
            reason = _reason(self._data[position:end], len(self._type.columns()))
        self._damage.append(Damage(position, end - position, reason))
        return end


def _reason(line: bytes, columns: int) -> str:
    """Say why a line is no record, as well as it can be told."""
    if line.count(b'"') % 2:
        return "open quote"
    text = line.rstrip(b"\r\n")
    if not text.strip(b"\0"):
        return "zero bytes"
    if b'"' not in text and b"\r" not in text:
        return f"{text.count(b',') + 1} cells instead of {columns}"
    return "misplaced quote or line end"


def _is_header(match: re.Match[bytes], record_type: type[Record]) -> bool:
    names = tuple(cell.strip(b'"').decode("ascii", "replace") for cell in match.groups())
    return names == record_type.columns()


def _guard(cell: str) -> str:
    return "'" + cell if _GUARDED.match(cell) else cell


@cache
def _pattern(columns: int) -> re.Pattern[bytes]:
    """Match one whole record. Possessive quantifiers keep a failed match linear."""
    return re.compile(b",".join([_CELL] * columns) + rb"(?:\r?\n|\r?\Z)")
