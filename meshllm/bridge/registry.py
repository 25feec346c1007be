"""Which nodes one radio knows: nodes.csv, sightings.csv, latest.csv. Runs on its station's thread.

New nodes and names are written at once; what changes with every packet is gathered and written at
most once a minute.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, TypeVar

import structlog

from meshllm import layout
from meshllm.bridge import ingest
from meshllm.clock import Clock, utc_text
from meshllm.errors import DamagedFileError, TransientError
from meshllm.layout import NodeTree
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
from meshllm.store.table import Table

log = structlog.get_logger()

FLUSH_INTERVAL_S: Final = 60.0  #: last_seen_at and latest.csv reach the card this often at most
EPOCH_2020: Final = 1_577_836_800  #: radio times before this come from a clock that was never set

R = TypeVar("R", bound=Record)


class Registry:
    """Nodes, sightings and newest facts of one tree."""

    def __init__(
        self, tree: NodeTree, *, modes: Modes, lock_timeout_s: float, clock: Clock, max_nodes: int
    ) -> None:
        """Load what the tree holds. Damaged files are repaired first."""
        self._tree = tree
        self._clock = clock
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
        self._limit_logged = False

    @property
    def limit(self) -> int:
        """Bound on nodes."""
        return self._max_nodes

    def due_in_s(self) -> float:
        """Seconds until the gathered changes are written."""
        if self._urgent:
            return 0.0
        if not (self._dirty_nodes or self._dirty_latest):
            return FLUSH_INTERVAL_S
        return max(0.0, self._next_flush - self._clock.monotonic())

    def ensure(self) -> None:
        """Create the three files with their headers where they are absent."""
        self._nodes_table.ensure()
        self._sightings_table.ensure()
        self._latest_table.ensure()

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
        """Write what is due: new names at once, the rest once a minute; failures wait."""
        due = force or self._clock.monotonic() >= self._next_flush
        if not (due or self._urgent):
            return
        try:
            self._write(self._nodes_table, self._nodes, self._dirty_nodes, self._stored_nodes)
            self._urgent = False
            if due:
                self._next_flush = self._clock.monotonic() + FLUSH_INTERVAL_S
                self._write(
                    self._latest_table, self._latest, self._dirty_latest, self._stored_latest
                )
        except DamagedFileError:
            self._repair()
        except TransientError as error:
            self._next_flush = self._clock.monotonic() + FLUSH_INTERVAL_S
            self._urgent = False
            log.error("registry_not_written", reason=str(error), retry_in_s=FLUSH_INTERVAL_S)

    def _repair(self) -> None:
        """Mend both files; what the damage took from them is written again by the next flush."""
        try:
            self._stored_nodes = {row.node_id for row in self._load(self._nodes_table)}
            self._stored_latest = {row.node_id for row in self._load(self._latest_table)}
        except TransientError as error:
            log.error("registry_not_written", reason=str(error), retry_in_s=FLUSH_INTERVAL_S)
        self._dirty_nodes |= self._nodes.keys() - self._stored_nodes
        self._dirty_latest |= self._latest.keys() - self._stored_latest
        self._urgent = False
        self._next_flush = self._clock.monotonic() + FLUSH_INTERVAL_S

    def _load(self, table: Table[R]) -> tuple[R, ...]:
        snapshot = table.read()
        if snapshot.damage:
            quarantine.repair(table, self._tree.quarantine, self._clock)
            snapshot = table.read()
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
            if is_fresh and at > known.last_seen_at:
                self._nodes[node_id] = replace(known, last_seen_at=at)
                self._dirty_nodes.add(node_id)
            return True
        if len(self._nodes) >= self._max_nodes:
            if not self._limit_logged:
                log.warning(
                    "node_limit_reached", limit=self._max_nodes, consequence="not registered"
                )
                self._limit_logged = True
            return False
        self._nodes[node_id] = Node(node_id, first_seen_at=at, last_seen_at=at)
        self._dirty_nodes.add(node_id)
        self._urgent = True
        log.info("node_seen", node_id=node_id)
        return True

    def _rename(self, node_id: str, short_name: str, long_name: str) -> None:
        known = self._nodes.get(node_id)
        if known is None or not (short_name or long_name):
            return
        if (known.short_name, known.long_name) == (short_name, long_name):
            return
        self._nodes[node_id] = replace(known, short_name=short_name, long_name=long_name)
        self._dirty_nodes.add(node_id)
        self._urgent = True
        log.info("node_updated", node_id=node_id)

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
            same_day = last.observed_at[:10] >= at[:10]
            if same_day or last.sighting_hash == row.sighting_hash:
                reason = "already one today" if same_day else "nothing changed"
                log.debug("sighting_skipped", node_id=node_id, reason=reason)
                return
        try:
            self._sightings_table.append([row])
        except DamagedFileError:
            quarantine.repair(self._sightings_table, self._tree.quarantine, self._clock)
            return
        except TransientError as error:
            log.error("sighting_not_written", node_id=node_id, reason=str(error))
            return
        self._last_sighting[node_id] = row
        log.info("sighting_stored", node_id=node_id)


def _constant(row: R) -> Callable[[R], R | None]:
    return lambda _current: row


def _unix_text(seconds: int) -> str:
    return utc_text(datetime.fromtimestamp(seconds, UTC))
