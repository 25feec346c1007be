"""Write the texts one radio heard into its thread files, each exactly once."""

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from meshllm.bridge import ingest
from meshllm.bridge.naming import names_of
from meshllm.bridge.tables import Tables
from meshllm.clock import Clock, parse_utc, pause_real, utc_text
from meshllm.errors import TransientError
from meshllm.layout import NodeTree, channel_stem
from meshllm.observe.sparing import Sparing
from meshllm.radio.base import RadioInfo, TextHeard
from meshllm.records import Message

log = structlog.get_logger()

MAX_BACKLOG: Final = 1000  #: rows kept in memory while the disk refuses them
MAX_INDEXED_THREADS: Final = 64  #: threads whose ids are held for recognising duplicates
DUPLICATE_GRACE_S: Final = 10.0  #: packets without an id: same sender and text within this is one
BACKLOG_RETRY_S: Final = 5.0
RECOUNT_S: Final = 60.0  #: between two looks at the folder once there are too many threads
LIMIT_LOG_S: Final = 600.0  #: between two events about a stranger's flood
LAST_TRIES: Final = 8  #: at the end of the process, together less than a second
LAST_PAUSE_S: Final = 0.1  #: real seconds between them; a lock of another program may be let go
MAX_TOLD_LOST: Final = 50  #: events about texts lost with the process
REFUSAL_LOG_S: Final = 60.0  #: between two events about texts that the disk refuses


