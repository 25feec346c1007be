"""Puts the results of the delivery measurement into its page: aims, every cell, the plot's file."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.delivery_figures import (
    CellFigures,
    airtime_per_delivered,
    doubles_per_100,
    figures,
    share_delivered,
    share_soon,
)
from benchmarks.delivery_ours import FAR_HOPS
from benchmarks.delivery_plot import draw
from benchmarks.delivery_run import INSISTING, POLICIES, RunResult
from benchmarks.delivery_scenario import Cell, Scenario
from benchmarks.report import replace_block

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/explanation/delivery.md"
PLOT: Final = PAGE.with_suffix(".svg")
DOUBLES_SHARE: Final = 0.25  #: of (b)'s doubles at most
DOUBLES_PER_100: Final = 1.0
_RESAMPLES: Final = 1000
_COLUMNS: Final = (
    "people",
    "hops",
    "loss %",
    "air",
    "policy",
    "delivered %",
    "doubles per 100",
    "airtime s per delivered",
    "final s, median",
    "p90",
    "shown s",
    "open",
    "use %",
    "aims",
)

Runs = Sequence[RunResult]
Found = Mapping[tuple[str, str], Runs]


class IncompleteError(ValueError):
    """The page shows every cell under every policy; some are missing."""


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim, as a margin that must not be negative: ours beside (b)."""

    name: str
    margin: Callable[[Runs, Runs], float]


AIMS: Final = (
    Aim("delivers more than (b)", lambda b, c: share_delivered(c) - share_delivered(b)),
    Aim(
        "less airtime per delivered answer than (b)",
        lambda b, c: airtime_per_delivered(b) - airtime_per_delivered(c),
    ),
    Aim(
        "at most a quarter of (b)'s doubles",
        lambda b, c: DOUBLES_SHARE * doubles_per_100(b) - doubles_per_100(c),
    ),
    Aim("at most one double per 100 answers", lambda _b, c: DOUBLES_PER_100 - doubles_per_100(c)),
)


_MEANS: Final[Mapping[str, Callable[[Runs], float]]] = {
    "delivered %": share_delivered,
    "within 5 min %": share_soon,
    "doubles per 100": doubles_per_100,
    "airtime s per delivered": airtime_per_delivered,
}
_INSIST: Final = ("delivered %", "doubles per 100", "airtime s per delivered")


def write(scenario: Scenario, found: Found) -> None:
    """Write tables and plot. Raises IncompleteError unless all cells have all their runs."""
    refuse_parts(scenario, {key: len(runs) for key, runs in found.items()})
    numbers = {key: figures(runs) for key, runs in found.items()}
    page = PAGE.read_text(encoding="utf-8")
    page = replace_block(page, "delivery-aims", aims_table(scenario.cells, found))
    page = replace_block(page, "delivery-means", means_table(scenario.cells, found))
    page = replace_block(page, "delivery-insist", insist_table(scenario.cells, found))
    page = replace_block(page, "delivery-cells", cells_table(scenario.cells, found, numbers))
    PAGE.write_text(page, encoding="utf-8")
    PLOT.write_text(draw(scenario.cells, numbers), encoding="utf-8")


