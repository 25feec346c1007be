from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import TypedDict

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from meshllm.cleaning import clean_model_text
from meshllm.text import (
    DROPPED_NOTE,
    ELLIPSIS,
    MAX_REST_BYTES,
    MORE_HINT,
    cut_when_full,
    is_part_marked,
    one_line,
    safe_for_terminal,
    sentence_ends,
    split_reply,
    unmarked,
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


def bare_parts(parts: tuple[str, ...], rest: str) -> list[str]:
    bare = [MARK.sub("", part, count=1) if len(parts) > 1 else part for part in parts]
    if rest:
        bare[-1] = bare[-1].removesuffix(MORE_HINT).removesuffix(ELLIPSIS)
    return bare


def packed(text: str) -> str:
    return "".join(one_line(text).split())


def rejoined(parts: tuple[str, ...], rest: str, text: str) -> str:
    joined = packed("".join(bare_parts(parts, rest)))
    # A mark in front of a rest says that a sentence was cut; one at the end of the part before it
    # was taken off above, and may have been the text's own.
    for tail, lead in product(("", ELLIPSIS), ("", ELLIPSIS)):
        whole = joined + tail + packed(rest.removeprefix(lead))
        if whole == packed(text):
            return whole
    return joined + packed(rest)


def sentences(text: str) -> list[str]:
    ends = [0, *sentence_ends(text)]
    ends += [len(text)] if ends[-1] < len(text) else []
    return [text[a:b].strip() for a, b in pairwise(ends)]


@given(text=texts, size=limits, chars=limits | st.none(), most=st.integers(1, 12))
def test_every_part_fits_both_limits_and_the_parts_join_to_the_text(
    text: str, size: int, chars: int | None, most: int
) -> None:
    split = split_reply(text, limit_bytes=size, limit_chars=chars, max_parts=most)

    assert all(len(part.encode()) <= size for part in split.parts)
    assert all(len(part) <= (chars or size) for part in split.parts)
    assert len(split.parts) <= most
    assert rejoined(split.parts, split.rest, text) == packed(text)
    assert all(bare.strip() for bare in bare_parts(split.parts, split.rest))


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
    at = 0
    for part in bare_parts(split.parts, split.rest):
        at += len(packed(part))
        assert at in ends


@given(text=texts, size=limits, most=st.integers(1, 6))
def test_a_rest_is_announced_and_goes_on_where_the_last_part_ends(
    text: str, size: int, most: int
) -> None:
    split = split_reply(text, limit_bytes=size, max_parts=most)

    if split.rest:
        assert split.parts[-1].endswith((ELLIPSIS, MORE_HINT))
        # A space that carries a combining mark is a character of its own and stays.
        assert split.rest.strip() == one_line(split.rest)
        assert one_line(text).endswith((split.rest, split.rest.removeprefix(ELLIPSIS)))
    else:
        assert not any(part.endswith(MORE_HINT) for part in split.parts)


@given(text=texts, size=limits, most=st.integers(1, 4))
def test_more_gives_the_whole_text_and_comes_to_an_end(text: str, size: int, most: int) -> None:
    heard, rest = "", text
    for _ in range(2 * len(text) + 2):
        split = split_reply(rest, limit_bytes=size, max_parts=most)
        heard += "".join(bare_parts(split.parts, split.rest))
        rest = split.rest
        if not rest:
            break

    assert rest == ""
    assert packed(heard).replace(ELLIPSIS, "") == packed(text).replace(ELLIPSIS, "")


sizes = st.lists(st.integers(2, 30), min_size=1, max_size=30)


@given(words=st.lists(sizes, min_size=1, max_size=12), size=st.integers(60, 200))
def test_a_sentence_that_a_part_can_hold_is_never_cut(words: list[list[int]], size: int) -> None:
    text = " ".join("X" + " ".join("a" * n for n in sentence) + "b." for sentence in words)
    held = [s for s in sentences(text) if len(s) <= size - len("(1/2) ") - utf8_len(ELLIPSIS)]

    split = split_reply(text, limit_bytes=size, max_parts=2)

    pieces = [*bare_parts(split.parts, split.rest), split.rest]
    assert len(split.rest) <= MAX_REST_BYTES
    if DROPPED_NOTE not in split.rest:
        assert [s for s in held if not any(s in piece for piece in pieces)] == []


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


@pytest.mark.parametrize(
    "whole",
    [
        "https://example.org/a_(b)/c?d=e#f",
        "www.example.org/tents",
        "mailto:ann@example.org",
        "48.85837, 2.29448",
        "N 48.85837° E 2.29448°",
        "48° 51' 30\" N, 2° 17' 40\" E",
        "31U DQ 48251 11932",
        "+380 44 123 45 67",
        "(555) 123-4567",
        "146.520 MHz",
        "14.230,5 kHz",
        "446,00625 МГц",
        "12 - 14 V",
        "10:30 am",
    ],
)
def test_what_is_read_as_one_is_not_torn(whole: str) -> None:
    for padding in range(5, 60):
        text = "Look " + "a" * padding + f" {whole} and then go on for a good while more"
        split = split_reply(text, limit_bytes=60, max_parts=3)

        assert any(whole in piece for piece in (*split.parts, split.rest)), (padding, split)


def test_an_address_in_writing_without_spaces_is_not_torn() -> None:
    url = "https://example.org/shui"
    for padding in range(2, 16):
        split = split_reply("水" * padding + url + "水" * 20, limit_bytes=60, max_parts=4)

        assert any(url in part for part in split.parts), (padding, split)


def test_a_number_stays_with_what_it_counts() -> None:
    parts = split_reply(
        "Stir it well and wait for 30 minutes before you drink", limit_bytes=40
    ).parts

    assert parts == ("(1/2) Stir it well and wait for", "(2/2) 30 minutes before you drink")


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
        lines.append(f"limit {size}, at most {most}:")
        rest = text
        while rest:
            split = split_reply(rest, limit_bytes=size, max_parts=most)
            lines.extend(f"  {utf8_len(part):3} {part}" for part in split.parts)
            rest = split.rest
            lines.append(f"  rest {rest!r}" if rest else "  all")

    golden(f"text/{language}.out", "\n".join(lines) + "\n")


def test_golden_languages_are_all_there() -> None:
    languages = ["arabic", "chinese", "emoji", "english", "hindi", "spanish", "ukrainian"]

    expected = [*languages, *(f"{language}-long" for language in languages), "markdown", "mixed"]
    assert sorted(expected) == LANGUAGES


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


def test_a_sentence_longer_than_a_part_fills_the_part_before_it() -> None:
    text = "Stay. The water of the river is safe only after a minute of boiling"

    assert split_reply(text, limit_bytes=42).parts == (
        "(1/2) Stay. The water of the river is safe",
        "(2/2) only after a minute of boiling",
    )


def test_a_character_longer_than_a_part_is_cut_between_code_points() -> None:
    family = "👨‍👩‍👧‍👦"

    assert utf8_len(family) == 25
    parts = split_reply(family, limit_bytes=20, max_parts=9).parts
    assert "".join(map(unmarked, parts)) == family


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


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It works. It really does! Does it? Yes.", 4),
        ("Ask Dr. Smith or Mr. J. Doe, approx. 5 km north of St. Paul.", 1),
        ("Use 12.5 V, e.g. a car battery, i.e. not 24.0 V. Then wait.", 2),
        ("Version 2.7.11 is out. See https://e.org/a?b=c.d for it.", 2),
        ("Well... it depends. Wait… then go. Done...", 3),
        ("Steps: 1. Boil. 2. Cool.", 2),
        ("It was 1999. Nobody knew.", 2),
        ("The U.S. team left at 8 a.m. today. It rained.", 2),
        ('He said "Stop!" and left. "Why?" Nobody knew.', 3),
        ("¿Qué hora es? Son las 3. ¡Vamos! El Sr. Gómez espera.", 3),
        ("Див. рис. 5 на стор. 12. Це вул. Хрещатик! Так?", 2),
        ("पानी उबालें। फिर रुकें॥ ठीक है?", 3),
        ("اغل الماء. هل هو عكر؟ نعم۔", 3),
        ("请烧开水。真的吗？是！好。「对。」", 5),
        ("Τι ώρα είναι; Είναι τρεις.", 2),
        ("Արդեն ուշ է։ Գնանք։", 2),
        ("ውሃ አፍላ። ከዚያ ጠብቅ።", 2),
        ("ရေကျိုပါ။ စောင့်ပါ။", 2),
        ("no end here", 0),
    ],
)
def test_sentence_ends_of_many_scripts_are_known(text: str, count: int) -> None:
    assert len(list(sentence_ends(text))) == count


