"""Queued rows to the air and back: what is on disk at every moment, and what a person sees."""

import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from meshllm.bridge import life, retry
from meshllm.errors import StoreWriteError
from meshllm.radio.base import BROADCAST, OutgoingText, QueueStatus
from meshllm.records import Message
from meshllm.store import atomic
from meshllm.testing.clock import NOON
from meshllm.testing.radio import INFO
from tests.bridge.world import (
    ACK_TIMEOUT_S,
    ADA,
    ADA_NUMBER,
    DELIVERED,
    HANDED,
    QUEUED,
    RELAYED,
    STRANGER,
    UNANSWERED,
    OutboxWorld,
    given_up,
    put_off,
)


def names(events: list[EventDict]) -> list[str]:
    return [str(event["event"]) for event in events]


def test_a_queued_row_is_handed_over_and_delivered(world: OutboxWorld) -> None:
    world.queue("hi", meta={"channel_index": 2, "kind": "reply"})

    packet_id = world.hand_over()

    assert world.port.sent == [
        OutgoingText(501, ADA_NUMBER, "hi", channel_index=2, want_ack=True, reply_id=77)
    ]
    assert world.state() == [HANDED]
    world.ack(packet_id)
    assert world.state() == [DELIVERED]
    assert world.tries() == [(501, "delivered")]
    assert world.row().send_attempts == 1


def test_a_channel_text_wants_no_ack_and_ends_handed(world: OutboxWorld) -> None:
    world.queue("hi", key="Hiking")

    world.hand_over()
    world.run(600)

    assert world.port.sent == [
        OutgoingText(501, BROADCAST, "hi", channel_index=1, want_ack=False, reply_id=77)
    ]
    assert world.state("Hiking") == [HANDED]


def test_the_intent_is_on_disk_before_the_radio_sees_anything(world: OutboxWorld) -> None:
    seen: list[Message] = []

    def send(text: OutgoingText) -> None:
        seen.extend(world.rows())

    world.port.send = send  # type: ignore[method-assign]
    world.queue("hi")
    world.tick()

    assert [(r.send_attempts, [t.packet_id for t in life.tries(r)]) for r in seen] == [(1, [501])]


# -- crashes ---------------------------------------------------------------------------------


def test_a_crash_before_the_try_loses_nothing(world: OutboxWorld) -> None:
    world.queue("hi", scan=False)

    world.restart()
    world.hand_over()

    assert world.tries() == [(501, "handed")]


def test_a_crash_between_hand_over_and_result_resumes_with_the_same_id(world: OutboxWorld) -> None:
    world.queue("hi")
    world.tick()

    world.restart()
    packet_id = world.hand_over()
    world.ack(packet_id)

    assert [t.packet_id for t in world.port.sent] == [501]
    assert world.state() == [DELIVERED]
    assert world.tries() == [(501, None), (501, "delivered")]


def test_a_crash_after_the_hand_over_waits_for_the_ack_alone(world: OutboxWorld) -> None:
    world.queue("hi")
    packet_id = world.hand_over()

    world.restart()
    world.run(10)
    assert world.port.sent == []
    world.ack(packet_id)

    assert world.state() == [DELIVERED]


def test_a_crash_after_the_ack_does_nothing_more(world: OutboxWorld) -> None:
    world.queue("hi")
    world.ack(world.hand_over())

    world.restart()
    world.run(600)

    assert world.port.sent == []
    assert world.state() == [DELIVERED]


def test_on_serial_silence_after_a_resume_means_the_radio_had_it(
    serial_world: OutboxWorld,
) -> None:
    world = serial_world
    world.queue("hi")
    world.tick()

    world.restart()
    world.tick()
    world.outbox.written(501)
    world.run(6)

    assert [t.packet_id for t in world.port.sent] == [501]
    assert world.state() == [UNANSWERED]
    assert world.port.refreshes == []


def test_a_radio_that_never_answers_ends_unconfirmed(world: OutboxWorld) -> None:
    world.queue("hi")

    for _ in range(10):
        world.tick()
        world.tick(after=70.0)
        world.reconnect()

    assert world.state() == [UNANSWERED]
    assert [t.packet_id for t in world.port.sent] == [501, 501, 501]
    assert len(world.port.refreshes) == 2


