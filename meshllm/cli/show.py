"""Tables, lines and JSON on stdout. Lets no text from the mesh drive the terminal; decides nothing.

On a terminal: headings and states in colour (unless NO_COLOR is set), cells wrapped to the width.
In a pipe: no escape sequences at all, nothing cut. What is shown passes through `safe` here, so
callers hand over texts as they are.
"""

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TextIO

import regex
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshllm.text import safe_for_terminal

Row = Mapping[str, object]
Tone = Literal["", "good", "warn", "bad", "dim", "head"]

UNLIMITED: Final = 1_000_000  #: columns of what is no terminal: nothing is cut in a pipe
MIN_WRAPPED: Final = 16  #: narrower than this a wrapped column is no longer read
GAP: Final = 2  #: spaces between two columns
MAX_MARKS: Final = 4  #: combining marks on one letter; more paint over the lines around it
#: Moves of a terminal's cursor; a frame that is written over flickers less than a cleared screen.
_CLEAR: Final = "\x1b[2J\x1b[H"
_HOME: Final = "\x1b[H"
_TO_LINE_END: Final = "\x1b[K"
_TO_SCREEN_END: Final = "\x1b[J"
_STYLES: Final[Mapping[Tone, str]] = {
    "": "",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "dim": "dim",
    "head": "bold",
}
#: Joiners have a job in emoji and in Arabic and Indic writing; anywhere else they only hide.
_IDLE_JOINER: Final = regex.compile(
    r"(?<![\p{Extended_Pictographic}\ufe0f\U0001f3fb-\U0001f3ff])"
    r"(?<![\p{Arabic}\p{Syriac}\p{Devanagari}\p{Bengali}\p{Tamil}\p{Sinhala}\p{Malayalam}\p{M}])"
    r"[\u200c\u200d]"
)
#: What shows nothing: format characters but those of Arabic numbers, fillers, unknown ones.
_BLANK: Final = regex.compile(
    r"[[\p{Cf}--\p{Prepended_Concatenation_Mark}--[\u200c\u200d]]"
    r"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\p{Co}\p{Cn}]",
    regex.V1,
)
_PILE: Final = regex.compile(rf"(\p{{M}}{{{MAX_MARKS}}})(\p{{M}}+)")
_LONE_MARK: Final = regex.compile(r"(?:\A|(?<=\s))(?=\p{M})")


def safe(text: object, *, keep_lines: bool = False) -> str:
    r"""Show a text so that no character of it acts on the terminal or hides.

    Control characters, escape sequences, direction marks, line separators and invisible characters
    become escapes such as `\x1b` and `\u202e`. With `keep_lines` a line feed stays one.
    """
    if keep_lines:
        return "\n".join(safe(line) for line in str(text).split("\n"))
    shown = safe_for_terminal(str(text))
    for pattern in (_IDLE_JOINER, _BLANK):
        shown = pattern.sub(_code, shown)
    shown = _PILE.sub(lambda pile: f"{pile[1]}(+{len(pile[2])} marks)", shown)
    return str(_LONE_MARK.sub("\u25cc", shown))


def width(text: str) -> int:
    """Columns that a text takes on a terminal: 2 for wide characters, 0 for combining ones."""
    return cell_len(text)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; `show` and `tone` get the whole row."""

    key: str
    title: str = ""  #: the key in capitals when empty
    right: bool = False
    wrap: bool = False  #: takes what room is left and wraps; the others keep their width
    show: Callable[[Row], object] | None = None  #: what a person reads; the value when None
    tone: Callable[[Row], Tone] | None = None

    @property
    def heading(self) -> str:
        """What stands above the column."""
        return self.title or self.key.upper().replace("_", " ")

    def text(self, row: Row) -> str:
        """Safe text of a row's cell; empty for None."""
        value = self.show(row) if self.show else row.get(self.key)
        return "" if value is None else safe(value)

    def cell(self, row: Row) -> Text:
        """Cell of a row with its style."""
        return Text(self.text(row), style=_STYLES[self.tone(row)] if self.tone else "")


def table(
    rows: Iterable[Row],
    columns: Sequence[Column | str],
    *,
    as_json: bool = False,
    empty: str = "nothing to show",
    out: TextIO | None = None,
) -> None:
    """Write rows as a table, or with `as_json` as a JSON list with every key of each row.

    A terminal too narrow for the columns gets a block of lines for each row.
    """
    listed = list(rows)
    if as_json:
        emit_json(listed, out=out)
        return
    if not listed:
        say(empty, out=out)
        return
    wanted = [Column(c) if isinstance(c, str) else c for c in columns]
    console = console_on(out)
    if console.width < _least_width(listed, wanted):
        _blocks(console, listed, wanted)
    else:
        _grid(console, listed, wanted)


