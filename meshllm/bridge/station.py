"""One radio and its tree: a thread that turns link events and file changes into rows and sends.

Owns no policy: `recorder` and `registry` record, `outbox` sends, `link` connects.
Everything here runs on the station's own thread, so one radio never waits for another.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from meshllm import layout
from meshllm.bridge import ingest
from meshllm.bridge.address import channel_name, preset_name
from meshllm.bridge.link import Down, Heard, Link, LinkEvent, SendFailed, Up, Written
from meshllm.bridge.outbox import Outbox, OutboxSettings
from meshllm.bridge.recorder import Arrival, Recorder
from meshllm.bridge.registry import Registry
from meshllm.bridge.tables import Tables
from meshllm.clock import Clock, utc_text
from meshllm.errors import TransientError
from meshllm.layout import Layout, NodeTree, channel_stem
from meshllm.observe import status
from meshllm.radio.base import (
    LinkKind,
    OtherHeard,
    PacketEvent,
    PositionHeard,
    QueueStatus,
    RadioFactory,
    RadioInfo,
    RoutingHeard,
    TelemetryHeard,
    TextHeard,
    UndecodableHeard,
    UserHeard,
)
from meshllm.records import Message
from meshllm.store import atomic, codec
from meshllm.store.atomic import Modes

log = structlog.get_logger()

KEPT_WINDOW_S: Final = 2.0  #: what arrives this soon after connecting was kept by the radio
STATUS_INTERVAL_S: Final = 60.0  #: heartbeat of radio.json
SCAN_SLICE: Final = 20  #: thread files looked through between two looks at the radio
CRASH_PAUSE_S: Final = 5.0
VERIFY_INTERVAL_S: Final = 1.0  #: between two whole reads after the start, 3 ms each
MAX_BURST: Final = 200  #: events handled in one go
REFUSED_PAUSE_S: Final = 300.0  #: every visit to another station's radio takes packets from it
STORAGE_PAUSE_S: Final = 10.0  #: before connecting again where the disk refused the radio's tree
MAX_EARLY: Final = 2000  #: packets held until the radio is known; it keeps at most 100 itself
_WORK_MARKS: Final = (b"queued", b'""handed""', b'""relayed""')  #: rows with work hold one of these


@dataclass(frozen=True, slots=True)
class StationSettings:
    """What one station goes by."""

    name: str
    kind: LinkKind
    alias: str
    modes: Modes
    lock_timeout_s: float
    outbox: OutboxSettings
    max_nodes: int
    max_threads: int


@dataclass(slots=True)
class _Bound:
    """Everything that depends on which node the radio turned out to be."""

    info: RadioInfo
    tree: NodeTree
    recorder: Recorder
    registry: Registry
    outbox: Outbox
    tables: Tables
    unscanned: list[Path]
    unverified: list[Path]


@dataclass(frozen=True, slots=True)
class _FileChanged:
    path: Path


class Station:
    """One configured radio."""

    def __init__(
        self,
        settings: StationSettings,
        files: Layout,
        make_radio: RadioFactory,
        on_tree: Callable[[NodeTree], bool],
        *,
        clock: Clock,
    ) -> None:
        """`on_tree` is asked once per bind whether this tree may be written by this station."""
        self._settings = settings
        self._files = files
        self._on_tree = on_tree
        self._clock = clock
        self._events: queue.SimpleQueue[LinkEvent | _FileChanged | None] = queue.SimpleQueue()
        self._batch: deque[LinkEvent | _FileChanged | None] = deque()
        self._link = Link(settings.name, make_radio, self._events.put, clock=clock)
        self._bound: _Bound | None = None
        self._early: list[Heard] = []
        self._is_up = False
        self._session = 0  #: the last connection whose radio is known
        self._up_at = 0.0
        self._link_cause = "starting"
        self._air: dict[str, float] = {}
        self._next_status = 0.0
        self._wait_s = 0.0
        self._next_verify = 0.0
        self._advised: dict[int, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"station {settings.name}", daemon=True
        )

    def start(self) -> None:
        """Start both threads."""
        self._thread.start()
        self._link.start()

    def file_changed(self, path: Path) -> None:
        """Hint that a file may have changed. Safe from any thread."""
        self._events.put(_FileChanged(path))

    @property
    def tree_root(self) -> Path | None:
        """Folder of the tree this station writes, once known."""
        return self._bound.tree.root if self._bound else None

    def stop(self, limit_s: float) -> None:
        """Drop the link, write what it still reported, finish the current step."""
        self._link.stop(limit_s / 2)
        self._stopping.set()
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join(limit_s / 2)

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._events.empty() and not self._batch):
            try:
                self._step()
            except Exception:
                log.exception(
                    "station_crashed",
                    radio=self._settings.name,
                    consequence="going on with the next event",
                )
                self._wait_s = 0.0
                self._stopping.wait(CRASH_PAUSE_S / self._clock.scale)
        if self._bound:
            self._bound.registry.flush(force=True)
            self._is_up, self._link_cause = False, "stopped"
            self._write_status()

    def _step(self) -> None:
        self._take(self._wait_s)
        texts: list[Arrival] = []
        while self._batch:
            event = self._batch.popleft()  # one that crashes the step takes no other with it
            if (
                isinstance(event, Heard)
                and isinstance(event.event, TextHeard)
                and self._bound
                and event.session <= self._session
            ):
                texts.append(self._arrival(event, event.event))
                continue
            self._record(texts)
            texts = []
            self._handle(event)
        self._record(texts)
        self._tick()

    def _take(self, wait_s: float) -> None:
        limit_s = 0.0 if self._batch or self._stopping.is_set() else wait_s / self._clock.scale
        try:
            self._batch.append(self._events.get(timeout=max(0.0, limit_s)))
            while len(self._batch) < MAX_BURST:
                self._batch.append(self._events.get_nowait())
        except queue.Empty:
            pass

    def _handle(self, event: LinkEvent | _FileChanged | None) -> None:
        if isinstance(event, Up):
            self._link_up(event)
        elif isinstance(event, Down):
            self._link_down(event)
        elif isinstance(event, Heard):
            self._heard(event)
        elif isinstance(event, Written) and self._bound:
            self._bound.outbox.written(event.packet_id)
        elif isinstance(event, SendFailed) and self._bound:
            self._bound.outbox.send_failed(event.packet_id, event.cause, busy=event.busy)
        elif isinstance(event, _FileChanged):
            self._file_changed(event.path)

    def _link_up(self, event: Up) -> None:
        info = event.info
        self._link.adopt(event.session)
        if self._bound is None or self._bound.info.number != info.number:
            try:
                self._bind(info)
            except TransientError as error:
                # What was heard stays in memory for the next connection.
                log.error("tree_not_opened", radio=self._settings.name, reason=str(error))
                self._link.drop("the tree cannot be opened", pause_s=STORAGE_PAUSE_S)
                return
        self._session = event.session
        self._is_up, self._link_cause = True, ""
        self._up_at = self._clock.monotonic()
        if self._bound is None:
            self._early.clear()  # another station's: its own link hears of them, too, or has
            self._link.drop("another station's radio", pause_s=REFUSED_PAUSE_S)
            return
        self._bound.info = info
        self._bound.registry.adopt(info)
        self._bound.outbox.link_up(info)
        early, self._early = self._early, []
        kept = [(h, h.event) for h in early]
        self._record([self._arrival(h, e) for h, e in kept if isinstance(e, TextHeard)])
        for heard, packet in kept:
            if not isinstance(packet, TextHeard):
                self._heard(heard)
        self._write_status()

    def _link_down(self, event: Down) -> None:
        self._is_up, self._link_cause = False, event.cause
        if self._bound:
            self._bound.outbox.link_down()
            self._write_status()

    def _bind(self, info: RadioInfo) -> None:
        """Open the tree of this node; a radio that was swapped gets a tree of its own."""
        settings = self._settings
        swapped, self._bound = self._bound, None
        if swapped is not None:
            log.warning("radio_swapped", radio=settings.name, was=swapped.tree.node_uid)
            swapped.registry.flush(force=True)
        tree = self._files.tree(settings.alias or layout.node_id(info.number))
        if not self._on_tree(tree):
            log.error(
                "radio_refused",
                radio=settings.name,
                node_uid=tree.node_uid,
                reason="another configured radio is the same node",
            )
            return
        atomic.make_folders(*tree.folders(), modes=settings.modes)
        _sweep(tree)
        tables = Tables(
            tree.quarantine,
            modes=settings.modes,
            lock_timeout_s=settings.lock_timeout_s,
            clock=self._clock,
        )
        registry = Registry(
            tree,
            modes=settings.modes,
            lock_timeout_s=settings.lock_timeout_s,
            clock=self._clock,
            max_nodes=settings.max_nodes,
        )
        registry.ensure()
        outbox = Outbox(tables, self._link, settings.outbox, clock=self._clock, kind=settings.kind)
        files = tree.thread_files()
        outbox.rest(self._newest_age_s(files))
        self._bound = _Bound(
            info=info,
            tree=tree,
            recorder=Recorder(tree, tables, clock=self._clock, max_threads=settings.max_threads),
            registry=registry,
            outbox=outbox,
            tables=tables,
            unscanned=files,
            unverified=list(files),
        )
        log.info("tree_opened", radio=settings.name, node_uid=tree.node_uid)

    def _heard(self, heard: Heard) -> None:
        event = heard.event
        bound = self._bound
        if isinstance(event, QueueStatus):
            if bound:
                bound.outbox.queue_status(event)
            return
        if heard.session > self._session:
            self._hold(heard)
            return
        if bound is None:
            return  # this radio was refused: its packets belong to another station's tree
        self._packet(bound, heard, event)  # type: ignore[arg-type] # QueueStatus is gone

    def _hold(self, heard: Heard) -> None:
        """Keep what a radio delivers before it has said which node it is."""
        if len(self._early) < MAX_EARLY:
            self._early.append(heard)
        else:
            log.error("packet_dropped", radio=self._settings.name, reason="too many before link up")

    def _packet(self, bound: _Bound, heard: Heard, event: PacketEvent) -> None:
        if isinstance(event, TextHeard):
            self._record([self._arrival(heard, event)])
            return
        if isinstance(event, RoutingHeard):
            bound.outbox.routing(event)
        at = ingest.received_at(event.envelope, heard.at, kept=self._is_kept())
        if event.envelope.sender == bound.info.number:
            self._own(event)
        if not bound.registry.heard(event.envelope, at=at):
            return
        if isinstance(event, UserHeard):
            bound.registry.named(event)
        elif isinstance(event, PositionHeard):
            channel = ingest.thread_channel(event.envelope.channel_index, bound.info)
            bound.registry.positioned(event, channel=channel, at=at)
        elif isinstance(event, TelemetryHeard):
            bound.registry.measured(event, at=at)
        elif isinstance(event, UndecodableHeard):
            self._undecodable(bound, event)
        elif isinstance(event, OtherHeard):
            log.debug("packet_ignored", port=event.port)

    def _own(self, event: PacketEvent) -> None:
        """Our radio's own telemetry tells how busy the air is."""
        if isinstance(event, TelemetryHeard):
            device = event.groups.get("deviceMetrics", {})
            for name in ("channelUtilization", "airUtilTx"):
                if name in device:
                    self._air[name] = device[name]

    def _undecodable(self, bound: _Bound, event: UndecodableHeard) -> None:
        if event.envelope.to != bound.info.number:
            return
        now = self._clock.monotonic()
        sender = event.envelope.sender
        if now < self._advised.get(sender, 0.0):
            return
        if len(self._advised) > bound.registry.limit:
            self._advised.clear()
        self._advised[sender] = now + 3600.0
        log.warning(
            "dm_undecodable",
            sender=layout.node_id(sender),
            advice="exchange node infos: let both radios hear each other, or remove the node "
            "from this radio's list so that its key is learnt again",
        )

    def _arrival(self, heard: Heard, text: TextHeard) -> Arrival:
        return Arrival(text, heard.at, heard.up_s, kept=self._is_kept())

    def _is_kept(self) -> bool:
        return self._clock.monotonic() - self._up_at < KEPT_WINDOW_S

    def _record(self, arrivals: list[Arrival]) -> None:
        bound = self._bound
        if not arrivals or bound is None:
            return
        bound.recorder.record(arrivals, bound.info)
        for arrival in arrivals:
            envelope = arrival.heard.envelope
            at = ingest.received_at(envelope, arrival.at, kept=arrival.kept)
            bound.registry.heard(envelope, at=at)

    def _file_changed(self, path: Path) -> None:
        bound = self._bound
        if bound and path.parent in (bound.tree.channels, bound.tree.dms):
            bound.outbox.scan(path)

    def _tick(self) -> None:
        bound = self._bound
        if bound is None:
            self._wait_s = STATUS_INTERVAL_S
            return
        self._scan_slice(bound)
        self._verify_next(bound)
        backlog_s = bound.recorder.tick()
        bound.registry.flush()
        outbox_s = bound.outbox.tick()
        if self._clock.monotonic() >= self._next_status:
            self._write_status()
        waits = [
            outbox_s,
            bound.registry.due_in_s(),
            self._next_status - self._clock.monotonic(),
            0.0 if bound.unscanned else STATUS_INTERVAL_S,
            VERIFY_INTERVAL_S if bound.unverified else STATUS_INTERVAL_S,
            STATUS_INTERVAL_S if backlog_s is None else backlog_s,
        ]
        self._wait_s = max(0.0, min(waits))

    def _newest_age_s(self, files: list[Path]) -> float:
        """Age of the newest thread file: whatever an earlier run sent, it wrote there."""
        newest = max((path.stat().st_mtime for path in files), default=0.0)
        return max(0.0, self._clock.utc().timestamp() - newest) * self._clock.scale

    def _verify_next(self, bound: _Bound) -> None:
        """Read one file whole, so that damage without queued rows is mended, too."""
        now = self._clock.monotonic()
        if bound.unscanned or not bound.unverified or now < self._next_verify:
            return
        self._next_verify = now + VERIFY_INTERVAL_S
        path = bound.unverified.pop()
        try:
            # Past the tables: 500 files looked through once must not fill their cache.
            is_damaged = bool(codec.decode(path.read_bytes(), Message).damage)
            if is_damaged:
                bound.tables.read(path)
        except (OSError, TransientError) as error:
            log.error("thread_unreadable", file=path.name, reason=str(error))

    def _scan_slice(self, bound: _Bound) -> None:
        """Look for unfinished rows a few files at a time, so that a text never waits for it."""
        for _ in range(min(SCAN_SLICE, len(bound.unscanned))):
            path = bound.unscanned.pop()
            try:
                has_work = any(mark in path.read_bytes() for mark in _WORK_MARKS)
            except OSError:
                has_work = True  # the outbox reports it and tries again
            if has_work:
                bound.outbox.scan(path)

    def _write_status(self) -> None:
        bound = self._bound
        self._next_status = self._clock.monotonic() + STATUS_INTERVAL_S
        if bound is None:
            return
        try:
            status.write(bound.tree.radio_status, self._status(bound), modes=self._settings.modes)
        except TransientError as error:
            log.error("status_not_written", file="radio.json", reason=str(error))

    def _status(self, bound: _Bound) -> dict[str, Any]:
        info = bound.info
        names = ingest.channel_names(info)
        return {
            "node_uid": bound.tree.node_uid,
            "node_id": layout.node_id(info.number),
            "short_name": info.short_name,
            "long_name": info.long_name,
            "firmware": info.firmware,
            "region": info.region,
            "preset": preset_name(info.preset) if info.preset else "",
            "channels": [
                {
                    "index": c.index,
                    "name": channel_name(c, info.preset),
                    "file": channel_stem(names[c.index], index=c.index, others=names),
                    "role": c.role,
                }
                for c in info.channels
            ],
            "link": self._settings.name,
            "link_state": "up" if self._is_up else "down",
            "link_cause": self._link_cause,
            "queued": bound.outbox.queued_count(),
            "channel_utilization": self._air.get("channelUtilization"),
            "air_util_tx": self._air.get("airUtilTx"),
            "heartbeat_at": utc_text(self._clock.utc()),
        }


def _sweep(tree: NodeTree) -> None:
    """Remove what a killed bridge left half written; tables sweep for themselves."""
    try:
        atomic.sweep(tree.root, tree.radio_status.name)
        if tree.quarantine.is_dir():
            atomic.sweep(tree.quarantine)
    except TransientError as error:
        log.warning("sweep_failed", reason=str(error), consequence="left-over files stay")
