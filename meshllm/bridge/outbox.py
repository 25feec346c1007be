"""Carry queued rows of one radio to the air and settle them by what the radio reports.

Intent is on disk before every hand-over and the result after it; a crash in between leaves a try
without a result, which is resumed under the same id. Policy is in `retry`, legal state changes in
`life`, what there is to do in `work`; this module only schedules. Runs on the station's thread.
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from meshllm.bridge import life, retry
from meshllm.bridge.address import Destination, destination
from meshllm.bridge.tables import Change, Tables
from meshllm.bridge.work import IDLE_S, Key, Work
from meshllm.clock import Clock, utc_in, utc_text
from meshllm.errors import TransientError
from meshllm.radio.base import (
    LinkKind,
    OutgoingText,
    QueueStatus,
    RadioInfo,
    RoutingHeard,
)
from meshllm.records import Message

log = structlog.get_logger()

HANDOVER_S: Final = 5.0  #: a queueStatus comes within milliseconds; none by then means unknown
WRITE_S: Final = 60.0  #: above all deadlines of the link, which reports every hand-over's end
ACK_GRACE_S: Final = 5.0  #: after connecting the radio first hands out the ACKs that it kept
STORAGE_RETRY_S: Final = 5.0  #: pause after a write that the file system refused
MAX_UNKNOWN: Final = 3  #: hand-overs without any answer before the row is left unconfirmed
REMEMBERED_IDS: Final = 4000  #: packet ids kept for late ACKs after a row is final

#: queueStatus results that are no Routing.Error (firmware: RadioInterface error codes).
_STATUS_NAMES: Final = {
    4: "NO_INTERFACE",
    6: "NO_CHANNEL",
    7: "TOO_LARGE",
    9: "DUTY_CYCLE_LIMIT",
    32: "QUEUE_FULL",
    33: "NO_INTERFACE",
    34: "TX_DISABLED",
    38: "RATE_LIMIT_EXCEEDED",
    39: "PKI_SEND_FAIL_PUBLIC_KEY",
}
_ACCEPTED: Final = (0, 35)  #: 35: taken, and the firmware may free its copy


class LinkPort(Protocol):
    """What the outbox needs of a link."""

    def send(self, text: OutgoingText) -> None:
        """Hand over one text."""

    def refresh(self, cause: str) -> None:
        """Connect afresh."""


@dataclass(slots=True)
class _InFlight:
    path: Path
    key: Key
    packet_id: int
    deadline: float


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """The numbers an outbox goes by."""

    spacing_s: float = 2.5
    max_new_ids: int = 1


class Outbox:
    """Everything one radio still has to send or to hear an ACK for."""

    def __init__(
        self,
        tables: Tables,
        link: LinkPort,
        settings: OutboxSettings,
        *,
        clock: Clock,
        kind: LinkKind,
    ) -> None:
        """Start empty; `scan` brings the threads in."""
        self._tables = tables
        self._link = link
        self._settings = settings
        self._clock = clock
        self._is_tcp = kind == "tcp"
        self._info: RadioInfo | None = None
        self._is_up = False
        self._work = Work(clock=clock)
        self._by_packet: OrderedDict[int, tuple[Path, Key]] = OrderedDict()
        self._in_flight: _InFlight | None = None
        self._used_ids: set[int] = set()
        self._not_before = 0.0
        self._unsettled: list[tuple[Path, Key, Change]] = []
        self._unread: set[Path] = set()
        self._unread_due = 0.0
        self._refreshing = False

    # -- what happened -------------------------------------------------------------------------

    def link_up(self, info: RadioInfo) -> None:
        """The radio is there (again): its memory of this connection's ids is empty."""
        self._info = info
        self._is_up = True
        self._used_ids.clear()
        self._refreshing = False
        self._work.postpone_acks(self._clock.monotonic() + ACK_GRACE_S)

    def link_down(self) -> None:
        """The radio is gone; a hand-over without its answer is unknown and will be resumed."""
        self._is_up = False
        self._in_flight = None

    def scan(self, path: Path) -> None:
        """Read one thread file again and note what it still wants; one that fails waits."""
        try:
            rows = self._tables.read(path)
        except TransientError as error:
            log.error("thread_unreadable", file=path.name, reason=str(error))
            self._unread.add(path)
            self._unread_due = self._clock.monotonic() + STORAGE_RETRY_S
            return
        self._unread.discard(path)
        preset = self._info.preset if self._info else ""
        for row in self._work.note(path, rows, preset=preset):
            self._remember(path, row)

    def rest(self, since_s: float) -> None:
        """Keep the distance to a text that an earlier run may have sent `since_s` ago."""
        left_s = self._settings.spacing_s - max(0.0, since_s)
        self._not_before = max(self._not_before, self._clock.monotonic() + left_s)

    def written(self, packet_id: int) -> None:
        """The radio got the hand-over only now: the link may have been busy with a probe."""
        now = self._clock.monotonic()
        self._not_before = max(self._not_before, now + self._settings.spacing_s)
        if self._in_flight is not None and self._in_flight.packet_id == packet_id:
            self._in_flight.deadline = now + HANDOVER_S

    def queue_status(self, status: QueueStatus) -> None:
        """Settle the hand-over that this status names; others are of no row of ours."""
        flight = self._in_flight
        if flight is None or status.packet_id != flight.packet_id:
            return
        self._in_flight = None
        if status.result in _ACCEPTED:
            self._settle(flight.path, flight.key, lambda row: life.hand_over(row, flight.packet_id))
            log.info(
                "send_handed_over",
                thread=flight.path.stem,
                message_id=flight.key[1],
                packet_id=flight.packet_id,
            )
            return
        error = _STATUS_NAMES.get(status.result, f"RADIO_ERROR_{status.result}")
        self._failed(flight.path, flight.key, flight.packet_id, error, from_self=True)

    def routing(self, heard: RoutingHeard) -> None:
        """Apply an ACK or NAK. Ids that are not ours are ignored: radios report many of those."""
        place = self._by_packet.get(heard.request_id)
        if place is None or self._info is None:
            return
        path, key = place
        from_self = heard.envelope.sender == self._info.number
        if self._in_flight and self._in_flight.packet_id == heard.request_id:
            self._in_flight = None
        if heard.error != "NONE":
            self._failed(path, key, heard.request_id, heard.error, from_self=from_self)
            return
        addressee = self._addressee(path, key)
        state: life.Delivery = (
            "delivered" if addressee == heard.envelope.sender and not from_self else "relayed"
        )
        if self._settle(path, key, lambda row: life.confirm(row, heard.request_id, state)):
            log.info("send_acknowledged", thread=path.stem, message_id=key[1], delivery=state)

    def send_failed(self, packet_id: int, cause: str, *, busy: bool) -> None:
        """The radio took nothing for certain (busy), or the link broke under the hand-over."""
        flight = self._in_flight
        if flight is None or flight.packet_id != packet_id:
            return
        self._in_flight = None
        if busy:
            self._used_ids.discard(packet_id)  # nothing was written: no fresh connection needed
            self._failed(flight.path, flight.key, packet_id, "QUEUE_FULL", from_self=True)
        else:
            log.warning(
                "send_unknown", message_id=flight.key[1], reason=cause, consequence="same id again"
            )

    # -- what is due ---------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due; return the seconds until something may be due again."""
        now = self._clock.monotonic()
        self._retry_unsettled()
        if self._in_flight is not None:
            if now < self._in_flight.deadline:
                return self._in_flight.deadline - now
            self._no_answer(self._in_flight)
        if not self._is_up or self._refreshing:
            return self._idle_wait(now)
        self._check_ack_timers(now)
        if now < self._not_before:
            return self._not_before - now
        ready, wait_s = self._work.next_ready()
        if ready is None:
            return min(wait_s, self._idle_wait(now))
        path, row = ready
        self._try(path, row)
        return 0.0 if self._in_flight is None else HANDOVER_S

    def queued_count(self) -> int:
        """Rows that still have to be sent."""
        return self._work.queued_count()

    # -- inside --------------------------------------------------------------------------------

    def _try(self, path: Path, row: Message) -> None:
        target = self._target(path, row)
        if target is None:
            return
        history = life.tries(row)
        if len(history) >= retry.MAX_ANY_TRIES:
            self._silence(path, row)  # a link that breaks at every hand-over ends here
            return
        packet_id = retry.choose_id(
            self._own_id(path, row),
            history,
            is_tcp=self._is_tcp,
            fresh=secrets.randbelow(life.MAX_PACKET_ID) + 1,
        )
        if packet_id in self._used_ids:
            if self._is_tcp:
                # The radio swallows an id it has seen on this connection without a word.
                self._refreshing = True
                self._link.refresh("an id goes on the air again")
            else:
                self._silence(path, row)
            return
        at = utc_text(self._clock.utc())
        if not self._write(path, row.key, lambda r: life.begin_try(r, packet_id, at=at)):
            return
        self._by_packet[packet_id] = (path, row.key)
        self._used_ids.add(packet_id)
        now = self._clock.monotonic()
        self._in_flight = _InFlight(path, row.key, packet_id, now + WRITE_S)
        self._not_before = now + self._settings.spacing_s
        if history and packet_id not in {t.packet_id for t in history}:
            log.warning("send_repeated_with_new_id", message_id=row.message_id, packet_id=packet_id)
        self._link.send(
            OutgoingText(
                packet_id,
                target.to,
                row.content,
                channel_index=target.channel_index,
                want_ack=row.thread_type == "dm",
                reply_id=target.reply_id,
            )
        )

    def _own_id(self, path: Path, row: Message) -> int | None:
        """The id a hand-made row asks for is not used twice: it is part of the cipher's nonce."""
        own = life.own_packet_id(row)
        if own is None or own in self._used_ids:
            return None
        return own if self._by_packet.get(own) in (None, (path, row.key)) else None

    def _target(self, path: Path, row: Message) -> Destination | None:
        assert self._info is not None
        found = destination(row, self._info)
        if isinstance(found, Destination):
            earlier = self._work.earlier_part(path, row)
            if earlier is None or earlier.send_status != "failed":
                return found
            found = "EARLIER_PART_FAILED"
        self._give_up(path, row.key, None, found)
        return None

    def _no_answer(self, flight: _InFlight) -> None:
        """No queueStatus in time: the radio may or may not have the text."""
        self._in_flight = None
        row = self._row(flight.path, flight.key)
        if row is None:
            return
        unknown = sum(1 for t in life.tries(row) if t.result is None)
        if not self._is_tcp or unknown >= MAX_UNKNOWN:
            self._silence(flight.path, row)
            return
        log.warning(
            "send_unknown", message_id=row.message_id, reason="no queueStatus", tries=unknown
        )
        self._refreshing = True
        self._link.refresh("no queueStatus for a hand-over")

    def _silence(self, path: Path, row: Message) -> None:
        if self._leave(path, row, "NO_QUEUE_STATUS"):
            log.warning("send_unconfirmed", message_id=row.message_id, reason="NO_QUEUE_STATUS")

    def _leave(self, path: Path, row: Message, reason: str) -> bool:
        return self._settle(path, row.key, lambda r: life.leave_unconfirmed(r, reason=reason))

    def _failed(self, path: Path, key: Key, packet_id: int, error: str, *, from_self: bool) -> None:
        row = self._row(path, key)
        if row is None or not _concerns(row, packet_id, error):
            return
        history = list(life.tries(row))
        history[-1] = replace(history[-1], result=error)
        verdict = retry.after_error(
            error,
            from_self=from_self,
            history=history,
            is_tcp=self._is_tcp,
            # A broadcast under a second id is a second copy for everybody who had the first.
            max_new_ids=self._settings.max_new_ids if row.thread_type == "dm" else 0,
        )
        if verdict.action == "fail":
            self._give_up(path, key, packet_id, verdict.reason)
            return
        due_at = utc_in(self._clock, verdict.delay_s)
        self._settle(
            path, key, lambda r: life.put_off(r, packet_id, reason=verdict.reason, due_at=due_at)
        )
        log.warning(
            "send_failed", message_id=key[1], reason=verdict.reason, retry_in_s=verdict.delay_s
        )

    def _give_up(self, path: Path, key: Key, packet_id: int | None, reason: str) -> None:
        self._settle(path, key, lambda r: life.give_up(r, packet_id, reason=reason))
        log.error("send_given_up", thread=path.stem, message_id=key[1], reason=reason)

    def _check_ack_timers(self, now: float) -> None:
        for path, key in self._work.take_overdue(now):
            row = self._row(path, key)
            if row is not None and life.awaits_ack(row):
                self._ack_overdue(path, row)

    def _ack_overdue(self, path: Path, row: Message) -> None:
        verdict = retry.after_silence(
            relayed=row.meta.get("delivery") == "relayed",
            history=life.tries(row),
            is_tcp=self._is_tcp,
            max_new_ids=self._settings.max_new_ids,
        )
        if verdict.action == "again":
            due_at = utc_in(self._clock, verdict.delay_s)
            self._settle(
                path, row.key, lambda r: life.put_off(r, None, reason=verdict.reason, due_at=due_at)
            )
        else:
            self._leave(path, row, verdict.reason)
        log.warning(
            "ack_overdue", message_id=row.message_id, reason=verdict.reason, action=verdict.action
        )

    def _idle_wait(self, now: float) -> float:
        waits = self._work.ack_waits(now) if self._is_up and not self._refreshing else ()
        return min(
            [IDLE_S, *waits] + ([STORAGE_RETRY_S] if self._unsettled or self._unread else [])
        )

    def _addressee(self, path: Path, key: Key) -> int | None:
        row = self._row(path, key)
        if row is None or row.thread_type != "dm" or self._info is None:
            return None
        found = destination(row, self._info)
        return found.to if isinstance(found, Destination) else None

    def _row(self, path: Path, key: Key) -> Message | None:
        rows = reversed(self._tables.read(path))  # as Table.update: the newest of equal keys
        return next((r for r in rows if r.is_outgoing and r.key == key), None)

    def _remember(self, path: Path, row: Message) -> None:
        for packet_id in life.packet_ids(row):
            self._by_packet[packet_id] = (path, row.key)
            self._by_packet.move_to_end(packet_id)
        while len(self._by_packet) > REMEMBERED_IDS:
            self._by_packet.popitem(last=False)

    def _write(self, path: Path, key: Key, change: Change) -> bool:
        """Commit one change; False when it did not apply or the disk refused it (then we wait)."""
        try:
            changed = self._tables.update(path, {key: change})
        except TransientError as error:
            log.error(
                "row_not_written", file=path.name, reason=str(error), retry_in_s=STORAGE_RETRY_S
            )
            self._not_before = self._clock.monotonic() + STORAGE_RETRY_S
            return False
        self.scan(path)
        return bool(changed)

    def _settle(self, path: Path, key: Key, change: Change) -> bool:
        """Commit a result; one that the disk refuses is kept and tried again, not forgotten."""
        try:
            changed = self._tables.update(path, {key: change})
        except TransientError as error:
            log.error(
                "row_not_written", file=path.name, reason=str(error), retry_in_s=STORAGE_RETRY_S
            )
            self._unsettled.append((path, key, change))
            self._not_before = self._clock.monotonic() + STORAGE_RETRY_S
            return False
        self.scan(path)
        return bool(changed)

    def _retry_unsettled(self) -> None:
        if self._unread and self._clock.monotonic() >= self._unread_due:
            for path in tuple(self._unread):
                self.scan(path)
        if not self._unsettled or self._clock.monotonic() < self._not_before:
            return
        waiting, self._unsettled = self._unsettled, []
        for path, key, change in waiting:
            self._settle(path, key, change)


def _concerns(row: Message, packet_id: int, error: str) -> bool:
    """Say whether a NAK of this id changes the row's state now.

    Not when it is final, when a newer try runs under another id, or when the same NAK came before.
    """
    history = life.tries(row)
    if not history or history[-1].packet_id != packet_id:
        return False
    if row.meta.get("delivery") == "delivered" or _is_given_up(row):
        return False
    if row.direction == "outbound":
        # A broadcast can at best be relayed; nobody owes it an ACK. But it may have been refused.
        return row.thread_type == "dm" or error in retry.NEVER_SENT
    return history[-1].result is None


def _is_given_up(row: Message) -> bool:
    return row.direction == "outbound" and row.send_status == "failed"
