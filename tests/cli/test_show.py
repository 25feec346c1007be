"""What reaches the terminal: nothing that drives it, in columns that stand under each other."""

import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.cli import show
from meshllm.cli.show import Column
from tests.cli.folder import Terminal

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp\u2066\u200b\u2028\r\x08\u00ad\ufeff"
HIDDEN = frozenset("\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


@given(st.text(), st.booleans())
def test_nothing_that_acts_or_hides_is_left(text: str, keep_lines: bool) -> None:
    shown = show.safe(text, keep_lines=keep_lines)

    kinds = {"Cc", "Cs", "Zl", "Zp", "Co"}
    left = [c for c in shown if unicodedata.category(c) in kinds or c in HIDDEN]
    assert [c for c in left if not (keep_lines and c == "\n")] == []


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists, max_leaves=5))
def test_json_is_the_same_value_and_drives_no_terminal(value: object) -> None:
    text = show.json_text(value, indent=2)

    assert json.loads(text) == value
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cs"}]
    assert not set(text) & HIDDEN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202eabc", "\\u202eabc"),
        ("a\u200db", "a\\u200db"),
        ("👩\u200d🚒", "👩\u200d🚒"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u3164", "\\u3164"),
        ("a" + "\u0301" * 50, "a" + "\u0301" * 4 + "(+46 marks)"),
        ("\u0301a", "\u25cc\u0301a"),
        ("naïve 日本 ñ", "naïve 日本 ñ"),
    ],
)
def test_shown_form(text: str, shown: str) -> None:
    assert show.safe(text) == shown


def test_columns_stand_under_each_other_with_wide_and_combining_characters() -> None:
    out = io.StringIO()
    names = ["日本語", "e\u0301a", "👩\u200d🚒", "plain", HOSTILE]

    show.table([{"name": n, "end": "|"} for n in names], ["name", "end"], out=out)

    places = {show.width(line.partition("|")[0]) for line in out.getvalue().splitlines()[1:]}
    assert len(places) == 1


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    rows = [{"id": "!a1b2c3d4", "text": "日本 word " * 20, "state": "queued"}]

    show.table(rows, ["id", "state", Column("text", wrap=True)], out=out)

    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert max(map(show.width, lines)) <= columns
    assert out.getvalue().count("日本") == 20


def test_pipe_gets_no_colours_and_no_cuts_even_when_colour_is_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()

    show.table([{"a": "x" * 500}], [Column("a", tone=lambda _: "bad")], out=out)

    assert out.getvalue() == f"A\n{'x' * 500}\n"


def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    painted, plain = Terminal(), Terminal()

    show.say("gone", "bad", out=painted)
    monkeypatch.setenv("NO_COLOR", "1")
    show.say("gone", "bad", out=plain)

    assert "31m" in painted.getvalue()
    assert "31m" not in plain.getvalue()
