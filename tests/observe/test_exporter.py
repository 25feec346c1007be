"""What a scraper gets: right numbers, no names or ids, and a page that promtool accepts."""

import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from meshllm.errors import StoreWriteError
from meshllm.observe.board import AgentState, RadioState, Snapshot, StorageState
from meshllm.observe.counting import COUNTS, Sample, samples_of
from meshllm.observe.exporter import MAX_SERIES, Exporter
from meshllm.observe.families import FAMILIES, families
from meshllm.store import atomic

RADIO = RadioState(
    is_up=True,
    connects=3,
    waiting=2,
    held=1,
    oldest_s=12.5,
    own_airtime_s=30.0,
    unwritten=4,
    channel_use=0.125,
    air_transmit=0.01,
)
SEEN = Snapshot(
    {"main": 0.1},
    {0: RADIO, 1: RadioState(is_up=False)},
    AgentState(is_ready=True, may_call=True, why_not="", questions_open=5, oldest_s=61.5),
    StorageState("low", 60),
)
ROW = {"node_uid": "a1b2c3d4", "thread_key": "!deadbeef", "message_id": "77", "prompt_id": "p1"}


def told(name: str, level: str = "info", **fields: object) -> dict[str, object]:
    return {"event": name, "level": level, **ROW, **fields}


EVENTS = {
    "bridge": [
        told("message_received", sender="!deadbeef"),
        told("message_received", thread_key="Hiking"),
        told("duplicate_dropped", reason="same_id"),
        told("message_not_written", "error", dropped=2, file="deadbeef.csv"),
        told("send_handed_over"),
        told("send_acknowledged", delivery="relayed"),
        told("send_acknowledged", delivery="delivered", ack_s=3.0),
        told("send_failed", "warning", action="again", reason="NO_ROUTE"),
        told("ack_overdue", "warning", action="unconfirmed", reason="X"),
        told("ack_overdue", "warning", action="hold", reason="AWAY"),
        told("send_held", reason="AWAY"),
        told("send_given_up", "error", reason="no such name: Ada Example"),
    ],
    "agent": [
        told("question_asked"),
        told("question_skipped", reason="expired"),
        told("question_deferred", reason="/data/x.csv: no space"),
        told(
            "model_call_finished",
            outcome="ok",
            duration_ms=7000,
            prompt_tokens=600,
            completion_tokens=60,
            prompt_tps=300.0,
            eval_tps=None,
        ),
        told("model_call_retried", "warning"),
        told("reply_queued", reply_ids=["1", "2"]),
        told("command_answered", reply_ids=["3"]),
        told("notice_queued", reply_ids=["4"]),
    ],
}


def fresh(role: str) -> Exporter:
    return Exporter(role, lambda: SEEN, lambda: 9)


def exporter(role: str) -> Exporter:
    made = fresh(role)
    for event in EVENTS[role]:
        made.note(event)
    made.committed(0.004, is_done=True)
    made.committed(0.004, is_done=False)
    return made


def series(role: str) -> dict[str, float]:
    page = exporter(role).render().decode()
    found = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in found if name.startswith("meshllm_")}


def test_the_bridge_is_told_in_numbers() -> None:
    got = series("bridge")

    expected = {
        'meshllm_messages_received_total{kind="dm"}': 1,
        'meshllm_messages_received_total{kind="channel"}': 1,
        "meshllm_duplicates_dropped_total": 1,
        "meshllm_messages_lost_total": 2,
        'meshllm_send_states_total{reason="",state="handed"}': 1,
        'meshllm_send_states_total{reason="",state="relayed"}': 1,
        'meshllm_send_states_total{reason="",state="delivered"}': 1,
        'meshllm_send_states_total{reason="AWAY",state="held"}': 1,
        'meshllm_send_states_total{reason="X",state="unconfirmed"}': 1,
        'meshllm_send_states_total{reason="other",state="failed"}': 1,
        'meshllm_send_retries_total{reason="NO_ROUTE"}': 1,
        "meshllm_ack_seconds_sum": 3,
        "meshllm_ack_seconds_count": 1,
        'meshllm_radio_up{radio="0"}': 1,
        'meshllm_radio_up{radio="1"}': 0,
        'meshllm_radio_connects_total{radio="0"}': 3,
        'meshllm_queue_rows{radio="0",state="waiting"}': 2,
        'meshllm_queue_rows{radio="0",state="held"}': 1,
        'meshllm_queue_oldest_seconds{radio="0"}': 12.5,
        'meshllm_airtime_last_hour_seconds{radio="0"}': 30,
        'meshllm_messages_unwritten{radio="0"}': 4,
        'meshllm_channel_use_ratio{radio="0"}': 0.125,
        'meshllm_air_transmit_ratio{radio="0"}': 0.01,
        "meshllm_commit_seconds_count": 1,
        "meshllm_commit_failures_total": 1,
        "meshllm_log_lines_lost_total": 9,
        "meshllm_disk_free_bytes": 60_000_000,
        'meshllm_storage_state{state="low"}': 1,
        'meshllm_storage_state{state="ok"}': 0,
        'meshllm_log_events_total{level="error"}': 2,
        "meshllm_live": 1,
        "meshllm_ready": 1,
    }
    assert {name: got.get(name) for name in expected} == expected
    assert 'meshllm_channel_use_ratio{radio="1"}' not in got, "not told by that radio yet"


