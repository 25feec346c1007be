"""Carry queued rows of one radio to the air and settle them by what the radio reports.

Intent is on disk before every hand-over and the result after it; a crash in between leaves a try
without a result, which is resumed under the same id. Policy is in `retry`, `manners` and `hold`,
legal state changes in `life`, what there is to do in `work`, the limits of the air in `air`, the
commits in `settling`; this module only brings them together. Runs on the station's thread.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import structlog

from meshllm.bridge import copies, hold, life, retry
from meshllm.bridge.address import Destination, destination
from meshllm.bridge.air import Air
from meshllm.bridge.manners import Pace
from meshllm.bridge.naming import names_of
from meshllm.bridge.packet_ids import PacketIds
from meshllm.bridge.reach import Reaches
from meshllm.bridge.results import Results, RetryLimits
from meshllm.bridge.settling import STORAGE_RETRY_S, Settling
from meshllm.bridge.tables import Tables
from meshllm.bridge.work import IDLE_S, Key, Pick, Work
from meshllm.clock import Clock, utc_text
from meshllm.errors import TransientError
from meshllm.radio.base import (
    Envelope,
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
MAX_EARLY: Final = 500  #: ACKs kept while files are read; a radio holds at most 100 packets
CROWD: Final = 20  #: beyond so many queued rows, people who have got answers before go first
MAX_UNKNOWN: Final = 3  #: hand-overs without any answer before the row is left unconfirmed

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
        """Make the radio take a known id again."""

    def ask_user(self, number: int) -> None:
        """Ask a node for its node info, which carries its public key."""


@dataclass(slots=True)
class _InFlight:
    path: Path
    key: Key
    packet_id: int
    deadline: float
    is_repeat: bool  #: a known id after the radio was made to forget it


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """The numbers an outbox goes by."""

    pace: Pace = field(default_factory=Pace)
    max_new_ids: int = 1
    insists: bool = False
    max_held: int = 3
    max_held_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """What an outbox has to do; `held` rows are part of the queued ones."""

    queued: int
    held: int
    air: str  #: why texts wait: CHANNEL_BUSY, DUTY_CYCLE; SHORT: DMs first; "" for neither
    own_airtime_s: float  #: of the last hour
    oldest_s: float = 0.0  #: age of the oldest row that waits for nobody, 0 for none


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
        self._work = Work(clock=clock, max_held_s=settings.max_held_s)
        self._settling = Settling(tables, clock=clock)
        self._air = Air(settings.pace, clock=clock)
        self._reaches = Reaches()
        self._results = Results(
            tables,
            self._settling,
            self._reaches,
            link.ask_user,
            self._changed,
            RetryLimits(
                is_tcp=self._is_tcp,
                max_new_ids=settings.max_new_ids,
                insists=settings.insists,
                max_held=settings.max_held,
            ),
            clock=clock,
        )
        self._ids = PacketIds()
        self._in_flight: _InFlight | None = None
        self._not_before = 0.0
        self._unread: set[Path] = set()
        self._unread_due = 0.0
        self._refreshing = False
        self._last_answer = ""
        self._is_loading = False
        self._too_early: list[RoutingHeard] = []

    # -- what the station reports --------------------------------------------------------------

    def link_up(self, info: RadioInfo) -> None:
        """The radio is there (again): its memory of this connection's ids is empty."""
        if self._info is not None and self._info.region != info.region:
            self._work.hasten(retry.TX_DISABLED)
        self._info = info
        self._results.adopt(info)
        self._air.adopt(info)
        self._is_up = True
        if self._is_tcp:
            self._ids.forget_used()
        self._refreshing = False
        self._work.postpone_acks(self._clock.monotonic() + ACK_GRACE_S)

    def link_down(self) -> None:
        """The radio is gone; a hand-over without its answer is unknown and will be resumed."""
        self._is_up = False
        self._in_flight = None

    def refreshed(self) -> None:
        """The radio takes every id again."""
        self._ids.forget_used()
        self._refreshing = False

    def scan(self, path: Path) -> None:
        """Read one thread file again and note what it still wants; one that fails waits."""
        try:
            found = copies.sort_out(self._tables.read(path))
            while found.copies and self._settling.end_copies(path, found.copies):
                found = copies.sort_out(self._tables.read(path))
        except TransientError as error:
            if path not in self._unread:
                log.error("thread_unreadable", file=path.name, reason=str(error))
            self._look_again(path)
            return
        if found.copies:
            self._look_again(path)
        else:
            self._unread.discard(path)
        for row in self._work.note(path, found.rows, timeout_of=self._air.ack_timeout_s):
            self._ids.remember(path, row)

    def _look_again(self, path: Path) -> None:
        """Have a file scanned once more, and nothing of it sent before that."""
        self._unread.add(path)
        self._unread_due = self._clock.monotonic() + STORAGE_RETRY_S

    def recall(self, path: Path) -> None:
        """Count what an earlier run sent within the last hour, see `Air.recall`.

        Only for files changed lately; one that cannot be read counts nothing.
        """
        try:
            rows = self._tables.read(path)
        except TransientError:
            return  # `scan` reports it
        self._air.recall(rows)

    def rest(self, since_s: float) -> None:
        """Keep the distance to a text that an earlier run may have sent `since_s` ago."""
        left_s = self._settings.pace.spacing_s - max(0.0, since_s)
        self._not_before = max(self._not_before, self._clock.monotonic() + left_s)

    def heard(self, envelope: Envelope) -> None:
        """Somebody was heard just now: what is held for them may go out."""
        if self._info is None or envelope.sender == self._info.number:
            return
        self._reaches.note(envelope)
        released = self._work.release(envelope.sender, lambda n: self._reaches.of(n).hops)
        if released:
            log.info("held_released", node_id=f"!{envelope.sender:08x}", rows=released)

    def air_measured(self, *, channel_use: float | None, own_use: float | None) -> None:
        """Our radio told how busy the air is and how much of the hour it sent, both in percent."""
        self._air.measured(channel_use=channel_use, own_use=own_use)

    def written(self, packet_id: int) -> None:
        """The radio got the hand-over only now: the link may have been busy with a probe."""
        now = self._clock.monotonic()
        self._not_before = max(self._not_before, now + self._settings.pace.spacing_s)
        if self._in_flight is not None and self._in_flight.packet_id == packet_id:
            self._in_flight.deadline = now + HANDOVER_S

    def queue_status(self, status: QueueStatus) -> None:
        """Settle the hand-over that this status names; others are of no row of ours."""
        flight = self._in_flight
        if flight is None or status.packet_id != flight.packet_id:
            return
        self._in_flight = None
        if status.result in _ACCEPTED:
            self._results.handed_over(flight.path, flight.key, flight.packet_id)
            return
        error = _STATUS_NAMES.get(status.result, f"RADIO_ERROR_{status.result}")
        self._results.failed(flight.path, flight.key, flight.packet_id, error, from_self=True)

    def routing(self, heard: RoutingHeard) -> None:
        """Apply an ACK or NAK. Ids that are not ours are ignored: radios report many of those."""
        place = self._ids.place(heard.request_id)
        if place is None and self._is_loading and len(self._too_early) < MAX_EARLY:
            self._too_early.append(heard)  # its row may be in a file that is not read yet
        if place is None or self._info is None:
            return
        path, key = place
        sender = heard.envelope.sender
        if not self._results.is_theirs_to_say(path, key, heard.error, sender):
            log.warning(
                "routing_ignored",
                routing=heard.error,
                sender=f"!{sender:08x}",
                reason="neither our radio nor the addressee",
                **self._results.names(path, key),
            )
            return
        if self._in_flight and self._in_flight.packet_id == heard.request_id:
            self._in_flight = None
        if heard.error != "NONE":
            from_self = sender == self._info.number
            self._results.failed(path, key, heard.request_id, heard.error, from_self=from_self)
            return
        self._results.acknowledged(path, key, heard.request_id, sender=sender)

    def loading(self, *, is_done: bool) -> None:
        """Say whether thread files of an earlier run are still to be read.

        Until then an ACK that names no known id is kept: the radio hands out at once what it held.
        """
        self._is_loading = not is_done
        if is_done:
            early, self._too_early = self._too_early, []
            for heard in early:
                self.routing(heard)

    def answered(self, sender: int, packet_id: int) -> None:
        """Somebody replied or reacted to this id: if it was for them, they have seen it."""
        place = self._ids.place(packet_id)
        row = self._results.row(*place) if place is not None else None
        if place is not None and row is not None and self._results.addressee(row) == sender:
            self._results.acknowledged(*place, packet_id, sender=sender)

    def send_failed(self, packet_id: int, cause: str, *, busy: bool) -> None:
        """The radio took nothing for certain (busy), or the link broke under the hand-over."""
        flight = self._in_flight
        if flight is None or flight.packet_id != packet_id:
            return
        self._in_flight = None
        if busy:
            self._ids.unused(packet_id)  # nothing was written: the radio does not know this id
            self._results.failed(flight.path, flight.key, packet_id, "QUEUE_FULL", from_self=True)
        else:
            names = self._results.names(flight.path, flight.key)
            log.warning("send_unknown", reason=cause, consequence="same id again", **names)

    # -- what is due ---------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due; return the seconds until something may be due again."""
        now = self._clock.monotonic()
        self._catch_up(now)
        if self._in_flight is not None:
            if now < self._in_flight.deadline:
                return self._in_flight.deadline - now
            self._no_answer(self._in_flight)
        self._end_rows(now)
        if not self._is_up or self._refreshing:
            return self._idle_wait(now)
        self._check_ack_timers(now)
        wait_s = max(self._not_before - now, self._settling.wait_s())
        if wait_s > 0:
            return wait_s
        pick = Pick(
            after=self._last_answer,
            dms_first=self._air.is_short,
            known_first=self._work.queued_count() > CROWD,
            wait_of=self._budget_of,
        )
        ready, wait_s = self._work.next_ready(pick)
        reason = self._air.hold_reason
        if ready is not None or not reason:
            self._air.tell_hold(reason, queued=self._work.queued_count())
        air_wait_s = self._air.wait_s()
        if ready is None or air_wait_s > 0:
            return min(wait_s if ready is None else air_wait_s, self._idle_wait(now))
        path, row = ready
        try:
            self._try(path, row)
        except TransientError as error:
            self._settling.pause(path, error)
        return 0.0 if self._in_flight is None else HANDOVER_S

    def status(self) -> QueueState:
        """What waits here, and for what."""
        return QueueState(
            queued=self._work.queued_count(),
            held=self._work.held_count(),
            air=self._air.hold_reason or ("SHORT" if self._air.is_short else ""),
            own_airtime_s=self._air.own_airtime_s,
            oldest_s=self._work.oldest_s(),
        )

    # -- sending -------------------------------------------------------------------------------

    def _try(self, path: Path, row: Message) -> None:
        target = self._target(path, row)
        if target is None:
            return
        history = life.tries(row)
        if sum(1 for t in history if t.result is None) >= retry.MAX_REFUSALS:
            # A link that breaks at every hand-over ends here.
            self._results.leave_unanswered(path, row)
            return
        case = self._results.case(path, row, history)
        fresh = secrets.randbelow(life.MAX_PACKET_ID) + 1
        packet_id = retry.choose_id(self._ids.own(path, row), case, fresh=fresh)
        is_repeat = any(t.packet_id == packet_id for t in history)
        is_resumed = is_repeat and history[-1].result is None
        if self._would_be_swallowed(packet_id, is_repeat=is_repeat, is_resumed=is_resumed):
            self._refresh("an id goes on the air again")
        elif self._intend(path, row.key, packet_id):
            if history and not is_repeat and retry.is_possible_double(case):
                names = names_of(path, row)
                log.warning("send_repeated_with_new_id", packet_id=packet_id, **names)
            self._hand_over(path, row, target, packet_id, is_repeat=is_repeat and not is_resumed)

    def _would_be_swallowed(self, packet_id: int, *, is_repeat: bool, is_resumed: bool) -> bool:
        """Say whether the radio must be made to forget an id before it goes out.

        On serial and BLE the radio knows the ids of earlier connections, too. A resumed try is the
        exception: there its silence tells that it had the text.
        """
        if self._is_tcp:
            return self._ids.is_used(packet_id)
        return is_repeat and not is_resumed and not self._ids.is_forgotten(packet_id)

    def _hand_over(
        self, path: Path, row: Message, target: Destination, packet_id: int, *, is_repeat: bool
    ) -> None:
        now = self._clock.monotonic()
        self._ids.used(packet_id, path, row.key)
        self._in_flight = _InFlight(path, row.key, packet_id, now + WRITE_S, is_repeat)
        self._not_before = now + self._settings.pace.spacing_s
        self._last_answer = self._work.answer_of(path, row)
        self._work.begun(path, row)
        self._air.sent(row, packet_id, len(life.tries(row)), now)
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

    def _refresh(self, cause: str) -> None:
        """Make the radio take an id again: it swallows one that it has seen without a word."""
        self._refreshing = True
        self._link.refresh(cause)

    def _intend(self, path: Path, key: Key, packet_id: int) -> bool:
        at = utc_text(self._clock.utc())
        begun = self._settling.intend(path, key, lambda r: life.begin_try(r, packet_id, at=at))
        if self._settling.wait_s() <= 0:
            self.scan(path)  # also where somebody else changed the row meanwhile
        return begun

    def _target(self, path: Path, row: Message) -> Destination | None:
        assert self._info is not None
        found = destination(row, self._info)
        if isinstance(found, Destination):
            earlier = self._work.earlier_part(path, row)
            if earlier is None or earlier.send_status != "failed":
                return found
            found = "EARLIER_PART_FAILED"
        self._results.give_up(path, row.key, None, found)
        return None

    def _budget_of(self, path: Path, whom: str) -> Callable[[Message], float]:
        if self._settling.is_behind(path) or path in self._unread:
            return lambda _row: STORAGE_RETRY_S
        return self._air.budget_of(path, whom)

    # -- inside --------------------------------------------------------------------------------

    def _no_answer(self, flight: _InFlight) -> None:
        """No queueStatus in time: the radio may or may not have the text."""
        self._in_flight = None
        row = self._results.row(flight.path, flight.key)
        if row is None:
            return
        if flight.is_repeat and not self._is_tcp:
            self._results.failed(
                flight.path, flight.key, flight.packet_id, retry.SWALLOWED, from_self=True
            )
            return
        unknown = sum(1 for t in life.tries(row) if t.result is None)
        if not self._is_tcp or unknown >= MAX_UNKNOWN:
            self._results.leave_unanswered(flight.path, row)
            return
        names = names_of(flight.path, row)
        log.warning("send_unknown", reason="no queueStatus", tries=unknown, **names)
        self._refresh("no queueStatus for a hand-over")

    def _check_ack_timers(self, now: float) -> None:
        for path, key in self._work.take_overdue(now):
            self._results.silent(path, key)

    def _end_rows(self, now: float) -> None:
        """Give up what is cancelled or too old; the row on its way to the radio comes later."""
        flying = self._in_flight.key if self._in_flight else None
        ending = [(place, hold.CANCELLED) for place in self._work.cancelled()]
        ending += [(place, hold.EXPIRED) for place in self._work.expired(now)]
        for (path, key), reason in ending:
            if key != flying and not self._settling.is_behind(path):
                self._results.give_up(path, key, None, reason)

    def _idle_wait(self, now: float) -> float:
        waits = self._work.waits(now) if self._is_up and not self._refreshing else ()
        is_behind = self._settling.has_results or bool(self._unread)
        return min(IDLE_S, STORAGE_RETRY_S if is_behind else IDLE_S, *waits)

    def _changed(self, path: Path) -> None:
        if not self._settling.is_behind(path):
            self.scan(path)

    def _catch_up(self, now: float) -> None:
        """Do what the disk refused before."""
        if self._unread and now >= self._unread_due:
            for path in tuple(self._unread):
                self.scan(path)
        for path in self._settling.retry():
            self._changed(path)
