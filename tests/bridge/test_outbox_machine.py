"""Whatever the radio, the link and the power do: no row is lost, none is settled twice."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from structlog.testing import capture_logs

from meshllm.bridge import life, retry
from meshllm.radio.base import OutgoingText
from meshllm.records import Message
from tests.bridge.world import ADA, ADA_NUMBER, STRANGER, OutboxWorld

BOB = "!b0b00001"
THREADS = {ADA: ADA_NUMBER, BOB: STRANGER, "Hiking": 0}
ERRORS = ["MAX_RETRANSMIT", "NO_CHANNEL", "RATE_LIMIT_EXCEEDED", "PKI_UNKNOWN_PUBKEY", "GOT_NAK"]


class OutboxMachine(RuleBasedStateMachine):
    """An outbox over real files, and a radio that answers as it likes."""

    world: OutboxWorld

    @initialize(kind=st.sampled_from(["tcp", "serial"]))
    def begin(self, kind: Any) -> None:
        self.logs = capture_logs()
        self.logs.__enter__()
        self.folder = Path(tempfile.mkdtemp())
        self.world = OutboxWorld(self.folder, kind=kind)
        self.is_up = True
        self.queued: dict[str, list[str]] = {key: [] for key in THREADS}
        self.on_connection: list[int] = []
        self.all_sent: list[tuple[str, OutgoingText]] = []
        self.last_at = -1e9
        self.delivered: set[str] = set()
        self.forgotten: set[str] = set()  #: final when the process died: their ACKs are nobody's
        self.was_up = True

    def teardown(self) -> None:
        if hasattr(self, "logs"):
            self.logs.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    # -- steps ---------------------------------------------------------------------------------

    @rule(key=st.sampled_from(sorted(THREADS)), parts=st.integers(1, 3))
    def enqueue(self, key: str, parts: int) -> None:
        number = len(self.queued[key])
        contents = [f"{key} {number + n}" for n in range(parts)]
        ids = self.world.queue(*contents, key=key, reply_to_id=str(1000 + number))
        self.queued[key] += ids

    @rule(seconds=st.sampled_from([0.0, 1.0, 3.0, 6.0, 31.0, 70.0, 130.0, 301.0]))
    def tick(self, seconds: float) -> None:
        self.world.clock.advance(seconds)
        before = len(self.world.port.sent)
        self.world.outbox.tick()
        for text in self.world.port.sent[before:]:
            self._check_sent(text)

    @precondition(lambda self: self.is_up and self.world.port.sent)
    @rule(result=st.sampled_from([0, 0, 0, 32, 38, 39, 7]))
    def queue_status(self, result: int) -> None:
        self.world.accept(result)

    @precondition(lambda self: self.all_sent and self.was_up)
    @rule(pick=st.integers(0, 5), implicit=st.booleans())
    def ack(self, pick: int, implicit: bool) -> None:
        key, text = self.all_sent[-1 - pick % len(self.all_sent)]
        self.world.ack(text.packet_id, sender=0xAAAA0001 if implicit else THREADS[key])
        message_id = self._row_of(text).message_id
        if not implicit and key.startswith("!") and message_id not in self.forgotten:
            self.delivered.add(message_id)

    @precondition(lambda self: self.all_sent and self.was_up)
    @rule(pick=st.integers(0, 5), error=st.sampled_from(ERRORS), far=st.booleans())
    def nak(self, pick: int, error: str, far: bool) -> None:
        key, text = self.all_sent[-1 - pick % len(self.all_sent)]
        self.world.ack(text.packet_id, THREADS[key] if far else 0xAAAA0001, error)

    @precondition(lambda self: self.world.port.refreshes and self.is_up)
    @rule()
    def forget_ids(self) -> None:
        """What a refresh comes to on serial and BLE."""
        if self.world.kind != "tcp":
            self.world.outbox.refreshed()
            self.on_connection = []

    @rule(key=st.sampled_from([ADA, BOB]), hops=st.integers(0, 3))
    def hear(self, key: str, hops: int) -> None:
        self.world.hear(THREADS[key], hops=hops)

    @rule(use=st.sampled_from([0.0, 26.0, 45.0]))
    def measure_air(self, use: float) -> None:
        self.world.outbox.air_measured(channel_use=use, own_use=1.0)

    @rule()
    def stranger_ack(self) -> None:
        self.world.ack(4_000_000_000)

    @rule()
    def lose_link(self) -> None:
        self.world.outbox.link_down()
        self.is_up = False

    @rule()
    def connect(self) -> None:
        self.world.reconnect()
        self.is_up = self.was_up = True
        if self.world.kind == "tcp":
            self.on_connection = []

    @rule(up=st.booleans())
    def restart(self, up: bool) -> None:
        self.world.restart(up=up)
        self.is_up = self.was_up = up
        self.forgotten = {
            row.message_id
            for key in THREADS
            for row in self.world.rows(key)
            if not (life.is_queued(row) or life.awaits_ack(row))
        }
        self.on_connection = []

    @rule(key=st.sampled_from(sorted(THREADS)))
    def file_event(self, key: str) -> None:
        self.world.outbox.scan(self.world.path(key))

    # -- what must hold --------------------------------------------------------------------------

    def _check_sent(self, text: OutgoingText) -> None:
        row = self._row_of(text)
        key = row.thread_key
        assert self.is_up
        assert life.tries(row)[-1].packet_id == text.packet_id, "intent is on disk first"
        assert life.tries(row)[-1].result is None
        is_resumed = len(life.tries(row)) > 1 and life.tries(row)[-2].result is None
        if self.world.kind == "tcp" or not is_resumed:
            assert text.packet_id not in self.on_connection, "swallowed by the radio"
        now = self.world.clock.monotonic()
        if self.on_connection:
            assert now - self.last_at >= 2.5
        self.last_at = now
        self.on_connection.append(text.packet_id)
        self._check_parts(row)
        self.all_sent.append((key, text))

    def _check_parts(self, row: Message) -> None:
        part = row.meta.get("part", 1)
        for other in self.world.rows(row.thread_key):
            if other.reply_to_id == row.reply_to_id and other.meta.get("part", 1) < part:
                assert other.direction == "outbound", "an earlier part has not been taken"
                assert other.send_status == "sent"

    def _row_of(self, text: OutgoingText) -> Message:
        found = [row for key in THREADS for row in self.world.rows(key) if row.content == text.text]
        assert len(found) == 1
        return found[0]

    @invariant()
    def no_row_is_lost_doubled_or_reordered(self) -> None:
        if not hasattr(self, "world"):
            return
        for key, ids in self.queued.items():
            assert [row.message_id for row in self.world.rows(key)] == ids

    @invariant()
    def tries_are_bounded_and_count_what_was_sent(self) -> None:
        if not hasattr(self, "world"):
            return
        sent = Counter(text.text for _, text in self.all_sent)
        for key in THREADS:
            for row in self.world.rows(key):
                history = life.tries(row)
                assert row.send_attempts == len(history) == sent[row.content]
                assert len(history) <= retry.MAX_REFUSALS
                unseen = (*retry.NEVER_SENT, "PKI_UNKNOWN_PUBKEY", "NO_CHANNEL")
                seen = {t.packet_id for t in history if t.result not in unseen}
                if key != "Hiking":
                    assert len(seen) <= 2

    @invariant()
    def what_was_delivered_stays_delivered(self) -> None:
        if not hasattr(self, "world"):
            return
        for key in (ADA, BOB):
            for row in self.world.rows(key):
                if row.message_id in self.delivered:
                    assert row.meta["delivery"] == "delivered"


OutboxMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOutboxMachine = OutboxMachine.TestCase
