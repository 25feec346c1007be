"""Two radios in one bridge: two trees that never mix, and one answer to what both heard."""

from collections.abc import Iterator

import pytest

from tests.system.world import SECOND, World, read, stays, wait_until


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("two"), radios=2) as world:
        world.start()
        yield world


def test_each_radio_answers_its_own_dms_in_its_own_tree(two: World) -> None:
    ada = two.newcomer()
    first, second = two.all_radios

    to_first = ada.say("question for one", to=first)
    to_second = ada.say("question for two", to=second)
    for question in (to_first, to_second):
        assert ada.wait_for(lambda heard, q=question: heard.reply_id == q, 10)  # type: ignore[misc]

    for radio, asked in ((first, to_first), (second, to_second)):
        rows = read(two.dm_file(ada, radio))
        assert [(r.sender_id, r.reply_to_id) for r in rows] == [
            (ada.node_id, ""),
            (radio.node_id, str(asked)),
        ]
    assert [h.sender for h in sorted(ada.heard, key=lambda h: h.sender)] == [first.num, second.num]
    assert sorted(p.name for p in two.files.nodes_dir.iterdir()) == ["51e0aa01", "51e0aa02"]


def test_channel_question_that_both_heard_is_answered_once(two: World) -> None:
    ada = two.newcomer()
    threads = [tree.channel_thread(SECOND.lower()) for tree in two.trees]

    question = ada.say("librarian, which of you answers?", channel=1)
    assert ada.wait_for(lambda heard: heard.reply_id == question, 10)

    def is_heard_twice_and_answered_once() -> bool:
        rows = [row for path in threads for row in read(path)]
        heard = [r for r in rows if r.message_id == str(question)]
        replies = [r for r in rows if r.is_outgoing and r.reply_to_id == str(question)]
        return len(heard) == 2 and len(replies) == 1

    wait_until(is_heard_twice_and_answered_once, "both trees hold the question")
    assert stays(is_heard_twice_and_answered_once, 0.5)
    assert len(two.answers_heard(ada, question)) == 1


def test_radio_that_is_away_does_not_hold_up_the_other(two: World) -> None:
    ada = two.newcomer()
    first, second = two.all_radios
    first.switch_off()

    question = ada.say("is the other one there?", to=second)
    answer = ada.wait_for(lambda heard: heard.reply_id == question, 5)

    first.switch_on()
    assert answer is not None
    wait_until(lambda: first.is_connected, "the first radio is back")
