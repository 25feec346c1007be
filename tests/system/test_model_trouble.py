"""The model away, missing, busy or broken: one honest notice at most, and one answer in the end."""

from collections.abc import Callable, Iterator

import pytest

from meshllm.records import Message
from meshllm.sim.people import Person
from meshllm.testing.ollama_server import BUSY, Answer, End, Refusal, Reply
from tests.system.conftest import MakeWorld
from tests.system.world import Model, World, stays, wait_until


def notices(world: World, person: Person) -> list[Message]:
    return [row for row in world.rows(person) if row.meta.get("kind") == "notice"]


def test_question_meets_one_notice_and_is_answered_when_the_model_is_back(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    ada = world.newcomer()
    port = int(world.model.url.rpartition(":")[2])
    world.model.close()
    world.start()

    question = ada.say("is anybody in?", to=world.radio)
    notice = wait_until(lambda: ada.wait_for("offline", 0.01), "the notice")
    assert stays(lambda: len(ada.heard) == 1, 0.4)
    world.kill("agent")
    world.start("agent")
    assert stays(lambda: len(ada.heard) == 1, 0.4)
    world.model = Model(port)
    world.wait_delivered(ada, question)

    assert [heard.text for heard in ada.heard] == [notice.text, "You asked: is anybody in?"]
    [row] = notices(world, ada)
    assert (row.reply_to_id, row.meta["notice_for"]) == ("", str(question))


def first(*answers: Answer) -> Callable[[], Answer]:
    """Give these answers, then a good one for ever."""
    script: Iterator[Answer] = iter(answers)
    return lambda: next(script, "The good answer.")


#: What a question meets first; each ends well at the second call or within it.
TROUBLES: dict[str, tuple[Answer, ...]] = {
    "busy": (Refusal(503, BUSY),) * 2,
    "missing": (Refusal(404, "model 'qwen3' not found"),),
    "half a line": (Reply("", end=End.HALF_LINE),) * 2,
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_costs_a_notice_and_no_answer(world: World, trouble: str) -> None:
    ada = world.newcomer()
    asked = f"what of {trouble}?"
    world.model.answers[asked] = first(*TROUBLES[trouble])

    question = ada.say(asked, to=world.radio)
    row = world.wait_delivered(ada, question)

    assert row.content == "The good answer."
    assert len(notices(world, ada)) == 1
    assert stays(lambda: [h.reply_id for h in ada.heard if h.is_dm] == [0, question], 0.3)


def test_model_that_is_not_installed_is_named_so(make_world: MakeWorld) -> None:
    world = make_world()
    ada = world.newcomer()
    installed, world.model.models = world.model.models, ()
    world.start()

    question = ada.say("who are you?", to=world.radio)
    assert ada.wait_for("The language model is not installed", 10) is not None
    world.model.models = installed

    world.wait_delivered(ada, question)
    assert len(ada.heard) == 2


@pytest.mark.parametrize("end", [End.LOOP, End.KILLED, End.HALF_LINE])
def test_answer_that_breaks_off_is_sent_as_far_as_it_is_good(world: World, end: End) -> None:
    ada = world.newcomer()
    asked = f"and what of {end.value}?"
    text = "The first sentence is whole. The second sentence is not"
    world.model.answers[asked] = first(Reply(text, end=end, end_after=8))

    question = ada.say(asked, to=world.radio)
    row = world.wait_delivered(ada, question)

    assert row.content.startswith(("The first sentence", "The good answer."))
    assert len(world.answers_heard(ada, question)) == 1


def test_question_that_always_breaks_the_model_gets_an_honest_no(world: World) -> None:
    ada = world.newcomer()
    world.model.answers["break!"] = Reply(end=End.KILLED)

    question = ada.say("break!", to=world.radio)
    row = world.wait_delivered(ada, question)

    assert row.content == "I cannot answer that now."
    assert len(notices(world, ada)) <= 1
    after = ada.say("and now?", to=world.radio)
    world.wait_delivered(ada, after)
