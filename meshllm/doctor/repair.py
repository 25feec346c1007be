"""Mends what can be mended without asking: tables, left-overs, modes, missing prompt rows.

Damaged bytes are kept. A second run finds nothing to do. Files that a running process owns and
mends itself are refused and named. Sends nothing, and makes no row that will be sent.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from meshllm.doctor import contents, prompts
from meshllm.doctor.inventory import (
    Known,
    entries,
    is_ours,
    leftovers,
    tables,
    target_of,
    wanted_mode,
)
from meshllm.doctor.machine import user_name
from meshllm.doctor.place import Place
from meshllm.errors import AlreadyRunningError, TransientError, UserError
from meshllm.reading.book import Book
from meshllm.records import Message, PromptRow, Record
from meshllm.store import atomic, headers, locks, quarantine
from meshllm.store.locks import ProcessLock
from meshllm.store.table import Snapshot, Table

Outcome = Literal["done", "would", "refused", "failed"]
LOCK_TIMEOUT_S: Final = 5.0  #: for the lock of each file


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was mended, would be, or was not."""

    outcome: Outcome
    path: Path
    text: str


def repair(
    place: Place, *, is_dry: bool = False, lock_timeout_s: float = LOCK_TIMEOUT_S
) -> list[Step]:
    """Mend everything; with `is_dry` only say what would be done.

    Holds the locks of both processes meanwhile, so that neither starts in the middle; a start then
    ends with exit code 5. One that runs already keeps its lock, and some files are refused.
    Raises UserError when the files would belong to another user afterwards.
    """
    _refuse_strangers(place)
    with ExitStack() as stack:
        hands = _Hands(place, lock_timeout_s, is_dry=is_dry)
        if not is_dry and place.files.data_dir.is_dir():
            hands.take_locks(stack)
        return [*hands.sweep(), *hands.mend_tables(), *hands.set_modes(), *hands.complete()]


def _refuse_strangers(place: Place) -> None:
    """A file written by root could not be replaced by the services' user afterwards."""
    folder = place.files.data_dir
    owner = folder.stat().st_uid if folder.is_dir() else place.machine.uid
    if owner != place.machine.uid:
        name = user_name(owner)
        hint = f"sudo -u {name} python -m meshllm doctor --repair"
        raise UserError(f"{folder} belongs to {name}, not to {place.machine.user}", [hint])


