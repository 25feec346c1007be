"""The life of an outgoing row: its legal state changes as pure functions. Sends nothing.

Each function takes the row as it is on disk and returns the changed row, or None when the change
no longer applies (compare-and-set). The state table is in docs/reference/csv-format.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from meshllm.records import Message

Delivery = Literal["handed", "relayed", "delivered", "unconfirmed"]
#: Later states win; an ACK of any earlier id may arrive at any time and in any order.
_RANK: Final[dict[object, int]] = {
    None: 0,
    "unconfirmed": 1,
    "handed": 2,
    "relayed": 3,
    "delivered": 4,
}
MAX_PACKET_ID: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Try:
    """One hand-over: intent on disk before it, result after it (None: unknown)."""

    packet_id: int
    at: str
    result: str | None = None


def tries(row: Message) -> tuple[Try, ...]:
    """Read the tries of a row; entries that no writer of ours made are skipped."""
    found = row.meta.get("tries")
    entries = found if isinstance(found, list) else []
    return tuple(t for entry in entries if (t := _try(entry)) is not None)


def _try(entry: object) -> Try | None:
    if not isinstance(entry, Mapping):
        return None
    packet_id = entry.get("id")
    if isinstance(packet_id, bool) or not isinstance(packet_id, int):
        return None
    if not 0 < packet_id <= MAX_PACKET_ID:
        return None
    result = entry.get("result")
    return Try(packet_id, str(entry.get("at", "")), str(result) if result is not None else None)


def own_packet_id(row: Message) -> int | None:
    """Return the packet id that message_id stands for; None for an id that is no packet id."""
    text = row.message_id
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    number = int(text)
    return number if 0 < number <= MAX_PACKET_ID else None


def packet_ids(row: Message) -> set[int]:
    """All ids under which this row may have gone on the air."""
    ids = {t.packet_id for t in tries(row)}
    own = own_packet_id(row)
    return ids | {own} if own else ids


def is_queued(row: Message) -> bool:
    """True while the row still has to be sent (again)."""
    return row.direction == "queued"


def awaits_ack(row: Message) -> bool:
    """True for a DM that the radio took and nobody has confirmed or given up."""
    return (
        row.direction == "outbound"
        and row.send_status == "sent"
        and row.thread_type == "dm"
        # The search spares a JSON parse for nearly every row of a thread.
        and ('"handed"' in row.meta_json or '"relayed"' in row.meta_json)
        and row.meta.get("delivery") in ("handed", "relayed")
    )


def begin_try(row: Message, packet_id: int, *, at: str) -> Message | None:
    """Write the intent: one more attempt under this id. None when the row is no longer queued."""
    if not is_queued(row):
        return None
    entries = [*_entries(row), {"id": packet_id, "at": at}]
    changed = row.with_meta(tries=entries, due_at=None, wait_heard=None)
    return replace(changed, send_attempts=row.send_attempts + 1)


def hand_over(row: Message, packet_id: int) -> Message | None:
    """Settle a try as taken by the radio. Idempotent; never a step back from an ACK."""
    if not row.is_outgoing or (row.direction == "outbound" and row.send_status == "sent"):
        return None
    marked = _with_result(row, packet_id, "handed")
    changed = marked.with_meta(delivery="handed", reason=None, due_at=None, wait_heard=None)
    return replace(changed, direction="outbound", send_status="sent")


def confirm(row: Message, packet_id: int, delivery: Delivery) -> Message | None:
    """Raise the delivery state by an ACK; from any state, but never from delivered to less.

    A row that no try was made of was never on the air: such an ACK is a stranger's.
    """
    if not row.is_outgoing or row.send_attempts == 0 or _rank(row) >= _RANK[delivery]:
        return None
    if row.direction == "outbound" and row.send_status == "failed" and delivery != "delivered":
        return None  # given up: only the proof that it arrived says otherwise
    marked = _with_result(row, packet_id, delivery)
    changed = marked.with_meta(delivery=delivery, reason=None, due_at=None, wait_heard=None)
    return replace(changed, direction="outbound", send_status="sent")


def put_off(row: Message, packet_id: int | None, *, reason: str, due_at: str) -> Message | None:
    """Record a failed try that will be repeated: back to queued/failed with its due time."""
    if not row.is_outgoing or row.meta.get("delivery") == "delivered":
        return None
    marked = _with_result(row, packet_id, reason) if packet_id else row
    changed = marked.with_meta(delivery=None, reason=reason, due_at=due_at, wait_heard=None)
    return replace(changed, direction="queued", send_status="failed")


def hold(
    row: Message, packet_id: int | None, *, reason: str, at: str, boot: str, up_s: float
) -> Message | None:
    """Keep a row until its addressee is heard. `held_at` and uptime tell since when at first."""
    held = put_off(row, packet_id, reason=reason, due_at=at)
    if held is None:
        return None
    since = {} if row.meta.get("held_at") else {"held_at": at, "boot": boot or None, "up_s": up_s}
    return held.with_meta(due_at=None, wait_heard=True, **since)


def give_up(row: Message, packet_id: int | None, *, reason: str) -> Message | None:
    """End the row as failed with its reason. Never from delivered."""
    if not row.is_outgoing or row.meta.get("delivery") == "delivered":
        return None
    marked = _with_result(row, packet_id, reason) if packet_id else row
    changed = marked.with_meta(delivery=None, reason=reason, due_at=None, wait_heard=None)
    return replace(changed, direction="outbound", send_status="failed")


def leave_unconfirmed(row: Message, *, reason: str) -> Message | None:
    """End a row that the radio took and nobody confirmed: it may or may not have arrived."""
    if not row.is_outgoing or row.meta.get("delivery") == "delivered":
        return None
    changed = row.with_meta(delivery="unconfirmed", reason=reason, due_at=None, wait_heard=None)
    return replace(changed, direction="outbound", send_status="sent")


def _rank(row: Message) -> int:
    if row.direction != "outbound" or row.send_status != "sent":
        return 0
    return _RANK.get(row.meta.get("delivery"), 0)


def _entries(row: Message) -> list[Any]:
    found = row.meta.get("tries")
    return list(found) if isinstance(found, list) else []


def _with_result(row: Message, packet_id: int | None, result: str) -> Message:
    """Set the result of the newest try under this id."""
    entries = _entries(row)
    for position in range(len(entries) - 1, -1, -1):
        entry = entries[position]
        if isinstance(entry, dict) and entry.get("id") == packet_id:
            entries[position] = {**entry, "result": result}
            return row.with_meta(tries=entries)
    return row
