"""Measures what one answered DM costs: frames on the air, and what both processes write.

The real bridge and agent on a simulated mesh that takes its time: `python -m benchmarks cost`.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Final

from benchmarks import counters, rows
from benchmarks.delivery_page import PAGE
from benchmarks.report import replace_block
from benchmarks.roundtrip import kind
from benchmarks.world import (
    AGENT,
    BRIDGE,
    ROOT,
    BenchmarkError,
    World,
    model_server,
    start,
    stop,
    wait_ready,
)
from meshllm.clock import TIME_SCALE_VARIABLE, SystemClock
from meshllm.sim.air import OnAir
from meshllm.sim.mesh import SimMesh
from meshllm.sim.packets import Port
from meshllm.sim.people import Addressee, Person

ROUNDS: Final = 4
SCALE: Final = 5.0  #: durations run so much faster; what is counted does not depend on it
QUESTION: Final = "how long must water boil?"
_RELAY: Final = 0x51E0CC11
_REPLY_LIMIT_S: Final = 60.0
_QUIET_S: Final = 12.0  #: scaled seconds without a frame: the ACKs and their repeats are over
_STATUS: Final = (
    "radio.json",
    "agent.json",
    "latest.csv",
    "nodes.csv",
)  #: by the clock, not by text
_ORDER: Final = ("question", "its ACK", "ACK of that", "answer", "its ACK ", "ACK of that ")


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked for: a reply of so many bytes, over a relay or not, into so many rows."""

    reply_bytes: int
    relays: int
    live_rows: int = 0

    @property
    def name(self) -> str:
        """Say it in words."""
        way = "over one relay" if self.relays else "to a neighbour"
        full = f", thread of {self.live_rows} rows" if self.live_rows else ""
        return f"{self.reply_bytes} bytes {way}{full}"


CASES: Final = (
    Case(60, 0),
    Case(200, 0),
    Case(60, 1),
    Case(200, 1),
    Case(60, 0, live_rows=rows.LIVE_ROWS - 2 * ROUNDS),
)


@dataclass(slots=True)
class Files:
    """What one process wrote, for all rounds together."""

    commits: int = 0
    flushes: int = 0
    content_bytes: int = 0
    kernel_bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a case came to, for all rounds together."""

    case: Case
    rounds: int
    frames: tuple[tuple[str, OnAir], ...]
    files: dict[str, Files]


def main(arguments: Sequence[str]) -> int:
    """Measure, print, perhaps write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="answers per case")
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many")
    parser.add_argument("--scale", type=float, default=SCALE, help="how much faster time runs")
    parser.add_argument("--folder", type=Path, default=ROOT / "data", help="disk to write to")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    options = parser.parse_args(arguments)
    try:
        costs = [_measure(case, options) for case in CASES[: options.cases]]
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    blocks = {"cost-air": air_table(costs), "cost-files": files_table(costs)}
    print("\n".join(blocks.values()))
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        for name, block in blocks.items():
            page = replace_block(page, name, block)
        PAGE.write_text(page, encoding="utf-8")
    return 0


