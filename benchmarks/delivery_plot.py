"""Draws the delivery measurement as one SVG: a panel per figure, people and hops. Measures nothing.

Written by hand: three kinds of lines in a grid of panels need no plotting library.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.delivery_figures import CellFigures, Estimate
from benchmarks.delivery_run import POLICIES
from benchmarks.delivery_scenario import Cell

_COLORS: Final = {"a": "#767676", "b": "#c8551b", "c": "#1764a8"}
_NAMES: Final = {"a": "(a) one try", "b": "(b) 20 s, three times, new ids", "c": "(c) ours"}
_DASHES: Final = {"light": "", "busy": "5 3"}
_PEOPLE: Final = {"stay": "People who stay", "roam": "People who come and go"}
_WIDTH, _HEIGHT = 200, 118  #: of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 66, 0
_GAP_X, _GAP_Y = 14, 18
_HEAD, _FOOT = 44, 62  #: room above and below the panels of one kind of people

Numbers = Mapping[tuple[str, str], CellFigures]


@dataclass(frozen=True, slots=True)
class _Axis:
    """The upright axis of a row of panels, from the first tick to the last."""

    ticks: tuple[float, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Say how far up a value is, 0 to 1; what lies outside is put on the edge."""
        low, high = self.ticks[0], self.ticks[-1]
        value = min(max(value, low), high)
        if self.is_log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@dataclass(frozen=True, slots=True)
class _Row:
    title: str
    pick: Callable[[CellFigures], Estimate]
    axis: _Axis


def draw(cells: Sequence[Cell], numbers: Numbers) -> str:
    """Return the SVG text."""
    hops = sorted({cell.hops for cell in cells})
    rows = tuple(_rows(numbers))
    width = _LEFT + len(hops) * (_WIDTH + _GAP_X) - _GAP_X + _RIGHT
    body, y = [*_legend()], _TOP
    for people in dict.fromkeys(cell.people for cell in cells):
        body.append(_text(_LEFT, y + 12, _PEOPLE[people], bold=True))
        y += _HEAD
        for row in rows:
            body.append(_row_title(row, y))
            for column, count in enumerate(hops):
                chosen = [c for c in cells if (c.people, c.hops) == (people, count)]
                panel = [*_frame(row, is_first=column == 0), *_series(row, chosen, numbers)]
                if row is rows[0]:
                    panel.append(_text(_WIDTH / 2, -10, _hops(count), anchor="middle"))
                if row is rows[-1]:
                    panel += _losses(chosen)
                x = _LEFT + column * (_WIDTH + _GAP_X)
                body.append(f'<g transform="translate({x} {y})">{"".join(panel)}</g>')
            y += _HEIGHT + _GAP_Y
        y += _FOOT - _GAP_Y
    height = y + _BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="sans-serif" font-size="13" fill="#222">\n'
        "<title>Delivered share, doubles and airtime by hops, loss, air and people</title>\n"
        # A page may be dark: the picture brings its own ground.
        f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _rows(numbers: Numbers) -> Iterator[_Row]:
    yield _Row("delivered %", lambda n: n.delivered, _Axis((0.0, 25.0, 50.0, 75.0, 100.0)))
    most = max(number.doubles.high for number in numbers.values())
    steps = max(1, math.ceil(most / 20))
    ticks = tuple(20.0 * step for step in range(steps + 1))
    yield _Row("doubles per 100", lambda n: n.doubles, _Axis(ticks))
    logarithmic = _Axis((3.0, 10.0, 30.0, 100.0, 300.0), is_log=True)
    yield _Row("airtime s/delivered", lambda n: n.airtime, logarithmic)


def _hops(count: int) -> str:
    return f"{count} hop{'s' * (count > 1)}"


def _legend() -> Iterator[str]:
    x = _LEFT
    for policy in POLICIES:
        yield _line([(x, 20), (x + 28, 20)], _COLORS[policy], "")
        yield _text(x + 34, 24, _NAMES[policy])
        x += 74 + 7 * len(_NAMES[policy])
    x = _LEFT
    for air, dash in _DASHES.items():
        yield _line([(x, 42), (x + 28, 42)], "#222", dash)
        yield _text(x + 34, 46, f"{air} air")
        x += 74 + 7 * len("light air")
    yield _text(x, 46, "upright bars: 95 % intervals; the axis of the airtime is logarithmic")


def _row_title(row: _Row, y: float) -> str:
    where = f"translate(20 {y + _HEIGHT / 2:.0f}) rotate(-90)"
    return f'<text transform="{where}" text-anchor="middle">{escape(row.title)}</text>'


def _frame(row: _Row, *, is_first: bool) -> Iterator[str]:
    for tick in row.axis.ticks:
        y = _HEIGHT * (1 - row.axis.share(tick))
        yield f'<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>'
        if is_first:
            yield _text(-6, y + 4.5, f"{tick:.0f}", anchor="end")
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#aaa"/>'


def _losses(cells: Sequence[Cell]) -> Iterator[str]:
    losses = sorted({cell.loss for cell in cells})
    for place, loss in enumerate(losses):
        yield _text(_x(place, len(losses)), _HEIGHT + 17, f"{loss} %", anchor="middle")
    yield _text(_WIDTH / 2, _HEIGHT + 33, "frames lost on each link", anchor="middle")


def _series(row: _Row, cells: Sequence[Cell], numbers: Numbers) -> Iterator[str]:
    losses = sorted({cell.loss for cell in cells})
    for (order, policy), air in itertools.product(enumerate(POLICIES), _DASHES):
        found = {
            cell.loss: row.pick(numbers[str(cell), policy]) for cell in cells if cell.air == air
        }
        # Side by side, so that bars of six lines do not cover each other.
        shift = (order - 1) * 7.0 + (-1.5 if air == "light" else 1.5)
        points = []
        for place, loss in enumerate(losses):
            x = _x(place, len(losses)) + shift
            estimate = found[loss]
            points.append((x, _y(row, estimate.value)))
            ends = [(x, _y(row, estimate.low)), (x, _y(row, estimate.high))]
            yield _line(ends, _COLORS[policy], "", width=1.0)
        yield _line(points, _COLORS[policy], _DASHES[air])


def _x(place: int, count: int) -> float:
    return _WIDTH * (place + 0.5) / count


def _y(row: _Row, value: float) -> float:
    return _HEIGHT * (1 - row.axis.share(value))


def _line(
    points: Sequence[tuple[float, float]], color: str, dash: str, *, width: float = 2.0
) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<polyline points="{where}" fill="none" stroke="{color}" stroke-width="{width}"{dashed}/>'
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
