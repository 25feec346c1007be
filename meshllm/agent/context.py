"""Turns what was said in a thread into the turns of a conversation. Reads no file.

A model server reuses what it has read as long as the next prompt begins with the same bytes. So a
prompt continues the one before it in its thread: the turns as they were sent, the answer, then
what was heard since. Nothing that was sent once is rendered anew.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshllm.records import Message
from meshllm.text import unmarked

Role = Literal["user", "assistant"]
RowKey = tuple[str, ...]

#: Marks that chat templates put between turns, and around reasoning: in a text they are text.
_TEMPLATE_MARK: Final = re.compile(
    r"<(?=\||/?(?:start|end)_of_turn>|/?think(?:ing)?>|/?s>|[be]os>|<?/?SYS>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])",
    re.IGNORECASE,
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Reach:
    """How far into a thread file a prompt has gone, by the keys of rows."""

    heard: RowKey = ()  #: the latest row of a person that it holds, or has left out
    seen: RowKey = ()  #: the latest row of the file when it was made: ours up to it are settled


@dataclass(frozen=True, slots=True)
class Sent:
    """A prompt that was answered: what the next one in its thread continues."""

    prompt_id: str
    turns: tuple[Turn, ...]  #: exactly as sent; the last is the question's
    answer: str
    asked: str  #: what people said in the last turn, without what we added to it
    reach: Reach


@dataclass(frozen=True, slots=True)
class Story:
    """What comes before a question."""

    turns: tuple[Turn, ...] = ()
    burst: tuple[str, ...] = ()  #: heard since the last answer, oldest first
    speakers: tuple[str, ...] = ()  #: node ids of those who said it, each once
    reach: Reach = Reach()


def plain(text: str) -> str:
    """Take out of a text what a prompt must not hold: control characters and template marks.

    What is left comes back from a page of the prompt log exactly as it was.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _TEMPLATE_MARK.sub(r"\g<0> ", _CONTROL.sub(" ", text))


def one_line(text: str) -> str:
    """Put a text on one line, so that it cannot pass for another row or for words of ours."""
    return " ".join(plain(text).split())


def spoken(row: Message) -> str:
    """Say what a row says; what a person said is put on one line, in a channel with a name."""
    if row.is_outgoing:
        return unmarked(plain(row.content).strip())
    text = one_line(row.content)
    return text if row.thread_type == "dm" else named(row, text)


def named(row: Message, text: str) -> str:
    """Put the end of the sender's id before a text: names change, and break the prefix."""
    return f"{row.sender_id[-4:]}: {text}"


def last_prompt_id(rows: Sequence[Message]) -> str:
    """Name the model call of the thread's newest answer, "" when none names one."""
    for row in reversed(rows):
        if row.is_outgoing and '"prompt_id"' in row.meta_json:
            return str(row.meta.get("prompt_id", ""))
    return ""


def story(rows: Sequence[Message], position: int, sent: Sent | None = None) -> Story:
    """Tell what was said before the row at `position`; `sent` is the newest answered prompt.

    What people said is told up to the question, what we said up to now: an answer to somebody
    else may stand behind the question. Notices are left out, and so is what was given up before
    it was told here once; later it stays, since a turn that was sent does not change.
    Without `sent`, or where no row names it, everything is rendered from the rows.
    """
    own = _rows_of(rows, sent)
    teller = _Teller()
    heard_to = seen_to = -1
    if sent is not None and own:
        heard_to = _find(rows, sent.reach.heard, own[0])
        seen_to = _find(rows, sent.reach.seen, own[0])
        teller.resume(sent, is_lost=all(_is_given_up(rows[at]) for at in own))
    furthest = max(position, heard_to)
    for at, row in enumerate(rows):
        is_ours = row.is_outgoing
        is_new = at > seen_to and at not in own if is_ours else heard_to < at < position
        if is_new and _is_said(row):
            teller.tell(row)
    heard = rows[furthest].key if furthest < len(rows) else ()
    seen = rows[-1].key if rows else ()
    return Story(
        tuple(teller.turns),
        tuple(teller.heard),
        tuple(dict.fromkeys(teller.speakers)),
        Reach(heard, seen),
    )


class _Teller:
    """Collects turns; what people say is held back until we answer."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.heard: list[str] = []
        self.speakers: list[str] = []
        self._previous: Message | None = None

    def resume(self, sent: Sent, *, is_lost: bool) -> None:
        """Begin with what was sent; a question whose answer was given up is only heard."""
        self.turns = list(sent.turns)
        if is_lost:
            self.turns.pop()
            self.heard.append(sent.asked)
        else:
            self.turns.append(Turn("assistant", sent.answer))

    def tell(self, row: Message) -> None:
        """Add one row."""
        text = spoken(row)
        if row.is_outgoing:
            self._answer(row, text)
        elif text not in self.heard:  # the same text again while it waits says nothing new
            self.heard.append(text)
            self.speakers.append(row.sender_id)
        self._previous = row

    def _answer(self, row: Message, text: str) -> None:
        if self.heard:
            self.turns.append(Turn("user", "\n".join(self.heard)))
            self.heard.clear()
            self.speakers.clear()
        if not self.turns:
            return  # the conversation begins with a person
        last = self.turns[-1]
        if last.role == "user":
            self.turns.append(Turn("assistant", text))
            return
        is_next_part = self._previous is not None and _is_same_reply(row, self._previous)
        joint = " " if is_next_part else "\n"
        self.turns[-1] = Turn("assistant", f"{last.text}{joint}{text}")


def _rows_of(rows: Sequence[Message], sent: Sent | None) -> list[int]:
    if sent is None:
        return []
    mark = sent.prompt_id
    return [
        at
        for at, row in enumerate(rows)
        if row.is_outgoing and mark in row.meta_json and row.meta.get("prompt_id") == mark
    ]


def _find(rows: Sequence[Message], key: RowKey, otherwise: int) -> int:
    """Return where a row stands; it may have gone to the archive since."""
    for at in range(len(rows) - 1, -1, -1):
        if rows[at].key == key:
            return at
    return otherwise


def _is_said(row: Message) -> bool:
    if not row.content.strip():
        return False
    if not row.is_outgoing:
        return True
    return not _is_given_up(row) and row.meta.get("kind") != "notice"


def _is_given_up(row: Message) -> bool:
    return row.direction == "outbound" and row.send_status == "failed"


def _is_same_reply(row: Message, previous: Message) -> bool:
    if not previous.is_outgoing:
        return False
    return bool(row.reply_to_id) and row.reply_to_id == previous.reply_to_id
