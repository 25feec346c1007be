"""Which queued rows are copies of another row of their file, and so must not be sent. Pure.

An editor or a restored backup may leave a row in its thread twice. A person must get the text
once, so one of the rows lives on and the others end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshllm.bridge import life
from meshllm.records import Message

DUPLICATE: Final = "DUPLICATE_ROW"  #: the same message_id of the same sender stands there already

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sorted:
    """The rows of a thread file, and the copies among them that still have to end."""

    rows: Sequence[Message]  #: without any copy
    copies: Sequence[Message] = ()


def sort_out(rows: Sequence[Message]) -> Sorted:
    """Tell rows from copies. The row that got furthest lives on, the first one among equals."""
    # Only ids that are queued matter, and nearly always each is there once.
    queued = {row.message_id for row in rows if life.is_queued(row)}
    places: dict[Key, list[int]] = {}
    for place, row in enumerate(rows) if queued else ():
        if row.message_id in queued and row.is_outgoing and not is_ended(row):
            places.setdefault(row.key, []).append(place)
    spare: set[int] = set()
    for found in places.values():
        if len(found) > 1:
            kept = max(found, key=lambda place: (_progress(rows[place]), -place))
            spare.update(at for at in found if at != kept and life.is_queued(rows[at]))
    ended = {at for at, row in enumerate(rows) if is_ended(row)}
    if not (spare or ended):
        return Sorted(rows)
    left = [row for at, row in enumerate(rows) if at not in spare and at not in ended]
    return Sorted(left, [rows[at] for at in sorted(spare)])


def end(row: Message, copy: Message) -> Message | None:
    """End a row if it is this copy, as it was when it was found; else leave it."""
    return life.give_up(row, None, reason=DUPLICATE) if row == copy else None


def is_ended(row: Message) -> bool:
    """True for a copy that was ended: its row is another one, and it changes no more."""
    return (
        row.direction == "outbound"
        and row.send_status == "failed"
        # The search spares a JSON parse for nearly every row of a thread.
        and DUPLICATE in row.meta_json
        and row.meta.get("reason") == DUPLICATE
    )


def _progress(row: Message) -> tuple[bool, int]:
    return not life.is_queued(row), max(row.send_attempts, len(life.tries(row)))
