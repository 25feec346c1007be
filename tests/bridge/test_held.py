"""Answers for people who are away, and who goes first when the air is short."""

import fcntl
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from structlog.typing import EventDict

from meshllm.bridge import retry
from meshllm.bridge.manners import Pace
from meshllm.bridge.outbox import OutboxSettings
from meshllm.clock import utc_text
from meshllm.records import Message
from meshllm.store.table import Table
from tests.bridge.world import (
    ACK_TIMEOUT_S,
    ADA,
    ADA_NUMBER,
    DELIVERED,
    HANDED,
    QUEUED,
    STRANGER,
    OutboxWorld,
    given_up,
    put_off,
)

BOB = "!b0b00001"
HELD = put_off("MAX_RETRANSMIT")


def hold(world: OutboxWorld, *contents: str, question: str = "77") -> None:
    """Queue an answer and let three attempts of every part fail."""
    world.queue(*(contents or ("hi",)), reply_to_id=question)
    for _ in range(3 * max(1, len(contents))):
        packet_id = world.hand_over(after=3.0)
        if len(contents) > 1:
            world.hand_over(after=3.0)
        world.nak(packet_id, "MAX_RETRANSMIT")
        if len(contents) > 1:
            world.nak(world.port.sent[-1].packet_id, "MAX_RETRANSMIT")
        if all(r.meta.get("wait_heard") for r in world.rows()[-max(1, len(contents)) :]):
            return
        world.run(130)
        world.reconnect()
    raise AssertionError(world.rows())


