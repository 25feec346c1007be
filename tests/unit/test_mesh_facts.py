"""Which questions are about the mesh, and which figures of an answer the facts bear out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.agent.figures import invented
from meshllm.agent.meshfacts import is_about_mesh, named_people
from meshllm.commands.names import Person, label_of
from meshllm.records import Latest, Node

PEOPLE = tuple(
    Person(node, Latest(node.node_id), label_of(node))
    for node in (
        Node("!ada00001", "ADA", "Ada Lovelace"),
        Node("!b0b00001", "B2", "Bob"),
        Node("!d00d0001", "WATR", "Water Tower"),
        Node("!f0f00001", "FOX", "Fox"),
        Node("!e05e0001", "ROSE", "Rose Cottage"),
    )
)


def is_about(text: str) -> bool:
    return is_about_mesh(text, names=named_people(text, PEOPLE))


@pytest.mark.parametrize(
    "text",
    [
        "which node has the best signal?",
        "Which nodes are online and near me?",
        "how many nodes are online?",
        "how many nodes do you hear today",
        "how many stations are on the mesh?",
        "whose battery is lowest",
        "who has the lowest battery?",
        "who is closest to me?",
        "who is nearest?",
        "who else is online at this hour",
        "who can you hear tonight?",
        "is Ada's battery low?",
        "Is Ada or Bob closer, and who has the better signal? I mean by distance",
        "has Ada been heard today?",
        "when did Ada and Bob last come online",
        "how far is it from Ada to Bob, what distance",
        "did you hear Bob or ADA last",
        "is my signal good enough?",
        "Is Fox near?",
        "has the fox been seen today",
        "what is between me and Rose, is Rose far away?",
        "what is our mesh like now",
        "is the mesh busy",
    ],
)
def test_question_is_about_the_mesh(text: str) -> None:
    assert is_about(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "how do I boil water?",
        "who was president in 1990?",
        "who wrote the first program?",
        "who heard the first telegraph signal",
        "what battery is best for solar",
        "which battery is best for cold weather",
        "how do I charge a lead acid battery at 13.8 V",
        "my car battery is low, what do I do",
        "how many nodes can a mesh have",
        "how many hops does meshtastic allow",
        "what is a mesh network",
        "what are the best nodes for hiking today",
        "why is my signal weak",
        "how does signal strength fall with distance",
        "what is the range of a radio at 868 MHz",
        "build a radio from scrap today",
        "was Ada a good mathematician",
        "who is Ada",
        "what did Ada Lovelace write in 1843",
        "is water heavy",
        "how high is a water tower",
        "what time is it now",
        "is the nearest star 4 light years away",
        "who is the nearest doctor?",
        "who is closest to winning the race",
        "when do rose bushes flower last",
        "where does a fox sleep, and how low is its den",
        "can a fox hear a mouse under snow, and at what distance",
        "is rose hip tea best hot, and with how much sugar",
        "which gas station is near?",
        "are there any fire stations near here",
        "list all stations in London near the river",
    ],
)
def test_question_is_not_about_the_mesh(text: str) -> None:
    assert not is_about(text)


def test_names_are_found_as_whole_words_only() -> None:
    assert list(named_people("Is ADA's radio on, or lovelace's?", PEOPLE)) == ["ada"]
    assert list(named_people("Canada, adapter, water", PEOPLE)) == []
    assert list(named_people("!b0b00001 and ada lovelace", PEOPLE)) == ["ada", "b0b00001"]


FACTS = (
    "2 nodes heard in 24 h.\n"
    "ADA: heard 3 min ago; signal direct SNR 6.25, 3 min ago; battery 76 % (3.91 V), 2 h ago; "
    "position 2.5 km NE of you, 12 min ago.\n"
    "B2: heard 40 s ago; signal 2 hops, 40 s ago."
)


@pytest.mark.parametrize(
    "answer",
    [
        "Ada is near.",
        "ADA was heard 3 min ago.",
        "Ada has 76% left, that is 3.9 V.",
        "Ada has 76 percent left.",
        "Ada: SNR 6.25 dB.",
        "Ada: SNR +6.3",
        "Ada has an SNR of 6 dB.",
        "Ada is 2.5 km away, about 2500 m.",
        "Ada is 2,5 km away.",
        "Two of them: Ada and B2.",
        "There are 2 nodes online.",
        "Ada's battery level is 120 min old.",
        "B2 is 2 hops away and was heard 40 seconds ago.",
        "Ada hat ٧٦ %.",
        "Ada has \uff17\uff16 %.",
        "1. ADA, 3 min. 2. B2, 40 s. 3. Nobody 4. else",
        "You asked about channel 17.",
        "Three things: one, two.",
        "Ada has seventy-six percent.",
        "Ada, whose battery was read 1 h 60 min ago, is zero hops away.",
        "Ada was heard 3m ago, her battery two hours ago.",
        "Ada is 2 500 m or 2\u00bd km away.",
    ],
)
def test_figures_that_are_borne_out(answer: str) -> None:
    assert invented(answer, facts=FACTS, question="Ada on channel 17?", counts=2) == ()


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("Ada has 42 %.", ("42",)),
        ("Ada has 2 %.", ("2",)),
        ("Ada has 76 dB.", ("76",)),
        ("Ada is 25 km away.", ("25",)),
        ("Ada is 2.7 km away.", ("2.7",)),
        ("SNR 6.9 dB", ("6.9",)),
        ("SNR of 11.", ("11",)),
        ("There are 7 nodes.", ("7",)),
        ("There are seven nodes.", ("seven",)),
        ("Heard at 17:55.", ("17:55",)),
        ("Heard on 2024-05-17.", ("2024-05-17",)),
        ("Ada was heard an hour and 20 minutes ago.", ("80",)),
        ("Ada has forty-five percent.", ("45",)),
        ("Ada is 2 700 m away.", ("2700",)),
        ("B2 is 3 hops away.", ("3",)),
        ("Ask !deadbeef99.", ("99",)),
        ("Ask B7.", ("7",)),
        ("RSSI -97dBm", ("97",)),
        ("Ada hat ٤٢ %.", ("42",)),
        ("5. ADA", ("5",)),
        ("about 1,500 m", ("1,500",)),
        ("version 2.7.15", ("2.7.15",)),
    ],
)
def test_figures_that_nobody_gave(answer: str, wanted: tuple[str, ...]) -> None:
    assert invented(answer, facts=FACTS, question="Ada?", counts=2) == wanted


def test_moments_that_were_told_are_borne_out_whole() -> None:
    question = 'Ada? Data: {"time":"2024-05-17 08:09 UTC"}'

    assert invented("At 8:09 on 2024-05-17.", facts=FACTS, question=question) == ()
    assert invented("At 18:09, 8 nodes.", facts=FACTS, question=question) == ("18:09", "8")


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_answer_can_be_checked(answer: str, facts: str) -> None:
    invented(answer, facts=facts, question="")
    assert invented(facts, facts=facts, question="") == ()
