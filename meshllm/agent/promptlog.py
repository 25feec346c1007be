"""The prompt log: a page, then a row, per model call; and what a crash left half done.

The page comes first and holds everything, so a crash after it costs nothing: at start the row is
made from the page, and an answer that was never queued is found here instead of asked for again.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from meshllm.agent import replay
from meshllm.agent.context import Sent
from meshllm.agent.reply import Part
from meshllm.clock import Clock, parse_utc
from meshllm.errors import DamagedFileError, NotRegularError, StoreWriteError, TransientError
from meshllm.layout import Layout
from meshllm.records import Message, PromptRow
from meshllm.site.page import Page, parse_row, render
from meshllm.store import atomic, codec, locks, regular
from meshllm.store.table import Snapshot, Table

log = structlog.get_logger()

#: Older pages are taken as settled; reading thousands of them would delay every start.
RECOVERY_WINDOW_S: Final = 48 * 3600.0
#: Questions whose calls are kept in memory; older ones have been answered or have expired.
MAX_REMEMBERED: Final = 2000
#: Prompts whose text is kept in memory: those of the threads that are talking now.
MAX_KEPT: Final = 256
_PAGE_HEAD_CHARS: Final = 262_144  #: far more than our longest front matter
Key = tuple[str, str, str, str, str]
ThreadName = tuple[str, str, str]


def question_key(node_uid: str, source: Message) -> Key:
    """Name a question over all radios: message ids are unique only with sender and thread."""
    return (node_uid, source.thread_type, source.thread_key, source.sender_id, source.message_id)


def thread_name(row: PromptRow) -> ThreadName:
    """Name a thread over all radios: node_uid, type and key."""
    return (row.node_uid, row.thread_type, row.thread_key)


def moment_of(row: PromptRow) -> datetime | None:
    """When a call was logged; None when the cell cannot be read."""
    return parse_utc(f"{row.datetime.replace(' ', 'T', 1)}Z")


def prompt_key(row: PromptRow) -> Key:
    """Name the question of a logged call as `question_key` does."""
    sender = str(row.meta.get("source_sender", ""))
    return (row.node_uid, row.thread_type, row.thread_key, sender, row.source_message_id)


@dataclass(frozen=True, slots=True)
class Call:
    """A logged model call, as far as a later decision needs it."""

    prompt_id: str
    parts: tuple[Part, ...]  #: what was to be queued; () after a failure
    is_attempt: bool  #: counts against the calls that one question may cost
    outcome: str = ""


class PromptLog(Protocol):
    """Where model calls are recorded and found again."""

    def load(self) -> None:
        """Read what earlier runs left. Raises StoreWriteError or LockTimeoutError."""

    def record(self, page: Page) -> None:
        """Keep one call durably. Raises StoreWriteError or LockTimeoutError; safe to repeat."""

    def calls(self, key: Key) -> tuple[Call, ...]:
        """Return the calls made for a question, oldest first."""

    def sent(self, prompt_id: str, thread: ThreadName) -> Sent | None:
        """Return the answered prompt of that id; None when it is gone or of another thread."""


class _Kept:
    """The prompts used last."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, tuple[ThreadName, Sent]] = OrderedDict()

    def keep(self, page: Page) -> None:
        """Keep what a page says was sent, if an answer came of it."""
        sent = replay.sent(page)
        if sent is not None:
            self.put(thread_name(page.row), sent)

    def put(self, thread: ThreadName, sent: Sent) -> None:
        self._sent[sent.prompt_id] = (thread, sent)
        self._sent.move_to_end(sent.prompt_id)
        if len(self._sent) > MAX_KEPT:
            self._sent.popitem(last=False)

    def find(self, prompt_id: str) -> tuple[ThreadName, Sent] | None:
        return self._sent.get(prompt_id)


