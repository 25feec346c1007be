"""An operator's changes to rows, as the bridge takes them up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshllm.bridge import hold, life
from meshllm.cli import changes
from meshllm.grouping import named
from meshllm.reading.states import state_of
from meshllm.records import Message
from meshllm.store.table import Table
from tests.bridge.world import OutboxWorld
from tests.cli.folder import ours

AT = "2026-03-01T12:00:00Z"


def apply(world: OutboxWorld, change: Callable[[Message], Message | None]) -> list[Message]:
    """Change the newest row as the tool does, then let the bridge see the file."""
    done = Table(world.path(), Message).update({world.row().key: change})
    world.outbox.scan(world.path())
    return list(done.values())


def test_cancelled_row_is_the_one_that_the_bridge_would_have_made() -> None:
    row = ours("5", "text", at=AT, part=1, parts=1)

    assert changes.cancel(row) == life.give_up(row, None, reason=hold.CANCELLED)


def test_bridge_sends_nothing_of_a_row_that_was_cancelled(tmp_path: Path) -> None:
    world = OutboxWorld(tmp_path)
    world.queue("hello")

    assert apply(world, changes.cancel)
    world.tick()

    assert world.port.sent == []
    assert world.state() == [("outbound", "failed", None, "CANCELLED")]


def test_row_cancelled_behind_the_bridges_back_is_not_sent(tmp_path: Path) -> None:
    """The change comes after the last look at the file and before the hand-over."""
    world = OutboxWorld(tmp_path)
    world.queue("hello")

    Table(world.path(), Message).update({world.row().key: changes.cancel})
    world.tick()

    assert world.port.sent == []
    assert world.state() == [("outbound", "failed", None, "CANCELLED")]


def test_row_on_its_way_to_the_radio_is_left_to_the_bridge(tmp_path: Path) -> None:
    world = OutboxWorld(tmp_path)
    world.queue("hello")
    world.tick()
    assert state_of(world.row()) == "trying"

    assert not apply(world, changes.cancel)
    assert apply(world, changes.ask_to_cancel)
    world.tick()
    assert world.row().direction == "queued"  # until it is known what became of the try

    world.restart()
    world.tick()
    world.tick()
    assert world.state() == [("outbound", "failed", None, "CANCELLED")]
    assert world.port.sent == []


@pytest.mark.parametrize("delivery", ["handed", "relayed", "delivered", "unconfirmed"])
def test_what_the_radio_took_is_neither_cancelled_nor_sent_again(delivery: str) -> None:
    row = ours("5", "text", at=AT, direction="outbound", status="sent", delivery=delivery)

    assert changes.cancel(row) is None
    assert changes.ask_to_cancel(row) is None
    assert changes.hasten(row) is None
    assert changes.renew(row, message_id="6", now=AT) is None


def test_copy_of_a_given_up_row_keeps_its_question_and_starts_anew() -> None:
    kept: dict[str, Any] = {
        "kind": "reply",
        "part": 2,
        "parts": 2,
        "prompt_id": "p",
        "channel_index": 3,
    }
    row = ours(
        "5",
        "text",
        at="2026-03-01T09:00:00Z",
        direction="outbound",
        status="failed",
        reply_to="77",
        **kept,
        reason="NO_ACK",
        tries=[{"id": 5, "at": AT, "result": "NO_ACK"}],
        held_at=AT,
        boot="abcd",
        up_s=3.5,
    )

    copy = changes.renew(row, message_id="6", now=AT)

    assert copy == ours("6", "text", at=AT, reply_to="77", **kept, retry_of="5")


def test_bridge_sends_the_copy_of_a_row_that_it_gave_up_in_this_very_run(tmp_path: Path) -> None:
    """Set back in place, the row would be taken for an old copy and put right again."""
    world = OutboxWorld(tmp_path)
    [message_id] = world.queue("hello")
    world.tick()
    apply(world, lambda row: life.give_up(row, None, reason="NO_ACK"))
    copy = changes.renew(world.row(), message_id="900", now=AT)
    assert copy is not None

    world.append(copy)
    world.outbox.scan(world.path())
    world.reconnect()
    for _ in range(3):
        world.tick(after=30.0)

    assert [text.packet_id for text in world.port.sent] == [int(message_id), 900]


def test_the_parts_of_a_text_are_told_by_their_name() -> None:
    rows = [
        ours("1", "a", at=AT),
        ours("2", "a", at=AT, part=1, parts=2, prompt_id="p", reply_to="9"),
        ours("3", "a", at=AT, part=1, parts=2, group="3"),
        ours("4", "a", at=AT, part=2, parts=2, group="3"),
        ours("5", "a", at=AT, part=1, parts=2, group="5"),
    ]

    names = [name for name, _ in named(rows)]
    assert names[2] == names[3]
    assert len(set(names)) == 4


def test_held_row_is_sent_at_once_when_it_is_retried(tmp_path: Path) -> None:
    world = OutboxWorld(tmp_path)
    world.queue("hello", meta={"wait_heard": True, "held_at": AT, "reason": "NO_ACK"})
    world.tick()
    assert world.port.sent == []

    assert apply(world, changes.hasten)
    world.tick()

    assert [text.text for text in world.port.sent] == ["hello"]
