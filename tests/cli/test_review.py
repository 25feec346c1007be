"""What a period is counted as: by rows, by log files, and with either of them missing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshllm.airtime import airtime_s
from meshllm.layout import Layout
from meshllm.reading.period import preset_of, spread
from meshllm.records import Message, PromptRow
from tests.cli.folder import ADA, EVE, Folder, Runner, heard, ours, write

Golden = Callable[[str, str], None]

MORNING = ["--since", "2026-03-01T08:00"]


def event(name: str, at: str, message_id: str = "", **fields: object) -> str:
    known = {"timestamp": f"{at[:19]}.5Z", "level": "info", "event": name, "role": "agent"}
    about = {"node_uid": "aaaa0001", "thread_key": ADA, "message_id": message_id}
    return json.dumps(known | (about if message_id else {}) | fields) + "\n"


def log(files: Layout, name: str, *lines: str) -> None:
    files.logs_dir.mkdir(parents=True, exist_ok=True)
    (files.logs_dir / name).write_text("".join(lines), encoding="utf-8")


def tries(*entries: tuple[int, str]) -> list[dict[str, object]]:
    return [{"id": packet, "at": at, "result": "handed"} for packet, at in entries]


def answer(message_id: str, to: str, at: str, sent_at: str, **meta: object) -> Message:
    known: dict[str, Any] = {"kind": "reply", "part": 1, "parts": 1, "prompt_id": message_id}
    more = known | meta
    return ours(
        message_id,
        "A" * 50,
        at=at,
        direction="outbound",
        status="sent",
        reply_to=to,
        delivery="delivered",
        tries=tries((int(message_id), sent_at)),
        **more,
    )


@pytest.fixture
def evening(tmp_path: Path) -> Folder:
    """Four questions of one person: two answers, a command, one left out; one day older text."""
    folder = Folder(tmp_path)
    folder.radio()
    folder.agent()
    folder.thread(
        heard("1", "an old one", at="2026-02-27T10:00:00Z"),
        heard("2", "how far?", at="2026-03-01T10:00:00Z"),
        answer("21", "2", "2026-03-01T10:00:20Z", "2026-03-01T10:00:30Z", parts=2),
        ours(
            "22",
            "B" * 50,
            at="2026-03-01T10:00:20Z",
            direction="outbound",
            status="failed",
            reply_to="2",
            kind="reply",
            part=2,
            parts=2,
            prompt_id="21",
            reason="NO_ACK",
            tries=tries((22, "2026-03-01T10:00:40Z"), (23, "2026-03-01T11:01:00Z")),
        ),
        heard("3", "how high?", at="2026-03-01T11:00:00Z"),
        answer("31", "3", "2026-03-01T11:00:50Z", "2026-03-01T11:01:30Z"),
        heard("4", "ping", at="2026-03-01T11:10:00Z"),
        answer("41", "4", "2026-03-01T11:10:00Z", "2026-03-01T11:10:03Z", command="ping"),
        heard("5", "(1/2) how deep?", at="2026-03-01T11:20:00Z"),
    )
    folder.thread(
        Message("channel", "LongFast", "6", "inbound", EVE, "", "2026-03-01T11:30:00Z", "hello"),
    )
    write(
        folder.files.prompts_table,
        [
            PromptRow(
                f"p{number}", "aaaa0001", at, "m", "dm", ADA, "2", duration_ms=ms, meta_json=meta
            )
            for number, (at, ms, meta) in enumerate(
                [
                    ("2026-02-27 10:00:00", 99_000, '{"outcome":"ok"}'),
                    ("2026-03-01 10:00:20", 20_000, '{"outcome":"ok"}'),
                    ("2026-03-01 11:00:50", 40_000, '{"outcome":"capped"}'),
                    ("2026-03-01 11:00:51", 300_000, '{"outcome":"timeout"}'),
                ]
            )
        ],
        PromptRow,
    )
    log(
        folder.files,
        "agent.jsonl",
        event("question_skipped", "2026-03-01T11:20:01Z", "5", reason="bot_part_mark"),
        '{"timestamp": "2026-03-01T11:2',
    )
    log(
        folder.files,
        "agent.jsonl.1",
        event("process_started", "2026-02-28T00:00:00Z"),
        event("question_skipped", "2026-02-28T11:20:01Z", "1", reason="expired"),
        event("question_deferred", "2026-03-01T11:00:01Z", "3", reason="cooldown"),
        event("question_deferred", "2026-03-01T11:00:02Z", "3", reason="cooldown"),
        event("question_deferred", "2026-03-01T11:00:03Z", "3", reason="line_full"),
    )
    log(folder.files, "bridge.jsonl", event("link_down", "2026-03-01T11:40:00Z", role="bridge"))
    return folder


def test_rows_of_the_period_are_counted(run: Runner, evening: Folder) -> None:
    found = run("review", *MORNING, "--json", "--data", evening.root).json

    asked = ("heard", "direct", "channel", "questions", "people", "answers", "commands", "notices")
    assert [found[key] for key in asked] == [5, 4, 1, 4, 1, 2, 1, 0]
    assert found["parts"] == {"1": 1, "2": 1}
    assert found["seconds"] == {"count": 2, "p50": 30.0, "p90": 90.0, "most": 90.0}
    assert found["model"] == {
        "calls": 3,
        "outcomes": {"ok": 1, "capped": 1, "timeout": 1},
        "seconds": {"count": 2, "p50": 20.0, "p90": 40.0, "most": 40.0},
    }
    assert found["sent"] == {
        "texts": 4,
        "by_operator": 0,
        "hand_overs": 5,
        "again": 1,
        "doubles": 1,
    }
    assert found["states"] == {"delivered": 3, "failed": 1}
    assert [(row["count"], row["reason"]) for row in found["failed"]] == [(1, "NO_ACK")]


def test_airtime_is_that_of_each_try_in_its_hour(run: Runner, evening: Folder) -> None:
    found = run("review", *MORNING, "--json", "--data", evening.root).json["airtime"]

    text = airtime_s(50, "LONG_FAST", pki=True)
    assert found == {
        "total_s": round(5 * text, 1),
        "hours": [
            {"hour": "2026-03-01T10", "airtime_s": round(2 * text, 1)},
            {"hour": "2026-03-01T11", "airtime_s": round(3 * text, 1)},
        ],
        "most": {
            "hour": "2026-03-01T11",
            "node_uid": "aaaa0001",
            "thread_key": ADA,
            "airtime_s": round(3 * text, 1),
        },
    }


def test_decisions_come_from_all_log_files_each_question_once(run: Runner, evening: Folder) -> None:
    found = run("review", *MORNING, "--json", "--data", evening.root).json

    def told(key: str) -> list[tuple[int, str]]:
        return [(row["count"], row["reason"]) for row in found[key]]

    assert told("skipped") == [(1, "bot_part_mark")]
    assert told("deferred") == [(1, "cooldown"), (1, "line_full")]
    assert found["deferred"][0]["text"].startswith("the thread rests")
    assert found["events"] == {"link_down": 1}
    assert found["logs"] == {
        "bridge": {"oldest_at": "2026-03-01T11:40:00Z", "covers": False},
        "agent": {"oldest_at": "2026-02-28T00:00:00Z", "covers": True},
    }


def test_a_channel_answer_is_timed_from_the_question_of_its_asker(
    run: Runner, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    folder.thread(
        Message("channel", "Hike", "7", "inbound", EVE, "", "2026-03-01T10:00:00Z", "librarian a?"),
        Message("channel", "Hike", "7", "inbound", ADA, "", "2026-03-01T10:01:00Z", "librarian b?"),
        ours(
            "71",
            "Yes.",
            at="2026-03-01T10:01:10Z",
            to="Hike",
            direction="outbound",
            status="sent",
            reply_to="7",
            reply_to_sender=ADA,
            kind="reply",
            tries=tries((71, "2026-03-01T10:01:20Z")),
        ),
    )

    found = run("review", *MORNING, "--json", "--data", folder.root).json

    assert (found["questions"], found["people"], found["seconds"]["most"]) == (2, 2, 20.0)


def test_a_clock_that_was_set_back_makes_no_seconds_and_no_hour(
    run: Runner, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    folder.thread(
        heard("2", "how far?", at="2026-03-01T10:00:00Z"),
        answer("21", "2", "2026-03-01T09:00:20Z", "2026-03-01T09:00:30Z"),
        heard("3", "how high?", at="2026-03-01T10:00:00Z"),
        answer("31", "3", "2026-03-01T10:00:20Z", "2026-03-01T11:99:00Z"),
    )

    found = run("review", *MORNING, "--json", "--data", folder.root).json

    assert (found["answers"], found["seconds"]["count"]) == (2, 0)
    assert [row["hour"] for row in found["airtime"]["hours"]] == ["2026-03-01T09"]


def test_an_end_leaves_out_what_is_later(run: Runner, evening: Folder) -> None:
    until = ["--until", "2026-03-01T11:00"]

    found = run("review", *MORNING, *until, "--json", "--data", evening.root).json

    assert (found["heard"], found["answers"], found["sent"]["hand_overs"]) == (1, 1, 2)
    assert (found["skipped"], found["deferred"]) == ([], [])


def test_older_periods_are_read_from_the_archive(run: Runner, evening: Folder) -> None:
    live = evening.tree.dm_thread(ADA)
    evening.archived(live, "2026-01", heard("0", "older still", at="2026-01-05T08:00:00Z"))

    found = run("review", "--since", "2026-01-01", "--json", "--data", evening.root).json

    assert found["heard"] == 7


def test_rows_are_counted_without_logs_and_that_is_said(run: Runner, evening: Folder) -> None:
    for path in evening.files.logs_dir.iterdir():
        path.unlink()
    evening.files.logs_dir.rmdir()

    done = run("review", *MORNING, "--data", evening.root)

    assert done.code == 0
    assert "2 of the model, 1 of commands" in done.out
    assert "no log of the agent: what only it knows is not counted" in done.out


def test_a_folder_without_anything_is_counted(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    done = run("review", "--data", tmp_path)

    assert (done.code, done.err) == (0, "")
    assert "0 texts: 0 direct, 0 on channels" in done.out


def test_a_damaged_thread_costs_its_damage_and_is_told(run: Runner, evening: Folder) -> None:
    path = evening.tree.dm_thread(ADA)
    data = path.read_bytes().replace(b"dm,!a11ce001,3,inbound", b"dm,!a11ce001,3,sideways")
    path.chmod(0o640)
    path.write_bytes(data)

    done = run("review", *MORNING, "--json", "--data", evening.root)

    assert done.json["heard"] == 4
    assert "1 damaged place left out" in done.json["problems"][0]


def test_hostile_cells_cost_themselves_and_drive_no_terminal(run: Runner, evening: Folder) -> None:
    evening.thread(
        heard("7", "x", at="2026-03-01T11:30:00Z", sender=EVE),
        ours(
            "71",
            "No.",
            at="2026-03-01T11:31:00Z",
            to=EVE,
            direction="outbound",
            status="failed",
            reply_to="7",
            reason="\x1b[31mred",
            kind=["notice"],
            parts="many",
            tries=["x", {"id": [], "at": 5}, {"at": "2026-03-01T11:99"}],
        ),
    )
    log(
        evening.files,
        "bridge.jsonl",
        event("send_failed", "2026-03-01T11:00:00Z", "8", reason="\x1b[2J", node_uid=["aaaa0001"]),
        event("send_failed", "2026-03-01T11:00:00Z", "9", reason={"\x1b": 1}),
        '["event", "link_down"]\n',
    )

    done = run("review", *MORNING, "--data", evening.root, columns=100)

    assert done.code == 0
    assert "\x1b[31mred" not in done.out
    assert "\\x1b[31mred" in done.out


def test_only_the_named_radio_counts(run: Runner, evening: Folder) -> None:
    other = evening.files.tree("bbbb0002")
    evening.radio(tree=other, node_id="!bbbb0002", long_name="Hill")
    evening.thread(heard("9", "hi", at="2026-03-01T11:00:00Z"), tree=other)

    both = run("review", *MORNING, "--json", "--data", evening.root).json
    hill = run("review", *MORNING, "--json", "--radio", "Hill", "--data", evening.root).json

    assert (both["heard"], hill["heard"]) == (6, 1)
    assert (hill["model"]["calls"], hill["skipped"]) == (0, [])


def test_screen(run: Runner, evening: Folder, golden: Golden) -> None:
    before = evening.bytes()

    done = run("review", *MORNING, "--data", evening.root)

    assert (done.code, done.err) == (0, "")
    golden("cli/review.txt", done.out)
    assert evening.bytes() == before


@pytest.mark.parametrize(
    ("name", "preset"),
    [("LongFast", "LONG_FAST"), ("ShortTurbo", "SHORT_TURBO"), ("", "LONG_SLOW"), (5, "LONG_SLOW")],
)
def test_a_preset_is_found_by_the_name_that_the_bridge_writes(name: object, preset: str) -> None:
    assert preset_of(name) == preset


def test_nine_of_ten_is_by_nearest_rank() -> None:
    assert spread([float(n) for n in range(10, 0, -1)]) == {
        "count": 10,
        "p50": 5.0,
        "p90": 9.0,
        "most": 10.0,
    }
