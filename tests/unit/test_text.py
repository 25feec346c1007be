from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from meshllm.text import (
    ELLIPSIS,
    clean_model_text,
    cut_when_full,
    is_part_marked,
    one_line,
    safe_for_terminal,
    split_reply,
    strip_thinking,
    utf8_len,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "text"
LANGUAGES = sorted(path.stem for path in GOLDEN.glob("*.in"))


class Limits(TypedDict, total=False):
    limit_bytes: int
    limit_chars: int
    max_parts: int


MARK = regex.compile(r"\(\d{1,2}/\d{1,2}\) ")

ATOMS = (
    "a|B|9| |  |\n|. |! |é|e\u0301|я|ї|ش|لا|क्षि|。|水|👨\u200d👩\u200d👧\u200d👦|🇺🇦"
    '|👍🏽|\u0301|\u200d|…|؟ |। |\ud800|\r|"|=|,|https://example.org/a?b=c |www.x.org'
)
scripts = st.sampled_from(ATOMS.split("|"))
texts = st.lists(scripts | st.text(max_size=8), max_size=60).map("".join)
limits = st.integers(min_value=16, max_value=240)


def unmarked(parts: tuple[str, ...]) -> list[str]:
    return [MARK.sub("", part, count=1) if len(parts) > 1 else part for part in parts]


def packed(text: str) -> str:
    return "".join(one_line(text).split())


def rejoined(parts: tuple[str, ...], rest: str) -> str:
    bare = unmarked(parts)
    if rest:
        bare[-1] = bare[-1].removesuffix(ELLIPSIS)
    return packed("".join(bare) + rest)


@given(text=texts, size=limits, chars=limits | st.none(), most=st.integers(1, 12))
def test_every_part_fits_both_limits_and_the_parts_join_to_the_text(
    text: str, size: int, chars: int | None, most: int
) -> None:
    split = split_reply(text, limit_bytes=size, limit_chars=chars, max_parts=most)

    assert all(len(part.encode()) <= size for part in split.parts)
    assert all(len(part) <= (chars or size) for part in split.parts)
    assert len(split.parts) <= most
    assert rejoined(split.parts, split.rest) == packed(text)
    assert all(bare.strip() for bare in unmarked(split.parts))


@given(text=texts, size=limits, most=st.integers(2, 12))
def test_parts_are_numbered_when_there_are_several(text: str, size: int, most: int) -> None:
    parts = split_reply(text, limit_bytes=size, max_parts=most).parts

    if len(parts) > 1:
        marks = [part[: len(f"({n}/{len(parts)}) ")] for n, part in enumerate(parts, start=1)]
        assert marks == [f"({n}/{len(parts)}) " for n in range(1, len(parts) + 1)]


@given(text=texts, most=st.integers(1, 6))
def test_no_cut_falls_inside_a_grapheme(text: str, most: int) -> None:
    split = split_reply(text, limit_bytes=60, max_parts=most)
    line = one_line(text)
    graphemes = regex.findall(r"\X", line)
    if any(utf8_len(grapheme) > 60 - 8 - 3 for grapheme in graphemes):
        return

    ends = {0}
    for grapheme in graphemes:
        ends.add(max(ends) + len(packed(grapheme)))
    bare = unmarked(split.parts)
    if split.rest:
        bare[-1] = bare[-1].removesuffix(ELLIPSIS)
    at = 0
    for part in bare:
        at += len(packed(part))
        assert at in ends


@given(text=texts, size=limits, most=st.integers(1, 6))
def test_the_rest_goes_on_where_the_ellipsis_stands(text: str, size: int, most: int) -> None:
    split = split_reply(text, limit_bytes=size, max_parts=most)

    if split.rest:
        assert split.parts[-1].endswith(ELLIPSIS)
        # A space that carries a combining mark is a character of its own and stays.
        assert split.rest.strip() == one_line(split.rest)
        assert one_line(text).endswith(split.rest)


@given(
    before=st.text(alphabet="ab .", max_size=80),
    after=st.text(alphabet="ab .", max_size=80),
    tail=st.text(alphabet="xyz/?=.", max_size=30),
)
def test_a_web_address_is_whole_in_one_part_or_in_the_rest(
    before: str, after: str, tail: str
) -> None:
    url = f"https://e.org/{tail}0"
    split = split_reply(f"{before} {url} {after}", limit_bytes=80, max_parts=3)

    assert sum(url in piece for piece in (*split.parts, split.rest)) == 1


@given(st.text() | texts)
def test_cleaned_text_is_one_line_without_controls(text: str) -> None:
    cleaned = clean_model_text(text)

    assert cleaned == one_line(cleaned)
    assert not regex.search(r"[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069\ufeff]", cleaned)
    assert not is_part_marked(cleaned + " ")


@given(st.text() | texts)
def test_text_shown_on_a_terminal_has_no_effect_on_it(text: str) -> None:
    shown = safe_for_terminal(text)

    assert not regex.search(r"[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e]", shown)
    assert utf8_len(shown) == len(shown.encode())


@given(st.text() | texts, st.integers(1, 300))
def test_a_text_below_its_budget_is_never_cut(text: str, budget: int) -> None:
    kept = cut_when_full(text, budget)

    if utf8_len(text) < budget:
        assert kept is None
    if kept is not None:
        assert text.startswith(kept)
        assert utf8_len(kept) >= budget / 2
    elif utf8_len(text) >= budget * 1.25:
        pytest.fail("a text a quarter over its budget went on")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reply_in_this_language_is_cleaned_and_split_as_on_file(
    language: str, golden: Callable[[str, str], None]
) -> None:
    text = clean_model_text((GOLDEN / f"{language}.in").read_text(encoding="utf-8"))
    lines = [f"clean {utf8_len(text)}: {text}"]
    for size, most in ((200, 2), (120, 3), (60, 9)):
        split = split_reply(text, limit_bytes=size, max_parts=most)
        lines.append(f"limit {size}, at most {most}:")
        lines.extend(f"  {utf8_len(part):3} {part}" for part in split.parts)
        lines.append(f"  rest {split.rest!r}")

    golden(f"text/{language}.out", "\n".join(lines) + "\n")


def test_golden_languages_are_all_there() -> None:
    assert LANGUAGES == [
        "arabic", "chinese", "emoji", "english", "hindi", "markdown", "spanish", "ukrainian",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>The user asks.</think> It is 81.", " It is 81."),
        ("The user asks.\n</think>\nIt is 81.", "\nIt is 81."),
        ("It is 81.<think>Is it", "It is 81."),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<THINK>a</Think>b<thinking>c</thinking>", "b"),
        ("I think so.", "I think so."),
    ],
)
def test_reasoning_is_dropped_in_every_shape_it_comes_in(text: str, expected: str) -> None:
    assert strip_thinking(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Boil** the water for *one* minute.", "Boil the water for one minute."),
        ("## Water\n* boil\n+ wait\n1. drink", "Water - boil - wait 1. drink"),
        ("```sh\nls -l\n```\nlists `files`", "ls -l lists files"),
        ("See [the page](https://e.org/a_b_c).", "See the page https://e.org/a_b_c."),
        ("2 * 3 * 4 and snake_case_name stay", "2 * 3 * 4 and snake_case_name stay"),
        ("channel #1 and a - b stay", "channel #1 and a - b stay"),
        ("a\n---\n| x | y |\n|---|---|", "a | x | y |"),
        ('Librarian: "(1/2) Hello"', "Hello"),
        ("(1/2) (2/2) Assistant: «Hi»", "Hi"),
        ('"A" or "B"', '"A" or "B"'),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b2Jok\x07", "red ok"),
        ("a\u202eb\u200bc\ufeff", "abc"),
        ("👨‍👩‍👧 mother", "👨‍👩‍👧 mother"),
        ("می‌خواهم", "می‌خواهم"),
        ("\ud800", "\ufffd"),
        ("<th\x00ink>secret</think>Yes", "Yes"),
        (" \n\t ", ""),
    ],
)
def test_model_text_is_cleaned(text: str, expected: str) -> None:
    assert clean_model_text(text) == expected


