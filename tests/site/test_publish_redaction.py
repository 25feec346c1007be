"""Names, ids and places in any text."""

import re
import unicodedata

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
    pairs = tuple(digits[at : at + 2] for at in range(0, 8, 2))

    for form in forms:
        left = one.text(f"{around} {form} {around}").replace(PSEUDONYMS.node(digits), "")
        assert digits not in left.lower()
        assert not re.search(rf"(?<!\d){number}(?!\d)", left)
    for joint in (":", " ", "-", "\u200b"):
        assert PSEUDONYMS.node(digits) in one.text(joint.join(pairs))
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in digits)
    assert PSEUDONYMS.node(digits) in one.text(f"id {wide}!")


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
        ("Zora", "ask Zo\u2066ra, Zo\u202era or Z\U000e0061ora"),
        (
            "Zora",
            "ask Z\u043era, \U0001f149\U0001f13e\U0001f141\U0001f130 or \u24e9\u24de\u24e1\u24d0",
        ),
        ("\u0410lice", "ask alice"),
        ("Bj\u00f8rn", "ask bjorn"),
        ("I\u015f\u0131k", "ask ISIK"),
        ("\u0645\u062d\u0645\u062f", "\u0645\u062d\u0640\u0640\u0645\u062f"),
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
        "48.13\u200b743, 11.575\u206049",
        "48\u066b13743 11\u066b57549",
        "\uff14\uff18\uff0e\uff11\uff13\uff17\uff14\uff0c\uff11\uff11\uff0e\uff15\uff17\uff15\uff14",
        "48.137,\n11.575",
        "x=48.137 y=11.575",
        "48.137 and 11.575",
        "latitude is 48.137, longitude is 11.575",
        "\u0448\u0438\u0440\u043e\u0442\u0430 48.137",
        "\u0434\u043e\u043b\u0433\u043e\u0442\u0430 11.575",
        "https://maps.app.goo.gl/abc137",
        "https://www.openstreetmap.org/#map=17/48.13743/11.57549",
        "osm.org/go/0JB137",
    ],
)
def test_positions_become_coarse_in_every_notation(text: str) -> None:
    left = redactor(("!a11ce001",)).text(f"I am at {text} now")

    left = unicodedata.normalize("NFKC", left)
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
        ("join https://meshtastic.org/e#CgMSAQEoATAB", "CgMSAQ"),
        ("join meshtastic://e/#CgMSAQEoATAB", "CgMSAQ"),
        ("torn CgMSAQEoATABOAFAA0gBUBto", "CgMSAQ"),
        ("psk d4f1bb3a20290759f0bcffabcf4e6901", "bb3a"),
        ("psk 0x" + "d4f1bb3a20290759f0bcffabcf4e6901" * 2, "bb3a"),
        ("psk 1PG7OiApB1nwvP+rz05pAQ", "ApB1"),
        ("call +49\u200b171\u200b2345678", "171"),
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


def test_a_name_in_mesh_facts_is_known_after_its_node_took_another() -> None:
    known = Known()
    page = (
        "<pre>who is near?\n\nData: {}\n\nMesh facts (data):\n2 nodes heard in 24 h.\n"
        "OWL&amp; (owlery) (the asker): 2 hops.\nElk: direct; heard 3 min ago.\n\n"
        "Answer in at most 200 bytes.</pre>\n"
    )

    known.add_page(page)

    assert {"OWL&", "Elk"} <= known.owners.keys()
    left = Redactor(known, PSEUDONYMS, area_degrees=0.1).text("owl& met elk; answer both")
    assert "owl" not in left
    assert "elk" not in left
    assert left.endswith("; answer both")
