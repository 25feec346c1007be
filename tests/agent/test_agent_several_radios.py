"""A channel question that several of our own radios heard."""

import json

import pytest

from meshllm.agent.answering import Answering, Delivery
from meshllm.llm.base import ProbeResult, ProbeState
from meshllm.records import Message
from tests.agent.conftest import ALICE, HOME, World

CHANNEL = "LongFast"
ROOF = "0000b00f"


@pytest.fixture(autouse=True)
def two_radios(world: World) -> None:
    world.add_radio(ROOF)


def hear_both(
    world: World, home_hops: int, roof_hops: int, *, snr: tuple[int, int] = (5, 5)
) -> None:
    for uid, hops, decibel in ((HOME, home_hops, snr[0]), (ROOF, roof_hops, snr[1])):
        meta = {"hop_start": 3, "hop_limit": 3 - hops, "snr": decibel}
        world.hear("librarian hi", key=CHANNEL, uid=uid, message_id="5", **meta)


def answers(world: World) -> tuple[int, int]:
    return len(world.ours(CHANNEL, HOME)), len(world.ours(CHANNEL, ROOF))


@pytest.mark.parametrize(
    ("hops", "snr", "winner"),
    [
        ((0, 1), (5, 9), (1, 0)),
        ((1, 0), (9, 5), (0, 1)),
        ((1, 1), (3, 4), (0, 1)),
        ((1, 1), (4, 4), (0, 1)),
    ],
)
def test_the_radio_that_heard_best_answers_alone(
    world: World, hops: tuple[int, int], snr: tuple[int, int], winner: tuple[int, int]
) -> None:
    hear_both(world, *hops, snr=snr)

    world.idle()
    assert answers(world) == (0, 0)
    world.pass_time(4)

    assert answers(world) == winner
    assert len(world.model.requests) == 1


def test_a_copy_that_comes_within_the_wait_may_win(world: World) -> None:
    world.hear("librarian hi", key=CHANNEL, message_id="5", hop_start=3, hop_limit=1)
    world.idle()
    world.clock.advance(2)
    world.hear("librarian hi", key=CHANNEL, uid=ROOF, message_id="5", hop_start=3, hop_limit=3)
    world.pass_time(4)

    assert answers(world) == (0, 1)


def test_a_copy_that_comes_after_the_answer_is_closed(world: World) -> None:
    world.hear("librarian hi", key=CHANNEL, message_id="5", hop_start=3, hop_limit=1)
    world.idle()
    world.pass_time(4)
    assert answers(world) == (1, 0)

    world.hear("librarian hi", key=CHANNEL, uid=ROOF, message_id="5", hop_start=3, hop_limit=3)
    world.pass_time(4)

    assert answers(world) == (1, 0)
    assert "answered_by_other_radio" in world.reasons()


def test_an_answer_to_a_later_question_closes_the_other_radios_copy(world: World) -> None:
    world.hear("librarian hi", key=CHANNEL, uid=ROOF, message_id="5")
    world.hear("librarian hi", key=CHANNEL, uid=HOME, message_id="5")
    world.hear("librarian hello?", key=CHANNEL, uid=HOME, message_id="6")
    own = f"!{HOME}"
    world.put(Message("channel", CHANNEL, "77", "queued", own, "6", "", "answered"), HOME)

    world.pass_time(4)

    assert answers(world) == (1, 0)
    assert world.model.requests == []


def test_one_notice_is_given_through_the_elected_radio(world: World) -> None:
    world.model.probe_result = ProbeResult(ProbeState.UNREACHABLE, "refused")
    hear_both(world, 1, 0)

    world.idle()
    world.pass_time(30)

    assert answers(world) == (0, 1)


def test_an_equal_id_on_another_channel_or_of_another_text_is_another_question(
    world: World,
) -> None:
    world.hear("librarian hi", key=CHANNEL, message_id="5")
    world.hear("librarian hi", key="Help", uid=ROOF, message_id="5")

    world.idle()
    world.pass_time(4)

    assert len(world.ours(CHANNEL, HOME)) == len(world.ours("Help", ROOF)) == 1


def test_a_dm_waits_for_nobody(world: World) -> None:
    world.hear("hi")

    world.idle()

    assert len(world.ours()) == 1


def test_one_radio_with_its_link_down_is_not_waited_for(world: World) -> None:
    world.add_radio(ROOF, link_state="down")
    world.hear("librarian hi", key=CHANNEL)

    world.idle()

    assert answers(world) == (1, 0)


def test_an_answer_logged_for_one_radio_is_not_asked_again_for_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hear("librarian hi", key=CHANNEL, message_id="5", hop_start=3, hop_limit=1)
    world.idle()
    with monkeypatch.context() as patched:
        real = Answering.commit

        def cut(self: Answering, delivery: Delivery) -> bool:
            assert delivery.page is not None
            self._prompts.record(delivery.page)
            raise KeyboardInterrupt

        patched.setattr(Answering, "commit", cut)
        assert real is not cut
        with pytest.raises(KeyboardInterrupt):
            world.pass_time(4)
    world.crash()
    world.hear("librarian hi", key=CHANNEL, uid=ROOF, message_id="5", hop_start=3, hop_limit=3)

    world.idle()
    world.pass_time(4)

    assert answers(world) == (1, 0)
    assert len(world.model.requests) == 1
    assert world.rows(CHANNEL)[0].sender_id == ALICE


@pytest.mark.parametrize("text", ["librarian hi", "librarian ping"])
@pytest.mark.parametrize("second", [HOME, ROOF])
@pytest.mark.parametrize("first", [HOME, ROOF])
def test_the_same_words_after_an_answer_are_a_new_question(
    world: World, first: str, second: str, text: str
) -> None:
    """Each is answered once, by the radio that heard it better."""
    for number, better in (("5", first), ("6", second)):
        for uid in (HOME, ROOF):
            limit = 3 if uid == better else 2
            world.hear(
                text, key=CHANNEL, uid=uid, message_id=number, hop_start=3, hop_limit=limit, snr=5
            )
        world.pass_time(60)

    replies = {row.reply_to_id: uid for uid in (HOME, ROOF) for row in world.ours(CHANNEL, uid)}
    assert replies == {"5": first, "6": second}
    assert sum(answers(world)) == 2


def test_what_the_other_radio_answered_is_neither_open_nor_expired_later(world: World) -> None:
    hear_both(world, 0, 1)
    world.pass_time(150)
    assert answers(world) == (1, 0)

    assert json.loads(world.layout.agent_status.read_text())["queue"] == 0
    world.pass_time(world.settings.max_question_age_seconds)

    assert world.reasons() == ["heard_better_by_other_radio", "answered_by_other_radio"]