def test_cleaning_a_long_hostile_text_takes_no_longer_than_its_length() -> None:
    for unit in ("*", "_", "`", "[", "[a](", "<", "<think>", "> ", "\x1b[", "~~", "("):
        clean_model_text(unit * (20_000 // len(unit)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\u202etxt\u2066", "\\u202etxt\\u2066"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("plain ї 👨‍👩‍👧", "plain ї 👨‍👩‍👧"),
    ],
)
def test_hostile_characters_are_shown_not_obeyed(text: str, expected: str) -> None:
    assert safe_for_terminal(text) == expected


def test_a_cut_prefers_the_sentence_end() -> None:
    split = split_reply("The battery is full. Two neighbours were heard today.", limit_bytes=40)

    assert split.parts == ("(1/2) The battery is full.", "(2/2) Two neighbours were heard today.")


def test_words_are_packed_tightly_when_sentences_would_need_more_parts() -> None:
    text = "Stay. The water of the river is safe only after a minute of boiling"

    assert split_reply(text, limit_bytes=42).parts == (
        "(1/2) Stay. The water of the river is safe",
        "(2/2) only after a minute of boiling",
    )


def test_a_character_longer_than_a_part_is_cut_between_code_points() -> None:
    family = "👨‍👩‍👧‍👦"

    assert utf8_len(family) == 25
    parts = split_reply(family, limit_bytes=20, max_parts=9).parts
    assert "".join(unmarked(parts)) == family


def test_a_text_that_fits_has_no_mark_and_an_empty_one_no_part() -> None:
    assert split_reply(" a \n b ").parts == ("a b",)
    assert split_reply(" \n ").parts == ()


@pytest.mark.parametrize("options", [{"limit_bytes": 15}, {"limit_chars": 9}, {"max_parts": 0}])
def test_limits_that_hold_nothing_are_refused(options: Limits) -> None:
    with pytest.raises(ValueError, match="limits too small"):
        split_reply("a", **options)


def test_a_part_mark_is_known_from_other_brackets() -> None:
    assert [is_part_marked(t) for t in ("(1/2) a", "(12/12) a", "(a) b", "1/2 a")] == [
        True, True, False, False,
    ]  # fmt: skip