def _measure(case: Case, options: argparse.Namespace) -> Cost:
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=options.folder))
    try:
        with _world(folder / "world", case, options.scale) as (made, mesh, person):
            found = _rounds(made, mesh, person, case, options.rounds)
        return _count_files(folder / "world", found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _world(folder: Path, case: Case, scale: float) -> Iterator[tuple[World, SimMesh, Person]]:
    answer = "Boil it. ".ljust(case.reply_bytes - 1, "x") + "."
    clock = SystemClock(scale)
    with ExitStack() as stack:
        url = stack.enter_context(model_server(answer))
        mesh = stack.enter_context(SimMesh(seed=1, clock=clock, everyone_hears=False))
        radio = mesh.add_radio("Base Camp", num=rows.OWN_NUMBER)
        person = mesh.add_person("Ada Example", num=rows.FIRST_PEER)
        way: list[Addressee] = [
            radio,
            *(mesh.add_person("Relay", num=_RELAY) for _ in range(case.relays)),
            person,
        ]
        for one, other in itertools.pairwise(way):
            mesh.link(one, other)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("{}\n")
        settings = {TIME_SCALE_VARIABLE: f"{scale:g}", "SEND_SPACING_SECONDS": "2.5"}
        made = World(folder, radio, clock, url, settings=settings)
        rows.write_threads(made.tree, 1 if case.live_rows else 0, case.live_rows)
        for script in (BRIDGE, AGENT):
            wrapper = [str(ROOT / "benchmarks/counted.py"), str(_log(folder, script))]
            process = start(made, script, wrapper)
            stack.callback(stop, process)
            made.processes[script] = process
        wait_ready(made)
        yield made, mesh, person


def _log(folder: Path, script: str) -> Path:
    return folder / f"{script}.flushes"


@dataclass(frozen=True, slots=True)
class _Found:
    cost: Cost
    spans: tuple[tuple[float, float], ...]


def _rounds(made: World, mesh: SimMesh, person: Person, case: Case, rounds: int) -> _Found:
    _quiet(made, mesh)
    first = len(mesh.air.log.items())
    before = {script: counters.written_bytes(p.pid) for script, p in made.processes.items()}
    spans = []
    for number in range(rounds):
        started = made.now() / made.clock.scale
        person.say(QUESTION, to=made.radio)
        heard = person.wait_for("Boil it", _REPLY_LIMIT_S, skip=number)
        if heard is None:
            raise BenchmarkError(f"no reply within {_REPLY_LIMIT_S:g} s\n{made.logs()}")
        if len(heard.payload) != case.reply_bytes:
            raise BenchmarkError(f"a reply of {len(heard.payload)} bytes: {heard.text}")
        _quiet(made, mesh)
        spans.append((started, made.now() / made.clock.scale))
    files = {
        script: Files(kernel_bytes=counters.written_bytes(p.pid) - before[script])
        for script, p in made.processes.items()
    }
    log = mesh.air.log.items()[first:]
    return _Found(Cost(case, rounds, tuple(named(log)), files), tuple(spans))


def _quiet(made: World, mesh: SimMesh) -> None:
    """Wait until nothing has been on the air for a while."""
    count, since = -1, made.now()
    while made.now() - since < _QUIET_S:
        sleep(0.05)
        if len(mesh.air.log.items()) != count:
            count, since = len(mesh.air.log.items()), made.now()


def named(log: Sequence[OnAir]) -> Iterator[tuple[str, OnAir]]:
    """Name every frame by what it is for; those of neither question nor answer are left out."""
    names: dict[int, str] = {}
    follow = dict(zip(_ORDER, (*_ORDER[1:3], "", *_ORDER[4:], ""), strict=True))
    for item in log:
        packet = item.packet
        if packet.id not in names:
            if packet.port == Port.TEXT:
                names[packet.id] = _ORDER[3] if packet.sender == rows.OWN_NUMBER else _ORDER[0]
            elif packet.port == Port.ROUTING:
                names[packet.id] = follow.get(names.get(packet.request_id, ""), "")
        if names.get(packet.id):
            yield names[packet.id], item


def _count_files(folder: Path, found: _Found) -> Cost:
    for script, files in found.cost.files.items():
        for line in _log(folder, script).read_text().splitlines():
            moment, size, name = line.split(" ", 2)
            if any(begin <= float(moment) <= end for begin, end in found.spans):
                _count(files, Path(name), int(size))
    return found.cost


def _count(files: Files, path: Path, size: int) -> None:
    name = kind(path)
    if name in _STATUS:
        files.flushes -= 1  # with that of its folder, which carries no file's name
        return
    files.flushes += 1
    if path.suffix == ".tmp":
        files.commits += 1
        files.content_bytes += size
        files.kinds[name] += 1


def air_table(costs: Sequence[Cost]) -> str:
    """Render the frames by case and kind, per answer."""
    lines = [
        "| answer | frames of | frames | bytes | airtime s |",
        "|---|---|---|---|---|",
    ]
    for cost in costs:
        if cost.case.live_rows:
            continue
        for name in (*_ORDER, "all"):
            chosen = [item for kind_, item in cost.frames if name in (kind_, "all")]
            if chosen:
                count = len(chosen) / cost.rounds
                size = sum(item.size_bytes for item in chosen) / cost.rounds
                airtime = sum(item.airtime_s for item in chosen) / cost.rounds
                shown = f"{count:.1f} | {size:.0f} | {airtime:.2f}"
                lines.append(f"| {cost.case.name} | {_label(name)} | {shown} |")
    return "\n".join(lines) + "\n"


def _label(name: str) -> str:
    owner = "answer" if name.endswith(" ") else "question"
    return {"its ACK": f"ACK of the {owner}", "ACK of that": f"ACK of the {owner}'s ACK"}.get(
        name.strip(), name
    )


def files_table(costs: Sequence[Cost]) -> str:
    """Render what was written by case and process, per answer."""
    lines = [
        "| answer | process | commits | fsyncs | kB in the files | kB by the kernel | files |",
        "|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        for script, files in cost.files.items():
            kinds = ", ".join(
                f"{name} {count / cost.rounds:.1f}" for name, count in files.kinds.most_common()
            )
            lines.append(
                f"| {cost.case.name} | {script} | {files.commits / cost.rounds:.1f} | "
                f"{files.flushes / cost.rounds:.1f} | "
                f"{files.content_bytes / cost.rounds / 1000:.1f} | "
                f"{files.kernel_bytes / cost.rounds / 1000:.0f} | {kinds} |"
            )
    return "\n".join(lines) + "\n"
