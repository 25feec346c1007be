"""Policies (c) and (d): the real outbox over real files, in virtual time, behind our radio."""

import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from benchmarks.delivery_client import Client, Outcome
from benchmarks.delivery_mesh import OURS, PERSON, Line
from benchmarks.delivery_scenario import Answer, Scenario
from meshllm.bridge import life
from meshllm.bridge.manners import Pace
from meshllm.bridge.outbox import Outbox, OutboxSettings
from meshllm.bridge.retry import FAR_RELAYS
from meshllm.bridge.tables import Change, Tables
from meshllm.clock import Waker, utc_text
from meshllm.config.settings import Settings
from meshllm.layout import Layout, node_id
from meshllm.radio.base import (
    Channel,
    Envelope,
    OutgoingText,
    QueueStatus,
    RadioInfo,
    RoutingHeard,
)
from meshllm.records import Message, compact_json
from meshllm.sim import packets, wire
from meshllm.sim.engine import Timer, VirtualTime
from meshllm.sim.packets import Packet, Port
from meshllm.store.atomic import Modes
from meshllm.testing.clock import NOON

FAR_HOPS: Final = 1 + FAR_RELAYS  #: nearer than this (c) and (d) decide alike
KEPT_WINDOW_S: Final = 2.0  #: as the bridge: what comes this soon after connecting was kept
TELEMETRY_S: Final = 60.0  #: the firmware tells its client of its air once a minute
_MAX_TICKS: Final = 1000  #: in a row without time passing: the outbox is stuck in a loop
_UP_S: Final = 1000.0  #: age of the machine at the start


class VirtualClock:
    """Implements Clock over virtual time: wall and monotonic time move together."""

    scale = 1.0

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def monotonic(self) -> float:
        """Seconds since the imagined boot."""
        return self._time.now() + _UP_S

    def utc(self) -> datetime:
        """Imagined wall time."""
        return NOON + timedelta(seconds=self._time.now())

    def wait(self, waker: Waker, timeout_s: float) -> bool:
        """Refuse: nothing that is measured here may block."""
        raise RuntimeError(f"blocked for {timeout_s} s in virtual time ({waker})")


class NotedTables(Tables):
    """The bridge's tables; tells of every row that changed."""

    on_change: Callable[[Message], None] = staticmethod(lambda _row: None)

    def update(
        self, path: Path, changes: Mapping[tuple[str, ...], Change], *, may_spend: bool = True
    ) -> dict[tuple[str, ...], Message]:
        """Change rows as the bridge does."""
        changed = super().update(path, changes, may_spend=may_spend)
        for row in changed.values():
            self.on_change(row)
        return changed