def say(text: str, tone: Tone = "", *, out: TextIO | None = None) -> None:
    """Write one text, its line feeds kept, wrapped by the terminal."""
    console = console_on(out)
    console.print(Text(safe(text, keep_lines=True), style=_STYLES[tone]), soft_wrap=True)


def facts(
    pairs: Iterable[tuple[str, object, Tone]], *, title: str = "", out: TextIO | None = None
) -> None:
    """Write names and values, one a line; values wrap beside their names. None is left out."""
    shown = [(name, value, tone) for name, value, tone in pairs if value is not None]
    if title:
        say(title, "head", out=out)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value, tone in shown:
        text = Text(safe(value, keep_lines=True), style=_STYLES[tone])
        grid.add_row(Text(f"  {safe(name)}", style="dim"), text)
    _print(console_on(out), grid)


def emit_json(value: object, *, out: TextIO | None = None) -> None:
    """Write a value as JSON; characters that act on a terminal stand as escapes in its texts."""
    stream = out or sys.stdout
    stream.write(json_text(value, indent=2) + "\n")


def json_text(value: object, *, indent: int | None = None) -> str:
    r"""Render JSON in which every unsafe character is written `\uXXXX`: same value, harmless."""
    separators = None if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, default=list)
    if text.isascii() and "\x7f" not in text:
        return text  # json has escaped the control characters
    return "".join(char if _is_plain(char) else json.dumps(char)[1:-1] for char in text)


class _Frame(io.StringIO):
    """Collects one screen; counts as a terminal where stdout is one."""

    def isatty(self) -> bool:
        return sys.stdout.isatty()


@contextmanager
def frame(*, is_first: bool = True) -> Iterator[TextIO]:
    """Collect output and show it in one piece, on a terminal in the place of the frame before.

    What does not fit the height of the terminal is left off, so that nothing scrolls.
    """
    out = _Frame()
    yield out
    text = out.getvalue()
    if is_terminal():
        lines = text.splitlines()[: max(1, shutil.get_terminal_size().lines - 1)]
        start = _CLEAR if is_first else _HOME
        text = start + "".join(f"{line}{_TO_LINE_END}\n" for line in lines) + _TO_SCREEN_END
    sys.stdout.write(text)
    sys.stdout.flush()


def console_on(out: TextIO | None = None) -> Console:
    """Return a console on stdout or another stream: plain and unlimited unless a terminal."""
    stream = out or sys.stdout
    is_seen = stream.isatty()
    return Console(
        file=stream,
        force_terminal=is_seen,
        width=None if is_seen else UNLIMITED,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


def is_terminal(out: TextIO | None = None) -> bool:
    """Say whether a person sees the output."""
    return (out or sys.stdout).isatty()


def _code(match: "regex.Match[str]") -> str:
    code = ord(match.group())
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _is_plain(char: str) -> bool:
    if char.isascii():
        return char == "\n" or " " <= char < "\x7f"
    return safe("a" + char) == "a" + char


def _least_width(rows: Sequence[Row], columns: Sequence[Column]) -> int:
    """Width below which a column that does not wrap would be cut."""
    gaps = GAP * (len(columns) - 1)
    return gaps + sum(
        min(MIN_WRAPPED, _widest(rows, column)) if column.wrap else _widest(rows, column)
        for column in columns
    )


def _widest(rows: Sequence[Row], column: Column) -> int:
    return max(width(column.heading), *(width(column.text(row)) for row in rows))


def _grid(console: Console, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(
            Text(column.heading),
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*(column.cell(row) for column in columns))
    _print(console, grid)


def _blocks(console: Console, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    for number, row in enumerate(rows):
        if number:
            console.print()
        for column in columns:
            cell = column.cell(row)
            if cell.plain:
                line = Text(f"{column.heading}: ", style="bold")
                _print(console, Text.assemble(line, cell, overflow="fold"))


def _print(console: Console, shown: Table | Text) -> None:
    """Print without the spaces that fill lines up."""
    with console.capture() as capture:
        console.print(shown)
    for line in capture.get().splitlines():
        console.file.write(line.rstrip() + "\n")
