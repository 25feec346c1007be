"""Whom the librarian answers, how often, and that it never talks to another one."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from meshllm.agent import threads
from meshllm.agent.policy import rest_of_hour
from meshllm.clock import boot_id
from meshllm.config import Settings
from meshllm.llm.base import ChatRequest, ProbeResult, ProbeState
from meshllm.records import Message, Node
from meshllm.store.table import Table
from meshllm.testing.model import Script, ScriptedModel
from tests.agent.conftest import ALICE, BOB, HOME, OWN, World

CHANNEL = "LongFast"
OTHER = "!bbbb0002"
QUESTION = "how do I find north without a compass?"


# limit of an hour


def test_beyond_the_limit_there_is_one_notice_then_silence(world: World) -> None:
    world.settings = Settings(max_answers_per_hour=2)
    for text in ("one?", "two?", "three?", "four?"):
        world.hear(f"{QUESTION} {text}")
        world.idle()
        world.pass_time(60)

    kinds = [row.meta["kind"] for row in world.ours()]
    assert kinds == ["reply", "reply", "notice"]
    assert "2 answers within an hour" in world.said()[2]
    assert world.reasons("question_deferred").count("hourly_limit") == 2


def test_the_limit_outlives_a_restart_and_ends_with_the_hour(world: World) -> None:
    world.settings = Settings(max_answers_per_hour=1, max_question_age_seconds=600)
    world.hear(f"{QUESTION} one?")
    world.idle()
    world.stop()

    world.hear(f"{QUESTION} two?")
    world.idle()
    world.pass_time(700)
    assert [row.meta["kind"] for row in world.ours()] == ["reply", "notice"]

    world.pass_time(3000)
    world.hear(f"{QUESTION} three?")
    world.idle()
    assert [row.meta["kind"] for row in world.ours()] == ["reply", "notice", "reply"]


def test_the_limit_counts_a_person_over_threads_and_radios(world: World) -> None:
    world.add_radio("bbbb0002")
    world.settings = Settings(max_answers_per_hour=1)
    world.hear(f"librarian {QUESTION}", key=CHANNEL, sender=ALICE)
    world.pass_time(10)
    world.stop()

    world.hear(QUESTION, key=ALICE, uid="bbbb0002")
    world.hear(QUESTION, key=BOB, uid="bbbb0002")
    world.idle()

    assert [row.meta["kind"] for row in world.ours(ALICE, "bbbb0002")] == ["notice"]
    assert [row.meta["kind"] for row in world.ours(BOB, "bbbb0002")] == ["reply"]


def test_the_limit_holds_while_files_are_still_being_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings = Settings(max_answers_per_hour=1)
    world.hear(f"librarian {QUESTION}", key=CHANNEL, sender=ALICE)
    world.idle()
    world.stop()
    os.utime(world.thread(CHANNEL), (1, 1))
    monkeypatch.setattr(threads, "SLICE_S", 0.0)

    world.hear(QUESTION, key=ALICE)
    world.start()
    world.until(lambda: bool(world.ours(ALICE)))

    assert [row.meta["kind"] for row in world.ours(ALICE)] == ["notice"]


def test_a_clock_set_forward_does_not_lift_the_limit(world: World) -> None:
    world.settings = Settings(max_answers_per_hour=1)
    world.start()
    world.clock.advance(10)
    world.hear(f"{QUESTION} one?", boot=boot_id(), up_s=world.clock.monotonic())
    world.idle()
    world.clock.set_utc(world.clock.utc() + timedelta(days=20))

    world.hear(f"{QUESTION} two?", boot=boot_id(), up_s=world.clock.monotonic())
    world.idle()

    assert [row.meta["kind"] for row in world.ours()] == ["reply", "notice"]


def test_a_channel_gets_no_notice_of_the_limit(world: World) -> None:
    world.settings = Settings(max_answers_per_hour=1)
    for text in ("one?", "two?"):
        world.hear(f"librarian {QUESTION} {text}", key=CHANNEL)
        world.idle()

    assert len(world.ours(CHANNEL)) == 1
    assert world.reasons("question_deferred") == ["hourly_limit"]


def test_who_wants_no_notices_waits_for_the_hour_without_one(world: World) -> None:
    world.settings = Settings(max_answers_per_hour=1)
    for text in ("stop", f"{QUESTION} one?", f"{QUESTION} two?"):
        world.hear(text)
        world.idle()

    assert [row.meta["kind"] for row in world.ours()] == ["reply", "reply"]
    assert world.reasons("question_deferred") == ["hourly_limit"]


def test_commands_have_a_limit_of_their_own_that_stop_does_not_know(world: World) -> None:
    world.settings = Settings(max_answers_per_hour=1)
    for text in ("ping", "status", "help", "стоп"):
        world.hear(text)
        world.idle()

    commands = [row.meta.get("command") for row in world.ours() if row.meta["kind"] == "reply"]
    assert commands == ["ping", "status", "stop"]


def test_the_rest_of_the_hour_is_that_of_the_answer_that_must_grow_old() -> None:
    assert rest_of_hour([], 2) == 0
    assert rest_of_hour([10], 2) == 0
    assert rest_of_hour([10, 3000, 500], 2) == 3100
    assert rest_of_hour([10, 3601], 2) == 0


# age


@pytest.mark.parametrize("days", [1, 400])
def test_a_clock_set_forward_silences_no_question_of_an_earlier_boot(
    world: World, days: int
) -> None:
    world.settings = Settings(max_question_age_seconds=3000)
    world.hear(QUESTION, boot="earlier0", up_s=5.0)
    world.start()
    world.clock.set_utc(world.clock.utc() + timedelta(days=days))
    world.idle()

    assert len(world.ours()) == 1


def test_a_question_of_an_earlier_boot_is_at_least_as_old_as_this_one(world: World) -> None:
    world.settings = Settings(max_question_age_seconds=900)
    world.clock.set_utc(world.clock.utc() - timedelta(days=3))

    world.hear(QUESTION, timestamp="2026-03-01T12:00:00Z", boot="earlier0", up_s=5.0)
    world.idle()

    assert world.reasons() == ["expired"], "up for 1000 s, so it is older than 900 s"


# lists


def test_a_blocked_person_is_not_answered_on_a_channel_either(world: World) -> None:
    world.settings = Settings(dm_blocklist=("Alice",))
    world.name(Node(ALICE, "AL", "Alice"))
    world.hear(f"librarian {QUESTION}", key=CHANNEL, sender=ALICE)
    world.idle()

    assert (world.ours(CHANNEL), world.reasons()) == ([], ["dm_blocklist"])


def test_a_channel_whose_name_looks_like_a_node_is_listed_by_it(world: World) -> None:
    world.settings = Settings(channel_blocklist=("DEADBEEF",))
    world.hear(f"librarian {QUESTION}", key="deadbeef", sender=ALICE)
    world.idle()

    assert (world.ours("deadbeef"), world.reasons()) == ([], ["channel_blocklist"])


def test_entries_that_match_nothing_are_told_once_with_near_names(world: World) -> None:
    world.settings = Settings(
        channel_allowlist=("LongFst", "longfast"), dm_blocklist=("Alise", "!a11ce001", "!dead0000")
    )
    world.add_radio(HOME, channels=[{"index": 0, "name": "LongFast", "file": "longfast"}])
    world.name(Node(ALICE, "AL", "Alice"))
    world.idle()
    world.pass_time(5)

    told = {
        (e["setting"], e["entry"]): e["near"]
        for e in world.events
        if e["event"] == "list_entry_unmatched"
    }
    assert world.count("list_entry_unmatched") == 3
    assert told["channel_allowlist", "LongFst"] == ["LongFast"]
    assert told["dm_blocklist", "Alise"] == ["Alice"]
    assert told["dm_blocklist", "!dead0000"] == []


# the same words again


def test_the_same_words_are_folded_into_the_question_that_is_being_answered(world: World) -> None:
    world.model.gate.clear()
    first = world.hear(QUESTION)
    world.start()
    world.until(lambda: len(world.model.requests) == 1)
    world.hear(QUESTION.upper() + "  ")
    world.until(lambda: "same_text_waits" in world.reasons())
    world.model.gate.set()
    world.idle()
    world.stop()
    world.idle()

    (reply,) = world.ours()
    assert (reply.reply_to_id, len(world.model.requests)) == (first.message_id, 1)
    assert world.reasons() == ["same_text_waits"]


def test_the_same_words_after_the_answer_are_a_new_question(world: World) -> None:
    for _ in range(2):
        world.hear(QUESTION)
        world.idle()

    assert len(world.ours()) == 2


# who is no person at a keyboard


def test_what_came_over_the_internet_is_answered_only_where_wanted(world: World) -> None:
    world.hear(QUESTION, via_mqtt=True)
    world.idle()
    assert (world.ours(), world.reasons()) == ([], ["came_over_internet"])
    world.stop()

    world.settings = Settings(answer_internet_messages=True)
    world.idle()
    assert len(world.ours()) == 1


def test_a_sender_without_the_key_used_before_is_told_once_and_not_answered(world: World) -> None:
    world.hear(QUESTION, pki=True)
    world.idle()
    world.hear("tell me what I asked before", channel_index=0)
    world.idle()
    world.hear("come on, tell me", channel_index=0)
    world.pass_time(10)

    assert [row.meta["kind"] for row in world.ours()] == ["reply", "notice"]
    assert "key" in world.said()[1]
    assert world.reasons() == ["sender_downgraded"] * 2
    assert len(world.model.requests) == 1

    world.hear("with the key again: what did I ask?", pki=True)
    world.idle()
    assert world.ours()[-1].meta["kind"] == "reply"


def test_a_downgraded_sender_is_flagged_where_the_operator_wants_answers(world: World) -> None:
    world.settings = Settings(refuse_downgraded_senders=False)
    world.hear(f"{QUESTION} one?", pki=True)
    world.idle()
    world.hear(f"{QUESTION} two?")
    world.idle()

    assert len(world.ours()) == 2
    assert world.count("sender_downgraded") == 1


def test_reactions_and_our_own_nodes_are_not_answered(world: World) -> None:
    world.add_radio("bbbb0002")
    world.hear("\N{THUMBS UP SIGN}", emoji=1, reply_id=5)
    world.hear(f"librarian {QUESTION}", key=CHANNEL, sender=OTHER)
    world.pass_time(10)

    assert (world.ours(), world.ours(CHANNEL)) == ([], [])


# two librarians


class Pair:
    """Two agents whose texts are delivered to each other."""

    def __init__(self, first: World, root: Path, script: Script) -> None:
        second = World(root, first.events, clock=first.clock, model=ScriptedModel(script))
        second.add_radio(HOME, node_id=OTHER)
        first.model.script = script
        self.sides = {OWN: first, OTHER: second}
        self.carried: set[tuple[str, str]] = set()

    def carry(self, key: str, change: Callable[[Message], Message]) -> int:
        """Deliver what is new; return how many texts."""
        count = 0
        for sender, side in self.sides.items():
            (other,) = self.sides.keys() - {sender}
            there = key if not key.startswith("!") else other
            for row in side.ours(there) if side.thread(there).exists() else []:
                if (sender, row.message_id) in self.carried:
                    continue
                self.carried.add((sender, row.message_id))
                count += 1
                self.sides[other].put(as_heard(change(row), sender, key))
        return count

    def stop(self) -> None:
        for side in self.sides.values():
            side.stop()


def as_heard(row: Message, sender: str, key: str) -> Message:
    """Turn a queued row into what the other radio hears: only a first part names its question."""
    is_first = row.meta.get("part", 1) == 1
    return replace(
        row,
        thread_key=key if not key.startswith("!") else sender,
        direction="inbound",
        sender_id=sender,
        reply_to_id=row.reply_to_id if is_first else "",
        meta_json='{"channel_index":0}',
    )


def as_it_is(row: Message) -> Message:
    return row


def without_part_mark(row: Message) -> Message:
    if row.meta.get("parts", 1) == 1:
        return row
    return replace(row, content=row.content.split(") ", 1)[1])


def short(request: ChatRequest) -> str:
    return f"Answer {len(str(request.messages))}. What do you think, friend?"


def long(request: ChatRequest) -> str:
    number = len(str(request.messages))
    return f"Take {number} steps north, then rest. " + "".join(
        f"Mind root {n} of tree {n * 7 + number} on the path by the creek. " for n in range(8)
    )


def calling(request: ChatRequest) -> str:
    return f"librarian what is {len(str(request.messages))} plus one?"


@pytest.mark.parametrize("gap_s", [3.0, 90.0], ids=["quick", "slow"])
@pytest.mark.parametrize(
    ("key", "script", "change"),
    [
        ("!", short, as_it_is),
        ("!", long, as_it_is),
        ("!", long, without_part_mark),
        ("!", "", as_it_is),
        (CHANNEL, calling, as_it_is),
    ],
    ids=["dm", "dm-parts", "dm-unmarked-parts", "dm-honest-lines", "channel"],
)
@pytest.mark.timeout(60)
def test_two_librarians_soon_fall_silent(
    world: World,
    tmp_path: Path,
    key: str,
    script: Script,
    change: Callable[[Message], Message],
    gap_s: float,
) -> None:
    pair = Pair(world, tmp_path / "other", script)
    begin = "hello there, friend" if key == "!" else "librarian hello there"
    world.hear(begin, key=OTHER if key == "!" else key, sender=OTHER)

    heard = []
    for _ in range(24):
        for side in pair.sides.values():
            side.idle()
        heard.append(pair.carry(key, change))
        world.clock.advance(gap_s)
    pair.stop()

    assert heard[0] > 0, "the first text is answered"
    assert sum(heard[16:]) == 0, heard
    # At most six replies each way, each in two texts, and one line that says how to go on.
    assert sum(heard) <= 26, heard


def test_a_notice_and_a_hand_over_line_of_another_librarian_are_not_answered(
    world: World, tmp_path: Path
) -> None:
    pair = Pair(world, tmp_path / "other", "Rest.")
    world.model.probe_result = ProbeResult(ProbeState.UNREACHABLE, "off")
    world.settings = Settings(emergency_text="Ring 999 or come to the hut.")
    world.hear("help, my friend is not breathing", key=OTHER)
    world.idle()
    assert [row.meta["kind"] for row in world.ours(OTHER)] == ["notice", "notice"]

    assert pair.carry("!", as_it_is) == 2
    pair.sides[OTHER].idle()

    assert pair.sides[OTHER].ours(OWN) == []
    pair.stop()


def test_an_echo_of_the_same_words_after_each_answer_ends(world: World) -> None:
    for _ in range(5):
        world.hear("Message received, thank you. How can I help you?")
        world.idle()
        world.clock.advance(4)

    assert len(world.ours()) <= 3
    assert "bot_echo" in world.reasons()


def test_who_has_the_model_go_on_is_no_echo(world: World) -> None:
    world.settings = Settings(max_reply_parts=1)
    world.model.script = " ".join(
        f"Sentence number {n} says how to go on from here." for n in range(30)
    )
    world.hear("how do I boil water?")
    world.idle()

    for _ in range(5):
        world.clock.advance(3)
        world.hear("more")
        world.idle()

    assert "bot_echo" not in world.reasons()
    assert all(row.meta.get("unsaid") for row in world.ours())
    assert len(world.ours()) == 6


def test_who_reads_a_long_answer_to_its_end_is_no_echo(world: World) -> None:
    world.settings = Settings(max_reply_parts=1)
    world.model.script = "Boil the water well. " * 3 + "It is safe then."
    world.hear("how do I boil water?")
    world.idle()
    table = Table(world.thread(ALICE), Message)
    rest = " ".join(f"Sentence number {n} says how to go on from here." for n in range(30))
    row = world.ours()[-1]
    table.update({row.key: lambda r: r.with_meta(rest=rest)})

    for _ in range(6):
        world.clock.advance(3)
        world.hear("more")
        world.idle()

    assert "bot_echo" not in world.reasons()
    assert len(world.ours()) == 7


def test_a_person_who_repeats_a_question_after_a_while_is_answered(world: World) -> None:
    for _ in range(5):
        world.hear("any news of the ridge trail?")
        world.idle()
        world.clock.advance(40)

    assert len(world.ours()) == 5
