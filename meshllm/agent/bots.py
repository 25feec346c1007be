"""Recognises other bots by what they send, so that two of them never talk in a circle. Pure.

A librarian marks the parts of its answers, has lines that are always the same, and answers by
replying to the packet it answers, without end. Names and ids are chosen freely and say nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from meshllm.agent.etiquette import is_fixed_line
from meshllm.agent.notices import is_notice_text
from meshllm.agent.questions import Question
from meshllm.agent.reply import CANNOT_ANSWER, LEAKED, NO_ANSWER
from meshllm.agent.safety import is_safety_line
from meshllm.clock import parse_utc
from meshllm.commands.base import MORE
from meshllm.commands.parts import FIXED_LINES, MORE_COMMAND
from meshllm.commands.words import plain
from meshllm.records import Message
from meshllm.refusals import is_refusal_line
from meshllm.text import is_part_marked

#: Replies to our own texts, each within this time, that no thumb types several times running.
QUICK: Final = timedelta(seconds=15)
MAX_QUICK_REPLIES: Final = 3  #: so many in a row are a machine's; the next one is not answered
#: Texts of one answer follow each other so soon; a person who was not answered waits longer.
SAME_BURST: Final = timedelta(seconds=60)
#: A slow machine replies as well, minutes later: so many replies in a row without one text that
#: is none end the talk, whatever the pauses. A person goes on by writing without "reply".
MAX_REPLIES: Final = 6
#: The same words so soon after an answer of ours, so many times running, come from a machine.
ECHO: Final = timedelta(seconds=10)
MAX_ECHOES: Final = 3
LOOP: Final = "bot_loop"
ENDLESS: Final = "bot_endless_replies"
_BOT_MARKS: Final = ("[ai]", "[bot]", "\N{ROBOT FACE}")
_HONEST_LINES: Final = frozenset({NO_ANSWER, CANNOT_ANSWER, LEAKED, *FIXED_LINES})


def bot_reason(question: Question, rows: Sequence[Message]) -> str:
    """Return why a question is taken for a bot's, "" when it is not. `rows` is the whole thread.

    On a channel other people talk in between; only the rows of the asker and our own count.
    """
    if is_part_marked(question.text):
        return "bot_part_mark"
    if _is_bot_text(question.text):
        return "bot_text"
    chain = [r for r in rows[: question.position + 1] if _concerns(r, question.row)]
    if not chain:  # an expired question of a thread that is not kept
        return ""
    if _replies(chain, QUICK) > MAX_QUICK_REPLIES:
        return LOOP
    if _echoes(chain) >= MAX_ECHOES:
        return "bot_echo"
    return ENDLESS if _replies(chain) > MAX_REPLIES else ""


def _is_bot_text(text: str) -> bool:
    if text.casefold().startswith(_BOT_MARKS) or text in _HONEST_LINES:
        return True
    lines = (is_notice_text, is_safety_line, is_fixed_line, is_refusal_line)
    return any(is_ours(text) for is_ours in lines)


def _concerns(row: Message, asked: Message) -> bool:
    return row.is_outgoing or row.sender_id == asked.sender_id


def _replies(chain: Sequence[Message], within: timedelta | None = None) -> int:
    """Count the newest bursts, without a gap, that hold a reply to a row of ours.

    A burst is what came close together between two texts of ours: a bot may send its answer in
    several texts of which only the first is a reply.
    """
    bursts = _bursts(chain)
    if not any(row.reply_to_id for row in bursts[-1]):
        return 0  # as nearly everything that people write
    ours = {packet_id: row for row in chain if row.is_outgoing for packet_id in _packet_ids(row)}
    count = 0
    for burst in reversed(bursts):
        answered = [(ours[row.reply_to_id], row) for row in burst if row.reply_to_id in ours]
        if not any(within is None or _is_within(*pair, within) for pair in answered):
            break
        count += 1
    return count


def _bursts(chain: Sequence[Message]) -> list[list[Message]]:
    bursts: list[list[Message]] = []
    before: Message | None = None
    for row in chain:
        if not row.is_outgoing:
            if (
                before is not None
                and not before.is_outgoing
                and _is_within(before, row, SAME_BURST)
            ):
                bursts[-1].append(row)
            else:
                bursts.append([row])
        before = row
    return bursts


def _packet_ids(row: Message) -> set[str]:
    """Name a row as the air knows it: a resend may have had an id of its own."""
    return {row.message_id, *(str(t.get("id", "")) for t in _tries(row))}


def _tries(row: Message) -> list[dict[str, object]]:
    if '"tries"' not in row.meta_json:
        return []
    found = row.meta.get("tries")
    return [t for t in found if isinstance(t, dict)] if isinstance(found, list) else []


def _echoes(chain: Sequence[Message]) -> int:
    """Count the newest inbound rows of the same words that each followed a text of ours at once."""
    words = _words(chain[-1])
    count = 0
    before: Message | None = None
    for row in reversed(chain):
        if not row.is_outgoing:
            if before is not None or _words(row) != words:
                break
            before = row
        elif before is not None:
            if not _is_within(row, before, ECHO) or _is_read_on(row, before):
                break
            count, before = count + 1, None
    return count


def _is_read_on(row: Message, theirs: Message) -> bool:
    """True for "more" to an answer that has more: who reads on says the same word each time."""
    if row.content in FIXED_LINES or MORE_COMMAND.match(plain(theirs.content)) is None:
        return False
    meta = row.meta
    return bool(meta.get("rest") or meta.get("unsaid") or meta.get("command") == MORE)


def _words(row: Message) -> str:
    return " ".join(row.content.split()).casefold()


def _is_within(before: Message, theirs: Message, limit: timedelta) -> bool:
    heard = parse_utc(theirs.timestamp)
    sent = _sent_at(before)
    return sent is not None and heard is not None and heard - sent <= limit


def _sent_at(row: Message) -> datetime | None:
    """Tell when a row was last handed over; when it was queued, where nobody noted that."""
    tried = [parse_utc(str(t.get("at", ""))) for t in _tries(row)]
    return max((at for at in tried if at is not None), default=parse_utc(row.timestamp))
