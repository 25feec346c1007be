"""`queue` and `send` on files, with no bridge about."""

import os
from collections.abc import Callable
from datetime import datetime

import pytest

from meshllm.agent.questions import assess
from meshllm.errors import DamagedFileError
from meshllm.records import Message, Node
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from tests.cli.folder import ADA, EVE, OWN, Folder, Result, Runner, heard, ours, put


def rows(folder: Folder, key: str = ADA) -> tuple[Message, ...]:
    return Table(folder.tree.dm_thread(key), Message).read().rows


def row(folder: Folder, message_id: str, key: str = ADA) -> Message:
    return next(one for one in rows(folder, key) if one.message_id == message_id)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (("up", ""), "queued: waits for its turn"),
        (("down", "timeout"), "queued: waits for its turn; its radio is not connected"),
        (("down", "stopped"), "queued: waits for its turn; no bridge runs"),
    ],
)
def test_list_says_when_nothing_can_be_sent_at_all(
    link: tuple[str, str], words: str, run: Runner, folder: Folder
) -> None:
    folder.radio(link_state=link[0], link_cause=link[1])

    listed = run("queue", "--json", "--data", folder.root).json

    assert {row["state_words"] for row in listed if row["state"] == "queued"} == {words}


def test_cancel_takes_back_a_queued_text(run: Runner, folder: Folder) -> None:
    done = run("queue", "cancel", "104", "--data", folder.root)

    assert (done.out, done.code) == ("104: cancelled\n", 0)
    cancelled = row(folder, "104")
    assert (cancelled.direction, cancelled.send_status) == ("outbound", "failed")
    assert cancelled.meta["reason"] == "CANCELLED"


def test_cancel_takes_the_later_parts_with_it(run: Runner, folder: Folder) -> None:
    at = "2026-03-01T11:00:00Z"
    folder.thread(
        *(ours(str(500 + n), "x", at=at, part=n, parts=3, group="501") for n in (1, 2, 3))
    )

    done = run("queue", "cancel", "502", "--data", folder.root)

    assert done.out == "502: cancelled\n503: cancelled\n"
    assert row(folder, "501").direction == "queued"


