"""What happens to questions while the model cannot answer."""

import itertools
import json

import pytest

from meshllm.config import Settings
from meshllm.llm.base import ChatResult, Outcome, ProbeResult, ProbeState, ServerState
from meshllm.observe.board import KeptBoard
from tests.agent.conftest import ALICE, BOB, World

AWAY = ProbeResult(ProbeState.UNREACHABLE, "connection refused")
BACK = ProbeResult(ProbeState.READY, "there")


def test_an_unreachable_model_gives_one_notice_and_an_answer_once_it_is_back(world: World) -> None:
    world.model.script = ChatResult(Outcome.UNREACHABLE, error="refused")
    world.model.probe_result = AWAY
    question = world.hear("hi", channel_index=1)
    world.idle()
    world.pass_time(200)

    (notice,) = world.ours()
    assert notice.content == (
        "The language model is offline. Your question is kept for 60 min and answered if it "
        "returns. Messages are still heard and stored."
    )
    assert (notice.reply_to_id, notice.direction) == ("", "queued")
    assert notice.meta == {
        "kind": "notice",
        "notice": "offline",
        "notice_for": question.message_id,
        "channel_index": 1,
    }

    world.model.script, world.model.probe_result = "Here.", BACK
    world.pass_time(61)

    assert world.said()[1:] == ["Here."]
    assert world.ours()[1].reply_to_id == question.message_id


def test_a_model_that_is_away_is_not_called_for_every_question(world: World) -> None:
    world.model.probe_result = AWAY
    world.idle()
    world.hear("hi")
    world.hear("hi", key=BOB)

    world.idle()

    assert world.model.requests == []
    assert (len(world.ours(ALICE)), len(world.ours(BOB))) == (1, 1)


def test_the_notice_is_given_once_over_restarts(world: World) -> None:
    world.model.probe_result = AWAY
    world.model.script = ChatResult(Outcome.UNREACHABLE, error="refused")
    world.hear("hi")
    for _ in range(3):
        world.idle()
        world.stop()

    assert len(world.ours()) == 1


def test_probes_back_off_to_a_minute(world: World) -> None:
    probes: list[float] = []
    real = world.model.probe

    def probe() -> ProbeResult:
        probes.append(world.clock.monotonic())
        return real()

    world.model.probe = probe  # type: ignore[method-assign]
    world.model.probe_result = AWAY
    world.settings = Settings(ai_poll_interval_ms=500)
    world.idle()
    for _ in range(300):
        world.clock.advance(1)
        world.idle()

    gaps = [round(b - a) for a, b in itertools.pairwise(probes)]
    assert gaps == [5, 10, 20, 40, 60, 60, 60]


@pytest.mark.parametrize("outcome", [Outcome.BUSY, Outcome.MISSING_MODEL])
def test_a_model_that_never_took_the_question_costs_no_attempt(
    world: World, outcome: Outcome
) -> None:
    world.model.script = ChatResult(outcome, error="no")
    world.hear("hi")
    world.idle()
    world.pass_time(600)
    assert [row.meta["kind"] for row in world.ours()] == ["notice"]

    world.model.script = "Here."
    world.pass_time(61)

    assert world.said()[1:] == ["Here."]


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.BROKEN, Outcome.PARTIAL])
def test_three_failed_calls_end_in_an_honest_reply(world: World, outcome: Outcome) -> None:
    world.model.script = ChatResult(outcome, error="no")
    question = world.hear("hi")
    world.idle()
    world.pass_time(600)

    assert [row.meta["kind"] for row in world.ours()] == ["notice", "reply"]
    assert world.said()[1] == "I cannot answer that now."
    assert world.ours()[1].reply_to_id == question.message_id
    assert len(world.model.requests) == 3
    assert [json.loads(row.meta_json)["outcome"] for row in world.prompts()] == [outcome.value] * 3


def test_attempts_are_counted_over_restarts(world: World) -> None:
    world.model.script = ChatResult(Outcome.BROKEN, error="no")
    world.hear("hi")
    for _ in range(5):
        world.idle()
        world.crash()
        world.clock.advance(1)

    assert len(world.model.requests) == 3
    assert [row.meta["kind"] for row in world.ours()] == ["notice", "reply"]


def test_a_failed_call_is_logged_with_its_reason(world: World) -> None:
    world.model.script = ChatResult(Outcome.BROKEN, error="unexpected EOF")
    world.hear("hi")

    world.idle()

    (row,) = world.prompts()
    meta = json.loads(row.meta_json)
    assert (meta["outcome"], meta["reason"], row.response_message_id) == (
        "broken",
        "unexpected EOF",
        "",
    )
    assert len(world.pages()) == 1


def test_the_change_of_the_model_is_told_at_once_in_agent_json(world: World) -> None:
    world.idle()
    world.model.script = ChatResult(Outcome.UNREACHABLE, error="refused")
    world.hear("hi")

    world.idle()

    told = json.loads(world.layout.agent_status.read_text())
    assert told["model"] == {
        "state": "offline",
        "reason": "unreachable",
        "detail": "refused",
        "name": world.settings.ollama_model_instruct,
        "failures": 1,
        "retry_at": "2026-03-01T12:00:05Z",
    }
    assert told["queue"] == 1