def test_a_link_that_breaks_at_every_hand_over_does_not_try_for_ever(world: OutboxWorld) -> None:
    world.queue("poison")

    for _ in range(50):
        world.tick(after=5.0)
        world.outbox.send_failed(501, "connection reset", busy=False)
        world.reconnect()

    assert len(world.port.sent) == retry.MAX_REFUSALS
    assert world.state() == [UNANSWERED]


# -- order and spacing -----------------------------------------------------------------------


def test_any_two_texts_are_spaced(world: OutboxWorld) -> None:
    times: list[float] = []
    for key in (ADA, "!b0b00001", "Hiking"):
        world.queue("hi", key=key)
    world.queue("again")

    while len(times) < 4:
        wait_s = world.tick()
        if len(world.port.sent) > len(times):
            times.append(world.clock.monotonic())
            world.accept()
        else:
            world.clock.advance(wait_s)

    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap >= 2.5 for gap in gaps), gaps
    assert sum(gaps) < 8.0


def test_spacing_counts_from_the_moment_the_link_wrote(world: OutboxWorld) -> None:
    """The link may be busy with a probe for seconds; the radio drops texts less than 2 s apart."""
    world.queue("one")
    world.queue("two")
    world.tick()
    world.clock.advance(8.0)

    world.accept()

    assert world.tick() == pytest.approx(2.5)
    assert len(world.port.sent) == 1


def test_a_busy_link_does_not_count_as_a_silent_radio(serial_world: OutboxWorld) -> None:
    world = serial_world
    world.queue("hi")
    world.tick()
    world.run(20)
    assert world.state() == [QUEUED]

    world.accept()

    assert world.state() == [HANDED]


def test_parts_go_in_order_and_a_refused_first_holds_the_second(world: OutboxWorld) -> None:
    world.queue("one", "two")
    world.tick()
    world.nak(501, "PKI_SEND_FAIL_PUBLIC_KEY")

    world.run(20)
    assert [t.text for t in world.port.sent] == ["one"]

    world.tick(after=60.0)
    world.reconnect()
    world.hand_over()
    world.hand_over(after=2.5)
    assert [(t.text, t.reply_id) for t in world.port.sent] == [
        ("one", 77),
        ("one", 77),
        ("two", 0),
    ]


def test_a_part_whose_earlier_part_failed_is_not_sent(world: OutboxWorld) -> None:
    world.queue("one", "two", "three")
    world.tick()
    world.accept(result=7)

    world.run(10)

    assert world.state() == [
        given_up("TOO_LARGE"),
        given_up("EARLIER_PART_FAILED"),
        given_up("EARLIER_PART_FAILED"),
    ]
    assert len(world.port.sent) == 1


def test_the_parts_of_two_answers_do_not_hold_each_other(world: OutboxWorld) -> None:
    """ "more" answers another question from the same prompt."""
    world.queue("one", "two", meta={"prompt_id": "p1"}, reply_to_id="77")
    world.tick()
    world.accept(result=7)
    world.run(10)

    world.queue("three", "four", meta={"prompt_id": "p1"}, reply_to_id="78")
    world.hand_over(after=3.0)
    world.hand_over(after=3.0)

    assert [t.text for t in world.port.sent] == ["one", "three", "four"]


def test_the_parts_of_two_texts_without_a_name_do_not_mix(world: OutboxWorld) -> None:
    """Rows of another program: neither `prompt_id` nor `group`, and both answer the same."""
    world.queue("one", "two")
    world.queue("uno", "dos")
    world.tick()
    world.accept(result=7)

    world.run_until_sent()
    world.run_until_sent()

    assert [t.text for t in world.port.sent] == ["one", "uno", "dos"]
    assert world.state()[1] == given_up("EARLIER_PART_FAILED")


def test_another_thread_goes_on_while_one_waits(world: OutboxWorld) -> None:
    world.queue("one")
    world.tick()
    world.accept(result=39)
    world.queue("two", key="!b0b00001")

    world.hand_over(after=2.5)

    assert world.state() == [put_off("PKI_SEND_FAIL_PUBLIC_KEY")]
    assert world.state("!b0b00001") == [HANDED]


# -- acknowledgements ------------------------------------------------------------------------


def test_an_ack_before_the_queue_status_is_not_undone_by_it(world: OutboxWorld) -> None:
    world.queue("hi")
    world.tick()

    world.ack(501)
    world.accept()

    assert world.state() == [DELIVERED]


def test_an_ack_without_any_queue_status_settles_the_row(world: OutboxWorld) -> None:
    world.queue("hi")
    world.tick()
    world.ack(501)

    world.run(600)

    assert world.state() == [DELIVERED]
    assert world.port.refreshes == []


