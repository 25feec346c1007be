"""Measures many people asking at once: the real agent in virtual time, a model that takes its time.

Nothing waits for real: the clock is moved to the next arrival, the end of the model's call or the
next thing that the agent itself wants to do.
"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.delivery import quiet
from benchmarks.report import Figure, Part, figure, percentile
from benchmarks.world import BenchmarkError
from meshllm.agent.service import AgentService
from meshllm.clock import Waker, utc_text
from meshllm.config import Settings
from meshllm.layout import Layout, NodeTree
from meshllm.llm.base import (
    ChatMessage,
    ChatRequest,
    ChatResult,
    Outcome,
    ProbeResult,
    ProbeState,
    never,
)
from meshllm.observe import status
from meshllm.records import Message, compact_json
from meshllm.store import atomic
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock

PEOPLE: Final = 20
WITHIN_S: Final = 60.0  #: all first questions come within this time
TALKATIVE: Final = 5  #: of the people, who ask again as soon as they have an answer
AGAIN: Final = 5  #: questions of each of these
QUICK_S: Final = 2.0  #: seconds of a model call
SLOW_S: Final = 30.0  #: the same as a 4-billion-parameter model on a Pi 5 has it
FORGED: Final = 200  #: node ids of a made-up crowd
_PATIENCE_S: Final = 7200.0  #: virtual seconds after which a run ends
_REAL_LIMIT_S: Final = 10.0
_LOOK_S: Final = 0.005
_EPSILON_S: Final = 1e-6  #: sums of times are not exact


@dataclass(slots=True)
class Person:
    """Somebody who asks; further questions come one second after each answer."""

    node_id: str
    radio: int
    first_at: float
    questions: int = 1
    heard: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    told: int = 0  #: notices: that it takes a while, or that the limit is reached
    next_at: float | None = None

    def __post_init__(self) -> None:
        self.next_at = self.first_at

    @property
    def waits(self) -> list[float]:
        """Seconds from each question to its answer."""
        return [end - start for start, end in zip(self.heard, self.answered, strict=False)]


class TimedModel:
    """A ChatModel whose calls end when the run says so."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def chat(self, request: ChatRequest, cancel: Callable[[], bool] = never) -> ChatResult:
        """Answer when told to."""
        self.began.release()
        while not self.may_end.acquire(timeout=0.1):
            if cancel():
                return ChatResult(Outcome.CANCELLED)
        return ChatResult(Outcome.OK, "Boil it for one minute.", request.model, duration_ms=1)

    def probe(self) -> ProbeResult:
        """Always there."""
        return ProbeResult(ProbeState.READY)

    def warm_up(
        self,
        messages: Sequence[ChatMessage],  # noqa: ARG002 the protocol's
        cancel: Callable[[], bool] = never,  # noqa: ARG002 the protocol's
    ) -> ChatResult:
        """Cost nothing."""
        return ChatResult(Outcome.CAPPED)

    def close(self) -> None:
        """Hold nothing."""


