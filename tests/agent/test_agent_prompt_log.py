"""What every model call leaves: one row and one page, whatever became of it."""

import json
from typing import Any

import pytest

from meshllm.config import Settings
from meshllm.llm.base import ChatResult, Outcome
from meshllm.records import PromptRow
from meshllm.site.page import Page, parse
from tests.agent.conftest import ALICE, HOME, World

MODEL = "a-model"
LONG = "Boil the water for one minute. Let it cool."
FIGURES: dict[str, Any] = {
    "model": MODEL,
    "prompt_tokens": 212,
    "completion_tokens": 17,
    "prompt_tps": 12.25,
    "eval_tps": 2.5,
    "duration_ms": 8123,
    "first_token_ms": 1504,
    "raw": {"done_reason": "stop", "eval_count": 17},
}
#: Per way that a call may end: its result, what the person is told of it, and its extras.
ENDS: dict[str, tuple[ChatResult, str, dict[str, Any]]] = {
    "answered": (ChatResult(Outcome.OK, LONG, **FIGURES), LONG, {}),
    "cut": (ChatResult(Outcome.CAPPED, LONG, **FIGURES), LONG, {}),
    "broken off": (
        ChatResult(Outcome.PARTIAL, LONG, error="connection lost", **FIGURES),
        LONG,
        {"reason": "connection lost"},
    ),
    "refused by the model": (
        ChatResult(Outcome.OK, "I'm sorry, but I can't help with that.", **FIGURES),
        "",
        {"fault": "refused"},
    ),
    "refused by the server": (
        ChatResult(Outcome.BAD_REQUEST, error="does not support chat", **FIGURES),
        "I cannot answer that now.",
        {"reason": "does not support chat"},
    ),
    "looping": (
        ChatResult(Outcome.OK, "Yes it is. " * 12, **FIGURES),
        "",
        {"fault": "looped"},
    ),
}
UNANSWERED: dict[str, tuple[ChatResult, dict[str, Any]]] = {
    "broken": (
        ChatResult(Outcome.BROKEN, error="unexpected EOF", **FIGURES),
        {"reason": "unexpected EOF", "attempt": True},
    ),
    "out of time": (
        ChatResult(Outcome.TIMEOUT, error="deadline passed", **FIGURES),
        {"reason": "deadline passed", "attempt": True},
    ),
    "cut before a word": (
        ChatResult(Outcome.PARTIAL, error="connection lost", **FIGURES),
        {"reason": "connection lost", "attempt": True},
    ),
    "busy": (ChatResult(Outcome.BUSY, error="server busy", **FIGURES), {"reason": "server busy"}),
    "unreachable": (
        ChatResult(Outcome.UNREACHABLE, error="connection refused", **FIGURES),
        {"reason": "connection refused"},
    ),
    "without its model": (
        ChatResult(Outcome.MISSING_MODEL, error="not found", **FIGURES),
        {"reason": "not found"},
    ),
}


def logged(world: World) -> list[tuple[PromptRow, Page]]:
    """Pair each row with its page, of which there is one each."""
    rows = world.prompts()
    assert sorted(row.prompt_id for row in rows) == [path.stem for path in world.pages()]
    found = []
    for row in rows:
        page = parse(world.layout.prompt_page(row.prompt_id).read_text())
        assert page is not None
        assert page.row == row
        found.append((row, page))
    return found


def extras(row: PromptRow) -> dict[str, Any]:
    """Leave out what every row has."""
    always = {"outcome", "source_sender", "queued", "asked_chars", "heard", "seen"}
    always |= {"raw", "first_token_ms"}
    return {k: v for k, v in json.loads(row.meta_json).items() if k not in always}


def check_figures(row: PromptRow, page: Page, result: ChatResult) -> None:
    """Compare with what the server told."""
    told = (row.model, row.prompt_tokens, row.completion_tokens, row.prompt_tps, row.eval_tps)
    assert told == (MODEL, 212, 17, 12.25, 2.5)
    assert row.duration_ms == 8123
    meta = json.loads(row.meta_json)
    assert (meta["raw"], meta["first_token_ms"]) == (FIGURES["raw"], 1504)
    assert meta["outcome"] == page.outcome == result.outcome.value


