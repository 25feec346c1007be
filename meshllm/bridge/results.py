"""Turn what became of a try into the row's next state, by the retry policy. Sends nothing."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from meshllm.bridge import hold, life, retry
from meshllm.bridge.address import Destination, destination
from meshllm.bridge.life import Try
from meshllm.bridge.naming import names_by_place, names_of
from meshllm.bridge.reach import Reaches
from meshllm.bridge.settling import Settling
from meshllm.bridge.tables import Change, Tables
from meshllm.bridge.work import Key
from meshllm.clock import Clock, boot_id, uptime_s, utc_in, utc_text
from meshllm.errors import TransientError
from meshllm.layout import node_id
from meshllm.radio.base import RadioInfo
from meshllm.records import Message

log = structlog.get_logger()

MAX_TIMED: Final = 1000  #: hand-overs remembered to time their ACKs


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """What of the settings and the link the policy looks at."""

    is_tcp: bool
    max_new_ids: int
    insists: bool
    max_held: int


class Results:
    """Settles tries of one radio's rows. Every method is safe to repeat."""

    def __init__(
        self,
        tables: Tables,
        settling: Settling,
        reaches: Reaches,
        ask_user: Callable[[int], None],
        changed: Callable[[Path], None],
        limits: RetryLimits,
        *,
        clock: Clock,
    ) -> None:
        """`changed` is told after every commit; `ask_user` asks a node for its public key."""
        self._info: RadioInfo | None = None
        self._tables = tables
        self._settling = settling
        self._reaches = reaches
        self._ask_user = ask_user
        self._changed = changed
        self._limits = limits
        self._clock = clock
        self._handed: OrderedDict[tuple[Path, Key], float] = OrderedDict()

    def adopt(self, info: RadioInfo) -> None:
        """Go by what the radio says of itself."""
        self._info = info

    def row(self, path: Path, key: Key) -> Message | None:
        """Return an outgoing row as it is on disk."""
        return self._settling.row(path, key)

    def names(self, path: Path, key: Key) -> dict[str, str]:
        """Return the fields that name a row in events."""
        row = self.row(path, key)
        return names_by_place(path, key) if row is None else names_of(path, row)

    def addressee(self, row: Message) -> int | None:
        """Node number that a DM goes to."""
        if row.thread_type != "dm" or self._info is None:
            return None
        found = destination(row, self._info)
        return found.to if isinstance(found, Destination) else None

    def case(self, path: Path, row: Message, history: Sequence[Try]) -> retry.Case:
        """Gather what the policy looks at."""
        number = self.addressee(row)
        rows = self._tables.read(path) if number is not None and history else ()
        return retry.Case(
            history=history,
            is_dm=row.thread_type == "dm",
            may_hold=row.meta.get("kind") != "notice" and self._limits.max_held > 0,
            is_tcp=self._limits.is_tcp,
            max_new_ids=self._limits.max_new_ids,
            insists=self._limits.insists,
            reach=self._reaches.of(number or 0, rows),
        )

    def handed_over(self, path: Path, key: Key, packet_id: int) -> None:
        """The radio took the text."""
        self._settle(path, key, lambda row: life.hand_over(row, packet_id))
        self._note_hand_over(path, key)
        log.info("send_handed_over", packet_id=packet_id, **self.names(path, key))

    def acknowledged(self, path: Path, key: Key, packet_id: int, *, sender: int) -> None:
        """An ACK came: from the addressee it means delivered, from anybody else relayed."""
        states: list[life.Delivery] = []

        def change(row: Message) -> Message | None:
            is_theirs = self.addressee(row) == sender and not self._is_self(sender)
            states.append("delivered" if is_theirs else "relayed")
            return life.confirm(row, packet_id, states[-1])

        if self._settle(path, key, change):
            log.info(
                "send_acknowledged",
                delivery=states[-1],
                ack_s=self._since_hand_over_s(path, key),
                **self.names(path, key),
            )

    def is_theirs_to_say(self, path: Path, key: Key, error: str, sender: int) -> bool:
        """Say whether a routing packet about a row is believed: packet ids are in clear on the air.

        Our own radio tells of everything, the addressee of what arrived, nobody else of anything.
        """
        if self._is_self(sender):
            return True
        row = self.row(path, key)
        return row is not None and self.addressee(row) == sender and error not in retry.OWN_ERRORS

    def _is_self(self, number: int) -> bool:
        return self._info is not None and self._info.number == number

    def failed(self, path: Path, key: Key, packet_id: int, error: str, *, from_self: bool) -> None:
        """A NAK or a refusal came; one that no longer concerns the row changes nothing."""
        row = self.row(path, key)
        if row is None or not _concerns(row, packet_id, error):
            return
        history = list(life.tries(row))
        history[-1] = replace(history[-1], result=error)
        verdict = retry.after_error(self.case(path, row, history), error, from_self=from_self)
        self._apply(path, row, packet_id, verdict)
        log.warning(
            "send_failed",
            reason=verdict.reason,
            action=verdict.action,
            retry_in_s=verdict.delay_s,
            **names_of(path, row),
        )

    def silent(self, path: Path, key: Key) -> None:
        """The own timer of a DM ended without an explicit ACK."""
        row = self.row(path, key)
        if row is None or not life.awaits_ack(row):
            return
        verdict = retry.after_silence(self.case(path, row, life.tries(row)))
        self._apply(path, row, None, verdict)
        log.warning(
            "ack_overdue",
            reason=verdict.reason,
            action=verdict.action,
            retry_in_s=verdict.delay_s,
            **names_of(path, row),
        )

    def leave_unanswered(self, path: Path, row: Message) -> None:
        """The radio said nothing of a hand-over and will not be asked again: it may have it."""
        if self._leave(path, row, "NO_QUEUE_STATUS"):
            log.warning("send_unconfirmed", reason="NO_QUEUE_STATUS", **names_of(path, row))

    def give_up(self, path: Path, key: Key, packet_id: int | None, reason: str) -> None:
        """End a row as failed."""
        self._settle(path, key, lambda row: life.give_up(row, packet_id, reason=reason))
        log.error("send_given_up", reason=reason, **self.names(path, key))

    def _note_hand_over(self, path: Path, key: Key) -> None:
        self._handed[path, key] = self._clock.monotonic()
        self._handed.move_to_end((path, key))
        if len(self._handed) > MAX_TIMED:
            self._handed.popitem(last=False)

    def _since_hand_over_s(self, path: Path, key: Key) -> float | None:
        """Real seconds since the last hand-over; None when an earlier run did it."""
        at = self._handed.get((path, key))
        return None if at is None else (self._clock.monotonic() - at) / self._clock.scale

    def _apply(
        self, path: Path, row: Message, packet_id: int | None, verdict: retry.Verdict
    ) -> None:
        if verdict.ask_user:
            self._ask_for_key(path, row)
        reason = verdict.reason
        if verdict.action == "fail":
            self.give_up(path, row.key, packet_id, reason)
        elif verdict.action == "unconfirmed":
            self._leave(path, row, reason)
        elif verdict.action == "hold":
            self._hold(path, row, packet_id, reason)
        else:
            due_at = utc_in(self._clock, verdict.delay_s or 0.0)
            self._settle(
                path, row.key, lambda r: life.put_off(r, packet_id, reason=reason, due_at=due_at)
            )

    def _hold(self, path: Path, row: Message, packet_id: int | None, reason: str) -> None:
        at, boot, up_s = utc_text(self._clock.utc()), boot_id(), uptime_s(self._clock)

        def change(r: Message) -> Message | None:
            return life.hold(r, packet_id, reason=reason, at=at, boot=boot, up_s=up_s)

        if self._settle(path, row.key, change):
            log.info("send_held", reason=reason, **names_of(path, row))
        try:
            rows = [r for r in self._tables.read(path) if r.is_outgoing]
        except TransientError:
            return  # an answer too many is held until the next one comes
        for surplus, cause in hold.giving_way(rows, self._limits.max_held):
            self.give_up(path, surplus.key, None, cause)

    def _ask_for_key(self, path: Path, row: Message) -> None:
        number = self.addressee(row)
        if number is not None:
            names = names_of(path, row)
            log.info("user_asked", node_id=node_id(number), reason="no public key", **names)
            self._ask_user(number)

    def _leave(self, path: Path, row: Message, reason: str) -> bool:
        return self._settle(path, row.key, lambda r: life.leave_unconfirmed(r, reason=reason))

    def _settle(self, path: Path, key: Key, change: Change) -> bool:
        settled = self._settling.settle(path, key, change)
        self._changed(path)
        return settled


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
