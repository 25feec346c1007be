"""What a person is sent when the model's answer is none, or is longer than an answer may be."""

import pytest

from meshllm.agent.prompt import system_text
from meshllm.agent.reply import LEAKED, MAX_TEXT_BYTES, NO_ANSWER, budget_bytes, compose
from meshllm.llm.base import ChatResult, Outcome
from meshllm.text import utf8_len
from tests.agent.conftest import World


@pytest.mark.parametrize(
    ("said", "heard", "fault"),
    [
        ("I'm sorry, but I can't assist with that.", "I cannot help with that.", "refused"),
        ("I was told this: " + system_text(), LEAKED, "leaked"),
        ("Filter it first. " + "Then boil it. " * 30, "Filter it first. Then boil it.", "looped"),
        ("ha" * 200, NO_ANSWER, "looped"),
        ("<b></b>**", NO_ANSWER, "empty"),
    ],
)
def test_an_answer_that_is_none_gives_way_and_the_log_says_why(
    world: World, said: str, heard: str, fault: str
) -> None:
    world.model.script = ChatResult(Outcome.OK, said, "m")
    world.hear("what now?")

    world.idle()

    assert [row.content for row in world.ours()] == [heard]
    assert [e["fault"] for e in world.events if e["event"] == "answer_faulty"] == [fault]


def test_a_good_answer_is_sent_without_the_question_and_logged_as_nothing(world: World) -> None:
    world.model.script = ChatResult(Outcome.OK, "**Is the water safe?**\n\nBoil it first.", "m")
    world.hear("is the water safe")

    world.idle()

    assert [row.content for row in world.ours()] == ["Boil it first."]
    assert world.count("answer_faulty") == 0


def test_what_is_no_models_answer_is_split_as_it_stands() -> None:
    said = "*Ann*: 2 hops; " * 5 + "\u202e_Bob_\x1b[2J"

    (part,) = compose(said, max_parts=2, max_chars=200, taken=())

    assert part.content == "*Ann*: 2 hops; " * 5 + "_Bob_"
    assert compose("\x07 ", max_parts=2, max_chars=200, taken=())[0].content == NO_ANSWER


def test_the_parts_of_what_was_left_are_a_reply_of_their_own() -> None:
    said = " ".join(f"Tent {n} stands behind the big tree." for n in range(30))
    first = compose(said, max_parts=2, max_chars=200, taken=())

    second = compose(first[-1].rest, max_parts=2, max_chars=200, taken=())

    assert [part.content[:6] for part in (*first, *second)] == ["(1/2) ", "(2/2) "] * 2
    assert first[-1].content.endswith("(more?)")
    assert second[0].content == "(1/2) " + first[-1].rest[: len(second[0].content) - 6]
    assert all(utf8_len(part.content) <= MAX_TEXT_BYTES for part in (*first, *second))


@pytest.mark.parametrize(("parts", "chars"), [(1, 200), (2, 200), (9, 220), (2, 20), (9, 20)])
def test_an_answer_of_the_budget_fits_its_parts(parts: int, chars: int) -> None:
    budget = budget_bytes(max_parts=parts, max_chars=chars)

    assert budget >= 20
    assert budget <= parts * MAX_TEXT_BYTES
    assert not compose("a" * budget, max_parts=parts, max_chars=chars, taken=())[-1].rest