class Run:
    """One agent, its radios' files and its people."""

    def __init__(
        self, folder: Path, people: list[Person], *, call_s: float, settings: Settings
    ) -> None:
        self.people = people
        self.call_s = call_s
        self.clock = ManualClock()
        self.model = TimedModel()
        self.waker = Waker()
        self.layout = Layout(folder / "data", folder / "data/nodes", folder / "prompts")
        self.trees = [self._tree(n) for n in range(1 + max(p.radio for p in people))]
        self.service = AgentService(
            settings, self.layout, clock=self.clock, model=self.model, waker=self.waker
        )
        self.started = self.clock.monotonic()
        self.call_ends: float | None = None
        self._seen: dict[str, int] = {}

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.clock.monotonic() - self.started

    def play(self) -> None:
        """Run until everybody has had their answers, or patience ends."""
        self.service.start()
        self.waker.wait_real(_REAL_LIMIT_S)
        while self.now < _PATIENCE_S and not self._is_done():
            self._step()
        self.service.stop()

    def _is_done(self) -> bool:
        return all(len(p.answered) >= p.questions for p in self.people)

    def _step(self) -> None:
        self._ask()
        wait_s = self.service.tick()
        self._note()
        if self.call_ends is None and self.model.began.acquire(blocking=False):
            self.call_ends = self.now + self.call_s
        elif self.call_ends is None and self.service._asked is not None:
            if not self.model.began.acquire(timeout=_REAL_LIMIT_S):
                raise BenchmarkError("the model was not called")
            self.call_ends = self.now + self.call_s
        self._advance(wait_s)

    def _advance(self, wait_s: float) -> None:
        due = [person.next_at for person in self.people if person.next_at is not None]
        if self.call_ends is not None:
            due.append(self.call_ends)
        until = min([*due, self.now + wait_s])
        self.clock.advance(max(0.0, until - self.now))
        if self.call_ends is not None and self.now >= self.call_ends - _EPSILON_S:
            self.call_ends = None
            self.model.may_end.release()
            self._await_report()

    def _await_report(self) -> None:
        """Wait for the model's thread; file events wake as well, so a wake-up alone says little."""
        for _ in range(int(_REAL_LIMIT_S / _LOOK_S)):
            if not self.service._worker._done.empty():
                return
            self.waker.wait_real(_LOOK_S)
        raise BenchmarkError("the model's call did not end")

    def _ask(self) -> None:
        for person in self.people:
            if person.next_at is None or person.next_at > self.now + _EPSILON_S:
                continue
            person.next_at = None
            person.heard.append(self.now)
            number = len(person.heard)
            path = self.trees[person.radio].dm_thread(person.node_id)
            row = Message(
                "dm",
                person.node_id,
                str(int(person.node_id[1:], 16) % 10**6 * 100 + number),
                "inbound",
                person.node_id,
                timestamp=utc_text(self.clock.utc()),
                content=f"question {number}: how do I make this water safe to drink?",
                meta_json=compact_json({"channel_index": 0}),
            )
            Table(path, Message).append([row])
            self.service._book.mark(path)

    def _note(self) -> None:
        for person in self.people:
            if len(person.heard) == len(person.answered):
                continue
            path = self.trees[person.radio].dm_thread(person.node_id)
            size = path.stat().st_size
            if self._seen.get(person.node_id) == size:
                continue
            self._seen[person.node_id] = size
            ours = [row for row in Table(path, Message).read().rows if row.is_outgoing]
            replies = {row.reply_to_id for row in ours if row.reply_to_id}
            person.told = len(ours) - len([row for row in ours if row.reply_to_id])
            while len(person.answered) < len(replies):
                person.answered.append(self.now)
                if len(person.heard) < person.questions:
                    person.next_at = self.now + 1.0

    def _tree(self, number: int) -> NodeTree:
        uid = f"aaaa{number:04x}"
        tree = self.layout.tree(uid)
        for folder in tree.folders():
            folder.mkdir(parents=True, exist_ok=True)
        facts = {"node_uid": uid, "node_id": f"!{uid}", "link_state": "up"}
        status.write(tree.radio_status, facts, modes=atomic.Modes())
        return tree


def unfairness(people: Sequence[Person]) -> int:
    """Most answers that anybody got while somebody else waited for their first."""
    worst = 0
    for person in people:
        if not person.heard:
            continue
        start = person.heard[0]
        end = person.answered[0] if person.answered else float("inf")
        for other in people:
            if other is not person:
                worst = max(worst, sum(start <= at < end for at in other.answered))
    return worst


