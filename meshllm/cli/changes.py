"""How an operator may change rows that wait: pure functions on one row. Writes nothing.

Each returns the changed row, or None where the change does not apply to the row as it is now. The
bridge may be running: a row whose try is under way is left to it, and a row that was given up is
not set back, since the bridge would take that for an old copy saved over its file.
"""

from dataclasses import replace
from typing import Final

from meshllm.reading.states import has_open_try
from meshllm.records import Message

CANCELLED: Final = "CANCELLED"  #: the bridge's own reason for rows that are taken back

#: What belongs to one row's way to the air; a copy starts without it.
_OF_THE_WAY: Final = (
    "tries",
    "delivery",
    "reason",
    "due_at",
    "wait_heard",
    "held_at",
    "boot",
    "up_s",
    "cancels",
)


def cancel(row: Message) -> Message | None:
    """Take a queued row back. None for a row that is not queued or has a try without a result."""
    if row.direction != "queued" or has_open_try(row.meta):
        return None
    changed = row.with_meta(delivery=None, reason=CANCELLED, due_at=None, wait_heard=None)
    return replace(changed, direction="outbound", send_status="failed")


def ask_to_cancel(row: Message) -> Message | None:
    """Have the bridge cancel a queued row as soon as it knows what came of the try under way.

    A row that names itself in `cancels` is ended by the bridge unless the radio took it.
    """
    if row.direction != "queued" or not has_open_try(row.meta):
        return None
    named = row.meta.get("cancels")
    others = [name for name in named if name != row.message_id] if isinstance(named, list) else []
    return row.with_meta(cancels=[*others, row.message_id])


def hasten(row: Message) -> Message | None:
    """Let a row that waits for its retry, or for somebody to be heard, go at once."""
    meta = row.meta
    is_waiting = row.direction == "queued" and (meta.get("due_at") or meta.get("wait_heard"))
    if not is_waiting or has_open_try(meta):
        return None
    return row.with_meta(due_at=None, wait_heard=None)


def renew(row: Message, *, message_id: str, now: str) -> Message | None:
    """Copy a row that was given up into a fresh one to be queued. None for any other."""
    if row.direction != "outbound" or row.send_status != "failed":
        return None
    without: dict[str, object] = dict.fromkeys(_OF_THE_WAY)
    return replace(
        row.with_meta(**without, retry_of=row.message_id),
        message_id=message_id,
        direction="queued",
        send_status="",
        send_attempts=0,
        timestamp=now,
    )
