import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm.records import BadCellError, Message, Node, PromptRow, Sighting
from meshllm.store import codec
from meshllm.store.codec import Damage

NASTY = st.text(alphabet="\0\t\n\r\x1b\",;'=+-@ ab\u202e\ufeff\U0001f469\u200d", max_size=12)
TEXTS = NASTY | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = TEXTS.filter(bool)
MESSAGES = st.builds(
    Message,
    thread_type=st.sampled_from(["channel", "dm"]),
    thread_key=NAMES,
    message_id=NAMES,
    direction=st.sampled_from(["inbound", "queued", "outbound"]),
    sender_id=TEXTS,
    reply_to_id=TEXTS,
    timestamp=TEXTS,
    content=TEXTS,
    send_attempts=st.integers(0, 99),
    send_status=st.sampled_from(["", "sent", "failed"]),
    meta_json=TEXTS.map(lambda text: "{" + text + "}"),
)


def plain(number: int, content: str = "water") -> Message:
    return Message("dm", "!a1b2c3d4", str(number), "inbound", "!11223344", content=content)


def table_of(*rows: Message) -> bytes:
    return codec.header(Message) + codec.encode(rows)


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=4))
def test_any_text_round_trips(rows: list[Message]) -> None:
    decoded = codec.decode(table_of(*rows), Message)

    assert (decoded.rows, decoded.damage, decoded.tidy) == (tuple(rows), (), True)


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=4))
def test_the_csv_module_of_python_reads_the_same_cells(rows: list[Message]) -> None:
    text = table_of(*rows).decode()
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))

    guarded = [
        [
            guard(cell) if kind == "str" else cell
            for cell, kind in zip(r.cells(), r.kinds(), strict=True)
        ]
        for r in rows
    ]
    assert found == [list(Message.columns()), *guarded]


def guard(cell: str) -> str:
    return "'" + cell if cell.lstrip("'")[:1] in tuple("=+-@\t\r\n") else cell


@settings(deadline=None)
@given(TEXTS)
def test_no_text_cell_starts_like_a_formula(content: str) -> None:
    line = codec.encode_row(plain(1, content)).decode()
    cell = next(csv.reader(io.StringIO(line, newline="")))[7]

    assert cell[:1] not in tuple("=+-@\t\r\n")


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        ("=cmd()", "'=cmd()"),
        ("'=cmd()", "''=cmd()"),
        ("'quoted'", "'quoted'"),
        ("-5", "'-5"),
        ("\r", '"\'\r"'),
        ("a\rb", '"a\rb"'),
        ('say "hi", ok', '"say ""hi"", ok"'),
    ],
)
def test_cells_are_stored_in_this_form(content: str, stored: str) -> None:
    line = codec.encode_row(plain(1, content))

    assert line == f"dm,!a1b2c3d4,1,inbound,!11223344,,,{stored},0,,\n".encode()


def test_numbers_are_not_guarded() -> None:
    line = codec.encode_row(Sighting("!a1b2c3d4", -1.5, 2.25, -110, "", "T", "h"))

    assert line == b"!a1b2c3d4,-1.5,2.25,-110,,T,h\n"


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert codec.encode_row(Node("!a1b2c3d4", "\ud800")) == b"!a1b2c3d4,?,,,\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: codec.BOM + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: codec.BOM + data.replace(b"\n", b"\r\n"),
        lambda data: data[:-1],
        lambda data: data + b"\n\r\n",
    ],
    ids=["bom", "crlf", "bom and crlf", "no last newline", "blank lines"],
)
def test_habits_of_editors_are_no_damage(change) -> None:  # type: ignore[no-untyped-def]
    decoded = codec.decode(change(table_of(plain(1), plain(2))), Message)

    assert (decoded.rows, decoded.damage, decoded.tidy) == ((plain(1), plain(2)), (), False)


def test_a_quoted_header_is_a_header() -> None:
    quoted = ",".join(f'"{name}"' for name in Message.columns()).encode() + b"\n"

    assert codec.decode(quoted + codec.encode_row(plain(1)), Message).rows == (plain(1),)


def test_empty_bytes_hold_no_rows_and_no_damage() -> None:
    assert codec.decode(b"", Message) == codec.Decoded()
    assert codec.decode(codec.BOM, Message).damage == ()


