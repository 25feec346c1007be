"""Many people at once: whose turn it is, and what happens to who waits too long."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.agent.etiquette import WAITED_TOO_LONG
from meshllm.agent.fairness import CROWD, MAX_LINE, Served, Waiting, line_up
from meshllm.config import Settings
from meshllm.llm.base import ChatRequest
from tests.agent.conftest import HOME, World

ROOF = "0000b00f"


def waiting(
    person: str, age_s: float, *, radio: str = "a", known: bool = True, subject: object = None
) -> Waiting:
    return Waiting(subject or (person, age_s), person, radio, age_s, known)


def served(person: str, age_s: float, *, radio: str = "a", known: bool = True) -> Served:
    return Served(person, radio, age_s, known)


def people(line: tuple[Waiting, ...]) -> list[str]:
    return [one.person for one in line]


def test_the_oldest_goes_first_among_people_who_had_the_same() -> None:
    line = line_up([waiting("ann", 5), waiting("bob", 50), waiting("cy", 20)], [])

    assert people(line) == ["bob", "cy", "ann"]


def test_who_had_an_answer_meanwhile_comes_after_everybody_who_had_none() -> None:
    asked = [waiting("ann", 30), waiting("bob", 40), waiting("cy", 20)]

    assert people(line_up(asked, [served("bob", 10)])) == ["ann", "cy", "bob"]
    assert people(line_up(asked, [served("bob", 41)])) == ["bob", "ann", "cy"], "before that"


def test_a_question_that_failed_comes_after_everybody_who_was_not_tried() -> None:
    failed = replace(waiting("ann", 500), attempts=1)

    assert people(line_up([failed, waiting("bob", 50), waiting("cy", 20)], [])) == [
        "bob",
        "cy",
        "ann",
    ]


def test_a_second_question_of_a_person_comes_a_round_later() -> None:
    asked = [waiting("ann", 30), waiting("ann", 29), waiting("bob", 5)]

    assert people(line_up(asked, [])) == ["ann", "bob", "ann"]


def test_radios_take_turns_within_a_round() -> None:
    asked = [waiting(f"p{n}", 50 - n, radio="a") for n in range(3)]
    asked += [waiting("last", 1, radio="b")]

    assert people(line_up(asked, [])) == ["p0", "last", "p1", "p2"]
    assert people(line_up(asked, [served("x", 3, radio="a")]))[0] == "last"


def test_one_question_heard_by_two_radios_is_one_turn() -> None:
    both = [waiting("ann", 9, radio=radio, subject="q") for radio in ("a", "b")]
    asked = [*both, waiting("bob", 5, radio="b")]

    assert people(line_up(asked, []))[:3].count("ann") == 2
    assert people(line_up(asked, [served("ann", 1)])) == ["bob", "ann", "ann"]


def test_a_crowd_of_strangers_and_known_people_take_turns() -> None:
    strangers = [waiting(f"s{n}", 100 - n, known=False) for n in range(CROWD + 5)]
    asked = [*strangers, waiting("ann", 3), waiting("bob", 2)]

    line = people(line_up(asked, []))
    assert line[:5] == ["ann", "s0", "bob", "s1", "s2"]
    after = people(line_up(asked, [served("cy", 1)]))
    assert after[:2] == ["s0", "ann"], "a known person had the last turn"


def test_a_few_strangers_wait_no_longer_than_others() -> None:
    strangers = [waiting(f"s{n}", 100 - n, known=False) for n in range(CROWD)]

    assert people(line_up([*strangers, waiting("ann", 3)], []))[-1] == "ann"


@given(
    asked=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.floats(0, 600), st.sampled_from("xy")), max_size=30
    ),
    given_answers=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.floats(0, 600), st.sampled_from("xy")), max_size=30
    ),
)
def test_nobody_gets_a_second_answer_before_everybody_had_a_first(
    asked: list[tuple[str, float, str]], given_answers: list[tuple[str, float, str]]
) -> None:
    line = [
        waiting(person, age_s, radio=radio, subject=number)
        for number, (person, age_s, radio) in enumerate(asked)
    ]
    before = [served(person, age_s, radio=radio) for person, age_s, radio in given_answers]

    ordered = line_up(line, before)

    assert Counter(ordered) == Counter(line)
    had = Counter(s.person for s in before if line and s.age_s <= max(w.age_s for w in line))
    for place, one in enumerate(ordered):
        assert all(had[one.person] <= had[other.person] for other in ordered[place:])
        had[one.person] += 1


# in the service


def askers(world: World) -> list[str]:
    """Name who was asked for, in order: each question names its person."""
    found = []
    for request in world.model.requests:
        words = request.messages[-1].content.split()
        found.append(next(word for word in words if word.startswith("p0")))
    return found


def person(number: int) -> str:
    return f"!c0de{number:04x}"


@pytest.mark.timeout(40)
def test_a_talkative_person_waits_for_everybody_else(world: World) -> None:
    world.hear("why is p00 the sky blue?", key=person(0))
    world.idle()
    world.model.gate.clear()
    world.hear("what is p01 dew?", key=person(1))
    world.start() if world.service is None else None
    world.until(lambda: len(world.model.requests) == 2)
    world.clock.advance(1)
    for n in range(2, 6):
        world.hear(f"what is p0{n} fog?", key=person(n))
    world.hear("and p00 why is grass green?", key=person(0), timestamp="2026-03-01T11:59:50Z")
    world.model.gate.set()
    world.idle()

    order = askers(world)
    assert order[:2] == ["p00", "p01"]
    assert order[-1] == "p00", order
    assert sorted(order[2:-1]) == ["p02", "p03", "p04", "p05"]


def test_the_order_outlives_a_restart(world: World) -> None:
    world.hear("what is p00 dew?", key=person(0))
    world.idle()
    world.stop()
    world.hear("and p00 why is grass green?", key=person(0), timestamp="2026-03-01T11:59:58Z")
    world.hear("what is p01 fog?", key=person(1), timestamp="2026-03-01T11:59:59Z")

    world.idle()

    assert askers(world) == ["p00", "p01", "p00"]


def test_who_waited_too_long_behind_others_is_told_and_not_left_waiting(world: World) -> None:
    world.settings = Settings(max_wait_seconds=100, working_notice_seconds=0)
    world.model.gate.clear()
    world.hear("what is p00 dew?", key=person(0))
    world.start()
    world.until(lambda: len(world.model.requests) == 1)
    late = world.hear("what is p01 fog?", key=person(1))
    world.until(lambda: bool(world.service and world.service._queued))

    world.clock.advance(99)
    world.until(lambda: True)
    assert world.ours(person(1)) == []
    world.clock.advance(2)
    world.until(lambda: bool(world.ours(person(1))))
    world.model.gate.set()
    world.idle()
    world.stop()
    world.idle()

    (line,) = world.ours(person(1))
    assert (line.content, line.reply_to_id) == (WAITED_TOO_LONG, late.message_id)
    assert world.ours(person(0))[0].content != WAITED_TOO_LONG, "it was being answered"
    assert (len(world.model.requests), world.count("question_waited_too_long")) == (1, 1)


def test_what_waited_while_no_agent_ran_is_answered(world: World) -> None:
    world.settings = Settings(max_wait_seconds=100)
    for n in range(3):
        world.hear(f"what is p0{n} fog?", key=person(n))
    world.clock.advance(500)

    world.idle()

    assert len(world.model.requests) == 3
    assert world.count("question_waited_too_long") == 0


@pytest.mark.timeout(60)
def test_a_forged_crowd_neither_starves_known_people_nor_gets_lines(world: World) -> None:
    world.settings = Settings(max_wait_seconds=50, working_notice_seconds=0)
    world.hear("what is p00 dew?", key=person(0))
    world.idle()
    world.model.requests.clear()
    world.model.gate.clear()
    for n in range(MAX_LINE + 20):
        world.hear("what is p0x fog?", key=f"!f0{n:06x}")
    world.start() if world.service is None else None
    world.until(lambda: len(world.model.requests) == 1)
    world.hear("and what p00 is rain?", key=person(0))
    world.until(lambda: any(q.row.sender_id == person(0) for _, q in world.service._queued))  # type: ignore[union-attr]
    assert world.service is not None
    assert world.service._queued[0][1].row.sender_id == person(0)
    assert world.reasons("question_deferred").count("line_full") >= 20

    world.clock.advance(45)
    world.until(lambda: True)
    assert world.count("question_waited_too_long") == 0
    world.clock.advance(10)
    world.until(lambda: world.count("question_waited_too_long") == 1)

    assert world.said(person(0))[-1] == WAITED_TOO_LONG
    world.model.gate.set()


def test_two_radios_are_served_in_turn(world: World) -> None:
    world.add_radio(ROOF)
    asked: list[str] = []

    def note(request: ChatRequest) -> str:
        asked.append("roof" if "roof" in request.messages[-1].content else "home")
        return "Fine."

    world.model.script = note
    for n in range(3):
        world.hear(f"home {n}: what is fog?", key=person(n), uid=HOME)
    world.hear("roof: what is fog?", key=person(9), uid=ROOF)
    world.idle()

    assert asked[:2].count("roof") == 1
