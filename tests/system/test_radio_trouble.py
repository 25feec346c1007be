"""A radio that reboots, stalls, vanishes or talks rubbish in the middle of a conversation."""

from collections.abc import Callable

import pytest

from tests.system.world import World, stays, wait_until


def _reboot(world: World) -> None:
    world.radio.reboot(down_s=6)


def _cut(world: World) -> None:
    world.radio.cut()


def _cut_in_next_frame(world: World) -> None:
    world.radio.cut(at_byte=9)


def _disconnect(world: World) -> None:
    world.radio.disconnect()


def _half_open(world: World) -> None:
    world.radio.half_open()


def _stall_for_a_while(world: World) -> None:
    world.radio.stall()
    assert stays(lambda: True, 0.3)
    world.radio.resume()


def _junk(world: World) -> None:
    world.radio.junk = b"\x94rubbish\x94\xc3\xff\xff"
    world.radio.inject(b"\x94\xc3")


TROUBLES: dict[str, Callable[[World], None]] = {
    "reboot": _reboot,
    "cut": _cut,
    "cut in the next frame": _cut_in_next_frame,
    "disconnect": _disconnect,
    "half open": _half_open,
    "stall": _stall_for_a_while,
    "junk": _junk,
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_conversation_goes_on_after_trouble(world: World, trouble: str) -> None:
    ada = world.newcomer()
    world.freeze("agent")
    before = ada.say("asked before", to=world.radio)
    wait_until(lambda: world.question(ada, before), "question on disk")

    TROUBLES[trouble](world)
    world.thaw("agent")
    try:
        world.wait_delivered(ada, before)
        after = ada.say("asked after", to=world.radio)
        world.wait_delivered(ada, after)
    finally:
        world.radio.junk = b""

    assert [len(world.answers_heard(ada, q)) for q in (before, after)] == [1, 1]
    assert len([h for h in ada.heard if h.is_dm]) == 2


def test_text_that_the_radio_kept_is_answered_after_the_connection_is_back(world: World) -> None:
    ada = world.newcomer()
    connections = world.radio.connections
    world.freeze("bridge")
    world.radio.disconnect()

    question = ada.say("asked while nobody listened", to=world.radio)
    assert ada.wait_delivery(question, 5) is not None
    world.thaw("bridge")

    world.wait_delivered(ada, question)
    assert world.radio.connections > connections
    assert len(world.answers_heard(ada, question)) == 1
