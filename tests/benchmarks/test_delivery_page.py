"""What the page says of the results: verdicts, tables, the plot."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks.delivery_figures import figures
from benchmarks.delivery_page import (
    AIMS,
    IncompleteError,
    aims_table,
    cells_table,
    insist_table,
    means_table,
    refuse_parts,
    verdict,
    write,
)
from benchmarks.delivery_plot import draw
from benchmarks.delivery_run import POLICIES, AnswerResult, RunResult
from benchmarks.delivery_scenario import Cell, load

CELL = Cell("stay", 1, 10, "light")
MORE, LESS_AIR, QUARTER, ONE_IN_100 = AIMS


def run(*, delivered: int = 5, doubles: int = 0, airtime_s: float = 10.0) -> RunResult:
    """Ten answers; the doubles are all of the first."""
    answers = tuple(
        AnswerResult(n, 1.0 if n < delivered else None, 0 if n else doubles, 2.0, "delivered")
        for n in range(10)
    )
    return RunResult("c", str(CELL), 1, answers, airtime_s, 5, 2, 0.05, 100.0, 9, 1)


@pytest.mark.parametrize(
    ("aim", "b", "c", "said"),
    [
        (MORE, run(delivered=5), run(delivered=6), "met"),
        (MORE, run(delivered=5), run(delivered=5), "equal"),
        (MORE, run(delivered=5), run(delivered=4), "missed"),
        (LESS_AIR, run(airtime_s=10), run(airtime_s=9), "met"),
        (LESS_AIR, run(airtime_s=10), run(airtime_s=9, delivered=4), "missed"),
        (QUARTER, run(doubles=8), run(doubles=1), "met"),
        (QUARTER, run(doubles=4), run(doubles=1), "equal"),
        (QUARTER, run(doubles=3), run(doubles=1), "missed"),
        (ONE_IN_100, run(), run(doubles=0), "met"),
        (ONE_IN_100, run(doubles=50), run(doubles=1), "missed"),
    ],
)
def test_a_verdict_compares_ours_with_the_common_way(
    aim: object, b: RunResult, c: RunResult, said: str
) -> None:
    assert verdict(aim, [b] * 20, [c] * 20) == said  # type: ignore[arg-type]


def test_a_verdict_that_other_seeds_could_turn_has_a_question_mark() -> None:
    b = [run(delivered=5)] * 20
    c = [run(delivered=9)] * 6 + [run(delivered=4)] * 14

    assert verdict(MORE, b, c) == "met?"


def test_the_tables_have_every_cell_and_count_every_verdict() -> None:
    found = {(str(CELL), policy): [run()] * 3 for policy in POLICIES}
    numbers = {key: figures(runs) for key, runs in found.items()}

    cells = cells_table([CELL], found, numbers).splitlines()
    aims = aims_table([CELL], found).splitlines()

    assert [line.split(" | ")[4] for line in cells[2:]] == ["(a)", "(b)", "(c)"]
    assert cells[-1].endswith("| equal, equal, equal, met |")
    assert aims[0] == "| aim | 1 hop |"
    assert aims[2] == "| delivers more than (b) | 1 equal |"


def test_the_means_are_of_all_cells_of_one_kind_of_people() -> None:
    cells = [Cell(people, 1, loss, "light") for people in ("stay", "roam") for loss in (10, 30)]
    found = {(str(cell), policy): [run(doubles=1)] * 2 for cell in cells for policy in POLICIES}
    found[str(cells[0]), "c"] = [run(delivered=10)] * 2

    lines = means_table(cells, found).splitlines()

    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        [f"| {people}", f"({policy})"] for people in ("stay", "roam") for policy in POLICIES
    ]
    assert lines[4] == "| stay | (c) | 75.0 | 75.0 | 5.0 | 1.3 |"
    assert lines[7] == "| roam | (c) | 50.0 | 50.0 | 10.0 | 2.0 |"


def test_insisting_is_put_beside_ours_and_the_common_way_far_away() -> None:
    cells = [Cell("stay", hops, loss, "light") for hops in (2, 3) for loss in (10, 30)]
    given = {"b": run(delivered=8, doubles=4), "c": run(delivered=5), "d": run(doubles=1)}
    found = {(str(cell), policy): [given[policy]] * 2 for cell in cells for policy in given}
    found[str(cells[-1]), "d"] = [run(delivered=10, doubles=3)] * 2

    lines = insist_table(cells, found).splitlines()

    assert lines[0].startswith("| hops | loss % | delivered % (b) | delivered % (c) |")
    assert lines[2:] == [
        "| 3 | 10 | 80.0 | 50.0 | 50.0 | 40.0 | 0.0 | 10.0 | 1.2 | 2.0 | 2.0 |",
        "| 3 | 30 | 80.0 | 50.0 | 100.0 | 40.0 | 0.0 | 30.0 | 1.2 | 2.0 | 1.0 |",
        "| 3 | all | 80.0 | 50.0 | 75.0 | 40.0 | 0.0 | 20.0 | 1.2 | 2.0 | 1.3 |",
    ]


def test_the_plot_shows_a_line_for_every_policy_air_people_and_figure() -> None:
    cells = load().cells
    same = figures([run()] * 2)
    numbers = {(str(cell), policy): same for cell in cells for policy in POLICIES}

    root = ET.fromstring(draw(cells, numbers))

    lines = [line for line in root.iter() if line.get("stroke-width") == "2.0"]
    assert len(lines) == 3 + 2 + 4 * 2 * 3 * 3 * 2, "the legend's, and those of 24 panels"


def test_the_page_is_not_written_from_a_part_of_the_cells() -> None:
    with pytest.raises(IncompleteError):
        write(load(), {(str(CELL), policy): [run()] for policy in POLICIES})


def test_the_page_wants_insisting_where_it_differs_and_nowhere_else() -> None:
    given = load()
    runs = {(str(cell), policy): given.seeds for cell in given.cells for policy in POLICIES}
    insisting = {(str(cell), "d"): given.seeds for cell in given.cells if cell.hops in (3, 4)}

    refuse_parts(given, {**runs, **insisting})
    with pytest.raises(IncompleteError, match=r"hops=3.*\(d\)"):
        refuse_parts(given, runs)
    last = str(given.cells[-1])
    with pytest.raises(IncompleteError, match=rf"not measured: {last} \(d\)$"):
        refuse_parts(given, {**runs, **insisting, (last, "d"): given.seeds - 1})
