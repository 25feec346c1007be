"""`more`, `stop` and `start`: the asker's own answers in this thread.

What they need is in the rows: the rest of an answer stands in its last row, and somebody has opted
out of notices when the newest `stop` or `start` answered to them is a `stop`.
"""

from collections.abc import Sequence
from typing import Final

from meshllm.commands.base import MORE, START, STOP, Answer, Command, Context
from meshllm.commands.words import phrases
from meshllm.records import Message
from meshllm.text import ELLIPSIS, MORE_HINT, is_part_marked

NOTHING_LEFT: Final = "That was all of it."
NOTHING_SAID: Final = "I have said nothing here yet that could go on."
STOPPED: Final = (
    "Stopped. I say nothing here by myself now, and answer only what you ask. To undo: start"
)
STARTED: Final = "Started. I tell you again when an answer takes long."
FIXED_LINES: Final = frozenset({NOTHING_LEFT, NOTHING_SAID, STOPPED, STARTED})


def rest_of_answer(rows: Sequence[Message], asker: str) -> str | None:
    """Return what is left of the newest answer: "" when nothing is, None when there is no answer.

    What a command said whole, such as `ping`, lies between an answer and "more" without ending it.
    Parts that were given up count as left; an answer of which no part went out is none.
    """
    for answer in _answers_to(rows, asker):
        lost = [row for row in answer if _is_given_up(row)]
        if len(lost) == len(answer):
            continue
        rest = str(answer[-1].meta.get("rest") or "")
        left = " ".join(filter(None, (*map(_said, lost), rest)))
        is_aside = answer[-1].meta.get("command", MORE) != MORE
        if left or not is_aside:
            return left
    return None


def goes_on(context: Context) -> bool:
    """Say whether "more" is a question for the model: it was stopped, and all of that was sent.

    To call such an answer whole would be a lie; the model has the conversation and goes on.
    """
    rows, asker = context.rows, context.asked.sender_id
    if rest_of_answer(rows, asker) != "":
        return False
    said = (answer[-1].meta for answer in _answers_to(rows, asker))
    return bool(next((meta for meta in said if "command" not in meta), {}).get("unsaid"))


def _answers_to(rows: Sequence[Message], asker: str) -> list[list[Message]]:
    """Collect our answers to one person in a thread, newest first, each with its parts in order."""
    answers: dict[str, list[Message]] = {}
    for row in rows:
        if not row.is_outgoing or not row.reply_to_id:
            continue
        # A direct thread has one person; in a channel the row says whose answer it is.
        if row.thread_type == "dm" or row.meta.get("reply_to_sender") == asker:
            answers.setdefault(row.reply_to_id, []).append(row)
    return list(answers.values())[::-1]


def _is_given_up(row: Message) -> bool:
    return row.direction == "outbound" and row.send_status == "failed"


def _said(row: Message) -> str:
    text = row.content.partition(") ")[2] if is_part_marked(row.content) else row.content
    if "rest" not in row.meta:
        return text
    return text.removesuffix(MORE_HINT).removesuffix(ELLIPSIS).rstrip()


def has_opted_out(rows: Sequence[Message], asker: str) -> bool | None:
    """Say whether a person wants no notices in this thread; None where no row tells."""
    for row in rows[::-1]:
        if not row.is_outgoing or '"command"' not in row.meta_json:
            continue
        meta = row.meta
        if row.thread_type == "channel" and meta.get("reply_to_sender") != asker:
            continue
        if meta.get("command") in {STOP, START}:
            return bool(meta["command"] == STOP)
    return None


def _more(context: Context) -> str:
    rest = rest_of_answer(context.rows, context.asked.sender_id)
    if rest is None:
        return NOTHING_SAID
    return rest or NOTHING_LEFT


def _stop(context: Context) -> Answer:
    asker = context.asked.sender_id
    waiting = tuple(
        row.message_id
        for row in context.rows
        if row.direction == "queued"
        and (row.thread_type == "dm" or row.meta.get("reply_to_sender") == asker)
    )
    return Answer(STOPPED, cancels=waiting)


def _start(_: Context) -> str:
    return STARTED


MORE_COMMAND: Final = Command(
    MORE,
    "more: the rest of an answer",
    phrases(
        "more|continue|go on|the rest|keep going",
        "más|sigue|continúa|continuar",
        "mehr|weiter|mach weiter",
        "далі|ще|більше|продовжуй|продовж|дальше|ещё|больше|продолжай",
    ),
    _more,
    applies=lambda context: not goes_on(context),
)
COMMANDS: Final = (
    MORE_COMMAND,
    Command(
        STOP,
        "stop: drop what waits for me",
        phrases("stop|stop it|unsubscribe|be quiet|stopp|alto|стоп|silencio"),
        _stop,
    ),
    Command(START, "start: undo stop", phrases("start|subscribe"), _start),
)
