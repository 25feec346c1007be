"""A small world for the bridge: real files, a clock that is moved, a radio's side by hand."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshllm.bridge import retry
from meshllm.bridge.outbox import Outbox, OutboxSettings
from meshllm.bridge.tables import Tables
from meshllm.clock import utc_text
from meshllm.layout import Layout
from meshllm.radio.base import (
    Envelope,
    LinkKind,
    OutgoingText,
    QueueStatus,
    RoutingHeard,
)
from meshllm.records import Message, compact_json
from meshllm.store.atomic import Modes
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from meshllm.testing.radio import INFO, OWN_NUMBER

OWN = "!aaaa0001"
ADA = "!a11ce001"
ADA_NUMBER = 0xA11CE001
STRANGER = 0xB0B00001
ACK_TIMEOUT_S = retry.ack_timeout_s(2, INFO.preset)


@dataclass
class Port:
    """What the outbox takes for its link: notes what it is told, refuses nothing."""

    sent: list[OutgoingText] = field(default_factory=list)
    refreshes: list[str] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def send(self, text: OutgoingText) -> None:
        self.sent.append(text)

    def refresh(self, cause: str) -> None:
        self.refreshes.append(cause)

    def ask_user(self, number: int) -> None:
        self.asked.append(number)


class OutboxWorld:
    """One outbox over real files. `restart` is the death of the process at this very moment."""

    def __init__(
        self,
        root: Path,
        *,
        kind: LinkKind = "tcp",
        max_new_ids: int = 1,
        settings: OutboxSettings | None = None,
    ) -> None:
        self.tree = Layout(root / "data", root / "data/nodes", root / "prompts").tree("aaaa0001")
        for folder in self.tree.folders():
            folder.mkdir(parents=True, exist_ok=True)
        self.clock = ManualClock()
        self.kind: LinkKind = kind
        self.settings = settings or OutboxSettings(max_new_ids=max_new_ids)
        self._ids = itertools.count(501)
        self.port = Port()
        self.outbox = self._make()
        self.outbox.link_up(INFO)

    def _make(self) -> Outbox:
        tables = Tables(self.tree.quarantine, modes=Modes(), lock_timeout_s=1.0, clock=self.clock)
        return Outbox(tables, self.port, self.settings, clock=self.clock, kind=self.kind)

    def restart(self, *, up: bool = True) -> None:
        self.port = Port()
        self.outbox = self._make()
        if up:
            self.outbox.link_up(INFO)
        for path in self.tree.thread_files():
            self.outbox.scan(path)

    def reconnect(self) -> None:
        self.outbox.link_down()
        self.outbox.link_up(INFO)

    # -- files ---------------------------------------------------------------------------------

    def path(self, key: str = ADA) -> Path:
        if key.startswith("!"):
            return self.tree.dm_thread(key)
        return self.tree.channel_thread(key.lower())

    def queue(self, *contents: str, key: str = ADA, scan: bool = True, **fields: Any) -> list[str]:
        """Append rows in one commit, as the agent does; several are the parts of one answer."""
        meta = fields.pop("meta", {})
        rows = [
            Message(
                thread_type="dm" if key.startswith("!") else "channel",
                thread_key=key,
                message_id=fields.get("message_id") or str(next(self._ids)),
                direction="queued",
                sender_id=OWN,
                reply_to_id=fields.get("reply_to_id", "77"),
                timestamp=utc_text(self.clock.utc()),
                content=content,
                meta_json=compact_json(
                    {**meta, "part": n, "parts": len(contents)} if len(contents) > 1 else meta
                ),
            )
            for n, content in enumerate(contents, 1)
        ]
        Table(self.path(key), Message).append(rows)
        if scan:
            self.outbox.scan(self.path(key))
        return [row.message_id for row in rows]

    def append(self, row: Message) -> None:
        """Put a finished row into its thread."""
        Table(self.path(row.thread_key), Message).append([row])

    def change(self, key: str = ADA, **fields: Any) -> None:
        """Let somebody else change the newest row of a thread."""
        row = self.rows(key)[-1]
        changed = Message(**{**{n: getattr(row, n) for n in Message.columns()}, **fields})
        Table(self.path(key), Message).update({row.key: lambda _row: changed})

    def rows(self, key: str = ADA) -> tuple[Message, ...]:
        return Table(self.path(key), Message).read().rows

    def row(self, key: str = ADA) -> Message:
        return self.rows(key)[-1]

    def state(self, key: str = ADA) -> list[tuple[str, str, object, object]]:
        return [
            (r.direction, r.send_status, r.meta.get("delivery"), r.meta.get("reason"))
            for r in self.rows(key)
        ]

    def tries(self, key: str = ADA) -> list[tuple[int, str | None]]:
        return [(t["id"], t.get("result")) for t in self.row(key).meta.get("tries", [])]

    # -- time and the radio --------------------------------------------------------------------

    def tick(self, *, after: float = 0.0) -> float:
        self.clock.advance(after)
        return self.outbox.tick()

    def run(self, seconds: float) -> None:
        """Let time pass as the station does: tick whenever the outbox wants to."""
        end = self.clock.monotonic() + seconds
        for _ in range(500 + int(seconds)):
            wait_s = self.outbox.tick()
            left_s = end - self.clock.monotonic()
            if left_s <= 0:
                return
            self.clock.advance(min(max(wait_s, 0.01), left_s))
        raise AssertionError("the outbox wants to run all the time")

    def accept(self, result: int = 0) -> int:
        """Let the radio answer the newest hand-over; its packet id."""
        packet_id = self.port.sent[-1].packet_id
        self.outbox.written(packet_id)
        self.outbox.queue_status(QueueStatus(packet_id, result, free=15, maxlen=16))
        return packet_id

    def hand_over(self, *, after: float = 0.0) -> int:
        before = len(self.port.sent)
        self.tick(after=after)
        assert len(self.port.sent) == before + 1
        return self.accept()

    def run_until_sent(self, limit_s: float = 4000.0) -> int:
        """Let time pass until one more text is handed over; take it and return its packet id."""
        before = len(self.port.sent)
        for _ in range(int(limit_s)):
            self.tick(after=1.0)
            if len(self.port.sent) > before:
                return self.accept()
        raise AssertionError(f"nothing was sent in {limit_s} s")

    def be_silent(self, *, attempts: int, key: str = ADA) -> None:
        """Queue a text and let so many attempts end without any ACK."""
        self.queue("hi", key=key)
        for _ in range(attempts):
            self.hand_over(after=3.0)
            self.run(ACK_TIMEOUT_S + 1)
            self.run(130)
            self.reconnect()

    def hear(self, sender: int = ADA_NUMBER, *, hops: int = 0) -> None:
        """Let a node be heard, weakly."""
        self.outbox.heard(
            Envelope(sender, OWN_NUMBER, 9, snr_db=-12.0, hop_start=3, hop_limit=3 - hops)
        )

    def ack(self, packet_id: int, sender: int = ADA_NUMBER, error: str = "NONE") -> None:
        self.outbox.routing(RoutingHeard(Envelope(sender, OWN_NUMBER, 9), packet_id, error))

    def nak(self, packet_id: int, error: str) -> None:
        self.ack(packet_id, OWN_NUMBER, error)


HANDED = ("outbound", "sent", "handed", None)
RELAYED = ("outbound", "sent", "relayed", None)
DELIVERED = ("outbound", "sent", "delivered", None)
UNACKED = ("outbound", "sent", "unconfirmed", "NO_ACK")
UNANSWERED = ("outbound", "sent", "unconfirmed", "NO_QUEUE_STATUS")
QUEUED = ("queued", "", None, None)


def put_off(reason: str) -> tuple[str, str, None, str]:
    return ("queued", "failed", None, reason)


def given_up(reason: str) -> tuple[str, str, None, str]:
    return ("outbound", "failed", None, reason)