def test_an_ack_that_comes_after_the_loss_of_the_link_counts(world: OutboxWorld) -> None:
    world.queue("hi")
    packet_id = world.hand_over()

    world.outbox.link_down()
    world.ack(packet_id)

    assert world.state() == [DELIVERED]


def test_an_implicit_ack_is_not_delivery(world: OutboxWorld) -> None:
    world.queue("hi")
    packet_id = world.hand_over()

    world.nak(packet_id, "NONE")
    assert world.state() == [RELAYED]
    world.ack(packet_id, sender=STRANGER)
    assert world.state() == [RELAYED]
    world.ack(packet_id)
    world.nak(packet_id, "NONE")

    assert world.state() == [DELIVERED]


@pytest.mark.parametrize("error", ["NONE", "NOT_AUTHORIZED", "PKI_SEND_FAIL_PUBLIC_KEY"])
@pytest.mark.parametrize("key", [ADA, "Hiking"])
def test_what_a_third_node_says_of_our_text_changes_nothing(
    world: OutboxWorld, error: str, key: str
) -> None:
    """Packet ids are in clear on the air: anybody could end or multiply our texts."""
    world.queue("hi", key=key)
    packet_id = world.hand_over()
    before = world.rows(key)

    world.ack(packet_id, sender=0xBAD0BAD0, error=error)

    assert world.rows(key) == before


def test_the_addressee_cannot_say_what_only_our_radio_knows(world: OutboxWorld) -> None:
    world.queue("hi")
    packet_id = world.hand_over()

    world.ack(packet_id, error="RATE_LIMIT_EXCEEDED")

    assert world.state() == [HANDED]


def test_an_ack_that_comes_before_its_file_is_read_counts(world: OutboxWorld) -> None:
    """After a restart the radio hands out at once what it kept."""
    world.queue("hi")
    packet_id = world.hand_over()
    path = world.path()
    world.port = type(world.port)()
    world.outbox = world._make()
    world.outbox.loading(is_done=False)
    world.outbox.link_up(INFO)

    world.ack(packet_id)
    world.outbox.scan(path)
    world.outbox.loading(is_done=True)

    assert world.state() == [DELIVERED]


def test_a_late_implicit_ack_does_not_revive_a_row_that_was_given_up(world: OutboxWorld) -> None:
    world.queue("hi")
    packet_id = world.hand_over()
    world.nak(packet_id, "TOO_LARGE")
    assert world.state() == [given_up("TOO_LARGE")]

    world.nak(packet_id, "NONE")

    assert world.state() == [given_up("TOO_LARGE")]


def test_an_unsent_row_does_not_take_the_ack_of_one_that_was_sent(world: OutboxWorld) -> None:
    world.queue("to Ada", message_id="9")
    packet_id = world.hand_over()
    world.queue("to Bob", key="!b0b00001", message_id="9")

    world.ack(packet_id)

    assert world.state() == [DELIVERED]


def test_acks_of_ids_that_are_not_ours_are_ignored(world: OutboxWorld) -> None:
    world.queue("hi")
    before = world.rows()

    for error in ("NONE", "MAX_RETRANSMIT"):
        world.ack(4242, error=error)
        world.ack(501, error=error)  # not sent yet: a stranger's
    world.outbox.queue_status(QueueStatus(501, 0, free=15, maxlen=16))

    assert world.rows() == before


def test_relayed_and_then_silent_goes_again_under_the_same_id(world: OutboxWorld) -> None:
    """The radio stops repeating at an implicit ACK, and a relay may be where it ended."""
    world.queue("hi")
    world.nak(world.hand_over(), "NONE")

    world.run(ACK_TIMEOUT_S + 1)

    assert world.state() == [put_off("NO_ACK")]
    world.run(200)
    world.reconnect()
    assert world.hand_over() == 501


def test_silence_on_tcp_is_answered_by_the_same_id_on_a_fresh_connection(
    world: OutboxWorld,
) -> None:
    world.queue("hi")
    world.hand_over()

    world.run(ACK_TIMEOUT_S + 1)
    assert world.state() == [put_off("NO_ACK")]
    world.run(31)
    assert (world.port.refreshes, len(world.port.sent)) == (["an id goes on the air again"], 1)

    world.reconnect()
    world.ack(world.hand_over())
    assert world.state() == [DELIVERED]
    assert world.tries() == [(501, "handed"), (501, "delivered")]


