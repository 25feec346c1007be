"""Names, ids and places in any text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.site.known import Known
from meshllm.site.names import words
from meshllm.site.page import Block
from meshllm.site.pseudonyms import Pseudonyms
from meshllm.site.redaction import Redactor

PSEUDONYMS = Pseudonyms(b"k" * 32)
ALICE = PSEUDONYMS.node("a11ce001")


def redactor(*nodes: tuple[str, ...], plain: tuple[str, ...] = (), step: float = 0.1) -> Redactor:
    known = Known()
    for node in nodes:
        known.add(*node)
    return Redactor(known, PSEUDONYMS, area_degrees=step, plain_words=plain)


def redacted(text: str, *names: str) -> str:
    return redactor(("!a11ce001", *names)).text(text)


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("aAbBéßİñ🦊山ก 1_-'"),
    min_size=1,
    max_size=12,
).filter(lambda name: bool(words(name)))


@given(names=st.lists(NAMES, min_size=1, max_size=4), around=st.lists(st.text(max_size=8)))
def test_no_known_name_is_left_in_any_text(names: list[str], around: list[str]) -> None:
    own_words = {"librarian", "user", "assistant", "system"}
    names = [name for name in names if name.casefold() not in own_words]
    text = " ; ".join(part for pair in zip(names, [*around, *names], strict=False) for part in pair)

    left = re.sub(r"node-\w{6}|~[\d.]+", ";", redacted(text, *names))

    found = [word for _, _, word in words(left)]
    for name in names:
        wanted = [word for _, _, word in words(name)]
        places = range(len(found) - len(wanted) + 1)
        assert not any(found[at : at + len(wanted)] == wanted for at in places), (name, left)


@given(number=st.integers(1, 2**32 - 1), around=st.text(st.characters(categories=["L", "Z", "P"])))
def test_no_known_id_is_left_in_any_notation(number: int, around: str) -> None:
    digits = f"{number:08x}"
    one = redactor((f"!{digits}",))
    forms = (f"!{digits}", digits.upper(), f"0x{digits}", f"{number}", f"node_{digits}.csv")

    for form in forms:
        left = one.text(f"{around} {form} {around}").replace(PSEUDONYMS.node(digits), "")
        assert digits not in left.lower()
        assert not re.search(rf"(?<!\d){number}(?!\d)", left)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Ridge Runner", "ask ridgerunner, RIDGE-RUNNER or Ridge  Runner"),
        ("RidgeRunner", "ask ridge runner or Ridge_Runner"),
        ("José", "ask jose or JOSÉ"),
        ("山田", "今日は山田さんに聞く"),
        ("สมชาย", "ถามสมชายครับ"),
        ("Ольга", "спроси ольга, ОЛЬГА"),
        ("🦊", "ask 🦊🦊 now"),
        ('O\'Neil "Bo"', 'ask O\'Neil \\"Bo\\" now'),
        ("A\u200bda", "ask Ada"),
    ],
)
def test_a_name_is_found_however_it_is_written(name: str, text: str) -> None:
    left = redacted(text, name)

    assert ALICE in left
    assert not {word for _, _, word in words(name) if len(word) > 1} & {
        word for _, _, word in words(left.replace(ALICE, ""))
    }


def test_a_name_inside_another_word_is_no_name() -> None:
    assert redacted("already an algorithm, al.", "Al") == f"already an algorithm, {ALICE}."


def test_words_of_a_long_name_stand_for_it_unless_they_are_ordinary() -> None:
    left = redacted("is ada at the hill? ADA's hill. Ada Hill", "Ada Hill")

    assert left == f"is {ALICE} at the hill? {ALICE}'s hill. {ALICE}"


def test_of_two_people_of_one_name_neither_is_named() -> None:
    two = redactor(("!a11ce001", "Fox"), ("!b0b00001", "Fox"))

    assert two.text("fox") not in {"fox", ALICE, PSEUDONYMS.node("b0b00001")}


def test_speakers_and_data_of_a_prompt_are_known_by_their_place() -> None:
    """Also of nodes that no file knows any more."""
    block = Block(
        "user", '9999: hello\n\nData: {"time":"x","sender":{"id":"9999","short_name":"Z"}}'
    )

    left = redactor(("!a11ce001",)).turn(block, is_channel=True).text

    stranger = PSEUDONYMS.node("9999")
    assert left == (
        f'{stranger}: hello\n\nData: {{"time":"x","sender":{{"id":"{stranger}",'
        f'"short_name":"{stranger}"}}}}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "48.137430, 11.575490",
        "48.137430,11.575490",
        "48,13743; 11,57549",
        "48.13743 11.57549",
        "lat 48.137 lon 11.575",
        '{"latitude":48.13743,"longitude":11.57549}',
        "N48.1374 E11.5755",
        "48.137N 11.575E",
        "48.137° 11.575°",
        "-48.13743/-11.57549",
        "48°08'14.7\"N 11°34'31.8\"E",
        "48° 08′ 14.7″ N, 11° 34′ 31.8″ E",
        "N 48° 08.246 E 011° 34.529",
        "48 08 14.7 N 11 34 31.8 E",
        "4808.246N/01134.529E",
        "32U PU 91607 34760",
        "32UPU9160734760",
        "32U 691607 5334760",
        "8FWH4HPG+X5",
        "JN58sd25xx",
        "///filled.count.soap",
        "geo:48.13743,11.57549",
        "https://maps.app.goo.gl/abc137",
        "https://www.openstreetmap.org/#map=17/48.13743/11.57549",
        "osm.org/go/0JB137",
    ],
)
def test_positions_become_coarse_in_every_notation(text: str) -> None:
    left = redactor(("!a11ce001",)).text(f"I am at {text} now")

    for exact in ("137", "575", "14.7", "31.8", "8.246", "34.529", "607", "760", "4HPG", "soap"):
        assert exact not in left
    assert "JN58s" not in left
    assert left.startswith("I am at ")
    assert left.endswith(" now")


def test_a_position_is_rounded_to_the_grid_that_is_set() -> None:
    text = "48.137430, 11.575490"

    assert redactor(step=0.1).text(text) == "~48.1, ~11.6"
    assert redactor(step=1).text(text) == "~48, ~12"
    assert redactor(step=0.25).text(text) == "~48.25, ~11.50"


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01 12:00:05 and 2026-03-01T12:00:05Z",
        "Boil 1.5 litres for 10 minutes at 20.25 °C.",
        "SNR -7.25 dB, RSSI -101 dBm, 3 hops, 869.525 MHz",
        "Answer in at most 358 bytes.",
        "walk 1500 m, then 2300 m, turn 90° left at 12:30",
        "112 or 911; (1/2) 3/4 of 1000 people; H2O; 5 + 5",
        "the defaced facade",
    ],
)
def test_times_and_figures_are_left(text: str) -> None:
    assert redactor(("!a11ce001", "Ridge Runner")).text(text) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("write a.b+c@mail.example.org", "mail.example"),
        ("call +49 171 2345678", "2345678"),
        ("call (555) 123-4567", "123-4567"),
        ("call 555-1234", "1234"),
        ("call 0171/2345678", "2345678"),
        ("call 01712345678", "2345678"),
        ("mac 24:6F:28:A1:1C:E0", "A1:1C"),
        ("join https://meshtastic.org/e/#CgMSAQEoATAB", "CgMSAQ"),
        ("psk AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", "AQIDBA"),
    ],
)
def test_addresses_numbers_and_keys_are_masked(text: str, secret: str) -> None:
    left = redactor(("!b0b00001",)).text(text)

    assert secret not in left
    assert "[" in left


def test_the_tally_says_what_was_replaced() -> None:
    one = redactor(("!a11ce001", "Ada"))
    one.text("ada, Ada and !a11ce001")

    assert one.tally == {("name", "ada"): 1, ("name", "Ada"): 1, ("node id", "!a11ce001"): 1}
