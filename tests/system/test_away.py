"""People who leave before their answer is there, through both real processes and a real link."""

import json

import pytest

from meshllm.records import Message
from meshllm.sim.people import Person
from tests.system.conftest import MakeWorld
from tests.system.world import World, stays, tries, wait_until

AWAY_SCALE = 60.0  #: two attempts of three transmissions take a minute and more
LIMIT_S = 15.0  #: real seconds for these


@pytest.fixture
def away(make_world: MakeWorld) -> World:
    world = make_world(scale=AWAY_SCALE)
    world.start()
    return world


def held(world: World, person: Person, question: int) -> Message | None:
    row = world.reply(person, question)
    return row if row is not None and row.meta.get("wait_heard") else None


def test_an_answer_for_somebody_who_left_waits_and_comes_when_they_are_heard(away: World) -> None:
    ada = away.newcomer()
    world = away

    def leave_and_answer() -> str:
        ada.switch_off()
        return "the well is behind the hut"

    world.model.answers["where is the well?"] = leave_and_answer
    question = ada.say("where is the well?", to=world.radio)
    row = wait_until(lambda: held(world, ada, question), "the answer is held", LIMIT_S)

    assert (row.direction, row.send_status, row.meta["reason"]) == (
        "queued",
        "failed",
        "MAX_RETRANSMIT",
    )
    assert not ada.heard
    ada.switch_on()
    assert stays(lambda: not ada.heard, 0.3), "nothing is heard of them yet"

    ada.send_user()
    row = wait_until(lambda: delivered(world, ada, question), "it is delivered", LIMIT_S)

    assert [one.text for one in ada.heard] == ["the well is behind the hut"]
    assert {entry["id"] for entry in tries(row)} == {int(row.message_id)}
    assert "wait_heard" not in row.meta


def delivered(world: World, person: Person, question: int) -> Message | None:
    row = world.reply(person, question)
    return row if row is not None and row.meta.get("delivery") == "delivered" else None


def test_a_held_answer_survives_the_death_of_the_bridge(away: World) -> None:
    world, ada = away, away.newcomer()

    def leave_and_answer() -> str:
        ada.switch_off()
        return "two hours on foot"

    world.model.answers["how far?"] = leave_and_answer
    question = ada.say("how far?", to=world.radio)
    wait_until(lambda: held(world, ada, question), "the answer is held", LIMIT_S)

    world.kill("bridge")
    world.start("bridge")
    status = json.loads(world.tree().radio_status.read_text())
    ada.switch_on()
    wait_until(lambda: world.radio.is_connected, "the radio is connected")
    wait_until(lambda: say_hello(world, ada, question), "it is delivered", LIMIT_S)

    assert status["node_id"]
    assert [one.text for one in ada.heard] == ["two hours on foot"]


def say_hello(world: World, person: Person, question: int) -> bool:
    """Be heard again and again: what comes right after connecting counts as kept by the radio."""
    person.send_user()
    return delivered(world, person, question) is not None
