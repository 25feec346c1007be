"""A radio that reboots, stalls, vanishes or talks rubbish in the middle of a conversation."""

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from meshllm.observe import status
from meshllm.sim.node import SimRadio
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
    # A look at the model that is frozen half way runs out of time: that would be another trouble.
    wait_until(lambda: status.read(world.files.agent_status).get("ready"), "the model is known")
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


# -- one radio in trouble beside another ----------------------------------------------------------


@pytest.fixture
def pair(make_world: Callable[..., World]) -> World:
    """Bring up a world of the test's own: the link tells less of outages that come in a row."""
    world = make_world(radios=2)
    world.start()
    return world


def _off(world: World) -> Callable[[], None]:
    world.radio.switch_off()
    return world.radio.switch_on


def _connect_hangs(world: World) -> Callable[[], None]:
    world.radio.stall()
    world.radio.disconnect()
    return world.radio.resume


def _thread_locked(world: World) -> Callable[[], None]:
    holding = ExitStack()
    holding.enter_context(world.locked(world.tree().channel_thread("longfast")))
    world.mesh.people[0].say("for the channel")  # the station now waits for the lock
    world.radio.switch_off()

    def end() -> None:
        world.radio.switch_on()
        holding.close()

    return end


LASTING: dict[str, Callable[[World], Callable[[], None]]] = {
    "off": _off,
    "connect hangs": _connect_hangs,
    "thread locked": _thread_locked,
}


def _events(world: World, start: int) -> list[dict[str, object]]:
    """Parse what the bridge logged since; anything that is no event of ours fails here."""
    lines = world.log("bridge")[start:].splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("trouble", LASTING)
def test_lasting_trouble_is_told_once_and_delays_no_other_radio(pair: World, trouble: str) -> None:
    ada, bob = pair.newcomer(), pair.newcomer("Bob Example")
    first, second = pair.all_radios
    link = f"tcp:{first.address}"
    before = ada.say("asked before", to=first)
    pair.wait_delivered(ada, before)
    start = len(pair.log("bridge"))

    end = LASTING[trouble](pair)
    for number in range(3):
        question = bob.say(f"do you hear me? {number}", to=second)
        assert bob.wait_for(lambda h, q=question: h.reply_id == q, 5)  # type: ignore[misc]
    assert not [
        e for e in _events(pair, start) if (e["event"], e.get("radio")) == ("link_up", link)
    ]
    end()
    wait_until(lambda: _is_up(pair, first), "the first radio is back")
    after = ada.say("asked after", to=first)
    pair.wait_delivered(ada, after)

    told = [e for e in _events(pair, start) if e.get("radio") == link]
    causes = [e["reason"] for e in told if e["event"] == "link_down"]
    assert 1 <= len(causes) == len(set(causes)) <= 2  # how it began, why it cannot be ended
    assert [e["event"] for e in told].count("link_up") == 1
    assert [len(pair.answers_heard(ada, q)) for q in (before, after)] == [1, 1]
    assert status.read(pair.tree(second).radio_status)["link_state"] == "up"


def _is_up(world: World, radio: SimRadio) -> bool:
    return status.read(world.tree(radio).radio_status).get("link_state") == "up"


def test_another_client_that_takes_the_link_is_put_out_again(pair: World) -> None:
    ada = pair.newcomer()
    host, port = pair.radio.address.split(":")
    connections = pair.radio.connections
    start = len(pair.log("bridge"))

    with socket.create_connection((host, int(port))) as thief:
        wait_until(lambda: pair.radio.connections >= connections + 2, "the bridge came back")
        question = ada.say("are you there?", to=pair.radio)
        pair.wait_delivered(ada, question)
        thief.settimeout(5)
        while thief.recv(4096):
            pass  # until it is put out

    told = [e["event"] for e in _events(pair, start) if e.get("radio") == f"tcp:{host}:{port}"]
    assert [name for name in told if name in ("link_down", "link_up")] == ["link_down", "link_up"]
    assert len(pair.answers_heard(ada, question)) == 1
