"""One radio and its tree: a thread that turns link events and file changes into rows and sends.

Owns no policy: `recorder` and `registry` record, `outbox` sends, `link` connects.
Everything here runs on the station's own thread, so one radio never waits for another.
"""

import queue
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from meshllm import layout
from meshllm.bridge import channels, ingest, radio_status, recorder
from meshllm.bridge.link import Down, Heard, Link, LinkEvent, Refreshed, SendFailed, Up, Written
from meshllm.bridge.open_tree import OpenTree, StationSettings
from meshllm.bridge.owners import Owners
from meshllm.bridge.recorder import BACKLOG_RETRY_S, Arrival, Recorder
from meshllm.clock import Clock
from meshllm.errors import TransientError
from meshllm.layout import Layout, NodeTree
from meshllm.observe import status
from meshllm.observe.board import RadioState
from meshllm.observe.sparing import Sparing
from meshllm.radio.base import (
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

log = structlog.get_logger()

KEPT_WINDOW_S: Final = 2.0  #: what arrives this soon after connecting was kept by the radio
STATUS_INTERVAL_S: Final = 60.0  #: heartbeat of radio.json
CRASH_PAUSE_S: Final = 5.0
MAX_BURST: Final = 200  #: events handled in one go
ADVICE_BURST: Final = 3  #: senders can be forged: so many events about them at once,
ADVICE_LOG_S: Final = 60.0  #: and then one in this time
REFUSED_PAUSE_S: Final = 300.0  #: every visit to another station's radio takes packets from it
STORAGE_PAUSE_S: Final = 10.0  #: before connecting again where the disk refused the radio's tree
MAX_EARLY: Final = 2000  #: packets held until the radio is known; it keeps at most 100 itself
_PASSED_ON: Final = 0  #: session of what another station heard for this tree; ours begin at 1


@dataclass(frozen=True, slots=True)
class _FileChanged:
    path: Path


@dataclass(frozen=True, slots=True)
class _PassedOn:
    tree: NodeTree
    heard: tuple[Heard, ...]


_Event = LinkEvent | _FileChanged | _PassedOn | None


class Station:
    """One configured radio."""

    def __init__(
        self,
        settings: StationSettings,
        files: Layout,
        make_radio: RadioFactory,
        owners: Owners,
        *,
        clock: Clock,
    ) -> None:
        """`owners` is asked once per bind whether this tree may be written by this station."""
        self._settings = settings
        self._files = files
        self._owners = owners
        self._clock = clock
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._batch: deque[_Event] = deque()
        self._link = Link(settings.name, make_radio, self._events.put, clock=clock)
        self._bound: OpenTree | None = None
        self._early: list[Heard] = []
        self._foreign: NodeTree | None = None  #: of another station, which our radio belongs to
        self._unplaced: list[_PassedOn] = []
        self._leaving: list[Recorder] = []  #: of trees let go, with texts the disk still refuses
        self._is_up = False
        self._session = 0  #: the last connection whose radio is known
        self._connects = 0
        self._up_at = 0.0
        self._link_cause = "starting"
        self._air: dict[str, float] = {}
        self._next_status = 0.0
        self._told_storage = ""
        self._is_stale = False
        self._wait_s = 0.0
        self._advised: dict[int, float] = {}
        self._advice_log = Sparing(clock, burst=ADVICE_BURST, interval_s=ADVICE_LOG_S)
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

    def take(self, tree: NodeTree, heard: Sequence[Heard]) -> None:
        """Queue what another station heard for this tree. Safe from any thread."""
        passed = tuple(replace(item, session=_PASSED_ON) for item in heard)
        self._events.put(_PassedOn(tree, passed))

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
        # Before all else that is written at the end: only these are nowhere but in memory.
        recorder.close([*self._leaving, *([self._bound.recorder] if self._bound else [])])
        if self._bound:
            self._part(status.STOPPED)

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
                texts.append(self._arrival(self._bound, event, event.event))
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

    def _handle(self, event: _Event) -> None:
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
        elif isinstance(event, Refreshed) and self._bound:
            self._bound.outbox.refreshed()
        elif isinstance(event, _FileChanged):
            if self._bound:
                self._bound.scan(event.path)
        elif isinstance(event, _PassedOn):
            self._passed_on(event)

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
        self._connects += 1
        self._up_at = self._clock.monotonic()
        early, self._early = self._early, []
        for passed in self._unplaced:
            self._events.put(passed)
        self._unplaced.clear()
        if self._bound is None:
            self._give_away(early)
            self._link.drop("another station's radio", pause_s=REFUSED_PAUSE_S)
            return
        self._is_up, self._link_cause = True, self._bound.link_up(info)
        kept = [(h, h.event) for h in early]
        bound = self._bound
        self._record([self._arrival(bound, h, e) for h, e in kept if isinstance(e, TextHeard)])
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
        if self._bound is not None:
            log.warning("radio_swapped", radio=settings.name, was=self._bound.tree.node_uid)
            self._part("another radio answers on this link")
        tree = self._files.tree(settings.alias or layout.node_id(info.number))
        refused, self._foreign = self._foreign, None
        if not self._owners.claim(tree, self):
            self._foreign = tree
            if refused != tree:
                log.error(
                    "radio_refused",
                    radio=settings.name,
                    node_uid=tree.node_uid,
                    reason="another configured radio is the same node",
                )
            return
        self._bound = OpenTree(
            tree, info, self._link, settings, self.file_changed, clock=self._clock
        )

    def _part(self, cause: str) -> None:
        """Let a tree go: whoever reads its radio.json must not take the link for up."""
        assert self._bound is not None
        self._is_up, self._link_cause = False, cause
        self._write_status()
        self._bound.close()
        self._leaving.append(self._bound.recorder)
        self._bound = None

    def _passed_on(self, passed: _PassedOn) -> None:
        """Record what another link to our radio was given; or find out whose it is."""
        bound = self._bound
        if bound is not None and bound.tree == passed.tree:
            for heard in passed.heard:
                self._heard(heard)
        elif bound is None and self._foreign is None:
            self._unplaced.append(passed)  # our tree could not be opened yet
        else:
            self._owners.pass_on(passed.tree, passed.heard)

    def _give_away(self, heard: Sequence[Heard]) -> None:
        """Pass packets on to the station that this radio belongs to."""
        packets = [item for item in heard if not isinstance(item.event, QueueStatus)]
        if packets and self._foreign is not None:
            self._owners.pass_on(self._foreign, packets)

    def _heard(self, heard: Heard) -> None:
        event = heard.event
        bound = self._bound
        if bound and heard.session == self._session:
            bound.alive_up_s = heard.up_s
        if isinstance(event, QueueStatus):
            if bound:
                bound.outbox.queue_status(event)
            return
        if heard.session > self._session:
            self._hold(heard)
            return
        if bound is None:
            self._give_away([heard])
            return
        self._packet(bound, heard, event)  # type: ignore[arg-type] # QueueStatus is gone

    def _hold(self, heard: Heard) -> None:
        """Keep what a radio delivers before it has said which node it is."""
        if len(self._early) < MAX_EARLY:
            self._early.append(heard)
        else:
            log.error("packet_dropped", radio=self._settings.name, reason="too many before link up")

    def _packet(self, bound: OpenTree, heard: Heard, event: PacketEvent) -> None:
        if isinstance(event, TextHeard):
            self._record([self._arrival(bound, heard, event)])
            return
        self._tell_outbox(bound, heard, event)
        at = ingest.received_at(
            event.envelope, heard.at, kept=self._is_kept(heard), longest=self._longest(bound, heard)
        )
        if event.envelope.sender == bound.info.number:
            self._own(event)
        if not bound.registry.heard(event.envelope, at=at):
            return
        if isinstance(event, UserHeard):
            bound.registry.named(event)
        elif isinstance(event, PositionHeard):
            # Under our own key it was for us alone: index 0 then is no channel to tell it on.
            is_private = event.envelope.pki
            index = event.envelope.channel_index
            channel = "" if is_private else ingest.thread_channel(index, bound.info)
            bound.registry.positioned(event, channel=channel, at=at)
        elif isinstance(event, TelemetryHeard):
            bound.registry.measured(event, at=at)
        elif isinstance(event, UndecodableHeard):
            self._undecodable(bound, event)
        elif isinstance(event, OtherHeard):
            log.debug("packet_ignored", port=event.port)

    def _tell_outbox(self, bound: OpenTree, heard: Heard, event: PacketEvent) -> None:
        if isinstance(event, RoutingHeard):
            bound.outbox.routing(event)
        if not self._is_kept(heard):
            bound.outbox.heard(event.envelope)

    def _own(self, event: PacketEvent) -> None:
        """Our radio's own telemetry tells how busy the air is."""
        if isinstance(event, TelemetryHeard):
            device = event.groups.get("deviceMetrics", {})
            for name in ("channelUtilization", "airUtilTx"):
                if name in device:
                    self._air[name] = device[name]
            if self._bound:
                self._bound.outbox.air_measured(
                    channel_use=device.get("channelUtilization"), own_use=device.get("airUtilTx")
                )

    def _undecodable(self, bound: OpenTree, event: UndecodableHeard) -> None:
        if event.envelope.to != bound.info.number:
            return
        now = self._clock.monotonic()
        sender = event.envelope.sender
        if now < self._advised.get(sender, 0.0):
            return
        if len(self._advised) > bound.registry.limit:
            self._advised.clear()
        self._advised[sender] = now + 3600.0
        left_out = self._advice_log.left_out("dm_undecodable")
        if left_out is None:
            return
        log.warning(
            "dm_undecodable",
            sender=layout.node_id(sender),
            left_out=left_out,
            advice="exchange node infos: let both radios hear each other, or remove the node "
            "from this radio's list so that its key is learnt again",
        )

    def _arrival(self, bound: OpenTree, heard: Heard, text: TextHeard) -> Arrival:
        if heard.session == self._session:
            bound.alive_up_s = heard.up_s
        kept, longest = self._is_kept(heard), self._longest(bound, heard)
        return Arrival(text, heard.at, heard.up_s, kept=kept, longest=longest)

    def _is_kept(self, heard: Heard) -> bool:
        """Say whether the radio held this while we were away: by its arrival, not by our haste."""
        since_up_s = heard.up_s * self._clock.scale - self._up_at
        return heard.session == _PASSED_ON or since_up_s < KEPT_WINDOW_S

    def _longest(self, bound: OpenTree, heard: Heard) -> timedelta:
        """How long the radio may have held a packet: for as long as it has told us nothing."""
        return bound.away(heard.up_s) if heard.session == _PASSED_ON else bound.longest_away

    def _record(self, arrivals: list[Arrival]) -> None:
        bound = self._bound
        if not arrivals or bound is None:
            return
        told = bound.info
        for arrival in arrivals:
            envelope = arrival.heard.envelope
            if channels.is_untold(envelope, bound.info):
                bound.add_slot(envelope.channel_index)
        bound.recorder.record(arrivals, bound.info)
        for arrival in arrivals:
            envelope = arrival.heard.envelope
            bound.registry.heard(envelope, at=arrival.heard_at)
            if not arrival.kept:
                bound.outbox.heard(envelope)
            if arrival.heard.reply_id:
                bound.outbox.answered(envelope.sender, arrival.heard.reply_id)
        if bound.info is not told:
            self._link.drop("a channel was not told", pause_s=0.0)

    def _tick(self) -> None:
        bound = self._bound
        self._leaving = [left for left in self._leaving if left.tick() is not None]
        self._settings.board.turned(f"radio {self._settings.place}")
        self._settings.board.radio(self._settings.place, self._state)
        if bound is None:
            self._wait_s = BACKLOG_RETRY_S if self._leaving else STATUS_INTERVAL_S
            return
        look_s = bound.look()
        backlog_s = bound.recorder.tick()
        bound.registry.flush()
        outbox_s = bound.outbox.tick()
        bound.tidy(quiet_s=outbox_s if self._events.empty() else 0.0)
        is_news = self._settings.storage.state != self._told_storage
        if is_news or self._clock.monotonic() >= self._next_status:
            self._write_status()
        waits = [
            outbox_s,
            look_s,
            bound.registry.due_in_s(),
            self._next_status - self._clock.monotonic(),
            STATUS_INTERVAL_S if backlog_s is None else backlog_s,
        ]
        self._wait_s = max(0.0, min(waits))

    def _state(self) -> RadioState:
        bound = self._bound
        unwritten = sum(left.waiting for left in self._leaving)
        if bound is None:
            return RadioState(self._is_up, self._connects, unwritten=unwritten)
        return radio_status.state(
            bound.outbox.status(),
            self._air,
            is_up=self._is_up,
            connects=self._connects,
            unwritten=unwritten + bound.recorder.waiting,
            scale=self._clock.scale,
        )

    def _write_status(self) -> None:
        bound = self._bound
        self._next_status = self._clock.monotonic() + STATUS_INTERVAL_S
        if bound is None:
            return
        facts = radio_status.facts(
            bound.tree,
            bound.info,
            link=radio_status.LinkState(self._settings.name, self._is_up, self._link_cause),
            queue=bound.outbox.status(),
            air=self._air,
            storage=self._settings.storage,
            now=self._clock.utc(),
        )
        self._told_storage = self._settings.storage.state
        try:
            status.write(bound.tree.radio_status, facts, modes=self._settings.modes)
            self._is_stale = False
        except TransientError as error:
            if not self._is_stale:
                log.error("status_not_written", file="radio.json", reason=str(error))
            self._is_stale = True
