"""Runs one cell under one policy and one seed, and counts what came of every answer."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.delivery_client import Outcome, Simple
from benchmarks.delivery_mesh import OURS, PERSON, Line, Shown
from benchmarks.delivery_scenario import Answer, Cell, Scenario, Story, story
from meshllm.sim.air import OnAir
from meshllm.sim.packets import Port

#: The three that are compared in every cell.
POLICIES: Final = ("a", "b", "c")
INSISTING: Final = "d"  #: (c) with `repeat_far_under_new_id`
EVERY_POLICY: Final = (*POLICIES, INSISTING)
_LOOK_S: Final = 30.0
_USE_EVERY_S: Final = 60.0
_RAM: Final = Path("/dev/shm")  # noqa: S108 - the standard folder in memory, if there is one


class Sender(Protocol):
    """What sends the answers."""

    outcomes: list[Outcome]

    def question(self, answer: Answer) -> None:
        """A question was heard just now."""

    def queue(self, answer: Answer) -> None:
        """An answer is ready."""


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """What came of one answer. Times are seconds from the moment the question was heard."""

    number: int
    delivered_s: float | None  #: all parts on the screen for the first time; None: never
    doubles: int  #: times that a part was shown again
    final_s: float | None  #: last change of state of any part; None: not final at the end
    state: str  #: the state of the part that fared worst


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of one run."""

    policy: str
    cell: str
    seed: int
    answers: tuple[AnswerResult, ...]
    airtime_s: float  #: every transmission that our texts caused, by whatever node
    frames: int  #: the same, counted
    own_frames: int  #: those of them sent by our radio
    channel_use: float  #: mean share of time in which our node found the channel used
    seconds: float  #: of virtual time
    packets: int  #: packets of others that our node heard for the first time
    connections: int

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "RunResult":
        """Read plain values back."""
        answers = tuple(AnswerResult(**answer) for answer in value["answers"])
        return cls(**{**value, "answers": answers})


@dataclass(slots=True)
class Run:
    """One run and everything that was seen in it."""

    scenario: Scenario
    cell: Cell
    policy: str
    seed: int
    line: Line
    story: Story
    sender: Sender
    use: list[float]

    def result(self) -> RunResult:
        """Count."""
        log = self.line.air.log.items()
        own_ids = {packet_id for outcome in self.sender.outcomes for packet_id in outcome.ids}
        caused = tuple(caused_by(log, own_ids))
        others = {item.packet.id for item in log if item.packet.sender not in (OURS, PERSON)}
        return RunResult(
            policy=self.policy,
            cell=str(self.cell),
            seed=self.seed,
            answers=tuple(count(self.story.answers, self.sender.outcomes, self.line.shown)),
            airtime_s=sum(item.airtime_s for item in caused),
            frames=len(caused),
            own_frames=sum(item.node == OURS for item in caused),
            channel_use=sum(self.use) / max(1, len(self.use)),
            seconds=self.line.time.now(),
            packets=len(others),
            connections=getattr(getattr(self.sender, "client", None), "connections", 1),
        )


def caused_by(log: Sequence[OnAir], own_ids: set[int]) -> Iterator[OnAir]:
    """Pick the transmissions that texts of these ids caused: theirs, their ACKs, ACKs of those.

    The log is in the order of time, so an ACK comes after what it answers.
    """
    caused = {(OURS, packet_id) for packet_id in own_ids}
    answered = set(own_ids)
    for item in log:
        packet = item.packet
        key = (packet.sender, packet.id)
        if packet.port == Port.ROUTING and packet.request_id in answered:
            caused.add(key)
            answered.add(packet.id)
        if key in caused:
            yield item


def count(
    answers: Sequence[Answer], outcomes: Sequence[Outcome], shown: Sequence[Shown]
) -> Iterator[AnswerResult]:
    """Say of each answer when it was complete on the screen, how often again, and how it ended."""
    times: dict[str, list[float]] = {}
    for item in shown:
        times.setdefault(item.text, []).append(item.at)
    by_text = {outcome.text: outcome for outcome in outcomes}
    for answer in answers:
        firsts = [times[text][0] for text in answer.parts if text in times]
        ends = [by_text[text] for text in answer.parts if text in by_text]
        is_complete = len(firsts) == len(answer.parts)
        is_final = len(ends) == len(answer.parts) and all(end.is_final for end in ends)
        last = max((end.final_at or 0.0 for end in ends), default=0.0)
        yield AnswerResult(
            number=answer.number,
            delivered_s=round(max(firsts) - answer.asked_at, 3) if is_complete else None,
            doubles=sum(len(times[text]) - 1 for text in answer.parts if text in times),
            final_s=round(last - answer.asked_at, 3) if is_final else None,
            state=_worst([end.state for end in ends]),
        )


def _worst(states: Sequence[str]) -> str:
    order = ("failed", "held", "queued", "unconfirmed", "handed", "relayed", "delivered")
    return min(states, key=order.index) if states else "queued"


def run(scenario: Scenario, cell: Cell, policy: str, seed: int) -> RunResult:
    """Run and count."""
    with performed(scenario, cell, policy, seed) as done:
        return done.result()


@contextmanager
def performed(scenario: Scenario, cell: Cell, policy: str, seed: int) -> Iterator[Run]:
    """Run to the end; the files of our own policy are there until the context ends."""
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=_RAM if _RAM.is_dir() else None))
    try:
        line = Line(scenario, cell, seed)
        told = story(scenario, cell, seed)
        sender = _sender(line, scenario, policy, folder, seed)
        prepared = Run(scenario, cell, policy, seed, line, told, sender, [])
        line.live(told)
        for answer in told.answers:
            line.time.call_later(answer.asked_at, lambda a=answer: sender.question(a))  # type: ignore[misc]
            line.time.call_later(answer.queued_at, lambda a=answer: sender.queue(a))  # type: ignore[misc]
        _note_use(prepared)
        _pass_time(prepared)
        yield prepared
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sender(line: Line, scenario: Scenario, policy: str, folder: Path, seed: int) -> Sender:
    if policy in ("c", INSISTING):
        from benchmarks.delivery_ours import Ours  # noqa: PLC0415 (baselines run without it)

        return Ours(line, scenario, folder, seed=seed, insists=policy == INSISTING)
    tries = 1 if policy == "a" else int(scenario.number("baseline", "tries"))
    return Simple(line, scenario, seed=seed, tries=tries)


def _note_use(prepared: Run) -> None:
    def note() -> None:
        prepared.use.append(prepared.line.air.channel_use(OURS))
        prepared.line.time.call_later(_USE_EVERY_S, note)

    prepared.line.time.call_later(_USE_EVERY_S, note)


def _pass_time(prepared: Run) -> None:
    """Let time pass until everything is final and has been so for a while, or the run ends."""
    time, told, outcomes = prepared.line.time, prepared.story, prepared.sender.outcomes
    quiet_s = float(prepared.scenario.raw["quiet_s"])
    parts = sum(len(answer.parts) for answer in told.answers)
    while time.now() < told.end:
        time.run(_LOOK_S)
        if len(outcomes) == parts and all(outcome.is_final for outcome in outcomes):
            last = max(outcome.final_at or 0.0 for outcome in outcomes)
            if time.now() - last >= quiet_s:
                return