def test_the_agent_is_told_in_numbers() -> None:
    got = series("agent")

    expected = {
        "meshllm_questions_asked_total": 1,
        'meshllm_questions_skipped_total{reason="expired"}': 1,
        'meshllm_questions_deferred_total{reason="other"}': 1,
        "meshllm_questions_open": 5,
        "meshllm_questions_oldest_seconds": 61.5,
        'meshllm_model_call_seconds_sum{outcome="ok"}': 7,
        'meshllm_model_tokens_total{kind="prompt"}': 600,
        'meshllm_model_tokens_total{kind="completion"}': 60,
        'meshllm_model_tokens_seconds_total{kind="prompt"}': 2,
        "meshllm_model_call_retries_total": 1,
        "meshllm_model_ready": 1,
        'meshllm_replies_queued_total{kind="answer"}': 1,
        'meshllm_reply_parts_queued_total{kind="answer"}': 2,
        'meshllm_reply_parts_queued_total{kind="command"}': 1,
        'meshllm_replies_queued_total{kind="notice"}': 1,
        "meshllm_ready": 0,  # the disk is low: nothing is asked
    }
    assert {name: got.get(name) for name in expected} == expected
    assert 'meshllm_model_tokens_seconds_total{kind="completion"}' not in got


@pytest.mark.parametrize("role", ["bridge", "agent"])
def test_the_page_holds_the_declared_metrics_and_no_other(role: str) -> None:
    page = exporter(role).render().decode()

    found = dict(re.findall(r"^# TYPE (meshllm_\S+) (\w+)$", page, re.MULTILINE))
    assert found == {family.name: family.kind for family in families(role)}
    assert "_created" not in page


@pytest.mark.parametrize("role", ["bridge", "agent"])
def test_no_name_text_or_id_reaches_the_page(role: str) -> None:
    made = exporter(role)
    hostile = 'x"} 1\nmeshllm_ready 1\n# TYPE'
    for name in COUNTS:
        fields = ("reason", "outcome", "delivery", "action", "danger", "thread_key")
        made.note({"event": name, "level": hostile} | dict.fromkeys(fields, hostile))

    page = made.render().decode()

    for secret in ("deadbeef", "a1b2c3d4", "Hiking", "Ada", "x.csv", 'x\\"', '"p1"'):
        assert secret not in page
    assert len(re.findall(r"^meshllm_ready ", page, re.MULTILINE)) == 1


@pytest.mark.parametrize("role", ["bridge", "agent"])
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_page(role: str) -> None:
    for page in (exporter(role).render(), Exporter(role, Snapshot, lambda: 0).render()):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_events_of_the_other_process_count_nothing_but_their_level() -> None:
    made = fresh("agent")
    for event in EVENTS["bridge"]:
        made.note(event)

    assert "meshllm_messages" not in made.render().decode()


def test_a_bug_that_makes_labels_cannot_fill_the_memory() -> None:
    made = fresh("agent")

    for number in range(MAX_SERIES + 50):
        made.note(told("question_skipped", reason=f"bug{number}"))

    assert made.render().count(b"meshllm_questions_skipped_total{") == MAX_SERIES


def test_counts_of_many_threads_add_up_while_pages_are_read() -> None:
    made = fresh("agent")

    def ask() -> None:
        for _ in range(500):
            made.note(told("question_asked"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        made.render()
    for thread in threads:
        thread.join()

    assert b"meshllm_questions_asked_total 2000.0" in made.render()


def test_events_with_missing_or_odd_fields_count_without_harm() -> None:
    odd: list[dict[str, object]] = [{}, {"event": None}]
    odd += [{"event": name} for name in COUNTS]
    odd += [{"event": n, "reply_ids": 7, "duration_ms": "x", "dropped": -1} for n in COUNTS]
    made = fresh("bridge")

    for event in odd:
        made.note(event)
        assert all(sample.amount >= 0 for sample in samples_of(event))


def test_every_sample_fits_a_declared_metric() -> None:
    labels = {family.name: len(family.labels) for family in FAMILIES}

    for event in (*EVENTS["bridge"], *EVENTS["agent"]):
        for sample in samples_of(event):
            assert len(sample.labels) == labels[sample.family], sample


def test_a_level_is_counted_for_events_that_nothing_else_counts() -> None:
    event = {"event": "tick_failed", "level": "error"}

    assert list(samples_of(event)) == [Sample("meshllm_log_events_total", ("error",))]


def test_every_commit_is_timed_and_a_refused_one_is_counted(tmp_path: Path) -> None:
    seen: list[tuple[float, bool]] = []

    with atomic.observed(lambda seconds, is_done: seen.append((seconds, is_done))):
        atomic.write_text(tmp_path / "a.json", "1")
        with pytest.raises(StoreWriteError):
            atomic.write_text(tmp_path / "missing" / "a.json", "1")
    atomic.write_text(tmp_path / "a.json", "2")

    assert [is_done for _, is_done in seen] == [True, False]
    assert all(seconds > 0 for seconds, _ in seen)
