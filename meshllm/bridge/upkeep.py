"""Keeps the live files of one tree short: says which rows may go, and when. Moves none itself.

A row may go when it is old by every clock there is, final, and beyond the newest rows that stay;
a question goes together with whatever answers it. In doubt a row stays. `store.rotate` moves.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from meshllm.bridge import life
from meshllm.clock import Clock, age_s, boot_at, boot_id, parse_utc, wall_age_s
from meshllm.errors import TransientError
from meshllm.layout import UNDATED, NodeTree
from meshllm.records import Message, Record, Sighting
from meshllm.store import regular, rotate
from meshllm.store.atomic import Modes
from meshllm.store.table import Table

R = TypeVar("R", bound=Record)

MIN_AGE_S: Final = 48 * 3600.0  #: window in which a repeated packet id is recognised
LEAST_SLACK: Final = 50  #: rows above the limit before a file is rotated at all
SLACK_SHARE: Final = 4  #: or this part of the limit; a larger slack means fewer, larger moves
LEAST_MOVED: Final = 25  #: rows worth a rotation, where many others must stay
PAUSE_S: Final = 2.0  #: between two moves
LOOK_S: Final = 60.0  #: between two looks at a file that changes all the time
LOOK_AGAIN_S: Final = 600.0  #: a file whose rows were too young, or that the disk refused
SIGHTINGS_S: Final = 3600.0  #: between two looks at sightings.csv
QUIET_S: Final = 1.0  #: nothing is moved when something is to be sent within this
LOOKS: Final = 20  #: files looked at in one go, until one needs work
LOCK_TIMEOUT_S: Final = 0.1  #: real seconds; whoever holds the file comes first
SMALLEST_ROW_BYTES: Final = 50  #: a file with fewer bytes for each row has fewer rows

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class UpkeepSettings:
    """The numbers that rotation goes by. `question_age_s`: how long a question stays open."""

    live_rows: int = 500
    question_age_s: float = 3600.0
    booted_at: float | None = None  #: `boot_at` when the process started

    @property
    def most_rows(self) -> int:
        """Rows that a live file may have before it is rotated."""
        return self.live_rows + max(LEAST_SLACK, self.live_rows // SLACK_SHARE)

    @property
    def min_age_s(self) -> float:
        """Age that a row must exceed: an open question never moves."""
        return max(MIN_AGE_S, self.question_age_s)


# -- which rows may go ---------------------------------------------------------------------------


def movable(
    rows: Sequence[Message], ages: Sequence[float | None], *, live_rows: int, min_age_s: float
) -> list[tuple[Message, ...]]:
    """Name the rows that may go, in file order, grouped by what must go together.

    The newest `live_rows` rows stay. A question, its replies and the notices about it go together,
    when all of them are final and older than `min_age_s`.
    """
    limit = len(rows) - live_rows
    copies = Counter(row.identity for row in rows)
    units: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        units.setdefault(_subject(row) or f"row {at}", []).append(at)

    def may_go(at: int) -> bool:
        age = ages[at]
        is_old = at < limit and age is not None and age > min_age_s
        return is_old and _is_final(rows[at]) and copies[rows[at].identity] == 1

    return [tuple(rows[at] for at in unit) for unit in units.values() if all(map(may_go, unit))]


def movable_sightings(
    rows: Sequence[Sighting], ages: Sequence[float | None], *, live_rows: int, min_age_s: float
) -> list[tuple[Sighting, ...]]:
    """Name the sightings that may go, in file order; each node's newest stays."""
    newest = {row.node_id: at for at, row in enumerate(rows)}
    return [
        (row,)
        for at, (row, age) in enumerate(zip(rows, ages, strict=True))
        if at < len(rows) - live_rows
        and newest[row.node_id] != at
        and age is not None
        and age > min_age_s
    ]


def _subject(row: Message) -> str:
    """Id of the question that a row is or belongs to; "" for none.

    On a channel several people may use one id: what bears it goes together, which does no harm.
    """
    if not row.is_outgoing:
        return row.message_id
    if row.reply_to_id:
        return row.reply_to_id
    found = row.meta.get("notice_for") if '"notice_for"' in row.meta_json else None
    return str(found or "")


def _is_final(row: Message) -> bool:
    return not life.is_queued(row) and not life.awaits_ack(row)


