"""What the results of a cell come to: shares, means, and how far they can be trusted."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.delivery_run import RunResult

_RESAMPLES: Final = 1000
_INTERVAL: Final = 0.95
SOON_S: Final = 300.0  #: most people still wait for the answer then
HEADING: Final = (
    f"{'cell':<42} policy  delivered % (95 %)        doubles/100 (95 %)     "
    "airtime s/deliv. (95 %)   final s med/p90/mean   open  states       use %  frames"
)

Runs = Sequence[RunResult]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def show(self, digits: int = 1) -> str:
        """Render as text."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass(frozen=True, slots=True)
class CellFigures:
    """One cell under one policy."""

    answers: int
    delivered: Estimate  #: percent of answers
    doubles: Estimate  #: per 100 answers
    airtime: Estimate  #: seconds of everybody's transmissions per delivered answer
    final_s: Estimate  #: median seconds from question to final state
    final_p90_s: float
    shown_s: float  #: median seconds from question to the screen, of the delivered
    still_open: int  #: answers without a final state when the run ended
    channel_use: float  #: percent of the air at our node


def figures(runs: Runs) -> CellFigures:
    """Work out one cell under one policy."""
    answers = [answer for run in runs for answer in run.answers]
    ends = sorted(answer.final_s for answer in answers if answer.final_s is not None)
    shown = [answer.delivered_s for answer in answers if answer.delivered_s is not None]
    return CellFigures(
        answers=len(answers),
        delivered=estimate(runs, share_delivered),
        doubles=estimate(runs, doubles_per_100),
        airtime=estimate(runs, airtime_per_delivered),
        final_s=estimate(runs, median_final_s),
        final_p90_s=ends[int(0.9 * (len(ends) - 1))] if ends else float("nan"),
        shown_s=median(shown) if shown else float("nan"),
        still_open=len(answers) - len(ends),
        channel_use=100 * sum(run.channel_use for run in runs) / len(runs),
    )


def share_delivered(runs: Runs) -> float:
    """Percent of the answers that were complete on the screen at least once."""
    done = sum(answer.delivered_s is not None for run in runs for answer in run.answers)
    return 100 * done / sum(len(run.answers) for run in runs)


def share_soon(runs: Runs) -> float:
    """Percent of the answers that were complete on the screen within SOON_S of the question."""
    times = [answer.delivered_s for run in runs for answer in run.answers]
    return 100 * sum(time is not None and time <= SOON_S for time in times) / len(times)


def doubles_per_100(runs: Runs) -> float:
    """Texts shown again, per 100 answers."""
    doubles = sum(answer.doubles for run in runs for answer in run.answers)
    return 100 * doubles / sum(len(run.answers) for run in runs)


def airtime_per_delivered(runs: Runs) -> float:
    """Seconds on the air, by all nodes, per answer delivered; infinite without any."""
    done = sum(answer.delivered_s is not None for run in runs for answer in run.answers)
    return sum(run.airtime_s for run in runs) / done if done else float("inf")


def median_final_s(runs: Runs) -> float:
    """Median seconds from question to final state, of the answers that reached one."""
    ends = [a.final_s for run in runs for a in run.answers if a.final_s is not None]
    return median(ends) if ends else float("nan")


def estimate(runs: Runs, figure: Callable[[Runs], float]) -> Estimate:
    """Give a figure its interval by drawing whole runs again: answers of a run are no strangers."""
    rng = random.Random(1)  # noqa: S311 - no secret
    drawn = sorted(figure(rng.choices(runs, k=len(runs))) for _ in range(_RESAMPLES))
    edge = (1 - _INTERVAL) / 2
    low, high = drawn[int(edge * _RESAMPLES)], drawn[int((1 - edge) * _RESAMPLES) - 1]
    return Estimate(figure(runs), low, high)


def cell_line(runs: Runs) -> str:
    """Render one cell under one policy for the terminal."""
    found = figures(runs)
    states: dict[str, int] = {}
    ends = [a.final_s for run in runs for a in run.answers if a.final_s is not None]
    for answer in (answer for run in runs for answer in run.answers):
        states[answer.state[:3]] = states.get(answer.state[:3], 0) + 1
    shown = ",".join(f"{name}{number}" for name, number in sorted(states.items()))
    mean_s = sum(ends) / len(ends) if ends else float("nan")
    frames = sum(run.frames for run in runs) / max(1, found.answers)
    return (
        f"{runs[0].cell:<42} ({runs[0].policy})  {found.delivered.show():<22}  "
        f"{found.doubles.show():<20}  {found.airtime.show():<22}  "
        f"{found.final_s.value:5.0f}/{found.final_p90_s:5.0f}/{mean_s:5.0f}  "
        f"{found.still_open:>4}  {shown:<20} {found.channel_use:5.1f} {frames:6.1f}"
    )