def refuse_parts(scenario: Scenario, runs: Mapping[tuple[str, str], int]) -> None:
    """Raise IncompleteError unless there are all runs of all cells, (d)'s of those far away."""
    missing = [
        f"{cell} ({policy})"
        for cell in scenario.cells
        for policy in (*POLICIES, INSISTING)
        if policy != INSISTING or cell.hops >= FAR_HOPS
        if runs.get((str(cell), policy), 0) < scenario.seeds
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise IncompleteError(f"not measured: {'; '.join(missing[:3])}{more}")


def verdict(aim: Aim, b: Runs, c: Runs) -> str:
    """Say met, equal or missed, and whether drawing the seeds again could say otherwise."""
    margin = aim.margin(b, c)
    if margin == 0:
        return "equal"
    said = "met" if margin > 0 else "missed"
    return said if _is_certain(aim, b, c) else f"{said}?"


def _is_certain(aim: Aim, b: Runs, c: Runs) -> bool:
    """Draw seeds, the same for both: 95 of 100 draws must agree on the sign."""
    rng = random.Random(1)  # noqa: S311 - no secret
    indices = range(len(b))
    margins = []
    for _ in range(_RESAMPLES):
        drawn = rng.choices(indices, k=len(b))
        margins.append(aim.margin([b[i] for i in drawn], [c[i] for i in drawn]))
    margins.sort()
    edge = int(_RESAMPLES * 0.025)
    return margins[edge] > 0 or margins[-edge - 1] < 0


def aims_table(cells: Sequence[Cell], found: Found) -> str:
    """Count the verdicts of each aim, by hops."""
    hops = sorted({cell.hops for cell in cells})
    heads = [f"{count} hop{'s' * (count > 1)}" for count in hops]
    lines = [f"| aim | {' | '.join(heads)} |", "|---" * (1 + len(hops)) + "|"]
    for aim in AIMS:
        said = {
            count: [
                verdict(aim, found[str(cell), "b"], found[str(cell), "c"])
                for cell in cells
                if cell.hops == count
            ]
            for count in hops
        }
        counts = (_counted(said[count]) for count in hops)
        lines.append(f"| {aim.name} | {' | '.join(counts)} |")
    return "\n".join(lines) + "\n"


def _counted(said: Sequence[str]) -> str:
    order = ("met", "met?", "equal", "missed?", "missed")
    return ", ".join(f"{said.count(name)} {name}" for name in order if name in said)


def means_table(cells: Sequence[Cell], found: Found) -> str:
    """Put all cells of one kind of people together, each policy in a line."""
    heads = ("people", "policy", *_MEANS)
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for people in dict.fromkeys(cell.people for cell in cells):
        for policy in POLICIES:
            runs = [
                run for cell in cells if cell.people == people for run in found[str(cell), policy]
            ]
            parts = (f"{figure(runs):.1f}" for figure in _MEANS.values())
            lines.append(f"| {people} | ({policy}) | {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def insist_table(cells: Sequence[Cell], found: Found) -> str:
    """Compare (b), (c) and (d) far away: people and air put together, then all of these hops."""
    shown = ("b", "c", INSISTING)
    heads = [f"{name} ({policy})" for name in _INSIST for policy in shown]
    lines = [f"| hops | loss % | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    far = [cell for cell in cells if cell.hops >= FAR_HOPS]
    for hops in sorted({cell.hops for cell in far}):
        of_hops = [cell for cell in far if cell.hops == hops]
        losses = sorted({cell.loss for cell in of_hops})
        groups = [(str(loss), [c for c in of_hops if c.loss == loss]) for loss in losses]
        for loss, group in (*groups, ("all", of_hops)):
            runs = {p: [run for cell in group for run in found[str(cell), p]] for p in shown}
            parts = (f"{_MEANS[name](runs[policy]):.1f}" for name in _INSIST for policy in shown)
            lines.append(f"| {hops} | {loss} | {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def cells_table(
    cells: Sequence[Cell], found: Found, numbers: Mapping[tuple[str, str], CellFigures]
) -> str:
    """Render every cell under every policy, with our verdicts."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for cell in cells:
        for policy in POLICIES:
            lines.append(_cell_line(cell, policy, found, numbers[str(cell), policy]))
    return "\n".join(lines) + "\n"


def _cell_line(cell: Cell, policy: str, found: Found, shown: CellFigures) -> str:
    aims = ""
    if policy == "c":
        b, c = found[str(cell), "b"], found[str(cell), "c"]
        aims = ", ".join(verdict(aim, b, c) for aim in AIMS)
    parts = (
        cell.people,
        cell.hops,
        cell.loss,
        cell.air,
        f"({policy})",
        shown.delivered.show(),
        shown.doubles.show(),
        shown.airtime.show(),
        shown.final_s.show(0),
        f"{shown.final_p90_s:.0f}",
        f"{shown.shown_s:.0f}",
        shown.still_open,
        f"{shown.channel_use:.0f}",
        aims,
    )
    return f"| {' | '.join(map(str, parts))} |"