#: Per row key its timestamp and the hash of its text: all that recognising a duplicate needs.
_Index = dict[tuple[str, ...], tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A text with the moment it reached us; `kept` when the radio held it while we were away."""

    heard: TextHeard
    at: datetime
    up_s: float
    kept: bool
    longest: timedelta = ingest.KEPT_MAX_AGE  #: we were away for this long at most

    @property
    def held_for(self) -> timedelta:
        """How long the radio held it."""
        return ingest.held_for(self.heard.envelope, self.at, kept=self.kept, longest=self.longest)

    @property
    def heard_at(self) -> str:
        """When the radio heard it, as a cell."""
        return utc_text(self.at - self.held_for)


class Recorder:
    """Inbound rows of one tree."""

    def __init__(self, tree: NodeTree, tables: Tables, *, clock: Clock, max_threads: int) -> None:
        """Index nothing yet; a thread is read when its first text arrives."""
        self._tree = tree
        self._tables = tables
        self._clock = clock
        self._max_threads = max_threads
        self._threads = set(tree.thread_files())
        self._index: OrderedDict[Path, _Index] = OrderedDict()
        self._backlog: list[tuple[Path, Message]] = []
        self._held: list[tuple[Arrival, RadioInfo]] = []
        self._retry_at = 0.0
        self._recount_at = 0.0
        self._limit_log = Sparing(clock, burst=1, interval_s=LIMIT_LOG_S)
        self._refusal_log = Sparing(clock, burst=3, interval_s=REFUSAL_LOG_S)
        self._dropped = 0
        self._reason = ""

    @property
    def waiting(self) -> int:
        """Texts that are in memory only, since the disk refuses them."""
        return len(self._backlog) + len(self._held)

    def record(self, arrivals: Sequence[Arrival], info: RadioInfo, *, is_news: bool = True) -> None:
        """Write a burst: one commit per thread. What the disk refuses is kept and tried again.

        `is_news` is false for what was refused before: that is not logged again.
        """
        self._recount()
        fresh: dict[Path, list[Message]] = {}
        for arrival in arrivals:
            try:
                place = self._place(arrival, info)
                row = self._unique(*place) if place is not None else None
            except TransientError as error:
                self._hold(arrival, info, error, is_news=is_news)
                continue
            if place is not None and row is not None:
                fresh.setdefault(place[0], []).append(row)
        for path, rows in fresh.items():
            if any(waiting == path for waiting, _ in self._backlog):
                self._keep(path, rows, is_news=is_news)  # what was heard first stands first
            else:
                self._write(path, rows, is_news=is_news)

    def tick(self) -> float | None:
        """Retry what the disk refused; seconds until the next retry, None when nothing waits."""
        if not (self._backlog or self._held):
            return None
        now = self._clock.monotonic()
        if now >= self._retry_at:
            self.try_again()
        waits = bool(self._backlog or self._held)
        return max(0.0, self._retry_at - now) if waits else None

    def try_again(self) -> None:
        """Try now to write what the disk refused; what it refuses again is kept."""
        held, self._held = self._held, []
        for arrival, info in held:
            self.record([arrival], info, is_news=False)
        waiting, self._backlog = self._backlog, []
        by_path: dict[Path, list[Message]] = {}
        for path, row in waiting:
            by_path.setdefault(path, []).append(row)
        for path, rows in by_path.items():
            self._write(path, self._missing(path, rows), is_news=False)

    def tell_lost(self) -> None:
        """Log each text that ends with the process, having never been on disk."""
        places = [self._place(arrival, info) for arrival, info in self._held]
        lost = [*self._backlog, *(place for place in places if place is not None)]
        for path, row in lost[:MAX_TOLD_LOST]:
            log.error(
                "message_lost",
                sender=row.sender_id,
                reason=self._reason,
                waiting=len(lost),
                consequence="it is in no file; its sender's radio may show it as delivered",
                **names_of(path, row),
            )

    def forget(self, path: Path) -> None:
        """Have a thread's ids read again at its next text: the file was made shorter.

        Not while rows of it wait for the disk: those are nowhere but in the index.
        """
        if not any(waiting == path for waiting, _ in self._backlog):
            self._index.pop(path, None)
        self._tables.forget(path)

    def _place(self, arrival: Arrival, info: RadioInfo) -> tuple[Path, Message] | None:
        heard = arrival.heard
        if not ingest.is_for_us(heard, info):
            log.debug("text_ignored", reason="not addressed to this radio")
            return None
        packet_id = heard.envelope.packet_id
        row = ingest.message_row(
            heard,
            info,
            at=arrival.heard_at,
            # Uptime at which the radio heard it: else the age of a question would be too low.
            up_s=round(arrival.up_s - max(0.0, arrival.held_for.total_seconds()), 3),
            message_id=str(packet_id) if packet_id else "",
        )
        path = self._path(row, heard.envelope.channel_index, info)
        if not self._admit(path):
            left_out = self._limit_log.left_out("limit")
            if left_out is not None:
                log.error(
                    "thread_limit_reached",
                    limit=self._max_threads,
                    sender=row.sender_id,
                    left_out=left_out,
                    consequence="texts of people without a thread are not recorded",
                )
            return None
        return path, row

    def _recount(self) -> None:
        """Once there are too many threads, look whether an operator took some away."""
        now = self._clock.monotonic()
        if len(self._threads) >= self._max_threads and now >= self._recount_at:
            self._recount_at = now + RECOUNT_S
            waiting = {path for path, _ in self._backlog}
            self._threads = set(self._tree.thread_files()) | waiting

    def _admit(self, path: Path) -> bool:
        """Say whether a text may go into this thread; ids can be forged, so threads are bounded."""
        if path in self._threads:
            return True
        if len(self._threads) >= self._max_threads:
            return False
        self._threads.add(path)
        return True

    def _path(self, row: Message, channel_index: int, info: RadioInfo) -> Path:
        if row.thread_type == "dm":
            return self._tree.dm_thread(row.sender_id)
        others = ingest.channel_names(info)
        return self._tree.channel_thread(
            channel_stem(row.thread_key, index=channel_index, others=others)
        )

    def _unique(self, path: Path, row: Message) -> Message | None:
        """Return the row to write, or None for a duplicate."""
        index = self._known(path)
        if not row.message_id:
            if self._is_repeat(index, row):
                names = names_of(path, row)
                log.info("duplicate_dropped", sender=row.sender_id, reason="same_text", **names)
                return None
            row = replace(row, message_id=str(uuid.uuid4()))
        known = index.get(row.key)
        if known is not None and known[1] != hash(row.content):
            other = replace(row, message_id=f"{row.message_id}-{ingest.text_digest(row.content)}")
            log.warning(
                "packet_id_reused",
                sender=row.sender_id,
                stored_as=other.message_id,
                **names_of(path, row),
            )
            row, known = other, index.get(other.key)
        if known is not None:
            names = names_of(path, row)
            log.info("duplicate_dropped", sender=row.sender_id, reason="same_id", **names)
            return None
        index[row.key] = _trace(row)
        return row

    def _known(self, path: Path) -> _Index:
        index = self._index.get(path)
        if index is None:
            rows = self._tables.read(path)
            index = {row.key: _trace(row) for row in rows if not row.is_outgoing}
            self._index[path] = index
        self._index.move_to_end(path)
        while len(self._index) > MAX_INDEXED_THREADS:
            self._index.popitem(last=False)
        return index

    def _is_repeat(self, index: _Index, row: Message) -> bool:
        moment = parse_utc(row.timestamp)
        for (sender, *_), (timestamp, digest) in index.items():
            earlier = parse_utc(timestamp)
            if (
                (sender, digest) == (row.sender_id, hash(row.content))
                and moment is not None
                and earlier is not None
                and abs((moment - earlier).total_seconds()) <= DUPLICATE_GRACE_S
            ):
                return True
        return False

    def _write(self, path: Path, rows: list[Message], *, is_news: bool) -> None:
        try:
            self._tables.append(path, rows)
        except TransientError as error:
            self._set_back(error)
            self._keep(path, rows, is_news=is_news)
            return
        for row in rows:
            log.info(
                "message_received",
                sender=row.sender_id,
                at=utc_text(self._clock.utc()),
                **names_of(path, row),
            )

    def _missing(self, path: Path, rows: list[Message]) -> list[Message]:
        """Leave out what is on disk after all: a write may fail when the file already stands."""
        try:
            present = {row.key for row in self._tables.read(path)}
        except TransientError:
            return rows  # then the write fails as well and keeps them
        return [row for row in rows if row.key not in present]

    def _hold(
        self, arrival: Arrival, info: RadioInfo, error: TransientError, *, is_news: bool
    ) -> None:
        """Keep a text whose thread cannot even be read now."""
        self._set_back(error)
        has_room = self.waiting < MAX_BACKLOG
        if has_room:
            self._held.append((arrival, info))
        self._tell_refusal(file="", rows=1, dropped=0 if has_room else 1, is_news=is_news)

    def _keep(self, path: Path, rows: list[Message], *, is_news: bool) -> None:
        room = max(0, MAX_BACKLOG - self.waiting)
        self._backlog.extend((path, row) for row in rows[:room])
        for row in rows[room:]:
            self._index.get(path, {}).pop(row.key, None)  # not there: a repeat may bring it
        dropped = max(0, len(rows) - room)
        self._tell_refusal(file=path.name, rows=len(rows), dropped=dropped, is_news=is_news)

    def _set_back(self, error: TransientError) -> None:
        self._reason = str(error)
        self._retry_at = self._clock.monotonic() + BACKLOG_RETRY_S

    def _tell_refusal(self, *, file: str, rows: int, dropped: int, is_news: bool) -> None:
        self._dropped += dropped
        if not (is_news or dropped):
            return
        left_out = self._refusal_log.left_out("dropped" if dropped else "kept")
        if left_out is None:
            return
        log.error(
            "message_not_written",
            file=file,
            rows=rows,
            dropped=self._dropped,
            left_out=left_out,
            waiting=self.waiting,
            reason=self._reason,
            retry_in_s=BACKLOG_RETRY_S,
        )
        self._dropped = 0


def close(recorders: Sequence[Recorder]) -> None:
    """Write what waits before the process ends, or tell what is lost. Takes about a second."""
    for _ in range(LAST_TRIES):
        for recorder in recorders:
            recorder.try_again()
        if not any(recorder.waiting for recorder in recorders):
            return
        pause_real(LAST_PAUSE_S)
    for recorder in recorders:
        recorder.tell_lost()


def _trace(row: Message) -> tuple[str, int]:
    return row.timestamp, hash(row.content)
