"""Questions that ask for thought: another model, announced, never worse than an ordinary one."""

import json
from collections.abc import Callable

import pytest

from meshllm.agent.thinking import wants_thought
from meshllm.config import Settings
from meshllm.llm.base import (
    THINKING_SAMPLING,
    THOUGHT_TOKENS,
    ChatRequest,
    ChatResult,
    Outcome,
    answer_tokens,
)
from tests.agent.conftest import ALICE, World

THINKER = "qwen3:4b-thinking-2507-q8_0"
PLAIN = Settings().ollama_model_instruct


@pytest.fixture
def thinking(world: World) -> World:
    world.settings = Settings(ollama_model_think=THINKER)
    return world


def by_model(thought: str | ChatResult) -> Callable[[ChatRequest], str | ChatResult]:
    return lambda request: thought if request.model == THINKER else "Plain."


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("think how far is it?", True), ("Think: how far?", True), ("THINK, why", True),
     ("think  2+2", True), ("think", False), ("think?", False), ("thinking of you", False),
     ("I think so", False), ("", False), ("think я", True)],
)  # fmt: skip
def test_only_the_first_word_with_something_behind_it_asks_for_thought(
    text: str, wanted: bool
) -> None:
    assert wants_thought(text) is wanted


def test_what_is_asked_with_think_goes_to_the_thinking_model(thinking: World) -> None:
    thinking.model.script = by_model("Well considered.")
    thinking.hear("think how far is it?")
    thinking.idle()

    (request,) = thinking.model.requests
    assert (request.model, request.think, request.sampling) == (THINKER, True, THINKING_SAMPLING)
    assert request.deadline_s == 600
    assert request.thought_tokens == THOUGHT_TOKENS
    assert request.num_predict == answer_tokens(request.budget_bytes)
    assert thinking.said() == ["⏳ thinking, this takes minutes", "Well considered."]
    (row,) = thinking.prompts()
    assert row.model == THINKER


def test_other_questions_do_not(thinking: World) -> None:
    thinking.hear("how far is it?")
    thinking.idle()

    (request,) = thinking.model.requests
    assert (request.model, request.think) == (PLAIN, None)
    assert thinking.said() == ["The librarian is here."]


def test_without_a_thinking_model_the_word_is_part_of_the_question(world: World) -> None:
    world.hear("think how far is it?")
    world.idle()

    (request,) = world.model.requests
    assert request.model == PLAIN
    assert request.messages[-1].content.startswith("think how far is it?")
    assert len(world.ours()) == 1


def test_it_is_announced_on_a_channel_too(thinking: World) -> None:
    thinking.model.script = by_model("Well considered.")
    thinking.hear("librarian think how far?", key="LongFast")
    thinking.idle()

    assert thinking.said("LongFast") == ["⏳ thinking, this takes minutes", "Well considered."]
    assert thinking.ours("LongFast")[0].meta["notice"] == "thinking"


def test_who_was_told_of_thinking_is_not_told_of_work(thinking: World) -> None:
    thinking.model.gate.clear()
    thinking.hear("think how far is it?")
    service = thinking.start()
    thinking.until(lambda: service._asked is not None)
    for _ in range(100):
        thinking.clock.advance(1)
        service.tick()

    assert len(thinking.ours()) == 1


@pytest.mark.parametrize(
    "failed",
    [
        ChatResult(Outcome.MISSING_MODEL, error="not found"),
        ChatResult(Outcome.EMPTY),
        ChatResult(Outcome.TIMEOUT, error="deadline passed"),
        ChatResult(Outcome.BROKEN, error="out of memory"),
        ChatResult(Outcome.BAD_REQUEST, error="does not support thinking"),
    ],
)
def test_where_thinking_fails_the_ordinary_model_answers(
    thinking: World, failed: ChatResult
) -> None:
    thinking.model.script = by_model(failed)
    thinking.hear("think how far is it?")
    thinking.idle()
    thinking.pass_time(5)

    assert [r.model for r in thinking.model.requests] == [THINKER, PLAIN]
    assert thinking.said()[1:] == ["Plain."]
    assert thinking.reasons("thinking_failed") == [failed.error]
    assert thinking.reasons("model_state_changed") == [""]  # ready, and never away


def test_an_unreachable_server_is_no_failure_of_thinking(thinking: World) -> None:
    results = iter([ChatResult(Outcome.UNREACHABLE, error="refused")])
    thinking.model.script = lambda request: next(results, "Well considered.")
    thinking.hear("think how far is it?")
    thinking.idle()
    thinking.pass_time(10)

    assert [r.model for r in thinking.model.requests] == [THINKER, THINKER]


def test_the_ordinary_model_is_warmed_up_after_a_thought(thinking: World) -> None:
    thinking.model.script = by_model("Well considered.")
    thinking.idle()
    assert len(thinking.model.warm_ups) == 1

    thinking.hear("think how far is it?")
    thinking.idle()

    thinking.until(lambda: len(thinking.model.warm_ups) == 2)


def test_a_failed_thought_is_in_the_prompt_log(thinking: World) -> None:
    thinking.model.script = by_model(ChatResult(Outcome.EMPTY))
    thinking.hear("think how far is it?")
    thinking.idle()

    outcomes = [json.loads(row.meta_json)["outcome"] for row in thinking.prompts()]
    assert outcomes == ["empty", "ok"]
    assert [row.meta["kind"] for row in thinking.ours(ALICE)] == ["notice", "reply"]