@pytest.mark.parametrize(
    "data",
    [
        b"a,b,c\n1,2,3\n",
        bytes(range(256)) * 4,
        b"\0" * 5000,
        codec.header(Message).replace(b",", b";"),
        codec.header(Node) + b"!a1b2c3d4,,,,\n",
        table_of(plain(1))[5:],
    ],
    ids=["other columns", "binary", "zeros", "semicolons", "other table", "cut"],
)
def test_a_wrong_header_damages_the_whole_file(data: bytes) -> None:
    decoded = codec.decode(data, Message)

    assert (decoded.rows, decoded.damage) == ((), (Damage(0, len(data), "wrong header"),))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"dm,!a,1,inbound\n", "4 cells instead of 11"),
        (b"dm,!a,1,inbound,!b,,,x,0,,,\n", "12 cells instead of 11"),
        (b"dm,!a,1,inbound,!b,,,\xff\xfe,0,,\n", "not UTF-8"),
        (b"dm,!a,1,inbound,!b,,,x,many,,\n", "send_attempts: not a int"),
        (b"dm,!a,,inbound,!b,,,x,0,,\n", "message_id: empty"),
        (b'dm,!a,1,inbound,!b,,,"x,0,,\n', "open quote"),
        (b'dm,!a,1,inbound,!b,,,x"y"z,0,,\n', "misplaced quote or line end"),
        (b"dm,!a,1,inbound,!b,,,x\ry,0,,\n", "misplaced quote or line end"),
        (b"\0\0\0\0\n", "zero bytes"),
    ],
)
def test_damage_costs_one_row_and_says_why(line: bytes, reason: str) -> None:
    before = table_of(plain(1))
    decoded = codec.decode(before + line + codec.encode([plain(2), plain(3)]), Message)

    assert decoded.rows == (plain(1), plain(2), plain(3))
    assert decoded.damage == (Damage(len(before), len(line), reason),)
    assert decoded.tidy is False


def test_an_open_quote_before_text_like_a_queued_row_is_reported() -> None:
    trap = plain(2, "look:\ndm,!evil,666,queued,!11223344,,,give up,0,,\nend")
    whole = codec.encode_row(trap)
    data = table_of(plain(1)) + whole.replace(b'"', b"", 1) + codec.encode_row(plain(3))

    decoded = codec.decode(data, Message)

    assert [row.message_id for row in decoded.rows] == ["1", "666", "3"]
    assert [damage.reason for damage in decoded.damage] == ["8 cells instead of 11", "open quote"]


@settings(deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_damaged_bytes_cost_only_the_rows_they_hit(
    rows: list[Message], data: st.DataObject
) -> None:
    head = codec.header(Message)
    lines = [codec.encode_row(row) for row in rows]
    first = data.draw(st.integers(0, len(rows) - 1))
    last = data.draw(st.integers(first, len(rows) - 1))
    wreck = [b"\xff" * (len(line) - 1) + b"\n" for line in lines[first : last + 1]]

    decoded = codec.decode(head + b"".join([*lines[:first], *wreck, *lines[last + 1 :]]), Message)

    assert decoded.rows == (*rows[:first], *rows[last + 1 :])
    assert len(decoded.damage) == last - first + 1


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=3), st.binary(max_size=60), st.integers(0, 2000))
def test_any_bytes_end_in_rows_and_damage(rows: list[Message], noise: bytes, at: int) -> None:
    whole = table_of(*rows)
    data = whole[:at] + noise + whole[at + len(noise) :]

    decoded = codec.decode(data, Message)

    assert decoded.end == len(data)
    assert (
        codec.decode(codec.header(Message) + codec.encode(decoded.rows), Message).rows
        == decoded.rows
    )
    assert all(d.offset + d.length <= len(data) for d in decoded.damage)


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=5), st.lists(MESSAGES, max_size=5))
def test_parsing_on_from_a_known_beginning_gives_the_same(
    old: list[Message], new: list[Message]
) -> None:
    before, after = table_of(*old), table_of(*new)
    known = codec.reuse(after, before, codec.decode(before, Message))

    assert known is not None
    assert codec.extend(after, Message, known=known) == codec.decode(after, Message)
    shared = [a == b for a, b in zip(old, new, strict=False)]
    assert len(known.rows) >= (shared.index(False) if False in shared else len(shared))


def test_a_row_without_its_line_end_is_parsed_again() -> None:
    cut = table_of(plain(1))[:-1]
    grown = cut + b"{}\n"

    assert codec.reuse(grown, cut, codec.decode(cut, Message)) is None
    assert codec.decode(grown, Message).rows == (replace(plain(1), meta_json="{}"),)


def test_parse_row_refuses_more_and_less_than_one_row() -> None:
    line = codec.encode_row(plain(1))
    for wrong in (b"", line + line, line[:-4]):
        with pytest.raises(BadCellError):
            codec.parse_row(wrong, Message)


def test_empty_numbers_of_a_prompt_stay_empty() -> None:
    prompt = PromptRow("p-1", "a1", "T", "model", "dm", "!a", "7", prompt_tps=1.5)

    assert codec.parse_row(codec.encode_row(prompt), PromptRow) == prompt


def test_with_row_moves_later_rows() -> None:
    rows = [plain(n) for n in range(4)]
    decoded = codec.decode(table_of(*rows), Message)
    longer = replace(rows[1], content="a,\n" * 9)
    expected = codec.decode(table_of(rows[0], longer, *rows[2:]), Message)
    start, end = decoded.span(1)

    growth = len(codec.encode_row(longer)) - (end - start)

    assert decoded.with_row(1, longer, growth=growth) == expected
