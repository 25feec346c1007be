"""The thread files of one radio as the bridge uses them: read, changed, repaired when damaged.

Keeps one file's trouble to that file: after a lock that was not free the next waits for it are
short, and a repair that failed is not tried again at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import structlog

from meshllm.bridge import life
from meshllm.bridge.storage import Storage
from meshllm.bridge.written import Loss, Written
from meshllm.clock import Clock, pause_real
from meshllm.errors import DamagedFileError, LockTimeoutError, NotRegularError, TransientError
from meshllm.records import Message
from meshllm.store import quarantine
from meshllm.store.atomic import Modes
from meshllm.store.table import Snapshot, Table

MAX_OPEN: Final = 256  #: table objects kept; each is small, its bytes are cached elsewhere
#: Real seconds: an editor that writes in place has finished by then.
SAVING_PAUSE_S: Final = 0.2
MAX_SAVING_PAUSES: Final = 5  #: for a file that keeps changing
MAX_LOCK_WAIT_S: Final = 1.0  #: real seconds that all texts of this radio wait for one file's lock
BUSY_LOCK_WAIT_S: Final = 0.02  #: the same, while that lock is known to be held by somebody
REPAIR_RETRY_S: Final = 5.0  #: between two tries to mend a file; meanwhile its queued rows wait
MAX_LOGGED_IDS: Final = 50

T = TypeVar("T")
Change = Callable[[Message], Message | None]

log = structlog.get_logger()


class Tables:
    """Thread tables by path. The bridge owns them, so it is the one that quarantines."""

    def __init__(
        self,
        quarantine_dir: Path,
        *,
        modes: Modes,
        lock_timeout_s: float,
        clock: Clock,
        storage: Storage | None = None,
    ) -> None:
        """Open nothing yet."""
        self._quarantine_dir = quarantine_dir
        self._modes = modes
        self._lock_timeout_s = min(lock_timeout_s, MAX_LOCK_WAIT_S)
        self._clock = clock
        self._storage = storage or Storage()
        self._open: OrderedDict[Path, Table[Message]] = OrderedDict()
        self._written = Written()
        self._locked: set[Path] = set()
        self._unrepaired: dict[Path, float] = {}
        self._unrestored: dict[Path, float] = {}

    def get(self, path: Path) -> Table[Message]:
        """Return the table of a thread file."""
        table = self._open.get(path)
        if table is None:
            table = Table(path, Message, modes=self._modes, lock_timeout_s=self._lock_timeout_s)
            self._open[path] = table
        self._open.move_to_end(path)
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        table.lock_timeout_s = BUSY_LOCK_WAIT_S if path in self._locked else self._lock_timeout_s
        return table

    def read(self, path: Path) -> tuple[Message, ...]:
        """Rows of a thread, after a repair where one is needed. Raises TransientError.

        While a damaged file cannot be repaired, its queued rows are left out: never sent. Rows of
        ours that vanished, or that are set back to an earlier state, are put back first.
        """
        table = self.get(path)
        is_news = table.changed() or path in self._unrestored
        snapshot = self._sound(table)
        if is_news and not snapshot.damage:
            snapshot = self._restored(table, snapshot)
        if not snapshot.damage:
            return snapshot.rows
        return tuple(row for row in snapshot.rows if not life.is_queued(row))

    def append(self, path: Path, rows: Sequence[Message]) -> None:
        """Append in one commit; a damaged file is repaired first. Raises TransientError."""
        table = self.get(path)
        self._commit(table, lambda: table.append(rows))
        self._written.note(path, rows, self._clock.monotonic())

    def update(
        self,
        path: Path,
        changes: Mapping[tuple[str, ...], Change],
        *,
        may_spend: bool = True,
    ) -> dict[tuple[str, ...], Message]:
        """Change rows in one commit; a damaged file is repaired first. Raises TransientError.

        `may_spend`: on a full disk this is worth the reserve, as the result of a try is.
        """
        table = self.get(path)
        changed = self._commit(table, lambda: table.update(changes), may_spend=may_spend)
        self._written.note(path, changed.values(), self._clock.monotonic())
        return changed

    def forget(self, path: Path) -> None:
        """Rows left this file on purpose: they are not missed."""
        self._written.forget(path)

    def _commit(self, table: Table[Message], act: Callable[[], T], *, may_spend: bool = True) -> T:
        if table.changed():
            self.read(table.path)  # an old copy that was saved over it: built upon, it would stay
        try:
            return self._locking(table, lambda: self._storage.write(act, may_spend=may_spend))
        except DamagedFileError:
            self._repair(table)
            return self._storage.write(act, may_spend=may_spend)

    def _locking(self, table: Table[Message], act: Callable[[], T]) -> T:
        """Note whether the file's lock was free. Raises what `act` raises."""
        path = table.path
        try:
            result = act()
        except LockTimeoutError:
            if path not in self._locked:
                log.warning(
                    "file_locked",
                    file=path.name,
                    waited_s=table.lock_timeout_s,
                    consequence="what belongs into it waits in memory; other threads go on",
                )
            self._locked.add(path)
            raise
        if path in self._locked:
            self._locked.discard(path)
            log.info("file_unlocked", file=path.name)
        return result

    # -- damage --------------------------------------------------------------------------------

    def _sound(self, table: Table[Message]) -> Snapshot[Message]:
        """Read a table, mended where it can be now. Raises TransientError when it is no file."""
        path, now = table.path, self._clock.monotonic()
        try:
            snapshot = table.read()
            if not snapshot.damage:
                self._unrepaired.pop(path, None)
                return snapshot
        except NotRegularError:
            if now < self._unrepaired.get(path, now):
                raise
            snapshot = None
        if snapshot is not None and now < self._unrepaired.get(path, now):
            return snapshot
        try:
            self._repair(table)
            return table.read()
        except TransientError as error:
            if path not in self._unrepaired:
                log.error(
                    "repair_failed", file=path.name, reason=str(error), consequence="not sent"
                )
            self._unrepaired[path] = now + REPAIR_RETRY_S
            if snapshot is None:
                raise
        return snapshot

    def _repair(self, table: Table[Message]) -> None:
        """Quarantine what is damaged, unless it was an editor caught in the middle of saving.

        What the radio took before is left unconfirmed: no recovered row goes on the air again.
        """
        pause_real(SAVING_PAUSE_S)
        if _is_sound(table):
            return

        def act() -> None:
            quarantine.repair(table, self._quarantine_dir, self._clock, settle=_settle_recovered)

        self._locking(table, lambda: self._storage.write(act))
        self._written.forget(table.path, queued_only=True)
        self._restored(table, table.read())

    # -- rows that vanish ----------------------------------------------------------------------

    def _restored(self, table: Table[Message], snapshot: Snapshot[Message]) -> Snapshot[Message]:
        """Put back what vanished. Where that fails, rows set back are left out: never sent."""
        path, now = table.path, self._clock.monotonic()
        loss = self._loss(table, snapshot)
        if not loss:
            self._unrestored.pop(path, None)
            return snapshot
        if now < self._unrestored.get(path, now):
            return _without(snapshot, loss)
        snapshot = self._after_saving(table)
        found: list[Loss] = []

        def decide(_: bytes, current: Snapshot[Message]) -> Sequence[Message] | None:
            found.append(Loss() if current.damage else self._loss(table, current))
            return found[-1].mend(current.rows) if found[-1] else None

        try:
            self._locking(table, lambda: self._storage.write(lambda: table.rewrite(decide)))
            after = table.read()
        except TransientError as error:
            if path not in self._unrestored:
                log.error(
                    "rows_not_restored",
                    file=path.name,
                    reason=str(error),
                    retry_in_s=REPAIR_RETRY_S,
                    consequence="rows that were set back are not sent",
                )
            self._unrestored[path] = now + REPAIR_RETRY_S
            return _without(snapshot, loss)
        self._unrestored.pop(path, None)
        if found[-1]:
            log.warning(
                "rows_vanished",
                file=path.name,
                message_ids=found[-1].message_ids[:MAX_LOGGED_IDS],
                rows_gone=len(found[-1].gone),
                rows_set_back=len(found[-1].set_back),
                consequence="put back as they were; another program saved an older copy",
            )
        return after

    def _loss(self, table: Table[Message], snapshot: Snapshot[Message]) -> Loss:
        return self._written.loss(table.path, snapshot.rows, self._clock.monotonic())

    def _after_saving(self, table: Table[Message]) -> Snapshot[Message]:
        """Wait for a program that writes in place: its file is empty in the middle of that."""
        for _ in range(MAX_SAVING_PAUSES):
            pause_real(SAVING_PAUSE_S)
            if not table.changed():
                break
            table.read()
        return table.read()


def _without(snapshot: Snapshot[Message], loss: Loss) -> Snapshot[Message]:
    """Leave out the rows that were set back: sending by them would repeat a send."""
    unsafe = {row.key for row in loss.set_back}
    rows = (row for row in snapshot.rows if not (row.is_outgoing and row.key in unsafe))
    return Snapshot(tuple(rows), snapshot.damage)


def _is_sound(table: Table[Message]) -> bool:
    try:
        return not table.read().damage
    except NotRegularError:
        return False


def _settle_recovered(row: Message) -> Message | None:
    return life.leave_unconfirmed(row, reason="DAMAGED_FILE") if life.awaits_ack(row) else None