def test_agent_json_and_the_board_tell_how_old_the_oldest_open_question_is(world: World) -> None:
    board = world.board = KeptBoard(world.clock)
    world.model.script = ChatResult(Outcome.UNREACHABLE, error="refused")
    world.idle()
    assert json.loads(world.layout.agent_status.read_text())["oldest_s"] == 0

    world.hear("first")
    world.clock.advance(90)
    world.hear("second", key=BOB)
    world.idle()
    world.clock.advance(60)
    world.idle()

    told = json.loads(world.layout.agent_status.read_text())
    assert (told["queue"], told["oldest_s"]) == (2, 150)
    agent = board.snapshot().agent
    assert agent is not None
    assert (agent.questions_open, agent.oldest_s) == (2, 150)


def test_a_model_that_crashes_the_call_counts_as_broken(world: World) -> None:
    def crash(_request: object) -> str:
        raise RuntimeError("bug")

    world.model.script = crash
    world.hear("hi")

    world.idle()

    assert world.count("model_call_crashed") == 1
    assert [row.meta["kind"] for row in world.ours()] == ["notice"]


def test_a_model_that_says_nothing_is_asked_once_more(world: World) -> None:
    world.model.script = ["", "Here."]
    world.hear("hi")
    world.idle()

    assert world.said() == ["Here."]
    outcomes = [json.loads(row.meta_json)["outcome"] for row in world.prompts()]
    assert outcomes == ["empty", "ok"]


def test_a_model_that_says_nothing_twice_is_answered_for_honestly(world: World) -> None:
    world.model.script = ""
    world.hear("hi")
    world.idle()
    world.pass_time(600)

    assert [row.meta["kind"] for row in world.ours()] == ["reply"]
    assert len(world.model.requests) == 2
    assert "offline" not in str([e for e in world.events if e["event"] == "model_state_changed"])


def test_empty_calls_are_counted_over_restarts(world: World) -> None:
    world.model.script = ""
    world.hear("hi")
    world.start()
    world.until(lambda: len(world.prompts()) == 1)
    world.crash()
    world.idle()
    world.pass_time(60)

    assert len(world.model.requests) <= 3  # the one under way at the crash, and two that count
    assert [row.meta["kind"] for row in world.ours()] == ["reply"]


def test_a_model_that_keeps_failing_is_left_alone_for_longer_each_time(world: World) -> None:
    world.settings = Settings(max_question_age_seconds=7200)
    world.model.script = ChatResult(Outcome.TIMEOUT, error="deadline passed")
    called: list[float] = []
    answer = world.model.chat

    def chat(*args: object) -> ChatResult:
        called.append(world.clock.monotonic())
        return answer(*args)  # type: ignore[arg-type]

    world.model.chat = chat  # type: ignore[method-assign, assignment]
    for number in range(4):  # one question alone is given up after three calls
        world.hear("hi", key=f"!a11ce10{number}")
    world.idle()
    for _ in range(700):
        world.clock.advance(1)
        world.idle()

    gaps = [round(b - a) for a, b in itertools.pairwise(called)]
    assert gaps == [15, 30, 60, 120, 240]


def test_a_resting_model_is_not_even_probed_until_its_pause_is_over(world: World) -> None:
    world.idle()
    probes: list[float] = []
    look = world.model.probe

    def probe() -> ProbeResult:
        probes.append(world.clock.monotonic())
        return look()

    world.model.probe = probe  # type: ignore[method-assign]
    world.model.script = ChatResult(Outcome.BROKEN, error="unexpected EOF")
    world.hear("hi")
    world.idle()
    start = world.clock.monotonic()
    for _ in range(20):
        world.clock.advance(1)
        world.idle()

    assert [round(at - start) for at in probes] == [15]


def test_rest_and_recovery_are_one_event_each(world: World) -> None:
    world.model.script = [ChatResult(Outcome.TIMEOUT, error="deadline passed"), "Here."]
    world.hear("hi")
    world.idle()
    told = json.loads(world.layout.agent_status.read_text())["model"]
    world.pass_time(20)

    assert (told["state"], told["reason"], told["failures"]) == ("resting", "timeout", 1)
    assert told["retry_at"] == "2026-03-01T12:00:15Z"
    changes = [(e["state"], e["reason"]) for e in world.events
               if e["event"] == "model_state_changed"]  # fmt: skip
    assert changes == [("ready", ""), ("resting", "timeout"), ("ready", "")]
    assert world.said()[1:] == ["Here."]


def test_another_address_that_works_spares_people_the_notice(world: World) -> None:
    used = (ServerState("a", "timeout"), ServerState("b", "ready", is_used=True))
    world.model.script = [
        ChatResult(Outcome.TIMEOUT, error="deadline passed", server="a", servers=used),
        ChatResult(Outcome.OK, "Here.", server="b", servers=used),
    ]
    world.hear("hi")
    world.idle()

    assert world.said() == ["Here."]
    told = json.loads(world.layout.agent_status.read_text())["model"]
    assert told["state"] == "ready"
    assert [(s["address"], s["is_used"]) for s in told["servers"]] == [("a", False), ("b", True)]


def test_an_address_that_comes_first_is_looked_for_while_another_is_used(world: World) -> None:
    world.idle()
    used = (ServerState("a", "unreachable"), ServerState("b", "ready", is_used=True))
    back = (ServerState("a", "ready", is_used=True), ServerState("b", "ready"))
    world.model.script = ChatResult(Outcome.OK, "Here.", server="b", servers=used)
    world.model.probe_result = ProbeResult(ProbeState.READY, servers=back)
    world.hear("hi")
    world.idle()
    assert len(world.model.warm_ups) == 1

    world.pass_time(60)

    assert world.service is not None
    assert world.service._health.server == "a"
    world.until(lambda: len(world.model.warm_ups) == 2)  # the other machine is cold
