"""The thread files of one radio as the bridge uses them: read, changed, repaired when damaged."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from meshllm.bridge import life
from meshllm.clock import Clock, pause_real
from meshllm.errors import DamagedFileError, TransientError
from meshllm.records import Message
from meshllm.store import quarantine
from meshllm.store.atomic import Modes
from meshllm.store.table import Table

MAX_OPEN: Final = 256  #: table objects kept; each is small, its bytes are cached elsewhere
log = structlog.get_logger()

#: Real seconds: an editor that writes in place has finished by then.
SAVING_PAUSE_S: Final = 0.2

Change = Callable[[Message], Message | None]


class Tables:
    """Thread tables by path. The bridge owns them, so it is the one that quarantines."""

    def __init__(
        self, quarantine_dir: Path, *, modes: Modes, lock_timeout_s: float, clock: Clock
    ) -> None:
        """Open nothing yet."""
        self._quarantine_dir = quarantine_dir
        self._modes = modes
        self._lock_timeout_s = lock_timeout_s
        self._clock = clock
        self._open: OrderedDict[Path, Table[Message]] = OrderedDict()

    def get(self, path: Path) -> Table[Message]:
        """Return the table of a thread file."""
        table = self._open.get(path)
        if table is None:
            table = Table(path, Message, modes=self._modes, lock_timeout_s=self._lock_timeout_s)
            self._open[path] = table
        self._open.move_to_end(path)
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return table

    def read(self, path: Path) -> tuple[Message, ...]:
        """Rows of a thread, after a repair where one is needed. Raises TransientError.

        While a damaged file cannot be repaired, its queued rows are left out: never sent.
        """
        table = self.get(path)
        snapshot = table.read()
        if not snapshot.damage:
            return snapshot.rows
        try:
            self._repair(table)
            snapshot = table.read()
        except TransientError as error:
            log.error("repair_failed", file=path.name, reason=str(error), consequence="not sent")
        if not snapshot.damage:
            return snapshot.rows
        return tuple(row for row in snapshot.rows if not life.is_queued(row))

    def append(self, path: Path, rows: Sequence[Message]) -> None:
        """Append in one commit; a damaged file is repaired first. Raises TransientError."""
        table = self.get(path)
        try:
            table.append(rows)
        except DamagedFileError:
            self._repair(table)
            table.append(rows)

    def update(
        self, path: Path, changes: Mapping[tuple[str, ...], Change]
    ) -> dict[tuple[str, ...], Message]:
        """Change rows in one commit; a damaged file is repaired first. Raises TransientError."""
        table = self.get(path)
        try:
            return table.update(changes)
        except DamagedFileError:
            self._repair(table)
            return table.update(changes)

    def _repair(self, table: Table[Message]) -> None:
        """Quarantine what is damaged, unless it was an editor caught in the middle of saving.

        What the radio took before is left unconfirmed: no recovered row goes on the air again.
        """
        pause_real(SAVING_PAUSE_S)
        if table.read().damage:
            quarantine.repair(table, self._quarantine_dir, self._clock, settle=_settle_recovered)


def _settle_recovered(row: Message) -> Message | None:
    return life.leave_unconfirmed(row, reason="DAMAGED_FILE") if life.awaits_ack(row) else None
