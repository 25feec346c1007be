"""Mends damaged tables: the damaged original is kept byte for byte, the good rows go on living.

Decides nothing about when to do so. A row recovered from a damaged file is never sent: text inside
a message can look like a queued row once a quote is lost, so queued rows stay in the original only.
"""

import hashlib
import os
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from meshllm.clock import Clock
from meshllm.errors import StoreWriteError
from meshllm.records import Message, Record
from meshllm.store import atomic, regular
from meshllm.store.codec import Damage
from meshllm.store.table import Snapshot, Table

R = TypeVar("R", bound=Record)

MAX_LOGGED_IDS: Final = 50  #: message ids named in one event; the original holds them all

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Repair(Generic[R]):
    """What a repair did."""

    original: Path
    damage: tuple[Damage, ...]
    rows_kept: int
    dropped: tuple[R, ...]


def repair(
    table: Table[R],
    quarantine_dir: Path,
    clock: Clock,
    *,
    settle: Callable[[R], R | None] | None = None,
    salvage: Callable[[bytes, Snapshot[R]], Snapshot[R]] | None = None,
) -> Repair[R] | None:
    """Save a damaged table in `quarantine_dir` and leave its good rows; None when it is sound.

    What is no file at all is moved there instead (see `displace`).

    Works under the table's lock. The original is durable before the table is replaced, and its
    name holds its hash: after a crash between the two, the next repair finds it there. `settle`
    may change a row that is kept (None: leave it), in the same commit; `salvage` may find more
    rows in the damaged bytes. Raises LockTimeoutError and StoreWriteError, the table being as it
    was.
    """
    displace(table.path, quarantine_dir, clock, modes=table.modes)
    done: list[Repair[R]] = []

    def decide(data: bytes, snapshot: Snapshot[R]) -> Sequence[R] | None:
        if not snapshot.damage:
            return None
        original = _save(data, table, quarantine_dir, clock)
        snapshot = salvage(data, snapshot) if salvage else snapshot
        kept = tuple(
            (settle(row) if settle else None) or row for row in snapshot.rows if not _is_queued(row)
        )
        dropped = tuple(row for row in snapshot.rows if _is_queued(row))
        done.append(Repair(original, snapshot.damage, len(kept), dropped))
        return kept

    table.rewrite(decide)
    if not done:
        return None
    _report(table.path, done[0])
    return done[0]


def displace(path: Path, quarantine_dir: Path, clock: Clock, *, modes: atomic.Modes) -> Path | None:
    """Move what stands in a table's place and is no file to `quarantine_dir`; None for a file.

    A link is moved, not what it leads to. Raises StoreWriteError, everything being as it was.
    """
    kind = regular.kind_of(path)
    if not kind:
        return None
    atomic.make_folders(quarantine_dir, modes=modes)
    moment = clock.utc().strftime("%Y%m%dT%H%M%SZ")
    target = quarantine_dir / f"{path.stem}.{moment}.{secrets.token_hex(3)}.{kind}"
    try:
        path.rename(target)
    except OSError as error:
        raise StoreWriteError(f"{path}: cannot be moved: {error.strerror or error}") from error
    log.warning(
        "file_displaced",
        file=os.fspath(path),
        kind=kind,
        moved_to=os.fspath(target),
        consequence="a new file is begun",
    )
    return target


def _is_queued(row: Record) -> bool:
    return isinstance(row, Message) and row.direction == "queued"


def _save(data: bytes, table: Table[R], quarantine_dir: Path, clock: Clock) -> Path:
    digest = hashlib.sha256(data).hexdigest()[:6]
    atomic.make_folders(quarantine_dir, modes=table.modes)
    for saved in sorted(quarantine_dir.glob(f"*.{digest}.csv")):
        if saved.name.startswith(f"{table.path.stem}.") and _holds(saved, data):
            return saved
    moment = clock.utc().strftime("%Y%m%dT%H%M%SZ")
    target = quarantine_dir / f"{table.path.stem}.{moment}.{digest}.csv"
    atomic.replace(target, [data], modes=table.modes)
    return target


def _holds(saved: Path, data: bytes) -> bool:
    try:
        return saved.read_bytes() == data
    except OSError:
        return False  # then a new copy is made


def _report(path: Path, outcome: Repair[R]) -> None:
    reasons = Counter(damage.reason for damage in outcome.damage)
    ids = [row.message_id for row in outcome.dropped if isinstance(row, Message)]
    log.warning(
        "rows_quarantined",
        file=os.fspath(path),
        original=os.fspath(outcome.original),
        reasons=dict(reasons),
        damaged_places=len(outcome.damage),
        rows_kept=outcome.rows_kept,
        queued_rows_dropped=len(outcome.dropped),
        message_ids=ids[:MAX_LOGGED_IDS],
    )
