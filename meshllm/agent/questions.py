"""Derives from rows which questions are open. Keeps no state and reads no file."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from meshllm.clock import Clock, age_s, boot_id, parse_utc, wall_age_s
from meshllm.commands.base import STOP
from meshllm.records import Message
from meshllm.trigger import question_text

#: How far back answers are counted: the hour of the limit for one person.
RECENT_S: Final = 3600.0
Age = Callable[[Message], float | None]
IsCommand = Callable[[Message, Sequence[Message]], bool]  #: a row, and the thread it stands in
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
class Answer:
    """One answer that was given lately."""

    question: Message
    reply: Message
    is_first: bool  #: nobody had answered this sender in this thread before
    is_command: bool = False  #: it needed no model

    @property
    def person(self) -> str:
        """Node id of who asked."""
        return self.question.sender_id


@dataclass(frozen=True, slots=True)
class Standing:
    """What a thread file says of its questions."""

    #: One a sender, the latest, earlier ones being its context; besides, every command.
    open: tuple[Question, ...] = ()
    commands: frozenset[Key] = frozenset()  #: those of the open ones that need no model
    expired: tuple[Question, ...] = ()
    folded: tuple[Question, ...] = ()  #: unanswered, and asked before in the same words
    answers: tuple[Answer, ...] = ()  #: of the last hour, the newest first
    answered_people: frozenset[str] = frozenset()
    #: Sender and notice kind -> the latest question that such a notice was about.
    notified: Mapping[tuple[str, str], Message] = field(default_factory=dict)
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
    notified: dict[tuple[str, str], Message] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    ended: list[tuple[Question, int]] = field(default_factory=list)  #: and where its answer stands
    last_reply_at: str = ""
    commanded: set[int] = field(default_factory=set)  #: positions of answered commands

    def hear(self, question: Question) -> None:
        self.triggers.append(question)
        self.by_id.setdefault(question.row.message_id, []).append(question)

    def is_waiting(self, question: Question) -> bool:
        if question.position in self.commanded:
            return False
        return question.position > self.closed_to.get(question.row.sender_id, -1)

    def find(self, message_id: str, sender: object) -> Question | None:
        """Name the question that an outgoing row points at: the nearest before it."""
        candidates = self.by_id.get(message_id, [])
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        named = [q for q in candidates if q.row.sender_id == sender]
        return next(reversed(named or candidates), None)

    def send(self, row: Message, position: int) -> None:
        # A DM thread has one sender, so only notices need their extras parsed.
        needs_meta = row.thread_type == "channel" or any(
            mark in row.meta_json for mark in ('"notice"', '"command"')
        )
        meta = row.meta if needs_meta else {}
        if meta.get("kind") == "notice" or not row.reply_to_id:
            self._note(meta)
            return
        answered = self.find(row.reply_to_id, meta.get("reply_to_sender"))
        if answered is None:
            return
        self.ended.append((answered, position))
        if not self.answers or self.answers[-1].question is not answered.row:
            self.answers.append(_answer(answered, row, meta, self.closed_to))
        is_command = meta.get("command", STOP) != STOP
        self.close(answered, is_command=is_command)
        if not is_command:
            self.last_reply_at = max(self.last_reply_at, row.timestamp)

    def close(self, question: Question, *, is_command: bool) -> None:
        if is_command:
            # "ping" is answered past the model's queue: what was asked before it stays open.
            self.commanded.add(question.position)
            return
        sender = question.row.sender_id
        self.closed_to[sender] = max(self.closed_to.get(sender, -1), question.position)

    def _note(self, meta: dict[str, Any]) -> None:
        target = self.find(str(meta.get("notice_for", "")), meta.get("reply_to_sender"))
        if meta.get("kind") == "notice" and target is not None:
            kind = str(meta.get("notice", ""))
            self.noticed.add((*target.key, kind))
            self.notified[target.row.sender_id, kind] = target.row


def _answer(
    answered: Question, row: Message, meta: Mapping[str, Any], closed_to: Collection[str]
) -> Answer:
    is_first = answered.row.sender_id not in closed_to
    return Answer(answered.row, row, is_first, is_command=bool(meta.get("command")))


def _no_command(_row: Message, _rows: Sequence[Message]) -> bool:
    return False


def assess(
    rows: Sequence[Message],
    *,
    own_ids: Collection[str],
    max_age_s: float,
    age: Age,
    is_command: IsCommand = _no_command,
    closed_elsewhere: Collection[Key] = (),
) -> Standing:
    """Sort the questions of one thread into open, expired and closed, in file order.

    A reply closes its question and every earlier one of that sender in the thread, whatever
    became of the reply; a notice closes nothing. A command is answered by itself: it hides no
    question before it, and its reply closes it alone; that to `stop` closes all before it. A
    question whose age cannot be read counts as expired: something that an editor reformatted must
    not be answered days later. The same words again, heard while the first of them waited, are
    part of that first question: its answer closes them. What another radio of ours answered counts
    as answered here.
    """
    seen = _read(rows, own_ids)
    for question in seen.triggers if closed_elsewhere else ():
        if question.key in closed_elsewhere:
            seen.close(question, is_command=is_command(question.row, rows))
    unanswered = [question for question in seen.triggers if seen.is_waiting(question)]
    fresh: list[Question] = []
    expired: list[Question] = []
    for question in unanswered:
        age_now_s = age(question.row)
        is_fresh = age_now_s is not None and age_now_s <= max_age_s
        (fresh if is_fresh else expired).append(question)
    own, folded = _fold(fresh, seen.ended)
    commands = {q.key for q in own if is_command(q.row, rows)}
    latest = {q.row.sender_id: q for q in own if q.key not in commands}
    # What grew old before a question that is still open is context of that one: its end is ours.
    expired = [
        q
        for q in expired
        if q.row.sender_id not in latest or latest[q.row.sender_id].position < q.position
    ]
    return Standing(
        open=tuple(q for q in own if q.key in commands or latest[q.row.sender_id] is q),
        commands=frozenset(commands),
        expired=tuple(expired),
        folded=tuple(folded),
        answers=_recent(seen.answers, age),
        answered_people=frozenset(seen.closed_to),
        notified=seen.notified,
        waiting=frozenset(q.key for q in own),
        asked=frozenset(q.key for q in seen.triggers if q.row.thread_type == "channel"),
        noticed=frozenset(seen.noticed),
        last_reply_at=seen.last_reply_at,
    )


def burst(rows: Sequence[Message], question: Question, standing: Standing) -> str:
    """Return what a person asked since the last answer, the question being the last line."""
    earlier = [
        row.content
        for row in rows[: question.position]
        if row.sender_id == question.row.sender_id and row.key in standing.waiting
    ]
    return "\n".join([*earlier, question.text])


def _read(rows: Sequence[Message], own_ids: Collection[str]) -> _Reading:
    seen = _Reading()
    for position, row in enumerate(rows):
        if row.is_outgoing:
            seen.send(row, position)
            continue
        text = question_text(row, own_ids=own_ids)
        if text is not None:
            seen.hear(Question(row, text, position))
    return seen


def _fold(
    fresh: Sequence[Question], ended: Sequence[tuple[Question, int]]
) -> tuple[list[Question], list[Question]]:
    """Part the unanswered questions into those that stand for themselves and repetitions.

    A repetition heard before its first was answered is answered with it.
    """
    answered_at = {_words(question): position for question, position in ended} if fresh else {}
    own: list[Question] = []
    folded: list[Question] = []
    first: set[tuple[str, str]] = set()
    for question in fresh:
        words = _words(question)
        if question.position < answered_at.get(words, -1):
            continue
        (folded if words in first else own).append(question)
        first.add(words)
    return own, folded


def _words(question: Question) -> tuple[str, str]:
    """Name what a sender asks, whatever its case and spaces."""
    return question.row.sender_id, " ".join(question.text.split()).casefold()


def _recent(answers: Sequence[Answer], age: Age) -> tuple[Answer, ...]:
    """Pick the answers of the last hour: to what was heard in it, or written in it.

    The question's age survives a clock that is set; the reply's counts what had waited long.
    """
    found: list[Answer] = []
    for answer in reversed(answers):
        ages = (age(answer.question), age(answer.reply))
        if not any(age_s is not None and 0 <= age_s <= RECENT_S for age_s in ages):
            break
        found.append(answer)
    return tuple(found)


class Ages:
    """Measures the age of rows: by uptime within one boot, else by wall time.

    A row of an earlier boot is at least as old as this boot, and its wall age is taken back by
    what the clock was set forward since this object was made: a machine that got the right time
    days late must not call every question expired.
    """

    def __init__(self, clock: Clock) -> None:
        """Remember the clock as it is now."""
        self._clock = clock
        self._started_at = clock.utc()
        self._started = clock.monotonic()

    def __call__(self, row: Message) -> float | None:
        """Return scaled seconds since a row was written; None when no time can be read."""
        meta = row.meta if row.meta_json else {}
        boot, up_s = meta.get("boot"), meta.get("up_s")
        if boot and boot == boot_id() and isinstance(up_s, (int, float)):
            return age_s(self._clock, row.timestamp, boot=boot, up_s=up_s)
        wall_s = wall_age_s(self._clock, row.timestamp)
        written = parse_utc(row.timestamp)
        if wall_s is None or written is None:
            return None
        if written <= self._started_at:
            wall_s -= self._set_forward_s()
        return max(wall_s, self._clock.monotonic()) if boot else wall_s

    def _set_forward_s(self) -> float:
        wall_s = (self._clock.utc() - self._started_at).total_seconds() * self._clock.scale
        return max(0.0, wall_s - (self._clock.monotonic() - self._started))


Rank = tuple[int, float, str]


def rank(row: Message, node_uid: str) -> Rank:
    """Order the copies of one channel question: fewest hops, best SNR, lowest node_uid first."""
    meta = row.meta
    start, limit, snr = meta.get("hop_start"), meta.get("hop_limit"), meta.get("snr")
    hops = 99  # older firmware sends no hop_start: count it as far
    if isinstance(start, int) and isinstance(limit, int) and start >= limit:
        hops = start - limit
    return hops, -snr if isinstance(snr, (int, float)) else 999.0, node_uid