class FilePromptLog:
    """Pages and prompts.csv below the prompts folder. Used by one thread."""

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        modes: atomic.Modes,
        lock_timeout_s: float,
        window_s: float = RECOVERY_WINDOW_S,
    ) -> None:
        """Calls younger than `window_s` real seconds may still be of use after a restart."""
        self._layout = layout
        self._window_s = window_s
        self._clock = clock
        self._modes = modes
        self._lock_timeout_s = lock_timeout_s
        self._table = Table(layout.prompts_table, PromptRow, modes, lock_timeout_s)
        self._calls: dict[Key, list[Call]] = {}
        self._owed: dict[str, PromptRow] = {}  #: rows that prompts.csv did not take yet
        self._kept = _Kept()

    def load(self) -> None:
        """Index the calls that may still matter, and give every recent page its row."""
        self._calls.clear()
        atomic.make_folders(self._layout.prompts_dir, modes=self._modes)
        table = self._layout.prompts_table
        with locks.hold(table, self._lock_timeout_s, mode=self._modes.lock):
            atomic.sweep(self._layout.prompts_dir)
        snapshot: Snapshot[PromptRow] = Snapshot()
        with suppress(NotRegularError):  # told as damage by the first row; the pages go on
            snapshot = self._table.read()
        times = [moment_of(row) for row in snapshot.rows]
        oldest = self._oldest(times)
        for row, moment in zip(snapshot.rows, times, strict=True):
            if moment is None or moment >= oldest:
                self._index(row)
        known = {row.prompt_id for row in snapshot.rows}
        recent = self._recent_pages(oldest.timestamp())
        self._adopt([path for path in recent if path.stem not in known])
        self._write_owed()

    def record(self, page: Page) -> None:
        """Write the page, then the row; a repetition after a failure writes the same again."""
        path = self._layout.prompt_page(page.row.prompt_id)
        atomic.write_text(path, render(page), modes=self._modes)
        self._owed[page.row.prompt_id] = page.row
        self._write_owed()
        self._index(page.row)
        self._kept.keep(page)

    def calls(self, key: Key) -> tuple[Call, ...]:
        """Return the calls made for a question, oldest first."""
        return tuple(self._calls.get(key, ()))

    def sent(self, prompt_id: str, thread: ThreadName) -> Sent | None:
        """Find a prompt in memory, else on its page: after a restart, once a thread.

        The id comes from a file that other programs may write: a prompt of another thread is
        not given out.
        """
        found = self._kept.find(prompt_id) or self._read_sent(prompt_id)
        return found[1] if found is not None and found[0] == thread else None

    def _oldest(self, times: Sequence[datetime | None]) -> datetime:
        """Where the window begins: before now, or before the newest row, if that is earlier.

        A clock set forward since makes the calls before that no less worth finding.
        """
        now = self._clock.utc()
        newest = max((moment for moment in times if moment is not None), default=now)
        return min(now, newest) - timedelta(seconds=self._window_s)

    def _archived(self) -> set[str]:
        """Ids of rows that were archived, or whose pages are about to go.

        Their pages may look new: restoring a backup can give every file the time of today.
        """
        shelf = self._layout.prompts_shelf
        ids: set[str] = set()
        for path in (*(path for _, _, path in shelf.parts()), *shelf.leaving()):
            try:
                rows = codec.decode(regular.read_bytes(path), PromptRow).rows
            except (OSError, NotRegularError) as error:
                log.warning(
                    "prompt_archive_unreadable",
                    file=path.name,
                    reason=str(error),
                    consequence="rows of its calls may stand in prompts.csv once more",
                )
                continue
            ids |= {row.prompt_id for row in rows}
        return ids

    def _read_sent(self, prompt_id: str) -> tuple[ThreadName, Sent] | None:
        path = self._layout.prompt_page(prompt_id)
        try:
            text = regular.read_bytes(path).decode(errors="replace")
        except FileNotFoundError:
            return None
        except (OSError, TransientError) as error:
            log.warning(
                "history_page_unreadable",
                file=path.name,
                reason=str(error),
                consequence="the conversation is rendered from the thread's rows",
            )
            return None
        row, sent = parse_row(text), replay.parse_sent(text)
        if row is None or sent is None or sent.prompt_id != prompt_id:
            return None
        self._kept.put(thread_name(row), sent)
        return thread_name(row), sent

    def _write_owed(self) -> None:
        if not self._owed:
            return
        try:
            self._table.append(tuple(self._owed.values()))
        except DamagedFileError as error:
            log.warning(
                "prompt_rows_held",
                file=self._layout.prompts_table.name,
                rows=len(self._owed),
                reason=str(error),
                consequence="the pages hold everything; rows follow once the file is repaired",
            )
            return
        self._owed.clear()

    def _recent_pages(self, oldest: float) -> list[Path]:
        folder = self._layout.prompts_dir
        try:
            with os.scandir(folder) as entries:
                pages_found = [Path(e.path) for e in entries if _is_page(e, oldest)]
        except OSError as error:
            raise StoreWriteError(f"{folder}: cannot be read: {error.strerror}") from error
        return sorted(pages_found)

    def _adopt(self, paths: Sequence[Path]) -> None:
        """Make the rows of pages that have none; the archive is read only where one seems so."""
        archived: set[str] | None = None
        for path in paths:
            if archived and path.stem in archived:
                continue
            row = _row_on(path)
            if row is None:
                continue
            archived = self._archived() if archived is None else archived
            if row.prompt_id not in archived:
                log.info("prompt_row_recovered", prompt_id=row.prompt_id)
                self._owed[row.prompt_id] = row
                self._index(row)

    def _index(self, row: PromptRow) -> None:
        _remember(self._calls, prompt_key(row), _call(row, row.meta))