class Ours:
    """Our outbox with everything that the bridge would tell it."""

    def __init__(
        self, line: Line, scenario: Scenario, folder: Path, *, seed: int, insists: bool = False
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.changes: list[tuple[float, Message]] = []
        self.folder = folder
        self.time = line.time
        self.clock = VirtualClock(line.time)
        self.client = Client(line, scenario, seed=seed)
        self.client.on_packet = self._heard
        self.client.on_queue_status = self._queue_status
        self.client.on_up = self._up
        self._line = line
        self._by_id: dict[str, Outcome] = {}
        self._rng = random.Random(f"ids/{seed}")  # noqa: S311 - no secret
        self._timer: Timer | None = None
        self._tree = Layout(folder / "data", folder / "data/nodes", folder / "p").tree("ours")
        for part in self._tree.folders():
            part.mkdir(parents=True)
        self._path = self._tree.dm_thread(node_id(PERSON))
        self._tables = NotedTables(
            self._tree.quarantine, modes=Modes(), lock_timeout_s=1.0, clock=self.clock
        )
        self._tables.on_change = self._changed
        settings = outbox_settings(insists=insists)
        self.outbox = Outbox(self._tables, self, settings, clock=self.clock, kind="tcp")
        self.client.connect()
        self.time.call_later(TELEMETRY_S, self._measure)

    # What the outbox asks of its link

    def send(self, text: OutgoingText) -> None:
        """Hand over one text."""
        packet = self.client.text(text.packet_id, text.text, reply_id=text.reply_id)
        self.time.call_later(0.0, lambda: self._write(packet))

    def _write(self, packet: Packet) -> None:
        self.client.send(packet)
        self.outbox.written(packet.id)
        self._tick()

    def refresh(self, cause: str) -> None:
        """Connect afresh."""
        del cause
        self.client.reconnect()
        self.time.call_later(0.0, self._down)

    def ask_user(self, number: int) -> None:
        """Ask a node for its node info."""
        me = self._line.ours
        me.send(
            Packet(
                to=number,
                id=me.new_id(),
                port=Port.NODEINFO,
                payload=wire.user_payload(me.user),
                want_response=True,
                hop_limit=self._line.hop_limit,
            )
        )

    # What happens

    def question(self, answer: Answer) -> None:
        """Record a question as the bridge does when it was heard."""
        envelope = self._envelope_now(answer.number + 1)
        self._tables.append(self._path, [self._inbound(answer, envelope)])
        self.outbox.heard(envelope)
        self._tick()

    def queue(self, answer: Answer) -> None:
        """Queue an answer as the agent does, all parts in one commit."""
        rows = []
        for part, text in enumerate(answer.parts, 1):
            outcome = Outcome(text)
            row = self._queued(answer, part, text)
            self.outcomes.append(outcome)
            self._by_id[row.message_id] = outcome
            rows.append(row)
        self._tables.append(self._path, rows)
        for row in rows:
            self._changed(row)
        self.outbox.scan(self._path)
        self._tick()

    def _inbound(self, answer: Answer, envelope: Envelope) -> Message:
        meta = {
            "channel_index": 0,
            "snr": envelope.snr_db,
            "rssi": envelope.rssi,
            "hop_start": envelope.hop_start,
            "hop_limit": envelope.hop_limit,
            "pki": True,
        }
        return self._row(answer, str(answer.number + 1), "inbound", "question?", meta, "")

    def _queued(self, answer: Answer, part: int, text: str) -> Message:
        meta: dict[str, object] = {"kind": "reply", "prompt_id": f"p{answer.number}"}
        if len(answer.parts) > 1:
            meta |= {"part": part, "parts": len(answer.parts)}
        message_id = str(self._rng.randrange(1, 2**32))
        return self._row(answer, message_id, "queued", text, meta, str(answer.number + 1))

    def _row(
        self,
        answer: Answer,
        message_id: str,
        direction: str,
        content: str,
        meta: Mapping[str, object],
        reply_to_id: str,
    ) -> Message:
        del answer
        return Message(
            thread_type="dm",
            thread_key=node_id(PERSON),
            message_id=message_id,
            direction=direction,
            sender_id=node_id(PERSON if direction == "inbound" else OURS),
            reply_to_id=reply_to_id,
            timestamp=utc_text(self.clock.utc()),
            content=content,
            meta_json=compact_json(meta),
        )

    def _envelope_now(self, packet_id: int) -> Envelope:
        """What a packet of the person looks like that has come down the line just now."""
        hops = len(self._line.nodes) - 2
        last = self._line.air.link(self._line.nodes[1].num, OURS)
        limit = self._line.hop_limit
        return Envelope(PERSON, OURS, packet_id, 0, last.snr_db, -90, limit, limit - hops, pki=True)

    def _up(self) -> None:
        self.outbox.link_up(RadioInfo(OURS, preset=self._line.air.preset, channels=_CHANNELS))
        self._tick()

    def _down(self) -> None:
        self.outbox.link_down()
        self._tick()

    def _queue_status(self, status: packets.QueueStatus) -> None:
        self.outbox.queue_status(
            QueueStatus(status.packet_id, status.res, status.free, status.maxlen)
        )
        self._tick()

    def _heard(self, packet: Packet) -> None:
        envelope = _envelope(packet)
        error = wire.parse_routing(packet.payload) if packet.port == Port.ROUTING else None
        if error is not None:
            self.outbox.routing(RoutingHeard(envelope, packet.request_id, error.name))
        is_kept = self.time.now() - self.client.up_at < KEPT_WINDOW_S
        if packet.sender != OURS and not is_kept:
            self.outbox.heard(envelope)
        self._tick()

    def _measure(self) -> None:
        air = self._line.air
        self.outbox.air_measured(
            channel_use=100 * air.channel_use(OURS), own_use=100 * air.own_use(OURS)
        )
        self._tick()
        self.time.call_later(TELEMETRY_S, self._measure)

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(_MAX_TICKS):
            wait_s = self.outbox.tick()
            if wait_s > 0:
                self._timer = self.time.call_later(wait_s, self._tick)
                return
        raise RuntimeError("the outbox wants to run all the time")

    def _changed(self, row: Message) -> None:
        self.changes.append((self.time.now(), row))
        outcome = self._by_id.get(row.message_id)
        if outcome is None:
            return
        outcome.ids = sorted({t.packet_id for t in life.tries(row)})
        outcome.is_final = not (life.is_queued(row) or life.awaits_ack(row))
        state = _state(row)
        if state != outcome.state:
            outcome.state = state
            outcome.final_at = self.time.now()


def outbox_settings(*, insists: bool) -> OutboxSettings:
    """The numbers of a fresh installation, as the bridge takes them from its settings.

    `insists`: the operator has set `repeat_far_under_new_id` besides.
    """
    given = Settings(repeat_far_under_new_id=True) if insists else Settings()
    return OutboxSettings(
        pace=Pace(
            spacing_s=given.send_spacing_seconds,
            budget_s=given.airtime_budget,
            slow_percent=given.channel_use_slow_percent,
            hold_percent=given.channel_use_hold_percent,
        ),
        max_new_ids=given.max_new_id_retries,
        insists=given.repeat_far_under_new_id,
        max_held=given.max_held_per_person,
        max_held_s=given.max_held_seconds,
    )


_CHANNELS: Final = (Channel(0, "", "PRIMARY"),)


def _envelope(packet: Packet) -> Envelope:
    return Envelope(
        packet.sender,
        packet.to,
        packet.id,
        packet.channel,
        packet.rx_snr or None,
        packet.rx_rssi or None,
        packet.hop_start,
        packet.hop_limit,
        pki=packet.pki,
    )


def _state(row: Message) -> str:
    if life.is_queued(row):
        return "held" if row.meta.get("wait_heard") else "queued"
    if row.send_status == "failed":
        return "failed"
    return str(row.meta.get("delivery"))
