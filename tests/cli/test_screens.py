"""Whole screens of the verbs that look, on one folder at one moment."""

import re
from collections.abc import Callable

import pytest

from tests.cli.folder import Folder, Runner

Golden = Callable[[str, str], None]

VERBS = {
    "status": ["status"],
    "threads": ["threads"],
    "messages": ["messages"],
    "messages-of-one": ["messages", "Ridge Runner", "--since", "1d", "--limit", "2"],
    "nodes": ["nodes"],
    "queue": ["queue"],
    "prompts-list": ["prompts", "list"],
    "prompts-show": ["prompts", "show", "0f"],
}
UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u200b]")


def steady(text: str) -> str:
    """Take out what is of this machine, and make escapes visible in the golden file."""
    lines = re.sub(r"(free\W.*?)\d+ MB *", r"\1N MB", text).replace("\x1b", "␛").splitlines()
    return "".join(line.rstrip() + "\n" for line in lines)


@pytest.mark.parametrize("name", VERBS)
def test_screen_in_a_pipe(name: str, run: Runner, folder: Folder, golden: Golden) -> None:
    done = run(*VERBS[name], "--data", folder.root)

    assert (done.code, done.err) == (0, "")
    golden(f"cli/{name}.txt", steady(done.out))
    assert not UNSEEN.search(done.out)


@pytest.mark.parametrize("name", VERBS)
def test_screen_on_a_terminal(name: str, run: Runner, folder: Folder, golden: Golden) -> None:
    done = run(*VERBS[name], "--data", folder.root, columns=100)

    assert done.code == 0
    golden(f"cli/{name}.tty.txt", steady(done.out))
    assert not UNSEEN.search(re.sub(r"\x1b\[[0-9;]*m", "", done.out))


def test_looking_writes_nothing(run: Runner, folder: Folder) -> None:
    before = folder.bytes()

    for arguments in [*VERBS.values(), ["export"]]:
        run(*arguments, "--data", folder.root)

    assert folder.bytes() == before


KEYS = {
    "threads": (
        "node_uid thread_type thread_key peer_name file rows heard sent queued failed first_at "
        "last_at"
    ),
    "messages": (
        "node_uid thread_type thread_key message_id direction state state_words sender_id "
        "sender_name peer_name reply_to_id timestamp content send_attempts reason meta"
    ),
    "queue": (
        "node_uid thread_type thread_key message_id direction state state_words sender_id "
        "sender_name peer_name reply_to_id timestamp content send_attempts reason meta age_s"
    ),
    "nodes": (
        "node_uid node_id short_name long_name first_seen_at last_heard_at hops snr_db rssi "
        "signal_at latitude longitude position_at position_channel battery voltage battery_at"
    ),
}


@pytest.mark.parametrize("verb", KEYS)
def test_keys_of_the_json_stay(verb: str, run: Runner, folder: Folder) -> None:
    found = run(verb, "--json", "--data", folder.root).json

    assert {tuple(row) for row in found} == {tuple(KEYS[verb].split())}


def test_status_json_has_what_the_screen_has(run: Runner, folder: Folder) -> None:
    facts = run("status", "--json", "--data", folder.root).json

    assert " ".join(facts) == (
        "at data_dir processes radios queue model disk rates errors problems"
    )
    assert facts["queue"] == {
        "waiting": 2,
        "queued": 1,
        "trying": 0,
        "retry": 0,
        "held": 1,
        "oldest_at": "2026-03-01T10:00:20Z",
        "oldest_age_s": 7180.0,
    }
    assert facts["rates"] == {
        "heard_hour": 1,
        "heard_day": 2,
        "answers_hour": 0,
        "answers_day": 1,
        "failed_hour": 1,
        "failed_day": 1,
    }


@pytest.mark.parametrize(
    ("last_words", "state"),
    [(("stopped", "stopped"), "stopped"), (("stopped", ""), "unclear"), (("", ""), "unclear")],
)
def test_bridge_that_ended_in_order_is_told_from_one_that_was_killed(
    last_words: tuple[str, str], state: str, run: Runner, folder: Folder
) -> None:
    for uid, cause in zip(("aaaa0001", "aaaa0002"), last_words, strict=True):
        folder.radio(tree=folder.files.tree(uid), link_cause=cause)

    facts = run("status", "--json", "--data", folder.root).json

    assert facts["processes"]["bridge"]["state"] == state


def test_archived_row_that_is_live_too_is_shown_once(run: Runner, folder: Folder) -> None:
    found = run("messages", "--json", "--data", folder.root, "--limit", "0").json

    assert [row["message_id"] for row in found] == ["11", "101", "102", "103", "201", "202", "104"]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--grep", "WATER"], ["101"]),
        (["--state", "held", "--state", "failed"], ["103", "202"]),
        (["--node", "!e0e0e0e0"], ["201", "202"]),
        (["--since", "2026-03-01T11:30"], ["201", "202", "104"]),
        (["e0e0e0e0"], ["201", "202"]),
        (["--limit", "1"], ["104"]),
    ],
)
def test_messages_are_picked(
    arguments: list[str], ids: list[str], run: Runner, folder: Folder
) -> None:
    found = run("messages", *arguments, "--json", "--data", folder.root).json

    assert [row["message_id"] for row in found] == ids


def test_watch_writes_over_the_frame_before_on_a_terminal(run: Runner, folder: Folder) -> None:
    done = run("status", "--watch", "1", "--count", "3", "--data", folder.root, columns=100)

    assert done.out.count("\x1b[2J") == 1  # cleared once, then only written over
    assert done.out.count("\x1b[H") == 3
    assert "2026-03-01T12:00:02Z" in done.out


def test_watch_writes_blocks_and_no_codes_in_a_pipe(run: Runner, folder: Folder) -> None:
    done = run("status", "--watch", "1", "--count", "2", "--data", folder.root)

    assert "\x1b" not in done.out
    assert done.out.count("Processes\n") == 2


def test_watched_json_is_one_object_a_line(run: Runner, folder: Folder) -> None:
    done = run("status", "--watch", "--count", "2", "--json", "--data", folder.root)

    assert len(done.out.splitlines()) == 2