def _row_on(path: Path) -> PromptRow | None:
    """Read the row out of a page; None for a page of the web site, which is of no model call."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            row = parse_row(file.read(_PAGE_HEAD_CHARS))
    except OSError as error:
        log.warning("prompt_page_unreadable", file=path.name, reason=str(error))
        return None
    return row if row is not None and row.prompt_id == path.stem else None


def _is_page(entry: "os.DirEntry[str]", oldest: float) -> bool:
    if not entry.name.endswith(".md") or entry.name.startswith("."):
        return False
    return entry.is_file() and entry.stat().st_mtime >= oldest


def _remember(calls: dict[Key, list[Call]], key: Key, call: Call) -> None:
    calls.setdefault(key, []).append(call)
    if len(calls) > MAX_REMEMBERED:
        calls.pop(next(iter(calls)))


def _call(row: PromptRow, meta: Mapping[str, Any]) -> Call:
    return Call(
        row.prompt_id,
        replay.queued_parts(row, meta),
        is_attempt=bool(meta.get("attempt")),
        outcome=str(meta.get("outcome", "")),
    )


class NoPromptLog:
    """Stands in when prompt logs are off: remembers attempts of this run, writes nothing."""

    def __init__(self) -> None:
        self._calls: dict[Key, list[Call]] = {}
        self._kept = _Kept()

    def load(self) -> None:
        """Have nothing to read."""

    def record(self, page: Page) -> None:
        """Remember that a call was made; its answer is asked for again after a crash."""
        is_attempt = bool(page.row.meta.get("attempt"))
        call = Call(page.row.prompt_id, (), is_attempt=is_attempt, outcome=page.outcome)
        _remember(self._calls, prompt_key(page.row), call)
        self._kept.keep(page)

    def calls(self, key: Key) -> tuple[Call, ...]:
        """Return the calls of this run."""
        return tuple(self._calls.get(key, ()))

    def sent(self, prompt_id: str, thread: ThreadName) -> Sent | None:
        """Return a prompt of this run."""
        found = self._kept.find(prompt_id)
        return found[1] if found is not None and found[0] == thread else None
