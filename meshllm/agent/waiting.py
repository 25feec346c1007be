"""Decides who is told that an answer takes a while, and with which words. Writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from meshllm.agent.notices import OFFLINE, THINKING, WORKING
from meshllm.agent.questions import Question
from meshllm.agent.threads import Thread
from meshllm.clock import Clock
from meshllm.llm.base import ChatRequest
from meshllm.text import utf8_len

FEW_S: Final = 8.0  #: scaled; with less than this to go the answer itself is the notice
_ANY: Final = (WORKING, THINKING, OFFLINE)


@dataclass(frozen=True, slots=True)
class Running:
    """The call under way."""

    request: ChatRequest
    since: float  #: monotonic
    is_thinking: bool = False

    @property
    def prompt_bytes(self) -> int:
        """UTF-8 bytes of all its messages."""
        return sum(utf8_len(message.content) for message in self.request.messages)


@dataclass(frozen=True, slots=True)
class Line:
    """One question in the line for the model."""

    thread: Thread
    question: Question
    age_s: float | None  #: scaled, since it was heard
    call_s: float | None  #: expected length of its call, None while nothing was measured
    elapsed_s: float = 0.0  #: of its call; 0 for those that wait
    in_line_s: float = 0.0  #: how long it has been seen in the line; it may have rested before


@dataclass(frozen=True, slots=True)
class Due:
    """A person to be told; `left_s` until the answer, None when nobody can tell."""

    thread: Thread
    question: Question
    left_s: float | None


class Waits:
    """Remembers since when each question is in the line. Belongs to the service's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[tuple[object, ...], float] = {}

    def seen(self, line: Sequence[Line]) -> list[Line]:
        """Return the line with the time each has been in it; forget who left it."""
        now = self._clock.monotonic()
        keys = [(place.thread.path, *place.question.key) for place in line]
        self._since = {key: self._since.get(key, now) for key in keys}
        return [
            replace(place, in_line_s=now - self._since[key])
            for key, place in zip(keys, line, strict=True)
        ]


def lefts(line: Sequence[Line]) -> list[float | None]:
    """Return for each in line the seconds until its answer; the first is being answered."""
    found: list[float | None] = []
    sum_s: float | None = 0.0
    for place in line:
        left_s = None if place.call_s is None else place.call_s - place.elapsed_s
        # A call that takes longer than expected tells nothing of its end.
        is_known = sum_s is not None and left_s is not None and left_s > 0
        sum_s = sum_s + left_s if is_known and sum_s is not None and left_s is not None else None
        found.append(sum_s)
    return found


def due(line: Sequence[Line], after_s: float) -> tuple[list[Due], float | None]:
    """Return whom to tell now, and in how many seconds the next one may be due.

    Told are people in DMs who have waited `after_s` (0: nobody ever) since they were heard, some
    of that in the line, who were told nothing yet and are not about to be answered.
    """
    told: list[Due] = []
    next_s: float | None = None
    for place, left_s in zip(line, lefts(line), strict=True):
        if not after_s or place.age_s is None or not _may_be_told(place):
            continue
        rest_s = max(after_s - place.age_s, FEW_S - place.in_line_s)
        if rest_s > 0:
            next_s = rest_s if next_s is None else min(next_s, rest_s)
        elif left_s is None or left_s >= FEW_S:
            told.append(Due(place.thread, place.question, left_s))
    return told, next_s


def _may_be_told(place: Line) -> bool:
    standing, key = place.thread.standing, place.question.key
    is_told = any((*key, kind) in standing.noticed for kind in _ANY)
    return place.question.row.thread_type == "dm" and key in standing.waiting and not is_told