# -- how old they are ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Now:
    """What the clocks say. Seconds are scaled as the clock's, but for the boot moments."""

    clock: Clock
    first_boot_at: float  #: wall time of this boot as first reckoned: shows a clock set since

    @classmethod
    def first(cls, clock: Clock) -> "Now":
        """Take the clocks as they are when the process starts."""
        return cls(clock, boot_at(clock))

    def ages(self, rows: Sequence[Message]) -> list[float | None]:
        """Say of each row how old it is at least, as far as can be told; None where it cannot.

        Uptime is believed before wall time, since a machine without a battery-backed clock jumps
        by days when its time is set: rows of this boot are as old as their uptime says, nothing
        that stands after them in the file is older, and rows of an earlier boot are older than
        this one. Wall time is taken as it was before the clock was set in this boot; where it
        cannot be read or lies ahead, a row is as old as one that stands after it.
        """
        exact = [self._exact(row) for row in rows]
        jump_s = self._jump_s(rows, exact)
        found: list[float | None] = []
        floor: float | None = None
        below: float | None = None
        for row, known in zip(reversed(rows), reversed(exact), strict=True):
            certain = known if known is not None else self._older_than(row)
            floor = _largest(floor, certain)
            age = known if known is not None else _largest(self._by_wall(row, jump_s), certain)
            if age is None or age < 0:
                age = _largest(age, floor)
            below = age if age is not None else below
            found.append(below)
        found.reverse()
        return _capped(found, exact)

    def sighting_ages(self, rows: Sequence[Sighting]) -> list[float | None]:
        """Say the same of sightings, which bear no uptime."""
        jump_s = max(0.0, boot_at(self.clock) - self.first_boot_at) * self.clock.scale
        return [
            None if age is None else age - jump_s
            for age in (wall_age_s(self.clock, row.observed_at) for row in rows)
        ]

    def _exact(self, row: Message) -> float | None:
        """Age by uptime; only inbound rows say at which uptime they were written."""
        boot, up_s = _written_at(row)
        if not boot or boot != boot_id() or up_s is None:
            return None
        return age_s(self.clock, row.timestamp, boot=boot, up_s=up_s)

    def _older_than(self, row: Message) -> float | None:
        boot, _ = _written_at(row)
        is_earlier = bool(boot) and bool(boot_id()) and boot != boot_id()
        return self.clock.monotonic() if is_earlier else None

    def _by_wall(self, row: Message, jump_s: float) -> float | None:
        last_try = life.tries(row)[-1:] if '"tries"' in row.meta_json else ()
        cells = [row.timestamp, *(entry.at for entry in last_try)]
        ages = [wall_age_s(self.clock, cell) for cell in cells]
        known = [age for age in ages if age is not None]
        return min(known) - jump_s if known and ages[0] is not None else None

    def _jump_s(self, rows: Sequence[Message], exact: Sequence[float | None]) -> float:
        """How far the clock was set forward in this boot, as this file and this process know."""
        jumps = [(boot_at(self.clock) - self.first_boot_at) * self.clock.scale]
        for row, known in zip(rows, exact, strict=True):
            wall = wall_age_s(self.clock, row.timestamp) if known is not None else None
            if known is not None and wall is not None:
                jumps.append(wall - known)
        return max(0.0, *jumps)


def _written_at(row: Message) -> tuple[str, float | None]:
    """Boot and uptime at which a row was heard; an outgoing row's are those of its holding."""
    if row.is_outgoing or '"boot"' not in row.meta_json:
        return "", None
    meta = row.meta
    up_s = meta.get("up_s")
    return str(meta.get("boot", "")), up_s if isinstance(up_s, (int, float)) else None


def _largest(*ages: float | None) -> float | None:
    return max((age for age in ages if age is not None), default=None)


def _capped(ages: list[float | None], exact: Sequence[float | None]) -> list[float | None]:
    """Let nothing be older than a row before it whose age is certain."""
    limit = float("inf")
    capped: list[float | None] = []
    for age, known in zip(ages, exact, strict=True):
        limit = min(limit, known) if known is not None else limit
        capped.append(None if age is None else min(age, limit))
    return capped


def month(row: Message) -> str:
    """Archive file of a message."""
    moment = parse_utc(row.timestamp)
    return f"{moment.year:04}-{moment.month:02}" if moment else UNDATED


def year(row: Sighting) -> str:
    """Archive file of a sighting."""
    moment = parse_utc(row.observed_at)
    return f"{moment.year:04}" if moment else UNDATED


# -- when ----------------------------------------------------------------------------------------


