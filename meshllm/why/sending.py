"""What became of a row that we send, in words. Pure."""

import json
from collections.abc import Iterator
from typing import Any, Final

from meshllm import reasons
from meshllm.reading.states import State, state_of, text_of
from meshllm.records import Message, PromptRow

_RESULTS: Final = frozenset({"handed", "relayed", "delivered", "unconfirmed"})
_WAITING: Final[dict[State, str]] = {
    "heard": "heard",
    "queued": "waits for its first try",
    "trying": "is being handed over",
    "retry": "waits for its next try",
    "held": "is kept until the person is heard",
    "failed": "was given up",
}


def ids_of(row: Message) -> set[str]:
    """Ids under which a row may be named: its own and those of its tries."""
    return {row.message_id, *(str(one["id"]) for one in _tries(row) if "id" in one)}


def part_words(row: Message) -> str:
    """Name a row: which part of what."""
    meta = row.meta
    if meta.get("kind") == "notice":
        return "notice"
    parts = meta.get("parts")
    return (
        f"part {meta.get('part')} of {parts}" if isinstance(parts, int) and parts > 1 else "reply"
    )


def try_words(row: Message) -> Iterator[tuple[str, str]]:
    """Yield time and words of every hand-over."""
    for one in _tries(row):
        code = one.get("result")
        if code is None:
            said = "under way, or the bridge ended before it knew"
        elif code in _RESULTS:
            said = reasons.explain("result", str(code)).text
        else:
            said = f"{code}: {reasons.explain('sending', str(code)).text}"
        yield str(one.get("at", "")), f"packet {one.get('id')}: {said}"


def state_words(row: Message) -> str:
    """Say how a row stands, and why."""
    state, reason = state_of(row), reason_of(row)
    words = _WAITING.get(state) or reasons.explain("result", state).text
    due = text_of(row.meta, "due_at")
    words = f"{words} (due {due})" if state == "retry" and due else words
    return f"{words}: {reason.code}: {reason.text}" if reason is not None else words


def reason_of(row: Message) -> reasons.Reason | None:
    """The reason that a row holds; None for none."""
    code = text_of(row.meta, "reason")
    return reasons.explain("sending", code) if code else None


def meta_of(call: PromptRow) -> dict[str, Any]:
    """Extras of a model call; {} when they cannot be read."""
    try:
        parsed = json.loads(call.meta_json or "{}")
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _tries(row: Message) -> list[dict[str, Any]]:
    found = row.meta.get("tries")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
