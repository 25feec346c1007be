"""What the rows of a thread prove about one of its questions. Pure; the agent's rules, read back.

Only what can be told from rows without doubt is told here; the rest is in the log.
"""

from collections.abc import Collection, Iterator, Sequence

from meshllm.commands.base import STOP
from meshllm.config import Settings
from meshllm.layout import node_number
from meshllm.records import Message
from meshllm.text import is_part_marked
from meshllm.trigger import question_text


def no_question(row: Message, own_ids: Collection[str]) -> str:
    """Name why a row asks nothing, "" when it does."""
    if question_text(row, own_ids=own_ids) is not None:
        return ""
    if row.sender_id in own_ids:
        return "own_radio"
    meta = row.meta
    return "reaction" if meta.get("emoji") and meta.get("reply_id") else "not_a_trigger"


def replies_to(rows: Sequence[Message], position: int) -> list[Message]:
    """Rows that answer the question at this position, notices left out."""
    asked = rows[position]
    return [row for row in _after(rows, position) if _is_answer(row, asked)]


def notices_about(rows: Sequence[Message], position: int) -> list[Message]:
    """Notices that a person got about a question."""
    asked = rows[position]
    return [
        row
        for row in _after(rows, position)
        if row.is_outgoing
        and row.meta.get("kind") == "notice"
        and str(row.meta.get("notice_for", "")) == asked.message_id
        and _is_for(row, asked)
    ]


def closed_by(
    rows: Sequence[Message], position: int, own_ids: Collection[str]
) -> tuple[Message, list[Message]] | None:
    """Find the later question whose answer closed this one, with that answer."""
    asked = rows[position]
    for at in range(position + 1, len(rows)):
        later = rows[at]
        if later.sender_id != asked.sender_id or question_text(later, own_ids=own_ids) is None:
            continue
        closing = [
            row
            for row in replies_to(rows, at)
            if row.meta.get("command", STOP) == STOP  # other commands close themselves alone
        ]
        if closing:
            return later, closing
    return None


def waits_with(rows: Sequence[Message], position: int, own_ids: Collection[str]) -> Message | None:
    """Find the latest question of the same person after this one."""
    asked = rows[position]
    for later in reversed(rows[position + 1 :]):
        if later.sender_id == asked.sender_id and question_text(later, own_ids=own_ids) is not None:
            return later
    return None


def same_words_before(
    rows: Sequence[Message], position: int, own_ids: Collection[str]
) -> Message | None:
    """Find the same question that was waiting when this one came."""
    asked = rows[position]
    words = _words(asked, own_ids)
    for at in range(position - 1, -1, -1):
        row = rows[at]
        if row.sender_id == asked.sender_id and _words(row, own_ids) == words:
            is_open = not replies_to(rows[:position], at)
            return row if is_open else None
    return None


def barred(rows: Sequence[Message], position: int, settings: Settings, *, file_stem: str) -> str:
    """Name a rule, as the settings are now, that keeps a question from being answered."""
    row = rows[position]
    listed = _listed(row, settings, file_stem)
    if listed:
        return listed
    if not settings.answer_internet_messages and row.meta.get("via_mqtt"):
        return "came_over_internet"
    is_bare = row.thread_type == "dm" and not row.meta.get("pki")
    had_key = is_bare and any(not r.is_outgoing and r.meta.get("pki") for r in rows[:position])
    if settings.refuse_downgraded_senders and had_key:
        return "sender_downgraded"
    return "bot_part_mark" if is_part_marked(question_text(row) or "") else ""


def _listed(row: Message, settings: Settings, file_stem: str) -> str:
    """Apply the lists by id and channel name; names of people are not looked up here."""
    if row.thread_type == "channel":
        names = {row.thread_key.casefold(), file_stem}
        if names & {name.casefold() for name in settings.channel_blocklist}:
            return "channel_blocklist"
    blocked = {_canonical(name) for name in settings.dm_blocklist}
    if _canonical(row.sender_id) in blocked:
        return "dm_blocklist"
    if row.thread_type == "channel" and settings.channel_allowlist:
        allowed = {name.casefold() for name in settings.channel_allowlist}
        return "" if names & allowed else "not_in_channel_allowlist"
    return ""


def _canonical(name: str) -> str:
    number = node_number(name)
    return name.casefold() if number is None else f"!{number:08x}"


def _words(row: Message, own_ids: Collection[str]) -> str | None:
    text = question_text(row, own_ids=own_ids)
    return None if text is None else " ".join(text.split()).casefold()


def _after(rows: Sequence[Message], position: int) -> Iterator[Message]:
    """Rows after a question, up to where its id comes again: ids are used anew after months."""
    asked = rows[position]
    for row in rows[position + 1 :]:
        if not row.is_outgoing and row.key == asked.key:
            return
        yield row


def _is_answer(row: Message, asked: Message) -> bool:
    if not row.is_outgoing or row.reply_to_id != asked.message_id:
        return False
    return row.meta.get("kind") != "notice" and _is_for(row, asked)


def _is_for(row: Message, asked: Message) -> bool:
    sender = row.meta.get("reply_to_sender")
    return sender is None or sender == asked.sender_id