def test_silence_after_three_attempts_holds_the_row(world: OutboxWorld) -> None:
    world.be_silent(attempts=3)

    world.run(7200)

    assert world.state() == [put_off("NO_ACK")]
    assert world.row().meta["wait_heard"] is True
    assert [t.packet_id for t in world.port.sent] == [501, 501, 501]


def test_on_serial_the_radio_is_made_to_forget_the_id_first(serial_world: OutboxWorld) -> None:
    world = serial_world
    world.queue("hi")
    world.hand_over()
    world.run(ACK_TIMEOUT_S + 31)
    assert (world.port.refreshes, len(world.port.sent)) == (["an id goes on the air again"], 1)

    world.outbox.refreshed()

    assert world.hand_over() == 501


def test_on_serial_a_repeat_that_is_swallowed_is_followed_by_one_new_id(
    serial_world: OutboxWorld, events: list[EventDict]
) -> None:
    """What makes the radio forget was read in its source, not measured."""
    world = serial_world
    world.queue("hi")
    world.hand_over()
    world.run(ACK_TIMEOUT_S + 31)
    world.outbox.refreshed()
    world.tick()
    world.outbox.written(501)
    world.run(60)

    packet_id = world.accept()
    world.run(3600)

    assert packet_id != 501
    assert [t.packet_id for t in world.port.sent] == [501, 501, packet_id]
    assert world.tries()[:2] == [(501, "handed"), (501, "SWALLOWED")]
    assert names(events).count("send_repeated_with_new_id") == 1


def test_no_new_id_where_the_operator_allows_none(tmp_path: Path) -> None:
    world = OutboxWorld(tmp_path, kind="serial", max_new_ids=0)
    world.queue("hi")
    world.hand_over()
    world.run(ACK_TIMEOUT_S + 31)
    world.outbox.refreshed()
    world.tick()
    world.outbox.written(501)

    world.run(3600)

    assert world.state() == [("outbound", "sent", "unconfirmed", "SWALLOWED")]
    assert {t.packet_id for t in world.port.sent} == {501}


def test_the_ack_timer_waits_for_a_link_that_is_down(serial_world: OutboxWorld) -> None:
    """The radio keeps the ACK meanwhile; a new id now could show the text twice."""
    world = serial_world
    world.queue("hi")
    packet_id = world.hand_over()
    world.outbox.link_down()
    world.run(3600)

    world.outbox.link_up(INFO)
    world.tick()
    world.ack(packet_id)
    world.run(600)

    assert world.state() == [DELIVERED]
    assert len(world.port.sent) == 1


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "reason"),
    [(4, "NO_INTERFACE"), (6, "NO_CHANNEL"), (7, "TOO_LARGE"), (33, "NO_INTERFACE")],
)
def test_a_refusal_for_good_ends_the_row_with_its_name(
    world: OutboxWorld, result: int, reason: str
) -> None:
    world.queue("hi")
    world.tick()
    packet_id = world.accept(result)
    world.nak(packet_id, "TOO_LARGE")

    world.run(3600)

    assert world.state() == [given_up(reason)]
    assert len(world.port.sent) == 1


@pytest.mark.parametrize("result", [5, 9, 32, 34, 38, 39, 99])
def test_a_refusal_for_now_is_tried_again(world: OutboxWorld, result: int) -> None:
    world.queue("hi")
    world.tick()
    world.accept(result)
    assert (world.row().direction, world.row().send_status) == ("queued", "failed")

    world.run(retry.DUTY_CYCLE_WAIT_S + 1)
    world.reconnect()
    world.hand_over()

    assert world.state() == [HANDED]


@pytest.mark.parametrize(
    ("content", "key", "reason"),
    [
        ("x" * 234, ADA, "TOO_LARGE"),
        ("", ADA, "EMPTY_TEXT"),
        ("hi", "!ffffffff", "NO_ADDRESS"),
        ("hi", "Nowhere", "NO_CHANNEL"),
    ],
)
def test_what_can_never_be_sent_fails_at_once_with_its_reason(
    world: OutboxWorld, content: str, key: str, reason: str
) -> None:
    world.queue(content, key=key)

    world.tick()

    assert world.state(key) == [given_up(reason)]
    assert (world.port.sent, world.row(key).send_attempts) == ([], 0)


