"""What a person is told while their answer is being made."""

import json
import re

import pytest

from meshllm.agent.bots import bot_reason
from meshllm.agent.notices import is_notice_text, rounded, thinking_text, working_text
from meshllm.agent.pace import Paces, measured
from meshllm.config import Settings
from meshllm.llm.base import ChatRequest, ChatResult, Outcome, ProbeResult, ProbeState
from tests.agent.conftest import ALICE, BOB, World

CAROL = "!ca501001"


def slow(request: ChatRequest) -> ChatResult:
    """Take 60 s: 40 until the first word, then 40 tokens at two a second."""
    return ChatResult(
        Outcome.OK, "Here.", request.model, prompt_tokens=400, completion_tokens=40,
        eval_tps=2.0, duration_ms=60_000, first_token_ms=40_000,
    )  # fmt: skip


def learn(world: World) -> None:
    """Have one call of 60 s behind us."""
    world.model.script = slow
    world.hear("first", key=CAROL)
    world.idle()
    assert world.said(CAROL) == ["Here."]


def hold(world: World) -> None:
    world.model.gate.clear()


def tick(world: World, seconds: float) -> None:
    """Let time pass second by second while a call is under way."""
    assert world.service is not None
    for _ in range(round(seconds)):
        world.clock.advance(1)
        world.service._look_due = 0.0
        world.service.tick()


def ask_and_hold(world: World, key: str = ALICE, text: str = "why?") -> None:
    hold(world)
    world.hear(text, key=key)
    service = world.service or world.start()
    service._look_due = 0.0
    service._book.mark(world.thread(key))
    world.until(lambda: service._asked is not None)


def notices(world: World, key: str = ALICE) -> list[str]:
    return [row.content for row in world.ours(key) if row.meta["kind"] == "notice"]


def test_a_wait_of_20_seconds_is_told_once_with_what_is_left(world: World) -> None:
    learn(world)
    ask_and_hold(world)

    tick(world, 19)
    assert notices(world) == []
    tick(world, 60)

    assert notices(world) == ["⏳ working on it, ~40 s"]
    (row,) = world.ours()
    assert (row.reply_to_id, row.meta["notice"]) == ("", "working")
    world.model.gate.set()
    world.idle()
    assert world.said()[1:] == ["Here."]


def test_the_notice_is_given_once_over_restarts(world: World) -> None:
    ask_and_hold(world)
    tick(world, 40)
    world.crash()
    world.start()
    world.until(lambda: world.service is not None and world.service._asked is not None)
    tick(world, 40)

    assert len(notices(world)) == 1


def test_without_a_measured_rate_no_time_is_claimed(world: World) -> None:
    ask_and_hold(world)
    tick(world, 25)

    assert notices(world) == ["⏳ working on it"]


def test_a_call_that_outlasts_its_estimate_claims_no_time(world: World) -> None:
    world.settings = Settings(working_notice_seconds=90)
    learn(world)
    ask_and_hold(world)
    tick(world, 95)

    assert notices(world) == ["⏳ working on it"]


def test_an_answer_that_is_seconds_away_is_not_announced(world: World) -> None:
    world.settings = Settings(working_notice_seconds=55)
    learn(world)
    ask_and_hold(world)
    tick(world, 57)

    assert notices(world) == []


def test_those_in_line_are_told_of_all_that_is_before_them(world: World) -> None:
    learn(world)
    ask_and_hold(world)
    world.hear("and I?", key=BOB)
    tick(world, 25)

    assert notices(world) == ["⏳ working on it, ~40 s"]
    (told,) = notices(world, BOB)
    seconds = re.fullmatch(r"⏳ working on it, ~(\d+) s", told)
    assert seconds is not None
    assert 90 <= int(seconds.group(1)) <= 110


def test_a_channel_question_is_never_announced(world: World) -> None:
    ask_and_hold(world, "LongFast", "librarian why?")
    tick(world, 100)

    assert notices(world, "LongFast") == []


@pytest.mark.parametrize("after_s", [0, 3600])
def test_the_notice_can_be_turned_off_or_put_off(world: World, after_s: float) -> None:
    world.settings = Settings(working_notice_seconds=after_s)
    ask_and_hold(world)
    tick(world, 200)

    assert notices(world) == []