@pytest.mark.parametrize(
    ("verb", "message_id", "reason", "code"),
    [
        ("cancel", "102", "the radio took it already (delivered)", 1),
        ("retry", "102", "delivered: not sent again", 1),
        ("cancel", "202", "was given up already", 1),
        ("retry", "104", "waits for its turn already", 1),
        ("cancel", "10", "'10' means 3 texts", 2),
        ("cancel", "101", "no text of ours has the id '101'", 2),
        ("retry", "999", "no text of ours has the id '999'", 2),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    verb: str, message_id: str, reason: str, code: int, run: Runner, folder: Folder
) -> None:
    before = folder.bytes()

    done = run("queue", verb, message_id, "--data", folder.root)

    assert done.code == code
    assert reason in done.err
    assert folder.bytes() == before


def test_retry_lets_a_held_text_go(run: Runner, folder: Folder) -> None:
    assert run("queue", "retry", "103", "--data", folder.root).code == 0

    retried = row(folder, "103")
    assert (retried.direction, retried.meta.get("wait_heard")) == ("queued", None)
    assert retried.meta["tries"]  # what happened stays


def test_retry_of_a_given_up_text_queues_a_copy_once(run: Runner, folder: Folder) -> None:
    lost = row(folder, "202", EVE)

    first = run("queue", "retry", "202", "--data", folder.root)
    second = run("queue", "retry", "202", "--data", folder.root)

    *_, old, copy = rows(folder, EVE)
    assert first.out == f"202: queued again as {copy.message_id}\n"
    assert (second.code, "was queued again already" in second.err) == (1, True)
    assert old == lost
    assert (copy.direction, copy.reply_to_id, copy.send_attempts) == ("queued", "201", 0)
    listed = run("queue", "--json", "--data", folder.root).json
    assert "202" not in {one["message_id"] for one in listed}


class _Meanwhile(ManualClock):
    """Lets somebody else act when it is asked for the time, once."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act: list[Callable[[], object]] = [act]

    def utc(self) -> datetime:
        """Imagined wall time; by then the other one is done."""
        if self._act:
            self._act.pop()()
        return super().utc()


def test_two_retries_at_once_queue_one_copy(run: Runner, folder: Folder) -> None:
    """Two copies would go out as two texts with ids of their own: nothing could tell them apart."""
    others: list[Result] = []
    retry = ("queue", "retry", "202", "--data", folder.root)
    usual = run.clock

    def other() -> None:
        run.clock = usual
        others.append(run(*retry))

    run.clock = _Meanwhile(other)
    mine = run(*retry)

    [first] = others
    assert first.code == 0
    assert (mine.code, "was queued again already" in mine.err) == (1, True)
    assert len([one for one in rows(folder, EVE) if one.meta.get("retry_of") == "202"]) == 1


def test_sent_text_is_a_queued_row_that_answers_nothing(run: Runner, folder: Folder) -> None:
    done = run("send", "--to", "Ridge Runner", "Supper is ready", "--data", folder.root)

    made = rows(folder)[-1]
    assert done.out == f"{made.message_id}: queued for Ridge Runner {ADA}\n"
    assert made == ours(
        made.message_id,
        "Supper is ready",
        at="2026-03-01T12:00:00Z",
        kind="operator",
        channel_index=0,
    )
    assert 0 < int(made.message_id) < 2**32


def test_question_stays_open_behind_a_text_of_the_operator(run: Runner, folder: Folder) -> None:
    folder.thread(heard("301", "where is water?", at="2026-03-01T11:59:00Z"))
    run("send", "--to", ADA, "I look it up", "--data", folder.root)

    standing = assess(rows(folder), own_ids=[OWN], max_age_s=3600.0, age=lambda _: 60.0)

    assert [question.row.message_id for question in standing.open] == ["301"]
    assert standing.answers == ()


def test_long_text_is_split_only_as_far_as_allowed(run: Runner, folder: Folder) -> None:
    text = "A sentence of some length that says little. " * 12
    before = folder.bytes()

    refused = run("send", "--to", ADA, text, "--data", folder.root)
    assert (refused.code, folder.bytes()) == (2, before)
    assert "--max-parts 3" in refused.err

    run("send", "--to", ADA, text, "--max-parts", "3", "--data", folder.root)
    made = rows(folder)[-3:]
    assert [one.meta["part"] for one in made] == [1, 2, 3]
    assert {one.meta["group"] for one in made} == {made[0].message_id}
    assert max(len(one.content.encode()) for one in made) <= 200


def test_text_for_a_channel_goes_to_its_thread_and_slot(run: Runner, folder: Folder) -> None:
    done = run("send", "--channel", "hiking", "hello", "--json", "--data", folder.root)

    [said] = done.json
    path = folder.tree.channel_thread("hiking")
    [made] = Table(path, Message).read().rows
    assert (made.thread_type, made.thread_key) == ("channel", "Hiking")
    assert made.meta == {"kind": "operator", "channel_index": 1}
    assert said["message_id"] == made.message_id


def test_first_text_to_somebody_makes_the_thread(run: Runner, folder: Folder) -> None:
    assert run("send", "--to", "!deadbeef", "hi", "--data", folder.root).code == 0

    assert [one.content for one in rows(folder, "!deadbeef")] == ["hi"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "ADA", "--channel", "Hiking", "x"], "either --to NODE or --channel NAME"),
        (["x"], "either --to NODE or --channel NAME"),
        (["--to", "Nobody", "x"], "no node is called 'Nobody'"),
        (["--to", "Rid", "x"], "no node is called exactly 'Rid'"),
        (["--channel", "nope", "x"], "no channel is called 'nope'"),
        (["--to", OWN, "x"], "is no person to write to"),
        (["--to", "!ffffffff", "x"], "is no person to write to"),
        (["--to", "ADA", " \u200b "], "the text is empty"),
        (["--to", "ADA", "--radio", "hill", "x"], "no radio is called 'hill'"),
    ],
)
def test_unclear_addressee_is_refused(
    arguments: list[str], reason: str, run: Runner, folder: Folder
) -> None:
    before = folder.bytes()

    done = run("send", *arguments, "--data", folder.root)

    assert (done.code, folder.bytes()) == (2, before)
    assert reason in done.err


def test_name_of_two_nodes_is_an_error_that_lists_both(run: Runner, folder: Folder) -> None:
    folder.nodes(Node(ADA, "ADA", "Ridge Runner"), Node(EVE, "ADA", "\x1b[2JRidge Runner"))

    done = run("send", "--to", "ADA", "x", "--data", folder.root)

    assert done.code == 2
    assert done.err.splitlines()[1:] == [
        f"  {ADA} ADA Ridge Runner",  # the one heard last
        f"  {EVE} ADA \\x1b[2JRidge Runner",
    ]


def test_several_radios_need_a_name(run: Runner, folder: Folder) -> None:
    second = folder.files.tree("bbbb0002")
    folder.radio(tree=second, node_id="!bbbb0002", long_name="Hill Top")

    refused = run("send", "--channel", "Hiking", "x", "--data", folder.root)
    done = run("send", "--channel", "Hiking", "--radio", "Hill Top", "x", "--data", folder.root)

    assert refused.code == 2
    assert "aaaa0001 Base Camp" in refused.err
    assert done.code == 0
    [made] = Table(second.channel_thread("hiking"), Message).read().rows
    assert made.sender_id == "!bbbb0002"


def test_waiting_ends_in_time_when_no_bridge_runs(run: Runner, folder: Folder) -> None:
    done = run("send", "--to", "ADA", "x", "--wait", "--timeout", "5", "--data", folder.root)

    assert done.code == 3
    assert done.out.splitlines()[-1].endswith(": queued: waits for its turn")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_does_not_take_the_files_from_the_service(run: Runner, folder: Folder) -> None:
    """A file that root replaced is closed to the bridge, which runs as another user."""
    os.chown(folder.files.nodes_dir, 12345, 12345)
    before = folder.bytes()

    for arguments in (["send", "--to", "ADA", "x"], ["queue", "cancel", "104"]):
        done = run(*arguments, "--data", folder.root)
        assert (done.code, folder.bytes()) == (4, before)
        assert "sudo -u 12345" in done.err


def test_damaged_thread_is_not_written(run: Runner, folder: Folder) -> None:
    thread = folder.tree.dm_thread(ADA)
    put(thread, thread.read_bytes() + b"torn\n")

    with pytest.raises(DamagedFileError, match="doctor --repair"):
        run("send", "--to", ADA, "x", "--data", folder.root)