def test_rate_limit_and_duty_cycle_cost_no_attempt(world: OutboxWorld) -> None:
    world.queue("hi")
    for result in (38, 9, 38, 32, 9):
        world.tick()
        world.accept(result)
        world.run(301)
        world.reconnect()
    for _ in range(2):
        world.hand_over(after=3.0)
        world.nak(501, "MAX_RETRANSMIT")
        assert world.state() == [put_off("MAX_RETRANSMIT")]
        world.run(61)
        world.reconnect()

    world.ack(world.hand_over(after=3.0))

    assert world.state() == [DELIVERED]


def test_a_text_dropped_by_the_rate_limit_is_sent_again_on_a_channel_too(
    world: OutboxWorld,
) -> None:
    """The queueStatus of a rate-limited text looks like success; its NAK comes after it."""
    world.queue("hi", key="Hiking")
    packet_id = world.hand_over()

    world.nak(packet_id, "RATE_LIMIT_EXCEEDED")
    world.run(6)
    world.reconnect()
    world.hand_over()

    assert world.state("Hiking") == [HANDED]


def test_a_broadcast_that_nobody_relayed_is_not_sent_again(world: OutboxWorld) -> None:
    world.queue("hi", key="Hiking")
    packet_id = world.hand_over()

    world.nak(packet_id, "MAX_RETRANSMIT")

    assert world.state("Hiking") == [HANDED]


def test_max_retransmit_goes_again_under_the_same_id_never_on_one_connection(
    world: OutboxWorld,
) -> None:
    world.queue("hi")
    world.nak(world.hand_over(), "MAX_RETRANSMIT")

    world.run(29)
    assert world.port.refreshes == []
    world.run(2)
    assert (len(world.port.refreshes), len(world.port.sent)) == (1, 1)
    world.run(60)
    assert (len(world.port.refreshes), len(world.port.sent)) == (1, 1)

    world.reconnect()
    world.hand_over()
    assert [t.packet_id for t in world.port.sent] == [501, 501]


def test_a_nak_that_comes_twice_counts_once(world: OutboxWorld) -> None:
    world.queue("hi")
    packet_id = world.hand_over()
    world.nak(packet_id, "MAX_RETRANSMIT")
    once = world.rows()
    world.clock.advance(10)

    world.nak(packet_id, "MAX_RETRANSMIT")

    assert world.rows() == once


def test_a_late_nak_of_an_earlier_id_does_not_disturb_the_newer_try(world: OutboxWorld) -> None:
    world.queue("hi")
    first = world.hand_over()
    world.ack(first, error="PKI_UNKNOWN_PUBKEY")
    world.run(61)
    assert world.accept() != first

    world.nak(first, "MAX_RETRANSMIT")

    assert world.state() == [HANDED]


def test_a_late_ack_makes_a_given_up_row_delivered(world: OutboxWorld) -> None:
    world.queue("hi")
    for _ in range(3):
        world.nak(world.hand_over(after=3.0), "MAX_RETRANSMIT")
        world.run(121)
        world.reconnect()
    world.run(world.settings.max_held_s + 1)
    assert world.state() == [given_up("EXPIRED")]

    world.ack(501)

    assert world.state() == [DELIVERED]


def test_an_ack_of_the_first_id_counts_after_a_restart(world: OutboxWorld) -> None:
    world.queue("hi")
    first = world.hand_over()
    world.ack(first, error="PKI_UNKNOWN_PUBKEY")
    world.run(61)
    assert world.accept() != first

    world.restart()
    world.ack(first)

    assert world.state() == [DELIVERED]


def test_a_full_queue_is_tried_again_soon(world: OutboxWorld) -> None:
    world.queue("hi")
    world.tick()

    world.outbox.send_failed(501, "full", busy=True)

    assert world.state() == [put_off("QUEUE_FULL")]
    world.hand_over(after=6.0)
    assert world.state() == [HANDED]
    assert world.port.refreshes == []


# -- other hands -----------------------------------------------------------------------------


def test_a_row_cancelled_since_the_scan_is_not_sent(world: OutboxWorld) -> None:
    world.queue("hi")
    world.change(direction="outbound", send_status="failed", meta_json='{"reason":"cancelled"}')

    world.run(60)

    assert world.port.sent == []
    assert world.state() == [given_up("cancelled")]


def test_a_row_removed_since_the_scan_is_not_sent(world: OutboxWorld) -> None:
    world.queue("hi")
    Path(world.path()).unlink()

    world.run(60)

    assert world.port.sent == []