@pytest.mark.parametrize("end", ENDS)
def test_a_call_that_ends_in_a_reply_leaves_a_row_and_a_page(world: World, end: str) -> None:
    result, told, expected = ENDS[end]
    world.model.script = result
    world.hear("earlier", sender=ALICE)
    question = world.hear("how do I make water safe?")

    world.idle()

    ((row, page),) = logged(world)
    check_figures(row, page, result)
    assert extras(row) == expected
    asked = world.model.requests[0].messages
    assert [(b.role, b.text) for b in page.prompt] == [(m.role, m.content) for m in asked]
    assert page.response == result.text
    sent = world.ours()
    assert [(p["id"], p["content"]) for p in page.queued] == [
        (r.message_id, r.content) for r in sent
    ]
    assert json.loads(row.meta_json)["queued"] == list(page.queued)
    assert not told or [r.content for r in sent] == [told]
    assert (row.node_uid, row.thread_type, row.thread_key) == (HOME, "dm", ALICE)
    assert (row.source_message_id, row.response_message_id) == (
        question.message_id,
        sent[0].message_id,
    )
    assert row.datetime == world.clock.utc().strftime("%Y-%m-%d %H:%M:%S")
    assert page.context_note.startswith("0 turns of history out of 1 rows before the question, ")


@pytest.mark.parametrize("end", UNANSWERED)
def test_a_call_that_brings_nothing_leaves_a_row_and_a_page(world: World, end: str) -> None:
    result, expected = UNANSWERED[end]
    world.model.script = result
    question = world.hear("hi")

    world.idle()

    ((row, page),) = logged(world)
    check_figures(row, page, result)
    assert extras(row) == expected
    asked = world.model.requests[0].messages
    assert [(b.role, b.text) for b in page.prompt] == [(m.role, m.content) for m in asked]
    assert (page.response, page.queued) == ("", ())
    assert (row.source_message_id, row.response_message_id) == (question.message_id, "")


def test_a_call_that_is_repeated_says_for_what(world: World) -> None:
    """The specification: a new prompt_id with the reason annotated in meta_json."""
    world.model.script = [ChatResult(Outcome.EMPTY, **FIGURES), ChatResult(Outcome.OK, LONG)]
    world.hear("hi")

    world.idle()

    (first, empty), (second, answered) = logged(world)
    assert extras(first) == {"attempt": True}
    assert (empty.outcome, empty.response, empty.queued) == ("empty", "", ())
    assert extras(second) == {"repeat_of": first.prompt_id, "repeat_reason": "empty"}
    assert (answered.outcome, answered.response) == ("ok", LONG)
    assert first.source_message_id == second.source_message_id


def test_a_repetition_after_a_restart_says_the_same(world: World) -> None:
    world.model.script = [ChatResult(Outcome.BROKEN, error="no"), ChatResult(Outcome.OK, LONG)]
    world.hear("hi")
    world.idle()
    world.crash()
    world.clock.advance(60)

    world.idle()

    (first, _), (second, _) = logged(world)
    assert extras(second) == {"repeat_of": first.prompt_id, "repeat_reason": "broken"}


def test_a_call_that_a_stop_gives_up_is_logged_and_repeated(world: World) -> None:
    world.model.gate.clear()
    world.hear("hi")
    world.start()
    world.until(lambda: len(world.model.requests) == 1)

    world.stop()

    ((first, page),) = logged(world)
    assert extras(first) == {"reason": "given up by the caller"}
    assert (page.outcome, page.response, page.queued) == ("cancelled", "", ())
    world.model.gate.set()
    world.idle()
    assert world.said() == ["The librarian is here."]
    assert extras(logged(world)[1][0]) == {
        "repeat_of": first.prompt_id,
        "repeat_reason": "cancelled",
    }


@pytest.mark.parametrize("result", [ENDS["answered"][0], UNANSWERED["broken"][0]])
def test_without_prompt_logs_nothing_is_left(world: World, result: ChatResult) -> None:
    world.settings = Settings(enable_prompt_logs=False)
    world.model.script = [result, ChatResult(Outcome.EMPTY), ChatResult(Outcome.OK, LONG)]
    world.hear("hi")
    world.idle()
    world.hear("and then?")
    world.pass_time(300)
    world.stop()

    assert LONG in world.said()
    assert not world.layout.prompts_dir.exists()
