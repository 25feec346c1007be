"""Turns the rows before a question into the turns of a conversation. Reads no file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshllm.records import Message

#: Old rows leave the context in blocks of this many, so that the model server can reuse what it
#: has read: every row dropped at the front makes it read all the rest again.
BLOCK_ROWS: Final = 8
_PART_MARK: Final = re.compile(r"^\(\d+/\d+\) ")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation."""

    role: Literal["user", "assistant"]
    text: str


def history(rows: Sequence[Message], position: int, *, max_chars: int) -> tuple[Turn, ...]:
    """Return the turns of the rows before `position`, the newest that fit, oldest first.

    Rows that were given up and notices are left out; parts of one reply and successive rows of
    people are one turn. The first turn is always a person's.
    """
    turns: list[Turn] = []
    previous: Message | None = None
    for row in _newest(rows, position, max_chars):
        _add(turns, row, previous)
        previous = row
    return tuple(turns[1:] if turns and turns[0].role == "assistant" else turns)


def spoken(row: Message) -> str:
    """Say what a row says: in a channel, with the end of the sender's id in front."""
    text = row.content.strip()
    if row.is_outgoing:
        return _PART_MARK.sub("", text) if _is_part(row) else text
    return text if row.thread_type == "dm" else named(row, text)


def named(row: Message, text: str) -> str:
    """Put the end of the sender's id before a text: names change, and break the prefix."""
    return f"{row.sender_id[-4:]}: {text}"


def _is_said(row: Message) -> bool:
    if not row.content.strip():
        return False
    if not row.is_outgoing:
        return True
    is_given_up = row.direction == "outbound" and row.send_status == "failed"
    return not is_given_up and row.meta.get("kind") != "notice"


def _is_part(row: Message) -> bool:
    parts = row.meta.get("parts")
    return isinstance(parts, int) and parts > 1


def _newest(rows: Sequence[Message], position: int, max_chars: int) -> list[Message]:
    """Collect the rows that fit, oldest first; when some do not, begin on a block's edge."""
    fitting: list[tuple[int, Message]] = []
    left = max_chars
    edge = 0
    for at in range(position - 1, -1, -1):
        row = rows[at]
        if not _is_said(row):
            continue
        left -= len(spoken(row)) + 1
        if left < 0:
            edge = -(-(at + 1) // BLOCK_ROWS) * BLOCK_ROWS
            break
        fitting.append((at, row))
    kept = [row for at, row in reversed(fitting) if at >= edge]
    return kept or [row for _, row in reversed(fitting)]


def _add(turns: list[Turn], row: Message, previous: Message | None) -> None:
    role: Literal["user", "assistant"] = "assistant" if row.is_outgoing else "user"
    if not turns or turns[-1].role != role:
        turns.append(Turn(role, spoken(row)))
        return
    is_next_part = previous is not None and row.is_outgoing and _is_same_reply(row, previous)
    joint = " " if is_next_part else "\n"
    turns[-1] = Turn(role, turns[-1].text + joint + spoken(row))


def _is_same_reply(row: Message, previous: Message) -> bool:
    return bool(row.reply_to_id) and row.reply_to_id == previous.reply_to_id
