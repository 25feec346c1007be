"""Measures durable commits beside SQLite on the same disk, both strictly in turn."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import counters, rows
from benchmarks.report import Figure, Part, figure, median, percentile
from meshllm.records import Message
from meshllm.store.table import Table

ROUNDS: Final = 200
BURST: Final = 100
_BLOCKS: Final = 5  #: of device counters; the least counts, since others use the disk too
_BLOCK_COMMITS: Final = 20
_COLUMNS: Final = ", ".join(Message.columns())
_INSERT: Final = f"INSERT INTO messages VALUES ({', '.join('?' * len(Message.columns()))})"  # noqa: S608 - no input
_UPDATE: Final = (
    "UPDATE messages SET send_status = ?, meta_json = ? WHERE sender_id = ? AND message_id = ?"
)

Action = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Milliseconds of the same work done by both, in turn."""

    ours: tuple[float, ...]
    sqlite: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of ours in medians of SQLite's."""
        return median(self.ours) / median(self.sqlite)


class Both:
    """A table of ours and one of SQLite with the same rows."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.rows = rows.conversation(count)
        self.table = Table(folder / f"{name}.csv", Message)
        self.table.append(self.rows)
        self.database = sqlite3.connect(folder / f"{name}.sqlite", isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.execute(f"CREATE TABLE messages ({_COLUMNS})")
        self.database.execute("CREATE UNIQUE INDEX by_key ON messages (sender_id, message_id)")
        self.insert(self.rows)

    def insert(self, new: Sequence[Message]) -> None:
        """Insert into SQLite in one transaction."""
        if len(new) == 1:
            self.database.execute(_INSERT, new[0].cells())
            return
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany(_INSERT, [row.cells() for row in new])
        self.database.execute("COMMIT")

    def change(self, row: Message) -> None:
        """Change the row's state in SQLite."""
        self.database.execute(_UPDATE, (row.send_status, row.meta_json, *row.key))

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def measure(folder: Path, *, rounds: int = ROUNDS) -> Part:
    """Run all commit measurements in a folder."""
    row = _measure_rows(folder, rounds)
    state = _measure_states(folder, rounds)
    burst = _measure_bursts(folder, max(2, rounds // 4))
    cost = _measure_cost(folder)
    figures = (
        *_pair_figures("one row appended", row, at_most=5),
        *_pair_figures("one state change", state, at_most=6),
        *_pair_figures(f"{BURST} rows in one commit", burst, at_most=3),
        *cost,
    )
    notes = _conditions(rounds, bursts=len(burst.ours))
    return Part("commit", "Durable commits beside SQLite", figures, notes)


def _conditions(rounds: int, *, bursts: int) -> tuple[str, ...]:
    first, last = _span(rounds)
    how = (
        f"{rounds} pairs in turn (CSV, SQLite, CSV, …), {bursts} for the burst. Rows have "
        f"{rows.mean_row_bytes():.0f} bytes on average."
    )
    size = (
        f"Appends run from {first} to {last} rows, so their median is at the live limit of "
        f"{rows.LIVE_ROWS}; the state change is that of the last of {rows.LIVE_ROWS} rows; "
        f"bursts start at {rows.LIVE_ROWS - BURST} rows."
    )
    sqlite = "SQLite: WAL, synchronous=FULL, unique index on sender and message id, kept open."
    device = (
        f"Device counters hold what the whole machine did, so the least of {_BLOCKS} blocks of "
        f"{_BLOCK_COMMITS} commits is shown."
    )
    return (how, size, sqlite, device)


def _span(rounds: int) -> tuple[int, int]:
    half = min(rounds, rows.LIVE_ROWS) // 2
    return rows.LIVE_ROWS - half, rows.LIVE_ROWS - half + rounds


def _pair_figures(what: str, pair: Pair, *, at_most: float) -> tuple[Figure, ...]:
    ours, theirs = median(pair.ours), median(pair.sqlite)
    shown = f"{pair.ratio:.2f} times ({ours:.2f} ms beside {theirs:.2f} ms)"
    tails = f"{percentile(pair.ours, 0.99):.2f} ms beside {percentile(pair.sqlite, 0.99):.2f} ms"
    return (
        Figure(f"{what}, median", shown, pair.ratio, at_most, f"≤ {at_most:g} times"),
        Figure(f"{what}, p99", tails),
    )


def _measure_rows(folder: Path, rounds: int) -> Pair:
    first, last = _span(rounds)
    both = Both(folder, "rows", first)
    new = rows.conversation(last)[first:]
    pair = _in_turn(new, lambda row: both.table.append([row]), lambda row: both.insert([row]))
    both.close()
    return pair


def _measure_states(folder: Path, rounds: int) -> Pair:
    both = Both(folder, "states", rows.LIVE_ROWS)
    last = both.rows[-1]
    states = [
        replace(last.with_meta(delivery=delivery), send_status=status)
        for _ in range(rounds // 2 + 1)
        for delivery, status in (("handed", "failed"), ("delivered", "sent"))
    ][:rounds]
    pair = _in_turn(states, lambda state: _update(both.table, state), both.change)
    both.close()
    return pair


def _update(table: Table[Message], state: Message) -> None:
    table.update({state.key: lambda _row: state})


def _measure_bursts(folder: Path, rounds: int) -> Pair:
    start = rows.LIVE_ROWS - BURST
    both = Both(folder, "bursts", start)
    new = rows.conversation(rows.LIVE_ROWS)[start:]
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours.append(_milliseconds(lambda: both.table.append(new)))
        theirs.append(_milliseconds(lambda: both.insert(new)))
        both.table.rewrite(lambda _data, now: now.rows[:start])
        both.database.execute("DELETE FROM messages WHERE rowid > ?", (start,))
    both.close()
    return Pair(tuple(ours), tuple(theirs))


def _in_turn(
    rows_in_turn: Sequence[Message],
    ours: Callable[[Message], None],
    theirs: Callable[[Message], None],
) -> Pair:
    times = [
        (_milliseconds(partial(ours, row)), _milliseconds(partial(theirs, row)))
        for row in rows_in_turn
    ]
    return Pair(tuple(a for a, _ in times), tuple(b for _, b in times))


def _milliseconds(action: Action) -> float:
    started = perf_counter()
    action()
    return (perf_counter() - started) * 1000


def _measure_cost(folder: Path) -> tuple[Figure, ...]:
    """Count flushes and bytes of one commit, ours and SQLite's."""
    both = Both(folder, "cost", rows.LIVE_ROWS)
    commits = _BLOCKS * _BLOCK_COMMITS
    new = iter(rows.conversation(rows.LIVE_ROWS + 2 * commits)[rows.LIVE_ROWS :])
    with counters.flush_calls() as calls:
        ours = _cost(folder, lambda: both.table.append([next(new)]))
    theirs = _cost(folder, lambda: both.insert([next(new)]))
    both.close()
    return (
        Figure(
            "flushes called per row (fsync, fdatasync)",
            f"{calls.count / commits:g}",
            calls.count / commits,
            2,
            "≤ 2",
        ),
        _device_figure("device flushes per row", ours.flushes, theirs.flushes),
        _device_figure("device kilobytes per row", ours.device_kb, theirs.device_kb, digits=0),
        figure("kilobytes written by our process per row", ours.process_kb, "kB"),
    )


@dataclass(frozen=True, slots=True)
class _Cost:
    process_kb: float
    flushes: float | None
    device_kb: float | None


def _cost(folder: Path, commit: Action) -> _Cost:
    written = counters.written_bytes()
    blocks: list[tuple[float, float]] = []
    for _ in range(_BLOCKS):
        before = counters.device(folder)
        for _ in range(_BLOCK_COMMITS):
            commit()
        after = counters.device(folder)
        if before and after:
            blocks.append(
                (after.flushes - before.flushes, after.written_bytes - before.written_bytes)
            )
    commits = _BLOCKS * _BLOCK_COMMITS
    process_kb = (counters.written_bytes() - written) / commits / 1000
    if not blocks:
        return _Cost(process_kb, None, None)
    flushes = min(block[0] for block in blocks) / _BLOCK_COMMITS
    return _Cost(process_kb, flushes, min(b[1] for b in blocks) / _BLOCK_COMMITS / 1000)


def _device_figure(
    what: str, ours: float | None, theirs: float | None, *, digits: int = 1
) -> Figure:
    if ours is None or theirs is None:
        return Figure(what, "not told by this file system")
    return Figure(what, f"{ours:.{digits}f} beside {theirs:.{digits}f}")
