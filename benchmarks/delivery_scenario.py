"""The fixed scenario of the delivery measurement: cells, numbers, and what each seed draws.

Everything random that does not depend on the policy (who is there when, questions, answers, the
talk of others) is drawn here, so that all policies meet the same world.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from meshllm import airtime

FILE: Final = Path(__file__).resolve().parent / "scenarios/delivery.yaml"
#: One cell of every kind of trouble, for a first look.
SMALL: Final = (
    "hops=1,loss=10,air=light,people=stay",
    "hops=2,loss=30,air=busy,people=stay",
    "hops=3,loss=50,air=light,people=roam",
)
_PORTS: Final = {"position": 3, "telemetry": 67, "nodeinfo": 4, "text": 1}


class ScenarioError(ValueError):
    """The scenario file or a selection of cells says something that cannot be."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One combination of mesh, air and people."""

    people: str
    hops: int
    loss: int
    air: str

    def __str__(self) -> str:
        return f"hops={self.hops},loss={self.loss},air={self.air},people={self.people}"


@dataclass(frozen=True, slots=True)
class Chatter:
    """What others send: a port, its share of their packets, its payload sizes."""

    port: int
    share: float
    least_bytes: int
    most_bytes: int

    @property
    def mean_airtime_s(self) -> float:
        """Mean time on air of one packet of this kind, on LongFast."""
        sizes = range(self.least_bytes, self.most_bytes + 1)
        return sum(airtime.airtime_s(size, "LONG_FAST") for size in sizes) / len(sizes)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The scenario file, checked."""

    raw: Mapping[str, Any]
    chatter: tuple[Chatter, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, in the order of the page."""
        axes = self.raw["cells"]
        return tuple(
            Cell(people, hops, loss, air)
            for people, hops, loss, air in itertools.product(
                axes["people"], axes["hops"], axes["loss"], axes["air"]
            )
        )

    @property
    def seeds(self) -> int:
        """Runs of each cell and policy."""
        return int(self.raw["seeds"])

    def number(self, section: str, name: str) -> float:
        """Return one number."""
        return float(self.raw[section][name])

    def span(self, section: str, name: str) -> tuple[float, float]:
        """Return the two ends of a range."""
        low, high = self.raw[section][name]
        return float(low), float(high)

    def chatter_rate(self, cell: Cell) -> float:
        """Packets a second of each neighbour, so that our node finds its air used as the cell says.

        Counts for one packet of every neighbour what our node hears and repeats of it: its own
        neighbour's frame, the own repeat and the first relay's; of a packet that comes down the
        line the first relay's frame and the own repeat.
        """
        here, there = 1 - self.number("air", "local_loss"), 1 - cell.loss / 100
        frames = here * (2 + there**2)
        frames += sum(2 * here * there**links for links in range(1, cell.hops))
        mean_s = sum(kind.share * kind.mean_airtime_s for kind in self.chatter)
        return float(self.raw["air"][cell.air]) / (frames * mean_s)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the question was heard at `asked_at`, the parts are queued at `queued_at`."""

    number: int
    asked_at: float
    queued_at: float
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Absence:
    """A time out of range; `off`: the radio is switched off meanwhile."""

    start: float
    end: float
    off: bool


@dataclass(frozen=True, slots=True)
class Story:
    """What happens in one run, whatever the policy."""

    absences: tuple[Absence, ...]
    answers: tuple[Answer, ...]
    end: float


def load(path: Path = FILE) -> Scenario:
    """Read the scenario file. Raises ScenarioError when shares do not add up."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    chatter = tuple(
        Chatter(_PORTS[kind["kind"]], float(kind["share"]), *map(int, kind["bytes"]))
        for kind in raw["air"]["kinds"]
    )
    if abs(sum(kind.share for kind in chatter) - 1) > 1e-9:
        raise ScenarioError(f"{path}: the shares of air.kinds do not add up to 1")
    return Scenario(raw, chatter)


def select(scenario: Scenario, wanted: str) -> tuple[Cell, ...]:
    """Pick cells: "all", "small", or "hops=3,loss=50,air=light"; left-out keys mean any.

    Several selections are separated by ";". Raises ScenarioError for what names no cell.
    """
    if wanted == "all":
        return scenario.cells
    texts = SMALL if wanted == "small" else tuple(wanted.split(";"))
    chosen = set(itertools.chain.from_iterable(_matching(scenario.cells, text) for text in texts))
    return tuple(cell for cell in scenario.cells if cell in chosen)


def _matching(cells: Sequence[Cell], text: str) -> list[Cell]:
    conditions = [condition.partition("=") for condition in text.split(",") if condition]
    known = set(Cell.__slots__)
    if any(key.strip() not in known for key, _, _ in conditions):
        raise ScenarioError(f"{text}: a cell is named by {', '.join(sorted(known))}")
    found = [
        cell
        for cell in cells
        if all(str(getattr(cell, key.strip())) == value.strip() for key, _, value in conditions)
    ]
    if not found:
        raise ScenarioError(f"{text}: no such cell")
    return found


def story(scenario: Scenario, cell: Cell, seed: int) -> Story:
    """Draw presence, questions and answers of one run."""
    rng = random.Random(f"story/{cell.people}/{seed}")  # noqa: S311 - no secret
    absences = tuple(_absences(scenario, rng)) if cell.people == "roam" else ()
    answers = tuple(_answers(scenario, rng, absences))
    return Story(absences, answers, answers[-1].asked_at + float(scenario.raw["tail_s"]))


def _absences(scenario: Scenario, rng: random.Random) -> Iterator[Absence]:
    now, horizon = 0.0, 24 * 3600.0
    in_s, out_s = (scenario.number("people", name) for name in ("in_s", "out_s"))
    while now < horizon:
        start = now + rng.expovariate(1 / in_s)
        now = start + rng.expovariate(1 / out_s)
        yield Absence(start, now, rng.random() < scenario.number("people", "switched_off"))


def _answers(
    scenario: Scenario, rng: random.Random, absences: Sequence[Absence]
) -> Iterator[Answer]:
    here_s = 60.0  # of the person's time in range, in which alone they ask
    for number in range(int(scenario.number("answers", "per_run"))):
        here_s += rng.expovariate(1 / scenario.number("answers", "gap_s"))
        asked_at = _moment(here_s, absences)
        queued_at = asked_at + rng.uniform(*scenario.span("answers", "delay_s"))
        yield Answer(number, asked_at, queued_at, _parts(scenario, rng, number))


def _moment(here_s: float, absences: Sequence[Absence]) -> float:
    """Turn time spent in range into time."""
    now = here_s
    for absence in absences:
        if now < absence.start:
            break
        now += absence.end - absence.start
    return now


def _parts(scenario: Scenario, rng: random.Random, number: int) -> tuple[str, ...]:
    last = round(rng.uniform(*scenario.span("answers", "bytes")))
    first = round(rng.uniform(*scenario.span("answers", "first_part_bytes")))
    sizes = [first, last] if rng.random() < scenario.number("answers", "two_parts") else [last]
    return tuple(
        f"answer {number} part {part} ".ljust(size, ".") for part, size in enumerate(sizes, 1)
    )