def test_a_row_typed_into_a_spreadsheet_gets_a_packet_id_of_its_own(world: OutboxWorld) -> None:
    world.queue("hi", message_id="note-1", reply_to_id="")

    packet_id = world.hand_over()
    world.ack(packet_id)

    assert world.row().message_id == "note-1"
    assert world.tries() == [(packet_id, "delivered")]
    assert packet_id > 0


@pytest.mark.parametrize("kind", ["tcp", "serial"])
def test_small_ids_typed_by_hand_in_two_threads_are_two_packets(tmp_path: Path, kind: Any) -> None:
    """One id with two contents would break the cipher, and the second would vanish."""
    world = OutboxWorld(tmp_path, kind=kind)
    world.queue("to Ada", message_id="1")
    world.queue("to Bob", key="!b0b00001", message_id="1")

    first = world.hand_over()
    second = world.hand_over(after=3.0)
    world.ack(second, sender=STRANGER)

    assert first != second
    assert world.state() == [HANDED]
    assert world.state("!b0b00001") == [DELIVERED]


def test_a_clock_set_back_does_not_hold_a_row_for_ever(world: OutboxWorld) -> None:
    world.queue("hi")
    world.nak(world.hand_over(), "MAX_RETRANSMIT")
    world.clock.set_utc(NOON - timedelta(days=3000))

    world.run(31)
    assert len(world.port.refreshes) == 1

    world.restart()
    world.run(retry.DUTY_CYCLE_WAIT_S + 1)
    assert len(world.port.sent) == 1


def test_a_clock_set_forward_does_not_hurry_a_row(world: OutboxWorld) -> None:
    world.queue("hi")
    world.nak(world.hand_over(), "MAX_RETRANSMIT")
    world.clock.set_utc(NOON + timedelta(days=3000))

    world.outbox.scan(world.path())
    world.run(20)

    assert world.port.refreshes == []


def test_a_radio_with_settings_of_its_own_does_not_stop_the_outbox(world: OutboxWorld) -> None:
    world.outbox.link_up(replace(INFO, preset=""))
    world.queue("hi")

    world.hand_over()
    world.restart(up=False)

    assert world.state() == [HANDED]
    assert world.tick() > 0


def test_the_order_of_files_decides_nothing_the_older_row_goes_first(world: OutboxWorld) -> None:
    world.queue("older", key="Hiking")
    world.clock.advance(5)
    world.queue("newer", key=ADA)

    world.tick()

    assert [t.text for t in world.port.sent] == ["older"]


# -- a disk that refuses ---------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Refuse every write while the list is not empty."""
    refusing: list[bool] = []
    original = atomic.replace

    def replace_or_refuse(path: Path, chunks: Any, **options: Any) -> Any:
        if refusing:
            raise StoreWriteError(f"{path}: No space left on device")
        return original(path, chunks, **options)

    monkeypatch.setattr(atomic, "replace", replace_or_refuse)
    return refusing


def test_nothing_is_sent_while_its_intent_cannot_be_written(
    world: OutboxWorld, full_disk: list[bool]
) -> None:
    world.queue("hi")
    full_disk.append(True)
    world.run(60)
    assert world.port.sent == []

    full_disk.clear()
    world.run(6)

    assert len(world.port.sent) == 1
    assert world.row().send_attempts == 1


@pytest.mark.parametrize("kind", ["queue status", "ack"])
def test_a_result_that_the_disk_refused_is_written_later_and_not_sent_again(
    world: OutboxWorld, full_disk: list[bool], kind: str
) -> None:
    world.queue("hi")
    world.tick()
    full_disk.append(True)
    if kind == "ack":
        world.ack(501)
    else:
        world.accept()
    world.run(30)

    full_disk.clear()
    world.run(6)

    assert world.state() == [DELIVERED if kind == "ack" else HANDED]
    assert len(world.port.sent) == 1


def test_a_damaged_file_gives_back_no_row_to_send(
    world: OutboxWorld, events: list[EventDict]
) -> None:
    world.queue("hi", scan=False)
    path = world.path()
    path.chmod(0o640)
    path.write_bytes(path.read_bytes() + b'broken,"row\n')

    world.outbox.scan(path)
    world.run(60)

    assert world.port.sent == []
    assert world.rows() == ()
    assert "rows_quarantined" in names(events)