def a_minute(*, radios: int = 1, again: int = AGAIN) -> list[Person]:
    """Make the people of an ordinary rush."""
    drawn = random.Random(1)  # noqa: S311 (no secret)
    return [
        Person(
            f"!c0de{number:04x}",
            radio=number % 4 if number % 4 < radios else 0,
            first_at=round(drawn.uniform(0, WITHIN_S), 3),
            questions=again if number < TALKATIVE else 1,
        )
        for number in range(PEOPLE)
    ]


def measure(folder: Path) -> Part:
    """Run all cases."""
    settings = Settings(disk_reserve_mb=0)
    with quiet():
        quick = _played(folder / "quick", a_minute(), QUICK_S, settings)
        once = _played(folder / "once", a_minute(again=1), QUICK_S, settings)
        slow = _played(folder / "slow", a_minute(), SLOW_S, settings)
        radios = _played(folder / "radios", a_minute(radios=2), SLOW_S, settings)
        known, forged = _crowd(folder / "forged", settings)
    figures = (
        *_figures(f"{QUICK_S:g} s a call, everybody once", once),
        *_figures(f"{QUICK_S:g} s a call", quick),
        *_figures(f"{SLOW_S:g} s a call", slow),
        *_figures(f"{SLOW_S:g} s a call, two radios", radios),
        figure("forged crowd: known people's wait, p50", percentile(_waits(known), 0.5), "s"),
        figure("forged crowd: known people's wait, longest", max(_waits(known)), "s"),
        figure("forged crowd: forged ids answered meanwhile", len(_served(forged)), ""),
    )
    cases = (
        f"{PEOPLE} people ask for the first time within {WITHIN_S:g} s; {TALKATIVE} of them ask "
        f"{AGAIN} times, each time a second after their answer. The real agent in virtual time, "
        "default settings, direct messages; a call takes as long as it says."
    )
    fair = (
        "Ahead of a first: the most answers that anybody got while somebody else waited for the "
        "first of their own."
    )
    forgery = (
        f"Forged crowd: {FORGED} new ids ask at once, and three people who were answered before "
        f"ask {AGAIN} times each, {QUICK_S:g} s a call. Until these three are through, known "
        "people and strangers take turns."
    )
    return Part("crowd", "Many people at once", figures, (cases, fair, forgery))


def _played(folder: Path, people: list[Person], call_s: float, settings: Settings) -> list[Person]:
    Run(folder, people, call_s=call_s, settings=settings).play()
    return people


def _crowd(folder: Path, settings: Settings) -> tuple[list[Person], list[Person]]:
    """Let known people be answered once, then come back within a crowd; only then they count."""
    known = [Person(f"!c0de{n:04x}", 0, first_at=0.0, questions=1 + AGAIN) for n in range(3)]
    forged = [Person(f"!f0{n:06x}", 0, first_at=3 * QUICK_S + 0.5) for n in range(FORGED)]
    run = Run(folder, [*known, *forged], call_s=QUICK_S, settings=settings)
    run.service.start()
    run.waker.wait_real(_REAL_LIMIT_S)
    while run.now < _PATIENCE_S and not all(len(p.answered) >= p.questions for p in known):
        run._step()
    run.service.stop()
    return known, forged


def _waits(people: Sequence[Person]) -> list[float]:
    return [wait for person in people for wait in person.waits]


def _served(people: Sequence[Person]) -> list[Person]:
    return [person for person in people if person.answered]


def _figures(case: str, people: list[Person]) -> tuple[Figure, ...]:
    asked = sum(len(person.heard) for person in people)
    answered = sum(len(person.answered) for person in people)
    silent = sum(not person.answered and not person.told for person in people)
    waits = _waits(people)
    return (
        figure(f"{case}: answered, of {asked}", answered, ""),
        figure(f"{case}: people neither served nor told", silent, "", at_most=0),
        figure(f"{case}: ahead of a first", unfairness(people), "", at_most=1),
        figure(f"{case}: wait, p50", percentile(waits, 0.5), "s"),
        figure(f"{case}: wait, longest", max(waits), "s"),
    )
