"""Old rows vanish from a thread while the agent works: it answers what is open, nothing twice."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from meshllm.agent.questions import Question
from meshllm.clock import utc_text
from meshllm.llm.base import ChatResult, Outcome
from meshllm.records import Message
from meshllm.store import rotate
from meshllm.store.table import Table
from tests.agent.conftest import ALICE, HOME, OWN, World

OLD_PAIRS = 60


def fill(world: World) -> list[Message]:
    """Old answered questions: a month ago, ids beyond those of new ones."""
    rows = []
    for n in range(OLD_PAIRS):
        at = utc_text(world.clock.utc() - timedelta(days=30) + timedelta(minutes=n))
        rows += [
            Message("dm", ALICE, str(9000 + n), "inbound", ALICE, "", at, f"old question {n}"),
            Message(
                "dm", ALICE, str(19000 + n), "outbound", OWN, str(9000 + n), at, f"old answer {n}",
                1, "sent", '{"kind":"reply","part":1,"parts":1,"delivery":"delivered"}',
            ),
        ]  # fmt: skip
    Table(world.thread(ALICE), Message).append(rows)
    return rows


def archive(world: World, rows: list[Message]) -> Path:
    """Move rows as the bridge does."""
    path = world.thread(ALICE)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    shelf = world.layout.tree(HOME).shelf(path)
    done = rotate.rotate(Table(path, Message), pairs, shelf, lambda row: row.timestamp[:7])
    assert done.moved == len(rows)
    return path


def test_a_rotation_between_finding_and_asking_leaves_the_prompt_as_it_was(world: World) -> None:
    rows = fill(world)
    world.model.script = ChatResult(Outcome.UNREACHABLE, "", "m")
    world.hear("and now?")
    service = world.start()
    world.idle()
    thread = service._book.asking[world.thread(ALICE)]
    [question] = thread.standing.open
    _, before = service._answering.ask(thread, question)

    archive(world, rows[:80])
    asked, after = service._answering.ask(thread, question)

    assert after.messages[-1] == before.messages[-1]
    assert "old answer 59" in [message.content for message in after.messages]
    assert asked.rows == len(rows) - 80


def test_a_question_that_was_closed_and_archived_meanwhile_does_not_break_the_prompt(
    world: World,
) -> None:
    rows = fill(world)
    world.hear("and now?")
    service = world.start()
    world.until(lambda: len(world.ours()) == OLD_PAIRS + 1)
    thread = service._book._thread(world.thread(ALICE))
    assert thread is not None
    stale = Question(rows[-2], rows[-2].content, position=len(rows) + 1)

    archive(world, rows[:100])
    _, request = service._answering.ask(thread, stale)

    assert request.messages


def test_a_rotation_while_the_model_works_costs_no_answer(world: World) -> None:
    rows = fill(world)
    world.model.gate.clear()
    question = world.hear("and now?")
    world.start()
    world.until(lambda: len(world.model.requests) == 1)

    archive(world, rows)
    world.model.gate.set()
    world.idle()

    assert [row.reply_to_id for row in world.ours()] == [question.message_id]
    assert len(world.model.requests) == 1


def test_what_is_archived_is_not_asked_again_after_a_restart(world: World) -> None:
    question = world.hear("hi")
    world.start()
    world.until(lambda: len(world.ours()) == 1)
    world.stop()
    world.clock.advance(3 * 86_400)
    world.hear("and now?")
    sent = replace(world.ours()[0], direction="outbound", send_status="sent")
    Table(world.thread(ALICE), Message).update({sent.key: lambda _: sent})

    archive(world, [question, sent])
    world.idle()

    assert [row.content for row in world.rows() if not row.is_outgoing] == ["and now?"]
    assert len(world.ours()) == 1
    assert len(world.model.requests) == 2
    assert world.count("answer_recovered") == 0
    assert world.reasons() == []


@pytest.mark.parametrize("step", ["archived", "both"])
def test_a_rotation_cut_off_in_the_middle_changes_nothing_for_the_agent(
    world: World, step: str
) -> None:
    rows = fill(world)
    path = world.thread(ALICE)
    before = path.read_bytes()
    archive(world, rows)
    if step == "archived":
        path.chmod(0o640)
        path.write_bytes(before)

    world.hear("and now?")
    world.idle()

    assert len(world.model.requests) == 1
    assert [row.reply_to_id for row in world.ours() if row.direction == "queued"] == ["101"]
