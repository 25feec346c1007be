"""Which answers held for people who are away give way. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

from meshllm import grouping
from meshllm.records import Message

REPLACED: Final = "REPLACED"  #: a newer answer to the same question exists
TOO_MANY: Final = "TOO_MANY_HELD"  #: more answers wait for this person than are kept
CANCELLED: Final = "CANCELLED"  #: a later reply to the same person names it
EXPIRED: Final = "EXPIRED"  #: the person was not heard in time

Key = tuple[str, ...]


def cancelled_by(row: Message) -> set[str]:
    """Message ids that a row cancels; only rows of its own thread are looked for."""
    named = row.meta.get("cancels")
    return {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def is_held(row: Message) -> bool:
    """True for a row that waits until its addressee is heard."""
    return row.direction == "queued" and bool(row.meta.get("wait_heard"))


def giving_way(rows: Sequence[Message], limit: int) -> list[tuple[Message, str]]:
    """Pick the held rows of one person that end now, with the reason of each.

    `rows` are all outgoing rows of the person's thread in file order; all parts of an answer
    count as one answer. An older answer gives way only to a newer one to the same question, or
    beyond `limit`.
    """
    named = grouping.named(rows)
    newest = _newest_answers(named)
    ending: list[tuple[Message, str]] = []
    kept: dict[str, list[Message]] = {}
    for answer, row in named:
        if not is_held(row):
            continue
        if newest.get(row.reply_to_id, answer) != answer:
            ending.append((row, REPLACED))
        else:
            kept.setdefault(answer, []).append(row)
    surplus = list(kept.values())[: max(0, len(kept) - limit)]
    return ending + [(row, TOO_MANY) for rows in surplus for row in rows]


def _newest_answers(named: Iterable[tuple[str, Message]]) -> dict[str, str]:
    """Per question the answer queued last of those that have not been given up."""
    return {
        row.reply_to_id: answer
        for answer, row in named
        if row.reply_to_id and not (row.direction == "outbound" and row.send_status == "failed")
    }
