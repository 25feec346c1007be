"""Figures, the tables that show them, and the generated blocks of the page. Measures nothing."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/explanation/performance.md"
_HEADINGS: Final = ("what", "figure", "aim", "verdict")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table. `value` is compared with `at_most`; None where there is no aim."""

    what: str
    shown: str
    value: float | None = None
    at_most: float | None = None
    aim: str = ""

    @property
    def verdict(self) -> str:
        """Met or missed; nothing where there is no aim or no figure."""
        if self.at_most is None or self.value is None:
            return ""
        return "met" if self.value <= self.at_most else "missed"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The line as text."""
        return (self.what, self.shown, self.aim, self.verdict)


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the measurements found: a table and the sentences below it."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()


def figure(what: str, value: float, unit: str, *, at_most: float | None = None) -> Figure:
    """Make a figure of a number in a unit, with an aim in the same unit."""
    aim = "" if at_most is None else f"≤ {at_most:g} {unit}"
    return Figure(what, f"{_rounded(value)} {unit}".rstrip(), value, at_most, aim.rstrip())


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def for_terminal(part: Part) -> str:
    """Render a part with aligned columns."""
    rows = [_HEADINGS, *(f.cells for f in part.figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([part.title, "", *lines, "", *part.notes])


def for_page(part: Part) -> str:
    """Render a part as Markdown."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *(f.cells for f in part.figures)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [f"- {note}" for note in part.notes]
    return "\n".join([f"### {part.title}", "", *lines, "", *notes]).rstrip() + "\n"


def replace_block(page: str, name: str, text: str) -> str:
    """Put `text` between the markers of a block. Raises ValueError where the page has none."""
    begin, end = f"<!-- begin generated: {name} -->\n", f"<!-- end generated: {name} -->"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no block {name!r}")
    return f"{head}{begin}{text}{end}{tail}"


def _rounded(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
