"""Measures delivery in virtual time: `python -m benchmarks delivery [OPTIONS]`.

Every cell of the scenario under (a) one try, (b) 20 s times 3 with new ids, (c) ours; the cells far
away also under (d) ours with repeat_far_under_new_id.
"""

import argparse
import ast
import hashlib
import itertools
import json
import logging
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import structlog

from benchmarks import delivery_page, delivery_trace
from benchmarks.delivery_figures import HEADING, cell_line
from benchmarks.delivery_ours import FAR_HOPS, outbox_settings
from benchmarks.delivery_page import IncompleteError
from benchmarks.delivery_run import EVERY_POLICY, INSISTING, RunResult, run
from benchmarks.delivery_scenario import (
    Cell,
    Scenario,
    ScenarioError,
    load,
    select,
)

ROOT: Final = Path(__file__).resolve().parents[1]
#: What a kept result depends on: with any change here it is computed anew.
_SOURCES: Final = (
    *(
        f"meshllm/sim/{name}.py"
        for name in ("air", "engine", "nexthop", "outcome", "packets", "phone", "station", "wire")
    ),
    "meshllm/airtime.py",
    "benchmarks/scenarios/delivery.yaml",
    "benchmarks/delivery_client.py",
    "benchmarks/delivery_mesh.py",
    "benchmarks/delivery_run.py",
    "benchmarks/delivery_scenario.py",
)
#: What ours depends on besides, with its settings; (a) and (b) are not touched by these.
_OUR_SOURCES: Final = (
    "meshllm/bridge",
    "meshllm/store",
    "meshllm/records.py",
    "meshllm/clock.py",
    "benchmarks/delivery_ours.py",
)

Task = tuple[Cell, str, int]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks delivery", description=__doc__)
    parser.add_argument("--cells", default="all", help='all, small, or "hops=3,loss=50;air=busy"')
    parser.add_argument("--policy", help="letters of: abcd (default: all, for --trace c)")
    parser.add_argument("--seeds", type=int, help="runs of each cell and policy (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--resume", type=Path, help="keep results in this file and go on from it")
    parser.add_argument("--trace", type=int, metavar="ANSWER", help="show one answer's events")
    parser.add_argument("--seed", type=int, default=1, help="the run that --trace looks at")
    parser.add_argument("--write", action="store_true", help="put table and plot into the page")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, perhaps write."""
    options = parse(arguments)
    try:
        with quiet():
            _measure(options)
    except (ScenarioError, IncompleteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(options: argparse.Namespace) -> None:
    scenario = load()
    cells = select(scenario, options.cells)
    if options.trace is not None:
        (policy,) = _chosen(options.policy or "c")[-1:]
        delivery_trace.show(scenario, cells[0], policy, options.seed, options.trace)
        return
    policies = _chosen(options.policy or "".join(EVERY_POLICY))
    seeds = range(1, 1 + (options.seeds or scenario.seeds))
    tasks = list(planned(cells, policies, seeds))
    if options.write:
        delivery_page.refuse_parts(scenario, Counter((str(cell), p) for cell, p, _ in tasks))
    found: dict[tuple[str, str], list[RunResult]] = {}
    print(HEADING)
    for result in results(scenario, tasks, jobs=options.jobs, kept=options.resume):
        runs = found.setdefault((result.cell, result.policy), [])
        runs.append(result)
        if len(runs) == len(seeds):
            print(cell_line(runs), flush=True)
    if options.write:
        delivery_page.write(scenario, found)


def _chosen(letters: str) -> list[str]:
    if unknown := set(letters) - set(EVERY_POLICY):
        raise ScenarioError(f"no such policy: {', '.join(sorted(unknown))}")
    return [policy for policy in EVERY_POLICY if policy in letters]


def planned(cells: Sequence[Cell], policies: Sequence[str], seeds: Sequence[int]) -> Iterator[Task]:
    """List the runs: (d) only where it can differ from (c)."""
    for cell, policy, seed in itertools.product(cells, policies, seeds):
        if policy != INSISTING or cell.hops >= FAR_HOPS:
            yield cell, policy, seed


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing meanwhile: a run settles thousands of rows."""
    before = structlog.get_config()
    _silence()
    try:
        yield
    finally:
        structlog.configure(**before)


def _silence() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def results(
    scenario: Scenario, tasks: Sequence[Task], *, jobs: int = 1, kept: Path | None = None
) -> Iterator[RunResult]:
    """Run the tasks, in order; results in the file `kept` are not computed again."""
    marks = {policy: _mark(policy) for policy in EVERY_POLICY}
    known = _read(kept, marks)
    todo = [task for task in tasks if _key(task) not in known]
    fresh = _compute(scenario, todo, jobs)
    for task in tasks:
        result = known.get(_key(task))
        if result is None:
            result = next(fresh)
            _keep(kept, marks[result.policy], result)
        yield result


def _key(task: Task) -> tuple[str, str, int]:
    return str(task[0]), task[1], task[2]


def _compute(scenario: Scenario, tasks: Sequence[Task], jobs: int) -> Iterator[RunResult]:
    if jobs == 1:
        yield from (run(scenario, *task) for task in tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_silence) as pool:
        yield from pool.imap(_job, tasks)


def _job(task: Task) -> RunResult:
    return run(load(), *task)


def _mark(policy: str) -> str:
    """Name the state of everything that the results of a policy depend on."""
    digest = hashlib.sha256()
    is_ours = policy in ("c", INSISTING)
    if is_ours:
        digest.update(repr(outbox_settings(insists=policy == INSISTING)).encode())
    for source in (*_SOURCES, *(_OUR_SOURCES if is_ours else ())):
        path = ROOT / source
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(_content(file).encode())
    return digest.hexdigest()[:16]


@cache
def _content(file: Path) -> str:
    """Return what a file said at first: of code without comments and layout."""
    text = file.read_text(encoding="utf-8")
    return ast.dump(ast.parse(text)) if file.suffix == ".py" else text


def _read(kept: Path | None, marks: Mapping[str, str]) -> dict[tuple[str, str, int], RunResult]:
    if kept is None or not kept.exists():
        return {}
    known = {}
    for line in kept.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["mark"] == marks[entry["run"]["policy"]]:
            result = RunResult.from_json(entry["run"])
            known[result.cell, result.policy, result.seed] = result
    return known


def _keep(kept: Path | None, mark: str, result: RunResult) -> None:
    if kept is not None:
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"mark": mark, "run": result.as_json()}) + "\n")
