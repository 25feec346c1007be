"""What a row's cells say of its state: one word, and what belongs to it. Pure; changes nothing."""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from meshllm.records import Message

State = Literal[
    "heard",  #: somebody sent it to us
    "queued",  #: waits for its first try
    "trying",  #: a try is under way; after a crash it is unknown and will be resumed
    "retry",  #: the last try failed; the next is due at `due_at`
    "held",  #: waits until its addressee is heard
    "handed",  #: the radio took it
    "relayed",  #: another radio was heard repeating it
    "delivered",  #: the addressee's radio has it
    "unconfirmed",  #: the radio took it, and nobody told more
    "failed",  #: given up; `reason` says why
]
STATES: Final[tuple[State, ...]] = get_args(State)
#: These may still change by themselves.
UNFINISHED: Final[frozenset[State]] = frozenset({"queued", "trying", "retry", "held"})
_SENT: Final[Mapping[object, State]] = {
    "handed": "handed",
    "relayed": "relayed",
    "delivered": "delivered",
    "unconfirmed": "unconfirmed",
}


def state_of(row: Message) -> State:
    """Name the state of a row."""
    if not row.is_outgoing:
        return "heard"
    if row.direction == "queued":
        return _waiting(row)
    if row.send_status == "failed":
        return "failed"
    return _SENT.get(row.meta.get("delivery"), "unconfirmed")


def _waiting(row: Message) -> State:
    meta = row.meta
    if has_open_try(meta):
        return "trying"
    if meta.get("wait_heard"):
        return "held"
    return "retry" if row.send_status == "failed" else "queued"


def has_open_try(meta: Mapping[str, Any]) -> bool:
    """Say whether the newest hand-over has no result: the text may be on the air already."""
    tries = meta.get("tries")
    last = tries[-1] if isinstance(tries, list) and tries else None
    return isinstance(last, dict) and last.get("result") is None


def text_of(meta: Mapping[str, Any], key: str) -> str:
    """A text among the extras of a row; "" for anything else."""
    value = meta.get(key)
    return value if isinstance(value, str) else ""
