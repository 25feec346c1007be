"""Rows of threads as facts for programs and as words for people. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from meshllm import reasons
from meshllm.cli.moments import short
from meshllm.cli.show import Row, Tone
from meshllm.cli.whom import Names
from meshllm.reading.book import Thread
from meshllm.reading.states import State, state_of, text_of
from meshllm.records import Message

_TONES: Final[Mapping[State, Tone]] = {
    "heard": "",
    "queued": "warn",
    "trying": "warn",
    "retry": "warn",
    "held": "warn",
    "handed": "",
    "relayed": "",
    "delivered": "good",
    "unconfirmed": "warn",
    "failed": "bad",
}


def message_facts(thread: Thread, row: Message, names: Names) -> dict[str, Any]:
    """Everything of a row, under keys that stay."""
    meta = row.meta
    return {
        "node_uid": thread.tree.node_uid,
        "thread_type": row.thread_type,
        "thread_key": row.thread_key,
        "message_id": row.message_id,
        "direction": row.direction,
        "state": state_of(row),
        "state_words": state_words(row),
        "sender_id": row.sender_id,
        "sender_name": names.name(row.sender_id),
        "peer_name": names.name(row.thread_key) if row.thread_type == "dm" else "",
        "reply_to_id": row.reply_to_id,
        "timestamp": row.timestamp,
        "content": row.content,
        "send_attempts": row.send_attempts,
        "reason": text_of(meta, "reason"),
        "meta": meta,
    }


def state_words(row: Message) -> str:
    """Say in words how a row stands, and why."""
    meta = row.meta
    state = state_of(row)
    why = _why(text_of(meta, "reason"))
    due = short(text_of(meta, "due_at"))
    words: dict[State, str] = {
        "heard": "heard",
        "queued": "queued: waits for its turn",
        "trying": "a try is under way, or was when the bridge ended",
        "retry": f"waiting for its retry, due {f'{due} UTC' if due else 'now'}",
        "held": f"held until heard from {row.thread_key}",
        "handed": "handed to the radio",
        "relayed": "repeated by another radio",
        "delivered": "delivered",
        "unconfirmed": "sent, but nobody confirmed it",
        "failed": "failed",
    }
    if state == "held" and text_of(meta, "held_at"):
        why = f"since {short(text_of(meta, 'held_at'))} UTC" + (f"; {why}" if why else "")
    return f"{words[state]}: {why}" if why else words[state]


def tone_of(row: Row) -> Tone:
    """Tone of a row of `message_facts`."""
    state: Any = row.get("state", "heard")
    return _TONES.get(state, "")


def person(row: Row) -> str:
    """Say who wrote a row of `message_facts`: us, the person of the thread, or who of a channel."""
    if row["direction"] != "inbound":
        return "us"
    if row["thread_type"] == "dm":
        return "them"
    return f"{row['sender_name']} {row['sender_id']}".strip()


def place(row: Row) -> str:
    """Name the thread of a row of `message_facts`: a channel with #, a person by name and id."""
    if row["thread_type"] == "channel":
        return f"#{row['thread_key']}"
    return f"{row['peer_name']} {row['thread_key']}".strip()


def _why(code: str) -> str:
    return reasons.explain("sending", code).text if code else ""
