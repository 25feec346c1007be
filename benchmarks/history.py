"""Measures commits with little and with a lot of history behind them, and what rotation costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from os import sync
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import rows
from benchmarks.report import Figure, Part, figure, median, percentile
from meshllm.bridge import upkeep
from meshllm.clock import SystemClock
from meshllm.layout import Layout, NodeTree, node_id
from meshllm.records import Message
from meshllm.store import codec, rotate
from meshllm.store.table import Table

ROUNDS: Final = 300
MESSAGES: Final = 1_000_000
FEW: Final = 1_000
ROTATIONS: Final = 15
MOST_RATIO: Final = 1.2
_ARCHIVED_MONTHS: Final = 3  #: of each thread, where the history is spread over many
_PART_ROWS: Final = 4_000  #: about what fills a part of an archive file
_MONTH_ROWS: Final = 3 * _PART_ROWS  #: a busy month, where one thread has it all

Action = Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Tree:
    """A tree with a history; commits go to the live file of its first thread."""

    tree: NodeTree
    messages: int
    threads: int
    files: int

    def table(self) -> Table[Message]:
        """Open the live file anew, with as many rows as in every other tree."""
        path = self.tree.dm_thread(node_id(rows.FIRST_PEER))
        path.unlink()
        rows.write_file(path, codec.header(Message) + codec.encode(_live_rows()))
        return Table(path, Message)


def measure(folder: Path, *, rounds: int = ROUNDS, messages: int = MESSAGES) -> Part:
    """Run all measurements in a folder."""
    few = _spread(folder / "few", FEW, archived=0)
    spread = _spread(folder / "spread", messages, archived=_ARCHIVED_MONTHS * rows.LIVE_ROWS)
    single = _single(folder / "single", messages)
    sync()  # what was just built must not be written out during the measurement
    figures: list[Figure] = []
    for name, tree in (("many threads", spread), ("one thread", single)):
        for what, act in (("one row appended", _appender), ("one state change", _changer)):
            figures += _pair(f"{what}, {name}", rounds, act(few.table()), act(tree.table()))
    return Part(
        "history",
        "Commits with a long history",
        (*figures, *_rotations(folder, rows.LIVE_ROWS), *_rotations(folder, _slack())),
        _conditions(rounds, few, spread, single),
    )


def _conditions(rounds: int, few: _Tree, spread: _Tree, single: _Tree) -> tuple[str, ...]:
    trees = (
        f"{rounds} pairs in turn, {few.messages:,} messages beside {spread.messages:,} in "
        f"{spread.threads} threads and {spread.files:,} files, and beside {single.messages:,} in "
        f"one thread and {single.files:,} files, all as rotation leaves them. The order changes "
        "with every pair."
    )
    size = f"Commits go to a live file of {rows.LIVE_ROWS} rows and more; both grow alike."
    rotation = (
        f"Rotation: the median of {ROTATIONS}, into an archive file half as large as one becomes; "
        "reading the thread, choosing the rows and both commits included."
    )
    return (trees, size, rotation)


# -- building ------------------------------------------------------------------------------------


def _spread(root: Path, messages: int, *, archived: int) -> _Tree:
    """Build threads of full live files, each with some months of archive."""
    tree = _layout(root)
    threads = max(1, messages // (rows.LIVE_ROWS + archived))
    rows.write_threads(tree, threads, rows.LIVE_ROWS)
    files = threads
    content = _content(rows.LIVE_ROWS)
    for number in range(threads):
        shelf = tree.shelf(tree.dm_thread(node_id(rows.FIRST_PEER + number)))
        for month in range(archived // rows.LIVE_ROWS):
            _write_part(shelf.part(_month(month), 1), content, month)
            files += 1
    return _Tree(tree, threads * (rows.LIVE_ROWS + archived), threads, files)


def _single(root: Path, messages: int) -> _Tree:
    """Build one thread with everything in the parts of its months."""
    tree = _layout(root)
    rows.write_threads(tree, 1, rows.LIVE_ROWS)
    shelf = tree.shelf(tree.dm_thread(node_id(rows.FIRST_PEER)))
    content = _content(_PART_ROWS)
    archived = -(-(messages - rows.LIVE_ROWS) // _PART_ROWS)
    for number in range(archived):
        month, part = divmod(number, _MONTH_ROWS // _PART_ROWS)
        _write_part(shelf.part(_month(month), part + 1), content, month)
    return _Tree(tree, rows.LIVE_ROWS + archived * _PART_ROWS, 1, 1 + archived)


def _layout(root: Path) -> NodeTree:
    return Layout(root, root / "nodes", root / "prompts").tree(node_id(rows.OWN_NUMBER))


def _content(count: int) -> bytes:
    return codec.header(Message) + codec.encode(rows.conversation(count))


def _month(number: int) -> str:
    return f"{2000 + number // 12}-{number % 12 + 1:02}"


def _write_part(path: Path, content: bytes, month: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_file(path, content.replace(b"2025-01-", f"{_month(month)}-".encode()))
    path.with_name(f"{path.name}.lock").touch()


def _live_rows() -> list[Message]:
    """Make a full live file whose last row waits to be sent."""
    *head, last = rows.conversation(rows.LIVE_ROWS)
    return [*head, replace(last, direction="queued", send_status="")]


# -- commits -------------------------------------------------------------------------------------


def _appender(table: Table[Message]) -> Callable[[int], object]:
    inbound = rows.conversation(1)[0]

    def append(number: int) -> None:
        table.append([replace(inbound, message_id=str(number + 1))])

    return append


def _changer(table: Table[Message]) -> Callable[[int], object]:
    key = _live_rows()[-1].key

    def change(number: int) -> None:
        status, delivery = (("failed", "handed"), ("sent", "delivered"))[number % 2]
        done = table.update(
            {key: lambda row: replace(row.with_meta(delivery=delivery), send_status=status)}
        )
        assert done

    return change


def _pair(
    what: str, rounds: int, few: Callable[[int], object], many: Callable[[int], object]
) -> tuple[Figure, Figure]:
    times: dict[str, list[float]] = {"few": [], "many": []}
    for number in range(rounds):
        turns = [("few", few), ("many", many)]
        for name, act in turns if number % 2 else reversed(turns):
            times[name].append(_milliseconds(partial(act, number)))
    few_ms, many_ms = median(times["few"]), median(times["many"])
    ratio = many_ms / few_ms
    shown = f"{ratio:.2f} times ({many_ms:.2f} ms beside {few_ms:.2f} ms)"
    tails = (
        f"{percentile(times['many'], 0.99):.2f} ms beside {percentile(times['few'], 0.99):.2f} ms"
    )
    return (
        Figure(f"{what}, median", shown, ratio, MOST_RATIO, f"≤ {MOST_RATIO:g} times"),
        Figure(f"{what}, p99", tails),
    )


# -- rotation ------------------------------------------------------------------------------------


def _slack() -> int:
    return upkeep.UpkeepSettings(rows.LIVE_ROWS).most_rows - rows.LIVE_ROWS


def _rotations(folder: Path, batch: int) -> tuple[Figure, ...]:
    tree = _layout(folder / "rotation")
    tree.dms.mkdir(parents=True, exist_ok=True)
    path = tree.dm_thread(node_id(rows.FIRST_PEER))
    live = rows.conversation(rows.LIVE_ROWS + batch)
    held = [_earlier(row) for row in rows.conversation(_PART_ROWS // 2)]
    times = []
    for _ in range(ROTATIONS):
        for old in (path, tree.shelf(path).part("2025-01", 1)):
            old.unlink(missing_ok=True)
            old.parent.mkdir(parents=True, exist_ok=True)
        rows.write_file(path, codec.header(Message) + codec.encode(live))
        archived = codec.header(Message) + codec.encode(held)
        rows.write_file(tree.shelf(path).part("2025-01", 1), archived)
        times.append(_milliseconds(partial(_rotate, tree, path, batch)))
    total = median(times)
    return (
        figure(f"rotation of {batch} rows, median", total, "ms"),
        figure(f"rotation of {batch} rows, per row", total / batch, "ms"),
    )


def _earlier(row: Message) -> Message:
    return replace(row, message_id=str(int(row.message_id) - 500_000_000))


def _rotate(tree: NodeTree, path: Path, batch: int) -> None:
    table = Table(path, Message)
    now = table.read().rows
    ages = upkeep.Now.first(SystemClock()).ages(now)
    least = timedelta(days=2).total_seconds()
    units = upkeep.movable(now, ages, live_rows=rows.LIVE_ROWS, min_age_s=least)
    done = rotate.rotate(table, units, tree.shelf(path), upkeep.month)
    assert done.moved >= batch - 1, "a question at the edge stays with its reply"


def _milliseconds(action: Action) -> float:
    started = perf_counter()
    action()
    return (perf_counter() - started) * 1000
