"""Derives from rows which questions are open. Keeps no state and reads no file."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshllm.agent.trigger import question_text
from meshllm.clock import Clock, age_s
from meshllm.records import Message

Age = Callable[[Message], float | None]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """One inbound row that asks something, at its place in the file."""

    row: Message
    text: str
    position: int

    @property
    def key(self) -> Key:
        """Sender and message id: what makes it unique in its thread."""
        return self.row.key[0], self.row.key[1]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a thread file says of its questions."""

    open: tuple[Question, ...] = ()  #: one a sender, the latest; earlier ones are its context
    expired: tuple[Question, ...] = ()
    waiting: frozenset[Key] = frozenset()  #: every unanswered, unexpired question
    asked: frozenset[Key] = frozenset()  #: every question of a channel, closed ones too
    noticed: frozenset[tuple[str, str, str]] = frozenset()  #: sender, message id, notice kind
    last_reply_at: str = ""  #: timestamp of the newest reply row


@dataclass(slots=True)
class _Reading:
    triggers: list[Question] = field(default_factory=list)
    by_id: dict[str, list[Question]] = field(default_factory=dict)
    closed_to: dict[str, int] = field(default_factory=dict)  #: sender -> last answered position
    noticed: set[tuple[str, str, str]] = field(default_factory=set)
    last_reply_at: str = ""

    def hear(self, question: Question) -> None:
        self.triggers.append(question)
        self.by_id.setdefault(question.row.message_id, []).append(question)

    def find(self, message_id: str, sender: object) -> Question | None:
        """Name the question that an outgoing row points at: the nearest before it."""
        candidates = self.by_id.get(message_id, [])
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        named = [q for q in candidates if q.row.sender_id == sender]
        return next(reversed(named or candidates), None)

    def send(self, row: Message) -> None:
        # A DM thread has one sender, so only notices need their extras parsed.
        needs_meta = row.thread_type == "channel" or '"notice"' in row.meta_json
        meta = row.meta if needs_meta else {}
        if meta.get("kind") == "notice" or not row.reply_to_id:
            self._note(meta)
            return
        answered = self.find(row.reply_to_id, meta.get("reply_to_sender"))
        if answered is None:
            return
        self.last_reply_at = max(self.last_reply_at, row.timestamp)
        sender = answered.row.sender_id
        self.closed_to[sender] = max(self.closed_to.get(sender, -1), answered.position)

    def _note(self, meta: dict[str, Any]) -> None:
        target = self.find(str(meta.get("notice_for", "")), meta.get("reply_to_sender"))
        if meta.get("kind") == "notice" and target is not None:
            self.noticed.add((*target.key, str(meta.get("notice", ""))))


def assess(
    rows: Sequence[Message], *, own_ids: Collection[str], max_age_s: float, age: Age
) -> Standing:
    """Sort the questions of one thread into open, expired and closed, in file order.

    A reply closes its question and every earlier one of that sender in the thread, whatever
    became of the reply; a notice closes nothing. A question whose age cannot be read counts as
    expired: something that an editor reformatted must not be answered days later.
    """
    seen = _Reading()
    for position, row in enumerate(rows):
        if row.is_outgoing:
            seen.send(row)
            continue
        text = question_text(row, own_ids=own_ids)
        if text is not None:
            seen.hear(Question(row, text, position))
    unanswered = [q for q in seen.triggers if q.position > seen.closed_to.get(q.row.sender_id, -1)]
    fresh: list[Question] = []
    expired: list[Question] = []
    for question in unanswered:
        age_now_s = age(question.row)
        is_fresh = age_now_s is not None and age_now_s <= max_age_s
        (fresh if is_fresh else expired).append(question)
    latest = {q.row.sender_id: q for q in fresh}
    # What grew old before a question that is still open is context of that one: its end is ours.
    expired = [
        q
        for q in expired
        if q.row.sender_id not in latest or latest[q.row.sender_id].position < q.position
    ]
    return Standing(
        open=tuple(q for q in fresh if latest[q.row.sender_id] is q),
        expired=tuple(expired),
        waiting=frozenset(q.key for q in fresh),
        asked=frozenset(q.key for q in seen.triggers if q.row.thread_type == "channel"),
        noticed=frozenset(seen.noticed),
        last_reply_at=seen.last_reply_at,
    )


def age_by(clock: Clock) -> Age:
    """Measure the age of rows with this clock: by uptime within one boot, else by wall time."""

    def age(row: Message) -> float | None:
        meta = row.meta
        return age_s(clock, row.timestamp, boot=meta.get("boot"), up_s=meta.get("up_s"))

    return age


Rank = tuple[int, float, str]


def rank(row: Message, node_uid: str) -> Rank:
    """Order the copies of one channel question: fewest hops, best SNR, lowest node_uid first."""
    meta = row.meta
    start, limit, snr = meta.get("hop_start"), meta.get("hop_limit"), meta.get("snr")
    hops = 99  # older firmware sends no hop_start: count it as far
    if isinstance(start, int) and isinstance(limit, int) and start >= limit:
        hops = start - limit
    return hops, -snr if isinstance(snr, (int, float)) else 999.0, node_uid
