"""Assembles what the model reads: fixed text first, what changes last. Calls no model.

A model server keeps what it has read and reads only what differs from there on. So the system
text is the same byte for byte for everybody, the turns before are those that were sent, and
everything that changes (who asks, the time, facts, passages, limits) stands in the last message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from meshllm.agent.context import Turn, plain
from meshllm.agent.tokens import NOTHING, TURN_TOKENS, Room, clip, cost, tokens, trim
from meshllm.records import compact_json

#: What stands in for a question that is only the trigger word.
EMPTY_QUESTION: Final = "(The message is empty. Say in one sentence what you are and how to ask.)"
#: Room of a caller that sets no limit, for prompts that nobody sends.
ANY_ROOM: Final = Room(10**9, 10**9)


@dataclass(frozen=True, slots=True)
class Assembled:
    """One prompt, ready for the model."""

    system: str
    turns: tuple[Turn, ...]  #: the last one is the question
    asked: str = ""  #: the part of the last turn that people said


@cache
def system_text() -> str:
    """Return the system text, from the file beside this module."""
    return resources.files(__package__).joinpath("system.txt").read_text("utf-8").strip()


def assemble(
    question: str,
    *,
    before: Sequence[Turn] = (),
    burst: Sequence[str] = (),
    details: Mapping[str, object] | None = None,
    limit_bytes: int,
    room: Room = ANY_ROOM,
    facts: str = "",
    passages: str = "",
) -> Assembled:
    """Put a question behind its history, within `room`; the system text's characters are free.

    `burst` is what was heard since the last answer. `details` (who asks, the time), `facts` about
    the mesh and `passages` of the library are data; they stand in the last message alone. A
    detail that a turn before has word for word is left out. Where room is short, the oldest
    history gives way first, then passages, facts, the beginning of the burst, details and the
    end of the question.
    """
    sections = (("Mesh facts (data)", facts), ("Library (data)", passages))
    last = _Last(question, burst, sections, f"Answer in at most {limit_bytes} bytes.")
    left = room - Room(0, tokens(system_text()) + 2 * TURN_TOKENS)
    news = _news(details or {}, before)
    made = last.fit(left, news, tuple(before))
    still_news = _news(details or {}, made.turns[:-1])
    # What the cut has taken out of the history must be said again.
    return made if still_news == news else last.fit(left, still_news, made.turns[:-1])


def _news(details: Mapping[str, object], turns: Sequence[Turn]) -> dict[str, object]:
    """Leave out the details, other than the time, that stand in these turns."""
    said = "\n".join(turn.text for turn in turns if turn.role == "user")
    return {
        key: value
        for key, value in details.items()
        if key == "time" or compact_json({key: value})[1:-1] not in said
    }


@dataclass(frozen=True, slots=True)
class _Last:
    """What the last message is made of."""

    question: str
    burst: Sequence[str]
    sections: Sequence[tuple[str, str]]
    limit: str

    def fit(self, room: Room, details: Mapping[str, object], before: tuple[Turn, ...]) -> Assembled:
        """Fill the room in the order of need."""
        left = _Left(room)
        left.take(f"\n\n{self.limit}")
        asked = left.clip(plain(self.question) or EMPTY_QUESTION)
        known = left.whole(f"\nData: {plain(compact_json(details))}" if details else "")
        heard = left.newest(self.burst, unlike=asked)
        extras = [left.section(title, text) for title, text in self.sections]
        said = "\n".join((*heard, asked))
        text = "".join((said, "\n", known, *extras, "\n", self.limit))
        return Assembled(system_text(), (*trim(before, left.room), Turn("user", text)), asked=said)


class _Left:
    """Room that shrinks as texts take their share; each is counted with a line break."""

    def __init__(self, room: Room) -> None:
        self.room = room

    def take(self, text: str) -> str:
        """Let a text have its share."""
        self.room -= cost(f"{text}\n") if text else NOTHING
        return text

    def whole(self, text: str) -> str:
        """Take a text, or nothing where it does not fit."""
        return self.take(text if self.room.holds(cost(f"{text}\n")) else "")

    def clip(self, text: str) -> str:
        """Take the beginning of a text that fits."""
        return self.take(clip(text, self.room - cost("\n")))

    def section(self, title: str, text: str) -> str:
        """Take as much of a text as fits, under a title of its own."""
        head = f"\n{title}:\n"
        body = clip(plain(text).strip(), self.room - cost(f"{head}\n"))
        return self.take(f"{head}{body}") if body else ""

    def newest(self, texts: Sequence[str], *, unlike: str) -> list[str]:
        """Take the newest texts that fit, but for repetitions of the question."""
        taken: list[str] = []
        for text in reversed(texts):
            if text == unlike:
                continue
            if not self.whole(text):
                break
            taken.append(text)
        return taken[::-1]
