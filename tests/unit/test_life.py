"""The states of an outgoing row: what may follow what, and what never may."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.bridge import life
from meshllm.records import Message, compact_json

AT = "2026-03-01T12:00:00Z"
ID = 501


def row(*, direction: str = "queued", status: str = "", attempts: int = 0, **meta: Any) -> Message:
    return Message(
        thread_type="dm",
        thread_key="!a11ce001",
        message_id=str(ID),
        direction=direction,
        sender_id="!aaaa0001",
        content="hi",
        send_attempts=attempts,
        send_status=status,
        meta_json=compact_json(meta),
    )


def tried(**changes: Any) -> Message:
    fields = {"attempts": 1, "tries": [{"id": ID, "at": AT}], **changes}
    return row(**fields)


STATES = {
    "fresh": row(),
    "inbound": row(direction="inbound"),
    "in flight": tried(),
    "put off": tried(status="failed", reason="NO_ACK", due_at=AT),
    "handed": tried(direction="outbound", status="sent", delivery="handed"),
    "relayed": tried(direction="outbound", status="sent", delivery="relayed"),
    "unconfirmed": tried(direction="outbound", status="sent", delivery="unconfirmed"),
    "delivered": tried(direction="outbound", status="sent", delivery="delivered"),
    "given up": tried(direction="outbound", status="failed", reason="NO_CHANNEL"),
}
STEPS: dict[str, Callable[[Message], Message | None]] = {
    "begin": lambda r: life.begin_try(r, ID, at=AT),
    "hand over": lambda r: life.hand_over(r, ID),
    "relay": lambda r: life.confirm(r, ID, "relayed"),
    "deliver": lambda r: life.confirm(r, ID, "delivered"),
    "put off": lambda r: life.put_off(r, ID, reason="NO_ACK", due_at=AT),
    "give up": lambda r: life.give_up(r, ID, reason="NO_CHANNEL"),
    "leave": lambda r: life.leave_unconfirmed(r, reason="NO_ACK"),
}
#: Per state the result of begin, hand over, relay, deliver, put off, give up, leave; - is refused.
TABLE = """
fresh       | in flight | handed  | -       | -         | put off | given up | unconfirmed
inbound     | -         | -       | -       | -         | -       | -        | -
in flight   | in flight | handed  | relayed | delivered | put off | given up | unconfirmed
put off     | in flight | handed  | relayed | delivered | put off | given up | unconfirmed
handed      | -         | -       | relayed | delivered | put off | given up | unconfirmed
relayed     | -         | -       | -       | delivered | put off | given up | unconfirmed
unconfirmed | -         | -       | relayed | delivered | put off | given up | unconfirmed
delivered   | -         | -       | -       | -         | -       | -        | -
given up    | -         | handed  | -       | delivered | put off | given up | unconfirmed
"""
CASES = [
    (cells[0], step, wanted)
    for line in TABLE.strip().splitlines()
    for cells in [[cell.strip() for cell in line.split("|")]]
    for step, wanted in zip(STEPS, cells[1:], strict=True)
]


def state_of(found: Message) -> str:
    if found.direction == "queued":
        is_open = any(t.result is None for t in life.tries(found))
        return "in flight" if is_open and not found.meta.get("due_at") else "put off"
    if found.send_status == "failed":
        return "given up"
    return str(found.meta["delivery"])


@pytest.mark.parametrize(("state", "step", "wanted"), CASES)
def test_every_state_takes_its_steps_and_no_other(state: str, step: str, wanted: str) -> None:
    changed = STEPS[step](STATES[state])

    assert (state_of(changed) if changed else "-") == wanted


def test_a_try_is_written_as_intent_before_its_result() -> None:
    begun = life.begin_try(STATES["put off"], 777, at=AT)

    assert begun is not None
    assert begun.send_attempts == 2
    assert life.tries(begun) == (life.Try(ID, AT), life.Try(777, AT))
    assert "due_at" not in begun.meta


def test_a_result_lands_on_the_newest_try_under_its_id() -> None:
    twice = tried(tries=[{"id": ID, "at": "1", "result": "NO_ACK"}, {"id": ID, "at": "2"}])

    handed = life.hand_over(twice, ID)

    assert handed is not None
    assert [t.result for t in life.tries(handed)] == ["NO_ACK", "handed"]


def test_unknown_extras_survive_every_step() -> None:
    extras = {"channel_index": 3, "x-note": {"deep": [1, None, "ü"]}}
    current = replace(STATES["fresh"], meta_json=compact_json(extras))

    for step in ("begin", "put off", "begin", "hand over", "relay", "deliver"):
        changed = STEPS[step](current)
        assert changed is not None, step
        current = changed

    assert {name: current.meta[name] for name in extras} == extras


def test_an_ack_for_a_row_that_was_never_tried_is_a_strangers() -> None:
    assert life.confirm(row(), ID, "delivered") is None


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=20))
def test_delivered_is_the_end_whatever_comes_in_whatever_order(steps: list[str]) -> None:
    current = STATES["in flight"]
    is_delivered = False

    for step in steps:
        current = STEPS[step](current) or current
        is_delivered = is_delivered or (step == "deliver" and current.send_attempts > 0)
        assert not is_delivered or state_of(current) == "delivered", steps


@given(st.permutations(["relay", "deliver", "hand over", "relay", "deliver"]))
def test_acks_in_any_order_and_number_end_in_the_best_of_them(steps: list[str]) -> None:
    current = STATES["in flight"]

    for step in steps:
        current = STEPS[step](current) or current

    assert state_of(current) == "delivered"


@pytest.mark.parametrize(
    "entry", [None, 7, "501", {"id": "501"}, {"id": 0}, {"id": True}, {"id": 2**32}, {"at": AT}, []]
)
def test_tries_that_no_writer_of_ours_made_are_skipped(entry: object) -> None:
    damaged = row(tries=[entry, {"id": ID, "at": AT, "result": "handed"}])

    assert life.tries(damaged) == (life.Try(ID, AT, "handed"),)


@pytest.mark.parametrize("cell", ["", "[]", "{", "7", '{"tries": 7}'])
def test_a_row_with_broken_extras_can_still_be_tried(cell: str) -> None:
    begun = life.begin_try(replace(row(), meta_json=cell), ID, at=AT)

    assert begun is not None
    assert json.loads(begun.meta_json)["tries"] == [{"id": ID, "at": AT}]


@pytest.mark.parametrize(
    ("message_id", "expected"),
    [
        ("1", 1),
        ("4294967295", 4294967295),
        ("4294967296", None),
        ("0", None),
        ("-5", None),
        ("", None),
        ("9b2c-uuid", None),
        ("١٢٣", None),
        ("99999999999999999999", None),
    ],
)
def test_only_a_32_bit_number_is_a_packet_id(message_id: str, expected: int | None) -> None:
    assert life.own_packet_id(replace(row(), message_id=message_id)) == expected


@pytest.mark.parametrize(
    ("state", "expected"), [(name, name in {"handed", "relayed"}) for name in STATES]
)
def test_only_a_dm_that_the_radio_took_awaits_an_ack(state: str, expected: bool) -> None:
    found = STATES[state]

    assert life.awaits_ack(found) is expected
    assert not life.awaits_ack(replace(found, thread_type="channel"))
