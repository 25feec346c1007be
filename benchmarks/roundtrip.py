"""Measures the way from a text entering the radio's socket to the reply's packet leaving it."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Final

from benchmarks import counters, rows
from benchmarks.report import Figure, Part, figure, percentile
from benchmarks.world import World, busy_cores, running, wait_ready, world

ROUNDS: Final = 300
THREADS: Final = 20
COUNTED_ROUNDS: Final = 40
_WARM_UP: Final = 3
_SETTLE_S: Final = 0.5  #: for the writes that follow the last reply
#: Between a reply and the next question, drawn at random. Replaced files are freed about 50 ms
#: after the last commit, and a flush meanwhile waits for that: with shorter pauses p99 doubles.
_PAUSE_S: Final = (0.1, 0.2)


def measure(folder: Path, *, rounds: int = ROUNDS) -> Part:
    """Run all round-trip measurements in a folder."""
    prefilled = rows.LIVE_ROWS - min(rounds, rows.LIVE_ROWS - 2)
    spread = rows.LIVE_ROWS - 2
    fewer = max(2, rounds // 2)
    idle = _timed(folder / "one", rounds, threads=1, prefilled=prefilled)
    many = _timed(folder / "many", fewer, threads=THREADS, prefilled=spread)
    with busy_cores():
        loaded = _timed(folder / "busy", rounds, threads=1, prefilled=prefilled)
        loaded_many = _timed(folder / "busy-many", fewer, threads=THREADS, prefilled=spread)
    counted, notes = _counted(folder / "counted", min(rounds, COUNTED_ROUNDS))
    figures = (
        *_figures("one thread", idle, p50=15, p99=50),
        *_figures(f"{THREADS} threads in turn", many, p50=15, p99=50),
        *_figures("one thread, every core busy", loaded, p99=150),
        *_figures(f"{THREADS} threads, every core busy", loaded_many, p99=150),
        *counted,
    )
    return Part("roundtrip", "From question to reply", figures, (*_conditions(rounds), *notes))


def _conditions(rounds: int) -> tuple[str, ...]:
    first = rows.LIVE_ROWS - min(rounds, rows.LIVE_ROWS - 2)
    pauses = " to ".join(f"{pause_s * 1000:.0f}" for pause_s in _PAUSE_S)
    how = (
        f"{rounds} rounds in one thread, half as many in {THREADS}, one after the other, {pauses} "
        "ms apart, since a person asks no faster; from just before the question is written to "
        "the bridge's socket until the radio has read the reply's packet."
    )
    what = (
        "Bridge and agent are the real processes, prompt log on; the model server is a process of "
        "its own that answers at once; spacing and airtime are off."
    )
    size = (
        f"The one thread grows from {first} to {first + 2 * rounds} rows, so its median is at "
        f"the live limit; each of the {THREADS} threads starts at {rows.LIVE_ROWS - 2} rows."
    )
    return (how, what, size)


def _figures(
    what: str, times: Sequence[float], *, p99: float, p50: float | None = None
) -> tuple[Figure, ...]:
    return (
        figure(f"{what}, p50", percentile(times, 0.50), "ms", at_most=p50),
        figure(f"{what}, p99", percentile(times, 0.99), "ms", at_most=p99),
        figure(f"{what}, longest", max(times), "ms"),
    )


def _timed(folder: Path, rounds: int, *, threads: int, prefilled: int) -> list[float]:
    with world(folder, threads=threads, prefilled=prefilled) as made, running(made):
        wait_ready(made)
        _rounds(made, _WARM_UP, threads=threads)
        return _rounds(made, rounds, threads=threads)


def _rounds(made: World, rounds: int, *, threads: int) -> list[float]:
    """Ask and wait, in turn; return the milliseconds of each round."""
    pauses = random.Random(1)  # noqa: S311 (no secret)
    times = []
    for number in range(rounds):
        asked_at = made.ask(rows.FIRST_PEER + number % threads)
        times.append((made.wait_reply() - asked_at) * 1000)
        sleep(pauses.uniform(*_PAUSE_S))
    return times


def _counted(folder: Path, rounds: int) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Count flushes and bytes per answer in a run of its own, until nothing more is written."""
    log = folder.with_name("flushes.log")
    with world(folder, threads=1, prefilled=rows.LIVE_ROWS - rounds) as made:
        with running(made, counted=log):
            wait_ready(made)
            _rounds(made, _WARM_UP, threads=1)
            sleep(_SETTLE_S)
            start, device, written = made.now(), counters.device(folder), _written(made)
            _rounds(made, rounds, threads=1)
            sleep(_SETTLE_S)
            own_kb = (_written(made) - written) / rounds / 1000
            device_after, end = counters.device(folder), made.now()
        flushed = _flushed(log, start, end)
    figures = [
        figure("flushes per answer, both processes", sum(flushed.values()) / rounds, ""),
        figure("kilobytes per answer, both processes", own_kb, "kB"),
    ]
    if device and device_after:
        flushes = (device_after.flushes - device.flushes) / rounds
        kilobytes = (device_after.written_bytes - device.written_bytes) / rounds / 1000
        figures += [
            figure("device flushes per answer, whole machine", flushes, ""),
            figure("device kilobytes per answer, whole machine", kilobytes, "kB"),
        ]
    parts = ", ".join(f"{name} {count / rounds:.2f}" for name, count in flushed.most_common())
    note = (
        f"Flushes per answer by target, from {rounds} counted rounds with everything that follows "
        f"the reply (ACKs, states, status files): {parts}."
    )
    return tuple(figures), (note,)


def _written(made: World) -> int:
    return sum(counters.written_bytes(pid) for pid in made.pids)


def _flushed(log: Path, start: float, end: float) -> Counter[str]:
    """Count the flushes of a span of time by the role of what was flushed."""
    flushed: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        moment, _size, name = line.split(" ", 2)
        if start <= float(moment) <= end:
            flushed[kind(Path(name))] += 1
    return flushed


def kind(path: Path) -> str:
    """Name a flushed file by its role."""
    if path.suffix != ".tmp":
        return f"folder {path.name}" if path.name in ("dms", "prompts") else "other folder"
    if path.parent.name == "dms":
        return "thread file"
    name = path.name.removeprefix(".").rpartition(".tmp")[0].rpartition(".")[0]
    return "prompt page" if name.endswith(".md") else name