@pytest.mark.parametrize("tail", ["3.", "www.example.", "146."])
def test_a_stop_at_the_end_of_a_growing_text_may_be_inside_a_number_or_an_address(
    tail: str,
) -> None:
    text = "The first sentence is long enough. Then it is " + tail

    assert cut_when_full(text, len(text)) == "The first sentence is long enough."


def test_a_growing_text_is_cut_within_its_budget_where_a_sentence_ends_there() -> None:
    text = "One sentence is here to stay. Another one goes over the budget. And so on"

    assert cut_when_full(text, 55) == "One sentence is here to stay."


def test_a_cut_at_a_sentence_end_has_a_hint_and_no_ellipsis() -> None:
    text = "Boil the water. Let it stand. Filter it. Drink it cold. Keep it closed."

    split = split_reply(text, limit_bytes=40, max_parts=1)

    assert split.parts == ("Boil the water. Let it stand. (more?)",)
    assert split.rest == "Filter it. Drink it cold. Keep it closed."


def test_a_cut_sentence_says_so_on_both_sides() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"

    split = split_reply(text, limit_bytes=50, max_parts=1)

    assert split.parts == ("one two three four five six seven eight nine…",)
    assert split.rest == "…ten eleven twelve thirteen"


def test_what_more_can_give_is_bounded_and_says_so_at_its_end() -> None:
    text = " ".join(f"Sentence number {n} is about tent {n}." for n in range(3000))

    rest = split_reply(text).rest

    assert MAX_REST_BYTES - 100 < utf8_len(rest) <= MAX_REST_BYTES
    assert rest.endswith("." + DROPPED_NOTE)
    while rest:
        split = split_reply(rest)
        rest = split.rest
    assert split.parts[-1].endswith(DROPPED_NOTE)


@pytest.mark.parametrize(
    "unit", ["a", "a ", "a. ", "。", "1 ", "+1-", "1°", "https://", "👨\u200d", "\u0301"]
)
def test_splitting_a_huge_text_takes_no_longer_than_reading_it(unit: str) -> None:
    split = split_reply(unit * (1_000_000 // len(unit)), max_parts=9)

    assert len(split.parts) == 9


def test_the_mark_and_the_hint_come_off_a_part() -> None:
    said = ["(1/2) Boil it.", "(2/2) Wait… (more?)", "Wait. (more?)", "(2/2) Wait…", "(1/2 cup) ok"]

    assert [unmarked(part) for part in said] == [
        "Boil it.", "Wait", "Wait.", "Wait", "(1/2 cup) ok",
    ]  # fmt: skip