class _Hands:
    """Does the work; the order of its steps matters."""

    def __init__(self, place: Place, lock_timeout_s: float, *, is_dry: bool) -> None:
        self._place = place
        self._lock_timeout_s = lock_timeout_s
        self._is_dry = is_dry
        self._is_bridge_up = place.bridge_runs()
        self._is_agent_up = place.agent_runs()
        self._mended: set[Path] = set()  #: written anew, with the mode of the settings

    def take_locks(self, stack: ExitStack) -> None:
        """Keep both processes from starting; one that runs is noted."""
        files = self._place.files
        self._is_bridge_up = not _taken(stack, ProcessLock(files.bridge_lock, "bridge"))
        self._is_agent_up = not _taken(stack, ProcessLock(files.agent_lock, "agent"))

    def mend_tables(self) -> Iterator[Step]:
        """Quarantine damaged tables and restore lost headers."""
        for known in tables(self._place.files):
            found = [_without_path(f.text, known.path) for f in contents.table(known)]
            if not found:
                continue
            is_live = not known.is_archive and not known.is_prompts
            if is_live and self._is_bridge_up:
                text = f"{found[0]}; the running bridge mends it when it next uses it, or stop it"
                yield Step("refused", known.path, text)
            else:
                self._mended.add(known.path)
                would = Step("would", known.path, f"mend: {found[0]}")
                yield would if self._is_dry else self._mend(known)

    def _mend(self, known: Known) -> Step:
        table: Table[Record] = Table(
            known.path, known.record_type, self._place.modes, self._lock_timeout_s
        )
        try:
            done = quarantine.repair(
                table,
                known.quarantine,
                self._place.clock,
                settle=_settle,
                salvage=lambda data, now: _salvage(data, now, known.record_type),
            )
            table.ensure()
        except TransientError as error:
            return Step("failed", known.path, str(error))
        if done is None:
            return Step("done", known.path, "a header was written; nothing was lost")
        kept = f"{done.rows_kept} rows kept"
        dropped = f", {len(done.dropped)} queued ones taken out, not sent" if done.dropped else ""
        return Step("done", known.path, f"mended: {kept}{dropped}; original: {done.original}")

    def sweep(self) -> Iterator[Step]:
        """Remove half-written files, each under the lock of its writer."""
        for path in leftovers(self._place.files):
            target = target_of(path)
            refusal = self._sweep_refusal(target)
            if refusal:
                yield Step("refused", path, refusal)
            elif self._is_dry:
                yield Step("would", path, "remove: a killed process left it half written")
            else:
                yield self._remove(path, target)

    def _sweep_refusal(self, target: Path) -> str:
        """Tables have a lock of their own; everything else has one writer for its life."""
        if target.suffix == ".csv":
            return ""
        is_agents = target == self._place.files.agent_status or target.suffix == ".md"
        if self._is_agent_up and (is_agents or target.suffix != ".json"):
            return "the running agent may be writing it; it removes left-overs at its start"
        if self._is_bridge_up and not is_agents:
            return "the running bridge may be writing it; it removes left-overs at its start"
        return ""

    def _remove(self, path: Path, target: Path) -> Step:
        try:
            if target.suffix == ".csv":
                with locks.hold(target, self._lock_timeout_s, mode=self._place.modes.lock):
                    atomic.sweep(path.parent, target.name)
            else:
                atomic.sweep(path.parent, target.name)
        except TransientError as error:
            return Step("failed", path, str(error))
        return Step("done", path, "removed: a killed process had left it half written")

    def set_modes(self) -> Iterator[Step]:
        """Give our own files the permission bits of the settings."""
        files = self._place.files
        for path, found in entries([files.data_dir, files.nodes_dir, files.prompts_dir]):
            wanted = wanted_mode(path, found, self._place.modes)
            is_right = found.st_mode & 0o7777 == wanted or path in self._mended
            if is_right or not is_ours(path, files) or found.st_uid != os.geteuid():
                continue
            text = f"permission bits 0{found.st_mode & 0o7777:o}, 0{wanted:o} by the settings"
            if self._is_dry:
                yield Step("would", path, f"set: {text}")
                continue
            try:
                path.chmod(wanted)
            except OSError as error:
                yield Step("failed", path, f"{text}: {error.strerror or error}")
            else:
                yield Step("done", path, f"set: {text}")

    def complete(self) -> Iterator[Step]:
        """Give every page of a model call its row."""
        files = self._place.files
        known = {row.prompt_id for row in Book(files).prompts()}
        lacking = prompts.rowless(files, known)
        if not lacking:
            return
        text = f"{len(lacking)} rows out of pages"
        if self._is_agent_up:
            yield Step("refused", files.prompts_table, f"{text}: stop the agent, which writes here")
        elif self._is_dry:
            yield Step("would", files.prompts_table, f"add {text}")
        else:
            rows = sorted(lacking.values(), key=lambda row: (row.datetime, row.prompt_id))
            yield self._add(rows, text)

    def _add(self, rows: list[PromptRow], text: str) -> Step:
        path = self._place.files.prompts_table
        try:
            Table(path, PromptRow, self._place.modes, self._lock_timeout_s).append(rows)
        except TransientError as error:
            return Step("failed", path, str(error))
        return Step("done", path, f"added {text}")


def _without_path(text: str, path: Path) -> str:
    return text.removeprefix(str(path)).lstrip(": ")


def _taken(stack: ExitStack, lock: ProcessLock) -> bool:
    try:
        stack.enter_context(lock)
    except AlreadyRunningError:
        return False
    return True


def _salvage(
    data: bytes, snapshot: Snapshot[Record], record_type: type[Record]
) -> Snapshot[Record]:
    """Read the rows below a lost header; everything else as it is."""
    if snapshot.rows or [d.reason for d in snapshot.damage] != [headers.WRONG_HEADER]:
        return snapshot
    found = headers.without_header(data, record_type)
    return snapshot if found is None else Snapshot(found.rows, found.damage)


def _settle(row: Record) -> Record | None:
    """Leave what the radio took, and nobody confirmed, unconfirmed: it is not sent again."""
    if not isinstance(row, Message) or row.send_status != "sent" or row.thread_type != "dm":
        return None
    if row.direction != "outbound" or row.meta.get("delivery") not in ("handed", "relayed"):
        return None
    return row.with_meta(
        delivery="unconfirmed", reason="DAMAGED_FILE", due_at=None, wait_heard=None
    )