def test_who_was_told_that_the_model_is_away_is_not_told_of_work(world: World) -> None:
    world.model.probe_result = ProbeResult(ProbeState.UNREACHABLE, "refused")
    world.idle()
    world.hear("why?")
    world.idle()
    hold(world)
    world.model.probe_result = ProbeResult(ProbeState.READY)
    service = world.service
    assert service is not None
    world.clock.advance(10)
    world.until(lambda: service._asked is not None)
    tick(world, 60)

    assert len(notices(world)) == 1
    assert "offline" in notices(world)[0]


def test_an_old_question_that_is_answered_at_once_is_not_announced(world: World) -> None:
    world.hear("why?")
    world.clock.advance(600)
    world.idle()

    assert world.said() == ["The librarian is here."]


def test_a_person_who_was_answered_is_not_told_anything_more(world: World) -> None:
    learn(world)
    tick(world, 100)

    assert notices(world, CAROL) == []


def test_another_librarians_notice_is_no_question(world: World) -> None:
    for text in (working_text(None), working_text(40), thinking_text(None), thinking_text(400)):
        assert is_notice_text(text)
        row = world.hear(text)
        world.idle()
        assert world.ours() == [], row
    assert bot_reason is not None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "5 s"), (8, "10 s"), (38, "40 s"), (57, "55 s"), (64, "60 s"), (128, "130 s"),
     (181, "3 min"), (400, "7 min")],
)  # fmt: skip
def test_a_time_is_said_no_more_exactly_than_it_is_known(seconds: float, said: str) -> None:
    assert rounded(seconds) == said


def test_the_notice_is_short_in_bytes() -> None:
    assert len(working_text(40).encode()) <= 30


# Rates.


def test_an_estimate_follows_the_prompt_and_the_last_answers() -> None:
    paces = Paces()
    result = slow(ChatRequest("m", (), num_predict=1))
    paces.note(result, 1000, scale=1.0)
    pace = paces.find("m")
    assert pace is not None

    assert (pace.estimate_s(), pace.estimate_s(2000)) == (60.0, 100.0)


def test_a_cold_first_call_is_forgotten_soon() -> None:
    paces = Paces()
    cold = ChatResult(Outcome.OK, "x", "m", completion_tokens=20, eval_tps=2.0,
                      duration_ms=210_000, first_token_ms=200_000)  # fmt: skip
    warm = ChatResult(Outcome.OK, "x", "m", completion_tokens=20, eval_tps=2.0,
                      duration_ms=20_000, first_token_ms=10_000)  # fmt: skip
    for result in (cold, warm, warm, warm, warm):
        paces.note(result, 1000, scale=1.0)
    pace = paces.find("m")
    assert pace is not None

    assert 20 < pace.estimate_s() < 35


def test_models_and_addresses_have_rates_of_their_own() -> None:
    paces = Paces()
    here = ChatResult(Outcome.OK, "x", "m", completion_tokens=10, eval_tps=1.0,
                      duration_ms=10_000, first_token_ms=0, server="a")  # fmt: skip
    paces.note(here, 100, scale=1.0)

    assert paces.find("other") is None
    assert paces.find("m", "a") == paces.find("m", "b")  # better than nothing, until b is known


@pytest.mark.parametrize(
    "result",
    [
        ChatResult(Outcome.TIMEOUT, model="m", completion_tokens=3, first_token_ms=1),
        ChatResult(Outcome.OK, "x", "m", completion_tokens=3),
        ChatResult(Outcome.OK, "x", "m", first_token_ms=1),
    ],
)
def test_a_call_without_figures_teaches_nothing(result: ChatResult) -> None:
    assert measured(result, 100, scale=1.0) is None


def test_agent_json_tells_how_long_an_answer_takes(world: World) -> None:
    learn(world)
    world.stop()

    told = json.loads(world.layout.agent_status.read_text())
    assert told["answer_s"] == 60.0


def test_the_outlook_counts_those_before(world: World) -> None:
    learn(world)
    assert world.service is not None
    health = world.service._health

    alone, third = health.outlook(queue=0), health.outlook(queue=2, running_left_s=10.0)

    assert (alone.state, alone.next_answer_s) == ("ready", 60.0)
    assert third.next_answer_s == 130.0
