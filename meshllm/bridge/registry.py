"""Which nodes one radio knows: nodes.csv, sightings.csv, latest.csv. Runs on its station's thread.

New nodes and names are written at once; what changes with every packet is gathered and written at
most once a minute.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import structlog

from meshllm import layout
from meshllm.bridge import ingest
from meshllm.bridge.storage import LOOK_S, Storage
from meshllm.bridge.tables import MAX_LOCK_WAIT_S
from meshllm.clock import Clock, utc_text
from meshllm.errors import DamagedFileError, NotRegularError, TransientError
from meshllm.layout import NodeTree
from meshllm.observe.sparing import Sparing
from meshllm.radio.base import (
    Envelope,
    PositionHeard,
    RadioInfo,
    TelemetryHeard,
    UserHeard,
)
from meshllm.records import Latest, Node, Record, Sighting
from meshllm.store import quarantine
from meshllm.store.atomic import Modes
from meshllm.store.table import Snapshot, Table

log = structlog.get_logger()

FLUSH_INTERVAL_S: Final = 60.0  #: last_seen_at and latest.csv reach the card this often at most
MAX_URGENT: Final = 20  #: commits for new nodes and names in that time; each copies the whole file
MAX_NODE_EVENTS: Final = 100  #: events about new nodes, or new names, at once
NODE_LOG_S: Final = 10.0  #: between two such events after that
LIMIT_LOG_S: Final = 3600.0
AHEAD: Final = timedelta(seconds=60)  #: a stored time beyond this is not by this clock
EPOCH_2020: Final = 1_577_836_800  #: radio times before this come from a clock that was never set

R = TypeVar("R", bound=Record)


class Registry:
    """Nodes, sightings and newest facts of one tree."""

    def __init__(
        self,
        tree: NodeTree,
        *,
        modes: Modes,
        lock_timeout_s: float,
        clock: Clock,
        max_nodes: int,
        storage: Storage | None = None,
    ) -> None:
        """Load what the tree holds. Damaged files are repaired first, where that is possible."""
        lock_timeout_s = min(lock_timeout_s, MAX_LOCK_WAIT_S)
        self._tree = tree
        self._clock = clock
        self._storage = storage or Storage()
        self._max_nodes = max_nodes
        self._nodes_table = Table(tree.nodes, Node, modes=modes, lock_timeout_s=lock_timeout_s)
        self._sightings_table = Table(
            tree.sightings, Sighting, modes=modes, lock_timeout_s=lock_timeout_s
        )
        self._latest_table = Table(tree.latest, Latest, modes=modes, lock_timeout_s=lock_timeout_s)
        self._nodes = {row.node_id: row for row in self._load(self._nodes_table)}
        self._latest = {row.node_id: row for row in self._load(self._latest_table)}
        self._last_sighting = {row.node_id: row for row in self._load(self._sightings_table)}
        self._facts = {i: ingest.facts_of(row) for i, row in self._last_sighting.items()}
        self._altitudes: dict[str, int | None] = {}
        self._stored_nodes = set(self._nodes)
        self._stored_latest = set(self._latest)
        self._dirty_nodes: set[str] = set()
        self._dirty_latest: set[str] = set()
        self._urgent = False
        self._next_flush = clock.monotonic() + FLUSH_INTERVAL_S
        self._urgent_writes: deque[float] = deque(maxlen=MAX_URGENT)
        self._next_sighting = 0.0
        self._is_refused = False
        self._node_log = Sparing(clock, burst=MAX_NODE_EVENTS, interval_s=NODE_LOG_S)
        self._limit_log = Sparing(clock, burst=1, interval_s=LIMIT_LOG_S)

    @property
    def limit(self) -> int:
        """Bound on nodes."""
        return self._max_nodes

    def due_in_s(self) -> float:
        """Seconds until the gathered changes are written."""
        if not self._storage.has_room_for_rest:
            return LOOK_S
        if self._urgent:
            return max(0.0, self._urgent_from() - self._clock.monotonic())
        if not (self._dirty_nodes or self._dirty_latest):
            return FLUSH_INTERVAL_S
        return max(0.0, self._next_flush - self._clock.monotonic())

    def ensure(self) -> None:
        """Create the three files with their headers where they are absent, if the disk lets us."""
        try:
            self._nodes_table.ensure()
            self._sightings_table.ensure()
            self._latest_table.ensure()
        except TransientError as error:
            self._refused(error)  # no reason to record no texts; the first row makes the file

    def adopt(self, info: RadioInfo) -> None:
        """Take over the radio's own node list."""
        now = utc_text(self._clock.utc())
        for known in info.nodes:
            seen = known.last_heard
            limit = self._clock.utc().timestamp() + 60
            at = _unix_text(seen) if seen is not None and EPOCH_2020 < seen <= limit else ""
            node_id = layout.node_id(known.number)
            if self._admit(node_id, at or now, is_fresh=bool(at)):
                self._rename(node_id, known.short_name, known.long_name)

    def heard(self, envelope: Envelope, *, at: str) -> bool:
        """Note that a node was heard. False when the bound on nodes keeps it out."""
        node_id = layout.node_id(envelope.sender)
        if not self._admit(node_id, at, is_fresh=True):
            return False
        if envelope.has_signal:
            self._update_latest(
                node_id,
                snr_db=envelope.snr_db,
                rssi=envelope.rssi,
                hops=envelope.hops,
                signal_at=at,
            )
        return True

    def named(self, heard: UserHeard) -> None:
        """Take a node's names."""
        self._rename(layout.node_id(heard.envelope.sender), heard.short_name, heard.long_name)

    def positioned(self, heard: PositionHeard, *, channel: str, at: str) -> None:
        """Take a node's position and perhaps a sighting."""
        node_id = layout.node_id(heard.envelope.sender)
        place = ingest.place(heard)
        if place is None:
            return
        self._update_latest(
            node_id,
            latitude=place[0],
            longitude=place[1],
            position_channel=channel,
            position_at=at,
        )
        self._altitudes[node_id] = heard.altitude_m
        self._sight(node_id, at)

    def measured(self, heard: TelemetryHeard, *, at: str) -> None:
        """Take a node's telemetry and perhaps a sighting."""
        node_id = layout.node_id(heard.envelope.sender)
        facts = ingest.telemetry_facts(heard)
        if not facts:
            return
        self._facts.setdefault(node_id, {}).update(facts)
        if "battery" in facts or "voltage" in facts:
            battery = facts.get("battery")
            self._update_latest(
                node_id,
                battery=None if battery is None else int(battery),
                voltage=facts.get("voltage"),
                battery_at=at,
            )
        self._sight(node_id, at)

    def flush(self, *, force: bool = False) -> None:
        """Write what is due: new names at once, the rest once a minute; failures wait.

        While the disk has room for messages only, everything waits.
        """
        now = self._clock.monotonic()
        due = force or now >= self._next_flush
        is_urgent = self._urgent and now >= self._urgent_from()
        if not (due or is_urgent) or not self._storage.has_room_for_rest:
            return
        if self._dirty_nodes and self._urgent:
            self._urgent_writes.append(now)
        try:
            try:
                self._write_all(due=due)
            except DamagedFileError:
                self._repair()
                self._write_all(due=True)
        except TransientError as error:
            self._next_flush = now + FLUSH_INTERVAL_S
            self._urgent = False
            self._refused(error)
        else:
            self._is_refused = False

    def _write_all(self, *, due: bool) -> None:
        self._write(self._nodes_table, self._nodes, self._dirty_nodes, self._stored_nodes)
        self._urgent = False
        if due:
            self._next_flush = self._clock.monotonic() + FLUSH_INTERVAL_S
            self._write(self._latest_table, self._latest, self._dirty_latest, self._stored_latest)

    def _urgent_from(self) -> float:
        """Moment from which a new node may be written at once: ids can be forged by the hundred."""
        if len(self._urgent_writes) < MAX_URGENT:
            return 0.0
        return self._urgent_writes[0] + FLUSH_INTERVAL_S

    def _refused(self, error: TransientError) -> None:
        if not self._is_refused:
            log.error("registry_not_written", reason=str(error), retry_in_s=FLUSH_INTERVAL_S)
        self._is_refused = True

    def _repair(self) -> None:
        """Mend both files, and note what the damage took from them to be written again."""
        self._stored_nodes = {row.node_id for row in self._load(self._nodes_table)}
        self._stored_latest = {row.node_id for row in self._load(self._latest_table)}
        self._dirty_nodes |= self._nodes.keys() - self._stored_nodes
        self._dirty_latest |= self._latest.keys() - self._stored_latest

    def _load(self, table: Table[R]) -> tuple[R, ...]:
        """Read a table, mended first; its good rows where it cannot be mended now."""
        snapshot: Snapshot[R] = Snapshot()
        with suppress(NotRegularError):
            snapshot = table.read()
            if not snapshot.damage:
                return snapshot.rows
        try:
            quarantine.repair(table, self._tree.quarantine, self._clock)
            return table.read().rows
        except TransientError as error:
            self._refused(error)  # the next write of the table finds the damage again
        return snapshot.rows

    def _write(
        self, table: Table[R], rows: dict[str, R], dirty: set[str], stored: set[str]
    ) -> None:
        if not dirty:
            return
        changed = table.commit(
            append=[rows[i] for i in sorted(dirty - stored)],
            changes={(i,): _constant(rows[i]) for i in sorted(dirty & stored)},
        )
        removed = {i for i in dirty & stored if (i,) not in changed}  # by hand; appended next time
        stored |= dirty
        stored -= removed
        dirty.clear()
        dirty |= removed

    def _admit(self, node_id: str, at: str, *, is_fresh: bool) -> bool:
        known = self._nodes.get(node_id)
        if known is not None:
            if is_fresh and (at > known.last_seen_at or self._is_ahead(known.last_seen_at)):
                self._nodes[node_id] = replace(known, last_seen_at=at)
                self._dirty_nodes.add(node_id)
            return True
        if len(self._nodes) >= self._max_nodes:
            left_out = self._limit_log.left_out("limit")
            if left_out is not None:
                log.warning(
                    "node_limit_reached",
                    limit=self._max_nodes,
                    left_out=left_out,
                    consequence="not registered",
                )
            return False
        self._nodes[node_id] = Node(node_id, first_seen_at=at, last_seen_at=at)
        self._dirty_nodes.add(node_id)
        self._urgent = True
        self._tell("node_seen", node_id)
        return True

    def _is_ahead(self, cell: str) -> bool:
        """Say whether a stored time lies in the future: our clock ran ahead then, or is behind."""
        return cell > utc_text(self._clock.utc() + AHEAD)

    def _rename(self, node_id: str, short_name: str, long_name: str) -> None:
        known = self._nodes.get(node_id)
        if known is None or not (short_name or long_name):
            return
        if (known.short_name, known.long_name) == (short_name, long_name):
            return
        self._nodes[node_id] = replace(known, short_name=short_name, long_name=long_name)
        self._dirty_nodes.add(node_id)
        self._urgent = True
        self._tell("node_updated", node_id)

    def _tell(self, event: str, node_id: str) -> None:
        left_out = self._node_log.left_out(event)
        if left_out is not None:
            log.info(event, node_id=node_id, **({"left_out": left_out} if left_out else {}))

    def _update_latest(self, node_id: str, **changes: object) -> None:
        if node_id not in self._nodes:
            return
        known = self._latest.get(node_id) or Latest(node_id)
        self._latest[node_id] = replace(known, **changes)  # type: ignore[arg-type] # by field name
        self._dirty_latest.add(node_id)

    def _sight(self, node_id: str, at: str) -> None:
        latest = self._latest.get(node_id) or Latest(node_id)
        if node_id not in self._nodes:
            return
        row = ingest.sighting(
            latest,
            self._facts.get(node_id, {}),
            altitude_m=self._altitudes.get(node_id),
            at=at,
        )
        last = self._last_sighting.get(node_id)
        if last is not None:
            same_day = last.observed_at[:10] >= at[:10] and not self._is_ahead(last.observed_at)
            if same_day or last.sighting_hash == row.sighting_hash:
                reason = "already one today" if same_day else "nothing changed"
                log.debug("sighting_skipped", node_id=node_id, reason=reason)
                return
        if not self._append_sighting(row):
            return
        self._last_sighting[node_id] = row
        log.info("sighting_stored", node_id=node_id)

    def _append_sighting(self, row: Sighting) -> bool:
        """Append a sighting; one that is refused is lost, the next packet makes another."""
        now = self._clock.monotonic()
        if now < self._next_sighting or not self._storage.has_room_for_rest:
            log.debug("sighting_skipped", node_id=row.node_id, reason="the disk refuses it")
            return False
        try:
            try:
                self._sightings_table.append([row])
            except DamagedFileError:
                quarantine.repair(self._sightings_table, self._tree.quarantine, self._clock)
                self._sightings_table.append([row])
        except TransientError as error:
            self._next_sighting = now + FLUSH_INTERVAL_S
            log.error(
                "sighting_not_written",
                node_id=row.node_id,
                reason=str(error),
                retry_in_s=FLUSH_INTERVAL_S,
            )
            return False
        return True


def _constant(row: R) -> Callable[[R], R | None]:
    return lambda _current: row


def _unix_text(seconds: int) -> str:
    return utc_text(datetime.fromtimestamp(seconds, UTC))
