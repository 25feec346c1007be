"""Which metrics an event moves. Pure; the events are the only instrumentation of what happens.

A message is counted where it is logged, so that a graph and the log cannot disagree.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

Event = Mapping[str, object]

_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
OTHER: Final = "other"  #: in place of a reason in words, such as an error of the file system


class Sample(NamedTuple):
    """One step of a counter, or one value of a histogram."""

    family: str
    labels: tuple[str, ...] = ()
    amount: float = 1.0


def samples_of(event: Event) -> Iterator[Sample]:
    """Return what one event counts. Fields that are missing or of another type count nothing."""
    yield Sample("meshllm_log_events_total", (label(event.get("level")),))
    count = COUNTS.get(str(event.get("event")))
    if count is not None:
        yield from count(event)


def label(value: object) -> str:
    """Return a value as a label: one of our own words, never a text that came from elsewhere."""
    text = str(value) if value else ""
    return text if not text or _LABEL.fullmatch(text) else OTHER


def _one(family: str, *fields: str) -> Callable[[Event], Iterator[Sample]]:
    """Count every such event, with these fields as labels."""

    def count(event: Event) -> Iterator[Sample]:
        yield Sample(family, tuple(label(event.get(name)) for name in fields))

    return count


def _state(state: str) -> Callable[[Event], Iterator[Sample]]:
    def count(event: Event) -> Iterator[Sample]:
        yield Sample("meshllm_send_states_total", (state, label(event.get("reason"))))

    return count


def _amount(event: Event, name: str) -> float:
    value = event.get(name)
    return float(value) if isinstance(value, (int, float)) and value > 0 else 0.0


def _received(event: Event) -> Iterator[Sample]:
    is_dm = str(event.get("thread_key", "")).startswith("!")
    yield Sample("meshllm_messages_received_total", ("dm" if is_dm else "channel",))


def _not_written(event: Event) -> Iterator[Sample]:
    yield Sample("meshllm_messages_lost_total", (), _amount(event, "dropped"))


def _acknowledged(event: Event) -> Iterator[Sample]:
    yield Sample("meshllm_send_states_total", (label(event.get("delivery")), ""))
    if event.get("delivery") == "delivered" and isinstance(event.get("ack_s"), float):
        yield Sample("meshllm_ack_seconds", (), _amount(event, "ack_s"))


def _tried_in_vain(event: Event) -> Iterator[Sample]:
    """Count a retry, or a row left unconfirmed; holding and giving up are events of their own."""
    reason = label(event.get("reason"))
    if event.get("action") == "again":
        yield Sample("meshllm_send_retries_total", (reason,))
    elif event.get("action") == "unconfirmed":
        yield Sample("meshllm_send_states_total", ("unconfirmed", reason))


def _queued(kind: str) -> Callable[[Event], Iterator[Sample]]:
    def count(event: Event) -> Iterator[Sample]:
        ids = event.get("reply_ids")
        yield Sample("meshllm_replies_queued_total", (kind,))
        parts = float(len(ids)) if isinstance(ids, (list, tuple)) else 0.0
        yield Sample("meshllm_reply_parts_queued_total", (kind,), parts)

    return count


def _called(event: Event) -> Iterator[Sample]:
    outcome = label(event.get("outcome"))
    yield Sample("meshllm_model_call_seconds", (outcome,), _amount(event, "duration_ms") / 1000)
    for kind, tokens, speed in (
        ("prompt", "prompt_tokens", "prompt_tps"),
        ("completion", "completion_tokens", "eval_tps"),
    ):
        count, a_second = _amount(event, tokens), _amount(event, speed)
        yield Sample("meshllm_model_tokens_total", (kind,), count)
        if a_second:
            yield Sample("meshllm_model_tokens_seconds_total", (kind,), count / a_second)


#: By the name of the event.
COUNTS: Final[dict[str, Callable[[Event], Iterator[Sample]]]] = {
    "message_received": _received,
    "duplicate_dropped": _one("meshllm_duplicates_dropped_total"),
    "message_not_written": _not_written,
    "send_handed_over": _state("handed"),
    "send_acknowledged": _acknowledged,
    "send_failed": _tried_in_vain,
    "ack_overdue": _tried_in_vain,
    "send_held": _state("held"),
    "send_unconfirmed": _state("unconfirmed"),
    "send_given_up": _state("failed"),
    "question_asked": _one("meshllm_questions_asked_total"),
    "question_skipped": _one("meshllm_questions_skipped_total", "reason"),
    "question_deferred": _one("meshllm_questions_deferred_total", "reason"),
    "model_call_finished": _called,
    "model_call_retried": _one("meshllm_model_call_retries_total"),
    "reply_queued": _queued("answer"),
    "command_answered": _queued("command"),
    "notice_queued": _queued("notice"),
}
