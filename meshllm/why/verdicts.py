"""One sentence on what became of a message, and what to do. Pure: evidence in, a verdict out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshllm import reasons
from meshllm.clock import parse_utc
from meshllm.commands.ages import span
from meshllm.reading.states import State, state_of
from meshllm.reasons import NOTHING, Reason
from meshllm.records import Message, PromptRow
from meshllm.why import sending
from meshllm.why.events import Event, Logs

Word = Literal["answered", "sent", "waits", "failed", "not_answered", "open", "unknown"]
Proof = Literal["rows", "log", "settings", "nothing"]

#: Of several parts the one that is worst off speaks for all.
_GRAVITY: Final[tuple[State, ...]] = (
    "failed",
    "held",
    "retry",
    "trying",
    "queued",
    "unconfirmed",
    "handed",
    "relayed",
    "delivered",
)
_WORDS: Final[dict[State, Word]] = {
    "failed": "failed",
    "held": "waits",
    "retry": "waits",
    "trying": "waits",
    "queued": "waits",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a message."""

    word: Word
    text: str
    advice: str
    reason: str = ""  #: its code, where there is one
    proof: Proof = "rows"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a question."""

    row: Message
    no_question: str
    replies: tuple[Message, ...]
    notices: tuple[Message, ...]
    closing: tuple[Message, list[Message]] | None
    same_before: Message | None
    waits_with: Message | None
    barred: str
    calls: tuple[PromptRow, ...]
    logs: Logs
    age_s: float | None
    max_age_s: float
    agent: tuple[str, str]  #: what is wrong with the agent now, and what to do; "" for nothing


def judge(evidence: Evidence) -> Verdict:
    """Choose the verdict that is best proven."""
    return next(filter(None, _candidates(evidence)))


def _candidates(evidence: Evidence) -> Iterator[Verdict | None]:
    if evidence.replies:
        yield _answered(evidence.row, evidence.replies)
    if evidence.no_question:
        yield _skipped(evidence.no_question, "rows")
    yield _logged(evidence)
    if evidence.closing:
        yield _closed(*evidence.closing)
    if evidence.same_before is not None:
        reason = reasons.explain("skipped", "same_text_waits")
        text = f"{reason.text}: see message {evidence.same_before.message_id}"
        yield Verdict("not_answered", text, reason.advice, reason.code)
    if evidence.barred:
        yield _skipped(evidence.barred, "settings")
    yield _unanswered(evidence)


def judge_outgoing(row: Message) -> Verdict:
    """Judge a row of ours that answers nothing."""
    state = state_of(row)
    return Verdict(_WORDS.get(state, "sent"), sending.state_words(row), *_why(row))


def _answered(asked: Message, replies: Sequence[Message]) -> Verdict:
    worst = min(replies, key=lambda row: _GRAVITY.index(state_of(row)))
    word = _WORDS.get(state_of(worst), "answered")
    took = _took(asked, replies)
    parts = f" in {len(replies)} parts" if len(replies) > 1 else ""
    words = sending.state_words(worst)
    if word == "answered":
        return Verdict(word, f"{took}{parts}: {words}", *_why(worst))
    name = sending.part_words(worst) if len(replies) > 1 else "the reply"
    return Verdict(word, f"an answer was made {took}{parts}; {name} {words}", *_why(worst))


def _why(row: Message) -> tuple[str, str]:
    """Advice and reason code of a row."""
    reason = sending.reason_of(row)
    if reason is not None:
        return reason.advice, reason.code
    if state_of(row) == "unconfirmed":
        return reasons.explain("result", "unconfirmed").advice, ""
    return NOTHING, ""


def _took(asked: Message, replies: Sequence[Message]) -> str:
    heard, queued = parse_utc(asked.timestamp), parse_utc(replies[0].timestamp)
    if heard is None or queued is None or queued < heard:
        return f"at {replies[0].timestamp}"
    took_s = (queued - heard).total_seconds()
    return f"after {span(took_s)}" if took_s else "at once"


def _skipped(code: str, proof: Proof) -> Verdict:
    reason = reasons.explain("skipped", code)
    note = " (by the settings as they are now)" if proof == "settings" else ""
    return Verdict("not_answered", f"{reason.text}{note}", reason.advice, code, proof)


def _logged(evidence: Evidence) -> Verdict | None:
    """Take the agent's own last word, unless something came of it since or more is known."""
    last = _last_word(evidence.logs.events)
    if last is None:
        return None
    code = str(last.fields["reason"])
    if last.name == "question_skipped":
        # That it grew too old is only half of the story: what kept it waiting comes with it. The
        # agent measures ages past a clock that was set, so its word counts whatever the rows say.
        return _expired(evidence) if code == "expired" else _skipped(code, "log")
    is_open = evidence.age_s is not None and evidence.age_s <= evidence.max_age_s
    is_asked = any(f"{call.datetime.replace(' ', 'T')}Z" >= last.at for call in evidence.calls)
    if not is_open or is_asked or evidence.closing or evidence.agent[0]:
        return None
    reason = reasons.explain("deferred", code)
    return Verdict("open", f"later: {reason.text}", reason.advice, code, "log")