class Counted(deque[Any]):
    """What was sent, counting how often somebody goes through it."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        self.looks += 1
        return super().__iter__()


def test_a_held_row_goes_out_when_its_addressee_is_heard(
    world: OutboxWorld, events: list[EventDict]
) -> None:
    hold(world)
    world.reconnect()
    world.run(4000)
    assert world.state() == [HELD]
    assert len(world.port.sent) == 3

    world.hear()
    world.run(4)

    assert world.accept() == 501
    world.ack(501)
    assert world.state() == [DELIVERED]
    assert world.outbox.status().held == 0
    assert [e["rows"] for e in events if e["event"] == "held_released"] == [1]


def test_behind_two_relays_the_mesh_must_forget_the_id_first(world: OutboxWorld) -> None:
    """The second relay drops a repeat for as long as it remembers the id."""
    world.hear(hops=2)
    world.queue("hi")
    world.nak(world.hand_over(), "NONE")
    world.run(ACK_TIMEOUT_S + 31)
    world.reconnect()
    world.nak(world.run_until_sent(), "NONE")
    world.run(ACK_TIMEOUT_S + 200)
    world.reconnect()
    assert world.row().meta["wait_heard"] is True

    world.hear(hops=2)
    world.run(600)
    assert len(world.port.sent) == 2
    for number in range(retry.TURNOVER_PACKETS):
        world.hear(STRANGER + number)
    world.run(600)

    assert [t.packet_id for t in world.port.sent] == [501] * 3


def test_somebody_else_releases_nothing(world: OutboxWorld) -> None:
    hold(world)
    world.reconnect()

    world.hear(STRANGER)
    world.run(4000)

    assert world.state() == [HELD]
    assert len(world.port.sent) == 3


def test_one_who_is_heard_but_does_not_hear_us_costs_ever_less(world: OutboxWorld) -> None:
    """Their packets come every ten seconds for a day."""
    hold(world)
    world.reconnect()
    for _ in range(6 * 60 * 24):
        world.hear()
        world.run(10)
        if len(world.port.sent) > 3 and world.rows()[-1].direction == "queued":
            world.reconnect()
        if world.rows()[-1].meta.get("tries", [{}])[-1].get("result") is None:
            world.nak(world.accept(), "MAX_RETRANSMIT")
            world.reconnect()

    assert len(world.port.sent) == retry.MAX_ATTEMPTS + retry.MAX_HELD_TRIES
    assert world.state() == [given_up("MAX_RETRANSMIT")]


def test_a_held_row_survives_a_restart_and_waits_on(world: OutboxWorld) -> None:
    hold(world)

    world.restart()
    world.run(600)
    assert world.port.sent == []
    world.hear()
    world.run(200)

    assert [t.packet_id for t in world.port.sent] == [501]


def test_a_crash_after_the_release_resumes_at_once(world: OutboxWorld) -> None:
    hold(world)
    world.reconnect()
    world.hear()
    world.run(200)
    assert len(world.port.sent) == 4

    world.restart()

    assert world.hand_over() == 501


def test_a_held_row_expires_with_its_reason(world: OutboxWorld) -> None:
    hold(world)
    world.reconnect()

    world.run(world.settings.max_held_s + 1)

    assert world.state() == [given_up("EXPIRED")]


def test_a_clock_set_forward_by_days_ends_no_held_row(world: OutboxWorld) -> None:
    hold(world)
    world.clock.set_utc(world.clock.utc() + timedelta(days=9))

    world.run(60)
    assert world.state() == [HELD]
    world.restart()
    world.run(60)

    assert world.state() == [HELD]


def test_a_late_ack_of_a_held_row_counts(world: OutboxWorld) -> None:
    hold(world)

    world.ack(501)

    assert world.state() == [DELIVERED]
    assert world.outbox.status().queued == 0


def test_a_reply_to_our_packet_proves_that_it_was_seen(world: OutboxWorld) -> None:
    hold(world)

    world.outbox.answered(STRANGER, 501)
    assert world.state() == [HELD]
    world.outbox.answered(ADA_NUMBER, 501)

    assert world.state() == [DELIVERED]


def test_beyond_the_limit_the_oldest_answer_gives_way(world: OutboxWorld) -> None:
    for question in ("71", "72", "73", "74"):
        hold(world, f"answer {question}", question=question)
        world.reconnect()
        world.run(10)

    assert world.state() == [given_up("TOO_MANY_HELD"), HELD, HELD, HELD]


def test_a_newer_answer_to_the_same_question_replaces_a_held_one(world: OutboxWorld) -> None:
    hold(world, "old", question="71")
    world.reconnect()

    hold(world, "new", question="71")

    assert world.state() == [given_up("REPLACED"), HELD]


def test_with_no_room_for_held_answers_they_fail(tmp_path: Path) -> None:
    world = OutboxWorld(tmp_path, settings=OutboxSettings(max_held=0))
    world.queue("hi")
    for _ in range(3):
        world.nak(world.hand_over(after=130.0), "MAX_RETRANSMIT")
        world.reconnect()

    assert world.state() == [given_up("MAX_RETRANSMIT")]


def test_a_notice_is_never_held(world: OutboxWorld) -> None:
    world.queue("working on it", reply_to_id="", meta={"kind": "notice", "notice_for": "77"})
    for _ in range(3):
        world.nak(world.hand_over(after=130.0), "MAX_RETRANSMIT")
        world.reconnect()

    assert world.state() == [given_up("MAX_RETRANSMIT")]


def test_a_notice_that_could_not_go_out_for_ten_minutes_is_of_no_use(world: OutboxWorld) -> None:
    world.outbox.link_down()
    world.queue("working on it", reply_to_id="", meta={"kind": "notice", "notice_for": "77"})

    world.run(601)

    assert world.state() == [given_up("EXPIRED")]


def test_the_parts_of_a_held_answer_come_back_in_order(world: OutboxWorld) -> None:
    hold(world, "one", "two")
    world.reconnect()
    world.hear()
    world.run_until_sent()
    world.run_until_sent()

    assert [t.text for t in world.port.sent[-2:]] == ["one", "two"]


# -- keys ------------------------------------------------------------------------------------


def test_a_missing_key_is_asked_for_and_waited_for(world: OutboxWorld) -> None:
    world.queue("hi")
    world.tick()
    world.accept(result=39)

    assert world.port.asked == [ADA_NUMBER]
    assert world.state() == [put_off("PKI_SEND_FAIL_PUBLIC_KEY")]


def test_a_key_that_never_comes_holds_the_row(world: OutboxWorld) -> None:
    world.queue("hi")
    for _ in range(3):
        world.tick(after=3.0)
        world.accept(result=39)
        world.run(241)
        world.reconnect()
    world.run(3600)

    assert world.state() == [put_off("PKI_SEND_FAIL_PUBLIC_KEY")]
    assert world.row().meta["wait_heard"] is True
    assert world.port.asked == [ADA_NUMBER] * 3


def test_what_the_far_radio_could_not_open_goes_again_under_a_new_id(
    world: OutboxWorld, events: list[EventDict]
) -> None:
    """It would drop a repeat of the id unread, and nobody can have seen the first."""
    world.queue("hi")
    world.ack(world.hand_over(), error="PKI_UNKNOWN_PUBKEY")

    world.run(61)

    assert world.accept() != 501
    assert world.state() == [HANDED]
    assert "send_repeated_with_new_id" not in [e["event"] for e in events]


# -- manners ---------------------------------------------------------------------------------


def queue_all(world: OutboxWorld) -> None:
    world.queue("to the channel", key="Hiking")
    world.clock.advance(2.0)
    world.queue("to Ada")


def test_the_older_row_goes_first_while_the_air_is_quiet(world: OutboxWorld) -> None:
    queue_all(world)

    world.hand_over()

    assert world.port.sent[0].text == "to the channel"


def test_dms_go_first_when_the_air_is_short(world: OutboxWorld) -> None:
    queue_all(world)
    world.outbox.air_measured(channel_use=26.0, own_use=1.0)

    world.hand_over()

    assert world.port.sent[0].text == "to Ada"


def test_busy_air_holds_everything_and_is_told_once(
    world: OutboxWorld, events: list[EventDict]
) -> None:
    queue_all(world)
    world.outbox.air_measured(channel_use=44.0, own_use=1.0)
    world.run(100)
    assert world.port.sent == []
    assert world.outbox.status().air == "CHANNEL_BUSY"

    world.outbox.air_measured(channel_use=20.0, own_use=1.0)
    world.hand_over()

    told = [e for e in events if e["event"] in ("air_held", "air_free")]
    assert [(e["event"], e["reason"]) for e in told] == [
        ("air_held", "CHANNEL_BUSY"),
        ("air_free", "CHANNEL_BUSY"),
    ]


def test_the_parts_of_an_answer_stay_together(world: OutboxWorld) -> None:
    world.queue("a1", "a2", "a3", meta={"prompt_id": "p1"})
    world.queue("b1", "b2", key=BOB, meta={"prompt_id": "p2"})

    while len(world.port.sent) < 5:
        world.hand_over(after=20.0)

    assert [t.text for t in world.port.sent] == ["a1", "a2", "a3", "b1", "b2"]


def test_one_person_over_the_budget_does_not_stop_another(
    tmp_path: Path, events: list[EventDict]
) -> None:
    world = OutboxWorld(tmp_path, settings=OutboxSettings(pace=Pace(budget_s=3.0)))
    for number in range(4):
        world.queue("x" * 200, reply_to_id=str(number))
    world.queue("hi", key=BOB)

    world.ack(world.hand_over())
    world.ack(world.hand_over(after=60.0), STRANGER)
    world.run(1000)

    assert [t.text[:2] for t in world.port.sent] == ["xx", "hi"]
    assert world.state()[1:] == [QUEUED] * 3
    assert [e["event"] for e in events].count("airtime_budget_used") == 1
    world.run_until_sent()
    assert len(world.port.sent) == 3


def test_ten_thousand_rows_of_one_person_cost_one_look_at_their_budget(tmp_path: Path) -> None:
    """Counted by the looks at what was sent: each goes through the texts of the last hour."""
    world = OutboxWorld(tmp_path, settings=OutboxSettings(pace=Pace(budget_s=3.0)))
    world.queue("x" * 200)
    world.ack(world.hand_over())
    sent = Counted(world.outbox._air._manners._sent)
    world.outbox._air._manners._sent = sent
    waiting = replace(
        world.row(), direction="queued", send_status="", send_attempts=0, meta_json=""
    )
    Table(world.path(), Message).append(
        [replace(waiting, message_id=str(n)) for n in range(100_000, 110_000)]
    )
    world.outbox.scan(world.path())

    sent.looks = 0
    world.tick(after=60.0)

    assert len(world.port.sent) == 1
    assert 0 < sent.looks < 10


def test_a_restart_does_not_reset_the_budget(tmp_path: Path) -> None:
    world = OutboxWorld(tmp_path, settings=OutboxSettings(pace=Pace(budget_s=3.0)))
    world.queue("x" * 200)
    world.ack(world.hand_over())
    world.queue("y" * 200, reply_to_id="78")

    world.restart()
    world.outbox.recall(world.path())
    world.run(3000)
    assert world.port.sent == []
    world.run(700)

    assert [t.text[0] for t in world.port.sent] == ["y"]


def test_a_try_with_a_time_of_another_age_counts_nothing(world: OutboxWorld) -> None:
    row = Message(
        thread_type="dm",
        thread_key=ADA,
        message_id="900",
        direction="outbound",
        sender_id="!aaaa0001",
        timestamp=utc_text(world.clock.utc()),
        content="x" * 200,
        send_attempts=1,
        send_status="sent",
        meta_json='{"delivery":"delivered","tries":[{"id":900,"at":"2001-01-01T00:00:00Z"}]}',
    )
    world.append(row)

    world.outbox.recall(world.path())

    assert world.outbox.status().own_airtime_s == 0.0


# -- a crowd ---------------------------------------------------------------------------------


def test_somebody_known_does_not_wait_behind_a_crowd_of_forged_ids(world: OutboxWorld) -> None:
    world.queue("earlier", reply_to_id="70")
    world.ack(world.hand_over())
    for number in range(30):
        world.queue("to nobody", key=f"!dead{number:04x}")
    world.clock.advance(60.0)
    world.queue("to Ada", reply_to_id="71")

    world.hand_over()

    assert world.port.sent[-1].text == "to Ada"


def test_a_file_that_takes_no_result_does_not_stop_the_other_threads(world: OutboxWorld) -> None:
    """Somebody holds its lock: what the radio said is kept, and other people get their answers."""
    world.queue("one")
    world.queue("two", key=BOB)
    first = world.hand_over()
    with Path(f"{world.path()}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world.nak(first, "NONE")
        world.tick(after=3.0)

    assert [t.text for t in world.port.sent] == ["one", "two"]
    world.accept()
    world.run(6)
    assert world.state() == [("outbound", "sent", "relayed", None)]


# -- cancelling ------------------------------------------------------------------------------


def test_a_reply_ends_the_queued_rows_that_it_names(world: OutboxWorld) -> None:
    hold(world, "old")
    world.reconnect()
    queued = world.queue("one", "two", meta={"prompt_id": "p1"}, reply_to_id="78", scan=False)

    world.queue("stopped", reply_to_id="79", meta={"cancels": ["501", *queued, 7, None]})
    world.hand_over(after=3.0)

    assert [t.text for t in world.port.sent[3:]] == ["stopped"]
    assert world.state()[:3] == [given_up("CANCELLED")] * 3


def test_a_reply_cancels_nothing_of_another_thread(world: OutboxWorld) -> None:
    [queued] = world.queue("to Bob", key=BOB, scan=False)

    world.queue("stopped", meta={"cancels": [queued]})
    world.outbox.scan(world.path(BOB))
    world.tick()

    assert world.state(BOB) == [QUEUED]


def test_what_was_delivered_cannot_be_cancelled(world: OutboxWorld) -> None:
    world.queue("hi")
    world.ack(world.hand_over())

    world.queue("stopped", reply_to_id="79", meta={"cancels": ["501"]})
    world.hand_over(after=3.0)

    assert world.state()[0] == DELIVERED
