"""`why`: the story of every fate a message can have, from rows, prompts and logs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshllm.records import Message, PromptRow, compact_json
from tests.cli.folder import ADA, EVE, OWN, Folder, Runner, heard, ours, write

Golden = Callable[[str, str], None]
AT = "2026-03-01T11:{:02d}:00Z"
LATE = "2026-03-01T10:00:00Z"  #: two hours before the clock of the tests


@pytest.fixture
def bare(tmp_path: Path) -> Folder:
    """A radio, an agent at work, no thread yet."""
    folder = Folder(tmp_path)
    folder.radio()
    folder.agent(heartbeat_at="2026-03-01T11:59:50Z", model={"state": "ready", "reason": ""})
    return folder


def story(run: Runner, folder: Folder, *arguments: object) -> dict[str, Any]:
    result = run("why", *arguments, "--data", folder.root, "--json")
    assert result.code == 0, result.err
    facts = result.json
    assert isinstance(facts, dict)
    return facts


def verdict(run: Runner, folder: Folder, *arguments: object) -> tuple[str, str, str]:
    facts = story(run, folder, *arguments)
    return facts["verdict"], facts["reason"], facts["proof"]


def texts(facts: dict[str, Any], what: str) -> list[str]:
    return [step["text"] for step in facts["steps"] if step["what"] == what]


def on_channel(
    message_id: str, content: str, *, at: str, sender: str = ADA, **meta: object
) -> Message:
    row = heard(message_id, content, at=at, sender=sender, **meta)
    return replace(row, thread_type="channel", thread_key="Hiking")


def logged(folder: Folder, role: str, *events: dict[str, object]) -> None:
    path = folder.files.log_file(role)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"level": "info", "role": role} | e) + "\n" for e in events))


def call(folder: Folder, question: str, outcome: str, **meta: object) -> None:
    row = PromptRow("0f0e-7", "aaaa0001", "2026-03-01 11:00:09", "qwen2.5:3b", "dm", ADA, question)
    extras = compact_json({"outcome": outcome, "source_sender": ADA, **meta})
    write(folder.files.prompts_table, [replace(row, duration_ms=9000, meta_json=extras)], PromptRow)


# The whole screen


def test_screen_of_an_answer_of_which_a_part_is_held(
    run: Runner, folder: Folder, golden: Golden
) -> None:
    golden("cli/why-held.txt", run("why", "101", "--data", folder.root).out)


def test_screen_of_a_hostile_question_cannot_drive_the_terminal(
    run: Runner, folder: Folder, golden: Golden
) -> None:
    out = run("why", "--node", EVE, "--data", folder.root).out

    assert not set(out) & {"\x1b", "\u202e", "\u2028", "\x9b"}
    golden("cli/why-hostile.txt", out)


# Answered


def test_an_answer_is_told_with_time_model_tries_and_confirmation(
    run: Runner, bare: Folder
) -> None:
    tries = [
        {"id": 2, "at": AT.format(1), "result": "MAX_RETRANSMIT"},
        {"id": 2, "at": AT.format(2), "result": "delivered"},
    ]
    sent: dict[str, Any] = {"direction": "outbound", "status": "sent", "reply_to": "1"}
    bare.thread(
        heard("1", "where?", at=AT.format(0), hop_start=3, hop_limit=1, snr=4.5, rssi=-90),
        ours(
            "2", "there", at=AT.format(1), kind="reply", delivery="delivered", tries=tries, **sent
        ),
    )
    call(bare, "1", "ok")

    facts = story(run, bare, "1")

    assert facts["verdict"] == "answered"
    assert texts(facts, "heard") == ["a direct message: 2 hops, SNR 4.5 dB, RSSI -90 dBm"]
    [asked] = texts(facts, "asked")
    assert "took 9.0 s: the model finished its answer" in asked
    first, second = texts(facts, "tried")
    assert "MAX_RETRANSMIT: our radio sent it three times" in first
    assert second.endswith("the addressee's radio confirmed it")


def test_worst_part_speaks_for_the_answer(run: Runner, folder: Folder) -> None:
    facts = story(run, folder, "101")

    assert (facts["verdict"], facts["reason"]) == ("waits", "MAX_RETRANSMIT")
    assert "part 2 of 2 is kept until the person is heard" in facts["text"]


@pytest.mark.parametrize("name", ["102", "103", "!00000067", "0x67", "0f0e-1", "0f0e"])
def test_every_name_of_an_answer_leads_to_its_question(
    run: Runner, folder: Folder, name: str
) -> None:
    assert story(run, folder, name)["message_id"] == "101"


def test_a_packet_id_of_a_repeat_finds_its_row(run: Runner, bare: Folder) -> None:
    tries = [{"id": 2, "at": AT.format(1), "result": "NO_ACK"}, {"id": 77, "at": AT.format(2)}]
    bare.thread(
        heard("1", "where?", at=AT.format(0)),
        ours("2", "there", at=AT.format(1), reply_to="1", tries=tries),
    )

    facts = story(run, bare, "77")

    assert (facts["message_id"], facts["asked_for"]) == ("1", "2")
    assert "under way" in texts(facts, "tried")[-1]


def test_a_text_of_the_operator_has_a_story_of_its_own(run: Runner, folder: Folder) -> None:
    facts = story(run, folder, "104")

    assert (facts["verdict"], facts["direction"]) == ("waits", "queued")


# Not answered, as the rows prove


def test_talk_on_a_channel_needs_the_trigger_word(run: Runner, bare: Folder) -> None:
    bare.thread(on_channel("1", "is anybody there?", at=LATE))

    assert verdict(run, bare, "1") == ("not_answered", "not_a_trigger", "rows")


def test_a_reaction_asks_nothing(run: Runner, bare: Folder) -> None:
    bare.thread(heard("1", "👍", at=LATE, emoji=1, reply_id=99))

    assert verdict(run, bare, "1") == ("not_answered", "reaction", "rows")


def test_our_own_radio_on_another_one_is_no_person(run: Runner, bare: Folder) -> None:
    bare.thread(on_channel("1", "librarian hello", at=LATE, sender=OWN))

    assert verdict(run, bare, "1") == ("not_answered", "own_radio", "rows")


def test_an_earlier_question_was_answered_with_the_later_one(run: Runner, bare: Folder) -> None:
    bare.thread(
        heard("1", "where is water?", at=AT.format(0)),
        heard("2", "clean water?", at=AT.format(1)),
        ours("3", "Behind the mill.", at=AT.format(2), reply_to="2", kind="reply"),
    )

    facts = story(run, bare, "1")

    assert (facts["verdict"], facts["reason"]) == ("not_answered", "closed_by_later")
    assert "question 2, answer 3" in facts["text"]


def test_the_answer_to_a_later_command_does_not_close_a_question(run: Runner, bare: Folder) -> None:
    bare.thread(
        heard("1", "where is water?", at=AT.format(50)),
        heard("2", "ping", at=AT.format(51)),
        ours("3", "pong", at=AT.format(51), reply_to="2", kind="reply", command="ping"),
    )

    assert verdict(run, bare, "1")[0] == "open"


def test_the_same_words_while_the_first_wait_get_no_answer_of_their_own(
    run: Runner, bare: Folder
) -> None:
    bare.thread(
        heard("1", "where is water?", at=AT.format(55)),
        heard("2", "Where  is WATER?", at=AT.format(56)),
    )

    facts = story(run, bare, "2")

    assert (facts["reason"], facts["verdict"]) == ("same_text_waits", "not_answered")
    assert "see message 1" in facts["text"]


def test_the_same_words_after_the_answer_are_a_question_anew(run: Runner, bare: Folder) -> None:
    bare.thread(
        heard("1", "where is water?", at=AT.format(50)),
        ours("3", "Behind the mill.", at=AT.format(51), reply_to="1", kind="reply"),
        heard("2", "where is water?", at=AT.format(56)),
    )

    assert verdict(run, bare, "2")[0] == "open"


def test_a_reply_to_somebody_elses_text_of_the_same_id_is_not_ours(
    run: Runner, bare: Folder
) -> None:
    reply = ours("3", "To Eve.", at=AT.format(2), to="Hiking", reply_to="1", reply_to_sender=EVE)
    bare.thread(
        on_channel("1", "librarian one?", at=AT.format(0)),
        on_channel("1", "librarian two?", at=AT.format(1), sender=EVE),
        reply,
    )

    assert verdict(run, bare, "1", "--node", ADA)[0] != "answered"
    assert story(run, bare, "1", "--node", EVE)["text"].startswith("an answer was made")


def test_a_settings_rule_is_told_as_one_of_now(run: Runner, bare: Folder, tmp_path: Path) -> None:
    bare.thread(heard("1", "hello?", at=LATE))
    config = tmp_path / "config.yaml"
    config.write_text(f'dm_blocklist: ["{ADA.upper()}"]\n')

    result = run("why", "1", "--data", bare.root, "--config", config, "--json")

    facts = json.loads(result.out)
    assert (facts["reason"], facts["proof"]) == ("dm_blocklist", "settings")
    assert "as they are now" in facts["text"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([heard("1", "hello?", at=LATE, via_mqtt=True)], "came_over_internet"),
        ([heard("0", "hi", at=LATE, pki=True), heard("1", "hey?", at=LATE)], "sender_downgraded"),
        ([heard("1", "(1/2) as I said", at=LATE)], "bot_part_mark"),
    ],
)
def test_rules_that_rows_prove_are_named(
    run: Runner, bare: Folder, rows: list[Message], reason: str
) -> None:
    bare.thread(*rows)

    assert verdict(run, bare, "1")[1] == reason


# Not answered, as prompts and logs tell


def test_a_call_that_failed_names_the_model_and_the_way_out(run: Runner, bare: Folder) -> None:
    bare.thread(heard("1", "hello?", at=LATE))
    call(bare, "1", "missing_model", reason="HTTP 404: model not found")

    facts = story(run, bare, "1")

    assert (facts["verdict"], facts["reason"]) == ("not_answered", "expired")
    assert "the server does not have the model" in facts["text"]
    assert "doctor" in facts["advice"]


def test_a_person_who_was_told_that_the_model_is_away(run: Runner, bare: Folder) -> None:
    notice = ours(
        "2", "The model is offline.", at=LATE, kind="notice", notice="offline", notice_for="1"
    )
    bare.thread(heard("1", "hello?", at=LATE), notice)

    facts = story(run, bare, "1")

    assert "the person was told so" in facts["text"]
    assert len(texts(facts, "told")) == 1
    assert story(run, bare, "2")["message_id"] == "1"


def test_what_the_agent_logged_is_believed(run: Runner, bare: Folder) -> None:
    bare.thread(heard("1", "hello?", at=LATE))
    told = {"event": "question_skipped", "reason": "bot_loop", "message_id": "1"}
    other = {"event": "question_skipped", "reason": "bot_echo", "message_id": "11"}
    logged(bare, "agent", {"timestamp": LATE, **told}, {"timestamp": LATE, **other})

    assert verdict(run, bare, "1") == ("not_answered", "bot_loop", "log")


def test_what_the_agent_logged_about_somebody_elses_text_of_the_same_id_is_not_taken(
    run: Runner, bare: Folder
) -> None:
    """Anybody may send a packet with an id that they heard."""
    bare.thread(heard("1", "hello?", at=LATE))
    bare.thread(heard("1", "(1/2) hi", at=LATE, sender=EVE))
    told = {"event": "question_skipped", "reason": "bot_part_mark", "message_id": "1"}
    logged(bare, "agent", {"timestamp": LATE, **told, "thread_key": EVE})

    assert verdict(run, bare, "1", "--node", ADA) == ("unknown", "expired", "nothing")
    assert verdict(run, bare, "1", "--node", EVE) == ("not_answered", "bot_part_mark", "log")


def test_a_rotated_log_and_damaged_lines_are_read(run: Runner, bare: Folder) -> None:
    at = AT.format(50)
    bare.thread(heard("1", "hello?", at=at))
    old = bare.files.logs_dir / "agent.jsonl.3"
    old.parent.mkdir(parents=True)
    event = {"timestamp": at, "event": "question_deferred", "reason": "cooldown"}
    line = json.dumps({**event, "message_id": "1"}).encode()
    old.write_bytes(b'{"message_id": "1", half\n\xff\xfe\n' + line + b"\n[1]\n")

    assert verdict(run, bare, "1") == ("open", "cooldown", "log")


def _deferred(folder: Folder, at: str, reason: str) -> None:
    event = {"event": "question_deferred", "reason": reason, "message_id": "1"}
    logged(folder, "agent", {"timestamp": at, **event})


def test_a_deferral_of_a_question_that_grew_too_old_is_no_promise(
    run: Runner, bare: Folder
) -> None:
    """The agent may be gone since, and never have said that it is over."""
    bare.thread(heard("1", "hello?", at=LATE))
    _deferred(bare, LATE, "hourly_limit")

    facts = story(run, bare, "1")

    assert (facts["verdict"], facts["reason"], facts["proof"]) == ("not_answered", "expired", "log")
    assert "`max_answers_per_hour`" in facts["text"]


def test_a_deferral_is_over_when_the_model_was_asked_or_the_agent_is_gone(
    run: Runner, bare: Folder
) -> None:
    bare.thread(heard("1", "hello?", at=AT.format(50)))
    _deferred(bare, AT.format(50), "cooldown")
    bare.agent(running=False, heartbeat_at=AT.format(55))

    assert "the agent was stopped" in story(run, bare, "1")["text"]

    bare.agent(heartbeat_at="2026-03-01T11:59:50Z", model={"state": "ready", "reason": ""})
    _deferred(bare, "2026-03-01T11:00:05Z", "cooldown")
    call(bare, "1", "missing_model")

    assert "the server does not have the model" in story(run, bare, "1")["text"]


def test_a_deferral_is_over_when_a_later_question_was_answered(run: Runner, bare: Folder) -> None:
    bare.thread(
        heard("1", "hello?", at=AT.format(50)),
        heard("2", "and now?", at=AT.format(51)),
        ours("3", "Yes.", at=AT.format(52), reply_to="2"),
    )
    _deferred(bare, AT.format(50), "cooldown")

    assert verdict(run, bare, "1") == ("not_answered", "closed_by_later", "rows")


def test_too_old_by_the_log_still_names_what_kept_it_waiting(run: Runner, bare: Folder) -> None:
    bare.thread(heard("1", "hello?", at=LATE))
    event = {"timestamp": AT.format(0), "event": "question_skipped", "message_id": "1"}
    logged(bare, "agent", {**event, "reason": "expired"})
    call(bare, "1", "missing_model")

    facts = story(run, bare, "1")

    assert (facts["verdict"], facts["reason"]) == ("not_answered", "expired")
    assert "the server does not have the model" in facts["text"]
    assert "doctor" in facts["advice"]


@pytest.mark.parametrize("at", [LATE, AT.format(50)], ids=["old", "young by a clock set back"])
def test_too_old_by_the_log_alone(at: str, run: Runner, bare: Folder) -> None:
    bare.thread(heard("1", "hello?", at=at))
    event = {"timestamp": AT.format(0), "event": "question_skipped", "message_id": "1"}
    logged(bare, "agent", {**event, "reason": "expired"})

    assert verdict(run, bare, "1") == ("not_answered", "expired", "log")


def test_what_was_too_old_is_not_closed_by_what_came_after(run: Runner, bare: Folder) -> None:
    bare.thread(
        heard("1", "hello?", at=LATE),
        heard("2", "and now?", at=AT.format(30)),
        ours("3", "Yes.", at=AT.format(31), reply_to="2"),
    )
    event = {"timestamp": AT.format(0), "event": "question_skipped", "message_id": "1"}
    logged(bare, "agent", {**event, "reason": "expired"})
    call(bare, "2", "ok")

    facts = story(run, bare, "1")

    assert (facts["verdict"], facts["reason"], facts["proof"]) == ("not_answered", "expired", "log")
    assert "model call" not in facts["text"]


def test_nothing_proves_why_and_that_is_what_it_says(run: Runner, bare: Folder) -> None:
    bare.thread(heard("1", "hello?", at=LATE))

    facts = story(run, bare, "1")

    assert (facts["verdict"], facts["proof"]) == ("unknown", "nothing")
    assert "there are no log files" in facts["text"]


def test_logs_that_begin_later_are_said_to_be_gone(run: Runner, bare: Folder) -> None:
    bare.thread(heard("1", "hello?", at=LATE))
    logged(bare, "agent", {"timestamp": AT.format(30), "event": "process_started"})

    assert f"log lines go back to {AT.format(30)} only" in story(run, bare, "1")["text"]


def test_logs_of_that_time_without_a_word_mean_that_nobody_looked(
    run: Runner, bare: Folder
) -> None:
    bare.thread(heard("1", "hello?", at=LATE))
    stopped = {"timestamp": "2026-03-01T09:00:00Z", "event": "process_stopped", "signal": 15}
    logged(bare, "agent", stopped)

    facts = story(run, bare, "1")

    assert "it was not running" in facts["text"]
    assert any("process_stopped" in text for text in texts(facts, "log"))


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ({"heartbeat_at": "2026-03-01T11:00:00Z"}, "last sign of life"),
        ({"running": False}, "the agent was stopped"),
        ({"model": {"state": "offline", "reason": "unreachable"}}, "nothing answered at"),
    ],
)
def test_an_open_question_says_what_it_waits_for(
    run: Runner, bare: Folder, agent: dict[str, Any], said: str
) -> None:
    bare.thread(heard("1", "hello?", at=AT.format(50)))
    bare.agent(**({"heartbeat_at": "2026-03-01T11:59:50Z"} | agent))

    facts = story(run, bare, "1")

    assert facts["verdict"] == "open"
    assert said in facts["text"]
    assert "50 min more" in facts["text"]


# Several radios, archives, names


def test_a_channel_question_heard_by_two_radios_is_one_story(run: Runner, bare: Folder) -> None:
    question = on_channel("1", "librarian hello?", at=AT.format(0), snr=3.0)
    bare.thread(question)
    reply = ours(
        "2",
        "Hello.",
        at=AT.format(1),
        to="Hiking",
        direction="outbound",
        status="sent",
        reply_to="1",
        reply_to_sender=ADA,
        kind="reply",
        delivery="relayed",
    )
    other = bare.files.tree("bbbb0002").channel_thread("hiking")
    write(other, [replace(question, timestamp=AT.format(1)), reply], Message)

    facts = story(run, bare, "1")
    same = story(run, bare, "2")

    assert facts["verdict"] == "answered"
    assert sorted(facts["radios"]) == sorted(same["radios"]) == ["aaaa0001", "bbbb0002"]
    assert len(texts(facts, "heard")) == 2


def test_an_archived_message_is_found(run: Runner, folder: Folder) -> None:
    assert story(run, folder, "11")["content"] == "an old one"


def test_the_same_id_of_two_people_asks_which(run: Runner, bare: Folder) -> None:
    bare.thread(heard("5", "one", at=LATE))
    bare.thread(heard("5", "two", at=LATE, sender=EVE))

    result = run("why", "5", "--data", bare.root)

    assert result.code == 2
    assert ADA in result.err
    assert EVE in result.err
    assert story(run, bare, "5", "--node", EVE)["content"] == "two"


def test_a_beginning_of_an_id_is_enough_when_it_is_the_only_one(run: Runner, bare: Folder) -> None:
    bare.thread(heard("1234567890", "one", at=LATE), heard("1239999999", "two", at=LATE))

    assert story(run, bare, "12345")["content"] == "one"
    assert run("why", "123", "--data", bare.root).code == 2


def test_an_unknown_id_says_what_to_try(run: Runner, bare: Folder) -> None:
    result = run("why", "424242", "--data", bare.root)

    assert result.code == 2
    assert "--node" in result.err


def test_newest_message_of_a_person_by_name(run: Runner, folder: Folder) -> None:
    assert story(run, folder, "--node", "Ridge Runner")["message_id"] == "101"


def _unread(folder: Folder, at: str, sender: str) -> None:
    event: dict[str, object] = {"timestamp": at, "event": "dm_undecodable", "sender": sender}
    logged(folder, "bridge", event)


def test_a_text_that_could_not_be_decrypted_is_told_though_it_left_no_row(
    run: Runner, bare: Folder
) -> None:
    bare.thread(heard("1", "hello?", at=LATE, sender=ADA))
    _unread(bare, AT.format(30), EVE)

    nothing = run("why", "--node", EVE, "--data", bare.root)
    assert nothing.code == 2
    assert f"{EVE} at {AT.format(30)} could not be decrypted" in nothing.err
    assert "exchange-keys.md" in nothing.err
    assert story(run, bare, "--node", ADA)["undecoded_at"] == ""

    _unread(bare, AT.format(30), ADA)
    screen = run("why", "--node", ADA, "--data", bare.root).out
    assert f"{ADA} at {AT.format(30)} could not be decrypted" in screen.splitlines()[0]
    assert story(run, bare, "--node", ADA)["undecoded_at"] == AT.format(30)

    _unread(bare, "2026-03-01T09:00:00Z", ADA)  # before the one that could be read
    assert "decrypted" not in run("why", "--node", ADA, "--data", bare.root).out


def test_damage_in_another_thread_does_not_hide_a_story(run: Runner, folder: Folder) -> None:
    path = folder.tree.dm_thread(EVE)
    path.write_bytes(path.read_bytes()[:-20])

    result = run("why", "101", "--data", folder.root)

    assert result.code == 0
    assert "damaged place" in result.err


def test_looking_writes_nothing(run: Runner, folder: Folder) -> None:
    def everything() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in sorted(folder.root.rglob("*")) if p.is_file()}

    before = everything()
    run("why", "101", "--data", folder.root)

    assert everything() == before
