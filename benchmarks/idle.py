"""Measures both processes with many threads: how soon they are ready, what idling costs."""

from pathlib import Path
from time import sleep
from typing import Final

from benchmarks import counters, rows
from benchmarks.report import Part, figure
from benchmarks.world import AGENT, BRIDGE, World, running, wait_ready, world

THREADS: Final = 500
WINDOW_S: Final = 30.0
_SETTLE_S: Final = 5.0  #: for the first look through all threads


def measure(folder: Path, *, threads: int = THREADS, window_s: float = WINDOW_S) -> Part:
    """Run the idle measurements in a folder."""
    with world(folder / "idle", threads=threads, prefilled=rows.LIVE_ROWS) as made:
        started = made.now()
        with running(made):
            ready_s = wait_ready(made) - started
            made.ask(rows.FIRST_PEER)
            answered_s = made.wait_reply() - started
            sleep(min(_SETTLE_S, window_s))
            first_s = sum(map(counters.processor_s, made.pids))
            shares = _shares(made, window_s)
            both = counters.memory(*made.pids)
            each = {script: counters.memory(p.pid) for script, p in made.processes.items()}
    figures = (
        figure("ready: link up and agent looking, after both starts", ready_s, "s", at_most=1),
        figure("first DM answered, after both starts", answered_s, "s"),
        figure("processor time of both until settled", first_s, "s"),
        figure("idle, both, share of a core", sum(shares.values()), "%", at_most=1),
        figure("idle, bridge", shares[BRIDGE], "%"),
        figure("idle, agent", shares[AGENT], "%"),
        figure("memory, both, resident", both.resident_mb, "MB", at_most=150),
        figure("memory, both, shared pages once", both.proportional_mb, "MB"),
        figure("memory, bridge, resident", each[BRIDGE].resident_mb, "MB"),
        figure("memory, agent, resident", each[AGENT].resident_mb, "MB"),
    )
    note = (
        f"{threads} DM threads of {rows.LIVE_ROWS} rows, in the disk cache; both processes "
        f"started together; the DM is sent when both are ready; idle over {window_s:g} s."
    )
    return Part("idle", "Start and idle", figures, (note,))


def _shares(made: World, window_s: float) -> dict[str, float]:
    """Percent of a core that each process uses while nothing happens."""
    before = {script: counters.processor_s(p.pid) for script, p in made.processes.items()}
    started = made.now()
    sleep(window_s)
    elapsed = made.now() - started
    return {
        script: (counters.processor_s(process.pid) - before[script]) / elapsed * 100
        for script, process in made.processes.items()
    }
