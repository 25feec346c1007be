"""Words and builds the rows that tell a person to wait. They answer nothing and close nothing."""

from typing import Final

from meshllm.agent.reply import queued_row
from meshllm.records import Message

OFFLINE: Final = "offline"  #: the notice kind of everything that keeps the model from answering
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


def is_notice_text(text: str) -> bool:
    """True for what this module of another librarian would say."""
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
