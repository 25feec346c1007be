"""Measures how long a heard text can die with the process: from the callback to the flushed row."""

import random
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Final

from benchmarks import received, rows
from benchmarks.report import Figure, Part, figure, percentile
from benchmarks.world import BRIDGE, BenchmarkError, busy_cores, running, wait_ready, world

ROUNDS: Final = 200
THREADS: Final = 20
_PAUSE_S: Final = (0.1, 0.2)  #: between two texts, drawn at random, as in roundtrip
_SETTLE_S: Final = 0.3  #: for the last row


def measure(folder: Path, *, rounds: int = ROUNDS) -> Part:
    """Run the measurement on an idle and on a busy machine."""
    idle = _measured(folder / "window", rounds)
    with busy_cores():
        busy = _measured(folder / "window-busy", max(2, rounds // 2))
    figures = (*_figures("", idle, p99=20), *_figures(", every core busy", busy))
    how = (
        f"{rounds} texts, half as many on the busy machine, in {THREADS} threads of "
        f"{rows.LIVE_ROWS - 2} rows, heard by the real bridge; nobody answers, so that the first "
        "flush after a callback is that of its row. The callback is the radio library's; the "
        "write is the radio's, into the socket; both end when the flush of the thread's folder "
        "returns. A kill costs the text until the rename, a power cut until that flush."
    )
    return Part("window", "Until a heard text is safe", figures, (how,))


def _figures(
    where: str, spans: tuple[list[float], list[float]], *, p99: float | None = None
) -> tuple[Figure, ...]:
    callback, write = spans
    return (
        figure(f"callback to flushed row, p50{where}", percentile(callback, 0.5), "ms"),
        figure(
            f"callback to flushed row, p99{where}", percentile(callback, 0.99), "ms", at_most=p99
        ),
        figure(f"callback to flushed row, longest{where}", max(callback), "ms"),
        figure(f"radio's write to flushed row, p50{where}", percentile(write, 0.5), "ms"),
        figure(f"radio's write to flushed row, p99{where}", percentile(write, 0.99), "ms"),
    )


def _measured(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds from callback and from the radio's write to the flushed row."""
    log = folder.with_name(f"{folder.name}.log")
    pauses = random.Random(1)  # noqa: S311 (no secret)
    written = []
    with (
        world(folder, threads=THREADS, prefilled=rows.LIVE_ROWS - 2) as made,
        running(made, scripts=[BRIDGE], counted=log, counter="received.py"),
    ):
        wait_ready(made)
        for number in range(rounds):
            written.append(made.ask(rows.FIRST_PEER + number % THREADS))
            sleep(pauses.uniform(*_PAUSE_S))
        sleep(_SETTLE_S)
    return _spans(log, written)


def _spans(log: Path, written: Sequence[float]) -> tuple[list[float], list[float]]:
    """Match each text with its callback and with the flush that followed first.

    Rounds do not overlap, and the first thing after a callback is the row of that text.
    """
    notes = sorted(_noted(line) for line in log.read_text().splitlines())
    heard = [moment for moment, what in notes if what == received.RECEIVED]
    flushed = [moment for moment, what in notes if Path(what).name == "dms"]
    if len(heard) != len(written):
        raise BenchmarkError(f"{len(written)} texts, {len(heard)} callbacks")
    safe = [flushed[bisect_left(flushed, moment)] for moment in heard]
    return (
        [(end - start) * 1000 for start, end in zip(heard, safe, strict=True)],
        [(end - start) * 1000 for start, end in zip(written, safe, strict=True)],
    )


def _noted(line: str) -> tuple[float, str]:
    moment, _, what = line.partition(" ")
    return float(moment), what