def _last_word(events: Sequence[Event], *names: str) -> Event | None:
    """Return the newest decision on a question that has a reason."""
    for event in reversed(events):
        is_wanted = event.name in (names or ("question_skipped", "question_deferred"))
        if is_wanted and event.fields.get("reason"):
            return event
    return None


def _closed(later: Message, closing: Sequence[Message]) -> Verdict:
    reason = reasons.explain("skipped", "closed_by_later")
    ids = ", ".join(row.message_id for row in closing)
    text = f"{reason.text}: question {later.message_id}, answer {ids}"
    return Verdict("not_answered", text, reason.advice, reason.code)


def _unanswered(evidence: Evidence) -> Verdict:
    """Judge a question that nothing answers and nothing forbids."""
    if evidence.age_s is None:
        return _skipped("no_timestamp", "rows")
    if evidence.age_s <= evidence.max_age_s:
        return _open(evidence, _last_call(evidence.calls))
    return _expired(evidence) or _unproven(evidence, reasons.explain("skipped", "expired"))


def _expired(evidence: Evidence) -> Verdict | None:
    """Say what kept a question waiting until it was too old; None where nothing tells."""
    expired = reasons.explain("skipped", "expired")
    about_it = [c for c in evidence.calls if c.source_message_id == evidence.row.message_id]
    last = _last_call(about_it)
    if last is not None:
        text = f"{expired.text}; the last model call: {last.text}"
        return Verdict("not_answered", text, last.advice, "expired")
    if any(row.meta.get("notice") == "offline" for row in evidence.notices):
        text = f"{expired.text}; the model was away, and the person was told so"
        advice = reasons.explain("line", "offline").advice
        return Verdict("not_answered", text, advice, "expired")
    deferral = _last_word(evidence.logs.events, "question_deferred")
    if deferral is not None:
        reason = reasons.explain("deferred", str(deferral.fields["reason"]))
        text = f"{expired.text}; what it waited for last: {reason.text}"
        return Verdict("not_answered", text, reason.advice, "expired", "log")
    was_told = _last_word(evidence.logs.events, "question_skipped") is not None
    return _skipped("expired", "log") if was_told else None


def _open(evidence: Evidence, last: Reason | None) -> Verdict:
    left = span(max(0.0, evidence.max_age_s - (evidence.age_s or 0.0)))
    trouble, advice = evidence.agent
    if trouble:
        return Verdict("open", f"it waits for {left} more: {trouble}", advice)
    if evidence.waits_with is not None:
        reason = reasons.explain("skipped", "waits_with_later")
        text = f"{reason.text}: question {evidence.waits_with.message_id}"
        return Verdict("open", text, reason.advice, reason.code)
    if last is not None:
        text = f"it waits for {left} more; the last model call: {last.text}"
        return Verdict("open", text, last.advice)
    return Verdict("open", f"it waits to be answered, for {left} more", "`status` shows the line")


def _unproven(evidence: Evidence, expired: Reason) -> Verdict:
    """Say honestly that it grew too old and that nothing tells why it was not answered in time."""
    if evidence.logs.covers(evidence.row.timestamp):
        text = "the agent logged nothing about it: it was not running, or the model was away"
        advice = "see the starts and ends below; `doctor` tells how it stands now"
    else:
        since = evidence.logs.oldest
        gone = f"log lines go back to {since} only" if since else "there are no log files"
        text = f"why nothing answered it in time is not recorded: {gone}"
        advice = "`doctor` tells how it stands now; ask again and watch with `why`"
    return Verdict("unknown", f"{expired.text}; {text}", advice, "expired", "nothing")


def _last_call(calls: Sequence[PromptRow]) -> Reason | None:
    if not calls:
        return None
    outcome = str(sending.meta_of(calls[-1]).get("outcome", ""))
    return reasons.explain("model", outcome or "not recorded")
