"""Words and builds the rows that tell a person to wait. They answer nothing and close nothing."""

import re
from typing import Final

from meshllm.agent.reply import queued_row
from meshllm.records import Message

OFFLINE: Final = "offline"  #: the notice kind of everything that keeps the model from answering
WORKING: Final = "working"
THINKING: Final = "thinking"
_WAITING: Final = re.compile(r"⏳ (?:working on it|thinking)\b")
_REASONS: Final = {
    "busy": "The language model is busy",
    "missing_model": "The language model is not installed",
    "timeout": "The language model is too slow now",
    "broken": "The language model failed",
}


def offline_text(outcome: str, keep_s: float) -> str:
    """Say in one message what is wrong, what becomes of the question, and what still works."""
    reason = _REASONS.get(outcome, "The language model is offline")
    return (
        f"{reason}. Your question is kept for {_span(keep_s)} and answered if it returns. "
        "Messages are still heard and stored."
    )


def working_text(left_s: float | None) -> str:
    """Say that an answer is coming, and when, where that is known: short, and plain by its sign."""
    return "⏳ working on it" if left_s is None else f"⏳ working on it, ~{rounded(left_s)}"


def thinking_text(left_s: float | None) -> str:
    """Say that an answer which was asked for with "think" takes long."""
    how_long = "this takes minutes" if left_s is None else f"~{rounded(left_s)}"
    return f"⏳ thinking, {how_long}"


def rounded(seconds: float) -> str:
    """Say a time no more exactly than it is known: 5 s steps, 10 s from a minute, then minutes."""
    if seconds >= 180:
        return f"{round(seconds / 60)} min"
    step = 5 if seconds < 60 else 10
    return f"{max(5, round(seconds / step) * step)} s"


def is_notice_text(text: str) -> bool:
    """True for what this module of another librarian would say."""
    if _WAITING.match(text):
        return True
    return text.startswith("The language model ") and "Your question is kept for " in text


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, int(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def notice_row(
    source: Message, *, kind: str, content: str, message_id: str, own_id: str, now: str
) -> Message:
    """Build a notice about a question: no reply_to_id, the question named in the extras."""
    meta = {"kind": "notice", "notice": kind, "notice_for": source.message_id}
    return queued_row(
        source,
        message_id=message_id,
        own_id=own_id,
        now=now,
        content=content,
        reply_to_id="",
        meta=meta,
    )