def test_the_distance_is_kept_to_what_an_earlier_run_sent(world: OutboxWorld) -> None:
    world.queue("hi")

    world.outbox.rest(since_s=1.0)

    assert world.tick() == pytest.approx(1.5)
    assert world.port.sent == []
    assert world.hand_over(after=1.5) == 501


def test_on_serial_a_broadcast_never_goes_out_under_a_second_id(serial_world: OutboxWorld) -> None:
    serial_world.queue("hi", key="Hiking")
    serial_world.tick()

    serial_world.accept(result=50)

    assert serial_world.state("Hiking") == [given_up("RADIO_ERROR_50")]
    serial_world.run(600)
    assert len(serial_world.port.sent) == 1


def test_an_ack_timer_does_not_go_by_the_whole_seconds_of_the_row(tmp_path: Path) -> None:
    """At sixty times the speed a second of the wall clock is a minute of the radio's timers."""
    world = OutboxWorld(tmp_path)
    world.clock.scale = 60.0
    world.clock.set_utc(NOON.replace(microsecond=990_000))
    world.queue("hi")
    world.tick()
    world.clock.advance(1.0)
    world.accept()

    world.run(ACK_TIMEOUT_S - 2.0)
    assert world.state() == [HANDED]
    world.run(2.0)

    assert world.state() == [put_off("NO_ACK")]


def test_an_ack_timer_that_ended_during_a_restart_is_not_begun_anew(world: OutboxWorld) -> None:
    """A bridge that restarts often would never send again, until the far radio forgot the id."""
    world.queue("hi")
    world.hand_over()

    for _ in range(3):
        world.clock.advance(ACK_TIMEOUT_S * 0.7)
        world.restart()
    world.run(70)

    assert [text.packet_id for text in world.port.sent] == [501]
    assert world.row().send_attempts == 2


# -- a row that stands in its file twice -------------------------------------------------------


def restored(world: OutboxWorld, *rows: Message) -> None:
    """Let another program put rows at the end of a thread, as a restored backup may."""
    for row in rows:
        world.append(row)
    world.outbox.scan(world.path())


@pytest.mark.parametrize("copies", [1, 3])
def test_a_row_that_stands_twice_in_its_file_goes_out_once(
    world: OutboxWorld, events: list[EventDict], copies: int
) -> None:
    world.queue("hi", scan=False)
    restored(world, *[world.row()] * copies)

    packet_id = world.hand_over()
    world.ack(packet_id)
    world.run(7200)

    assert len(world.port.sent) == 1
    assert sorted(world.state()) == sorted([DELIVERED, *[given_up("DUPLICATE_ROW")] * copies])
    told = [(e["reason"], e["log_level"]) for e in events if e["event"] == "row_copy_ended"]
    assert told == [("DUPLICATE_ROW", "warning")] * copies


def test_a_copy_that_comes_back_after_its_row_was_sent_is_not_sent(world: OutboxWorld) -> None:
    world.queue("hi")
    copy = world.row()
    world.ack(world.hand_over())
    world.restart()

    restored(world, copy)
    world.run(7200)

    assert world.port.sent == []
    assert sorted(world.state()) == sorted([DELIVERED, given_up("DUPLICATE_ROW")])


def test_a_copy_leaves_its_row_to_be_sent_whatever_is_written_meanwhile(
    world: OutboxWorld, events: list[EventDict]
) -> None:
    """What was settled here must not pass for a newer state of the row that waits."""
    first, second = world.queue("one", "two")
    restored(world, *world.rows())

    world.hand_over()
    world.queue("three", reply_to_id="78")
    world.hand_over(after=3)
    world.hand_over(after=3)

    assert [text.text for text in world.port.sent] == ["one", "two", "three"]
    assert [str(text.packet_id) for text in world.port.sent][:2] == [first, second]
    assert not [e for e in events if e["event"] == "rows_vanished"]


def test_a_copy_that_the_disk_does_not_let_us_settle_is_not_sent(
    world: OutboxWorld, full_disk: list[bool]
) -> None:
    world.queue("hi")
    copy = world.row()
    world.ack(world.hand_over())
    world.restart()
    world.append(copy)

    full_disk.append(True)
    world.outbox.scan(world.path())
    world.run(60)
    assert world.state() == [DELIVERED, QUEUED]
    full_disk.clear()
    world.run(60)

    assert world.port.sent == []
    assert sorted(world.state()) == sorted([DELIVERED, given_up("DUPLICATE_ROW")])
