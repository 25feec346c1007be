"""Recognises other bots by what they send, so that two of them never talk in a circle. Pure."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from meshllm.agent.notices import is_notice_text
from meshllm.agent.questions import Question
from meshllm.clock import parse_utc
from meshllm.records import Message
from meshllm.text import is_part_marked

#: Replies to our own texts, each within this time, that no thumb types several times running.
QUICK: Final = timedelta(seconds=15)
MAX_QUICK_REPLIES: Final = 3  #: so many in a row are a machine's; the next one is not answered


def bot_reason(question: Question, rows: Sequence[Message]) -> str:
    """Return why a DM is taken for a bot's, "" when it is not. `rows` is the whole thread.

    A librarian marks the parts of its answers, has fixed notices, and answers by replying to the
    packet it answers: a chain of quick replies to our replies is another machine.
    """
    row = question.row
    if row.thread_type != "dm":
        return ""
    if is_part_marked(row.content):
        return "bot_part_mark"
    if row.content.lstrip().startswith("[AI]") or is_notice_text(row.content):
        return "bot_text"
    chain = rows[: question.position + 1]
    return "bot_loop" if _quick_replies(chain) > MAX_QUICK_REPLIES else ""


def _quick_replies(rows: Sequence[Message]) -> int:
    """Count the newest inbound rows, without a gap, that quickly reply to a row of ours."""
    sent = {row.message_id: row.timestamp for row in rows if row.is_outgoing}
    count = 0
    for row in reversed(rows):
        if row.is_outgoing:
            continue
        if not _is_quick(sent.get(row.reply_to_id), row.timestamp):
            break
        count += 1
    return count


def _is_quick(sent_at: str | None, heard_at: str) -> bool:
    sent = parse_utc(sent_at or "")
    heard = parse_utc(heard_at)
    return sent is not None and heard is not None and heard - sent <= QUICK