class Upkeep:
    """Rotates the files of one tree, one at a time. Runs on the station's thread."""

    def __init__(
        self,
        tree: NodeTree,
        settings: UpkeepSettings,
        *,
        modes: Modes,
        clock: Clock,
        on_moved: Callable[[Path], None],
    ) -> None:
        """Put every file in line that exists. `on_moved` is told of each file made shorter."""
        self._tree = tree
        self._settings = settings
        self._modes = modes
        self._clock = clock
        self._on_moved = on_moved
        self._now = (
            Now.first(clock) if settings.booted_at is None else Now(clock, settings.booted_at)
        )
        self._due: dict[Path, float] = {}
        self._looked: dict[Path, float] = {}
        self._not_before = 0.0
        for path in (tree.sightings, *tree.thread_files()):
            self.note(path)

    def note(self, path: Path) -> None:
        """Have a thread file looked at: it may have grown."""
        self._due.setdefault(path, self._looked.get(path, -LOOK_S) + LOOK_S)

    def tick(self, *, quiet_s: float) -> float:
        """Look at what is due and rotate one file at most; seconds until the next call.

        Does nothing unless nothing else is to be done for `quiet_s` seconds.
        """
        now = self._clock.monotonic()
        wait_s = max(0.0, self._not_before - now)
        if quiet_s >= QUIET_S and not wait_s:
            for path in [path for path, due in self._due.items() if due <= now][:LOOKS]:
                if self._look(path, now):
                    self._not_before = now + PAUSE_S
                    break
        next_s = min((due - now for due in self._due.values()), default=LOOK_AGAIN_S)
        return max(next_s, self._not_before - now, PAUSE_S)

    def _look(self, path: Path, now: float) -> bool:
        """Look at one file; say whether that took the time of a rotation."""
        is_thread = path != self._tree.sightings
        self._due.pop(path)
        self._looked[path] = now
        if not is_thread:
            self._due[path] = now + SIGHTINGS_S
        try:
            if not _may_have_rows(path, self._settings.most_rows):
                return False
            if is_thread:
                done = self._rotate(path, Message, self._old_messages, month)
            else:
                done = self._rotate(path, Sighting, self._old_sightings, year)
        except (TransientError, OSError) as error:
            self._due[path] = now + LOOK_AGAIN_S
            log.warning(
                "rotation_failed",
                file=path.name,
                reason=str(error),
                consequence="nothing is lost; tried again",
                retry_in_s=LOOK_AGAIN_S,
            )
            return True
        if done is None:
            return False
        if not done.moved:
            self._due[path] = now + LOOK_AGAIN_S
        elif done.kept > self._settings.most_rows:
            self._due[path] = now + PAUSE_S
        return True

    def _rotate(
        self,
        path: Path,
        record_type: type[R],
        choose: Callable[[Sequence[R]], list[tuple[R, ...]]],
        period: Callable[[R], str],
    ) -> rotate.Rotation | None:
        table = Table(path, record_type, self._modes, LOCK_TIMEOUT_S)
        snapshot = table.read()
        if snapshot.damage or len(snapshot.rows) <= self._settings.most_rows:
            return None  # whoever uses a damaged file next repairs it; then it changes
        units = choose(snapshot.rows)
        if sum(map(len, units)) < LEAST_MOVED:
            return rotate.Rotation(0, len(snapshot.rows), ())
        shelf = self._tree.shelf(path)
        done = rotate.rotate(table, units, shelf, period)
        if done.moved:
            log.info(
                "thread_rotated" if record_type is Message else "sightings_rotated",
                file=path.name,
                moved=done.moved,
                kept=done.kept,
                archive=[str(p.relative_to(self._tree.root)) for p in done.archives],
            )
            self._on_moved(path)
        return done

    def _old_messages(self, rows: Sequence[Message]) -> list[tuple[Message, ...]]:
        return movable(
            rows,
            self._now.ages(rows),
            live_rows=self._settings.live_rows,
            min_age_s=self._settings.min_age_s,
        )

    def _old_sightings(self, rows: Sequence[Sighting]) -> list[tuple[Sighting, ...]]:
        return movable_sightings(
            rows,
            self._now.sighting_ages(rows),
            live_rows=self._settings.live_rows,
            min_age_s=self._settings.min_age_s,
        )


def _may_have_rows(path: Path, rows: int) -> bool:
    """Say whether a file may have more rows; a count of line ends costs a tenth of parsing."""
    try:
        if path.stat().st_size < rows * SMALLEST_ROW_BYTES:
            return False
        return regular.read_bytes(path).count(b"\n") > rows
    except FileNotFoundError:
        return False
