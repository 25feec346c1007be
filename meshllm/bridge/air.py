"""The air as one radio's outbox uses it: counts its texts against the limits, logs what waits.

The limits themselves are in `manners`; this module knows rows. Sends nothing, writes nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from meshllm.bridge import life, retry
from meshllm.bridge.manners import HOUR_S, Manners, Pace
from meshllm.bridge.naming import names_of
from meshllm.clock import Clock, wall_age_s
from meshllm.radio.base import RadioInfo
from meshllm.records import Message

log = structlog.get_logger()


class Air:
    """What one radio may send now, by its rows."""

    def __init__(self, pace: Pace, *, clock: Clock) -> None:
        """Nothing was sent and nothing measured yet."""
        self._clock = clock
        self._manners = Manners(pace)
        self._preset = ""
        self._told_hold = ""
        self._over_budget: set[Path] = set()  #: threads whose wait is logged

    def adopt(self, info: RadioInfo) -> None:
        """Go by the rules of this radio's region and the airtime of its preset."""
        self._preset = info.preset
        self._manners.radio(info.region, info.preset)

    def measured(self, *, channel_use: float | None, own_use: float | None) -> None:
        """Take in what the radio tells of its air, in percent."""
        now = self._clock.monotonic()
        self._manners.measured(now, channel_use=channel_use, own_use=own_use)

    def sent(self, row: Message, packet_id: int, nth: int, at: float) -> None:
        """Count the try of that number (from 0) of a row, made at that moment."""
        self._manners.note(at, self._airtime_s(row), row.thread_key, mark=(packet_id, nth))

    def recall(self, rows: Sequence[Message]) -> None:
        """Count what an earlier run sent in the last hour, so that a restart resets no limit."""
        now = self._clock.monotonic()
        for row in rows:
            for nth, past in enumerate(life.tries(row) if row.send_attempts else ()):
                age = wall_age_s(self._clock, past.at)
                if age is not None and 0 <= age < HOUR_S and past.result not in retry.NEVER_SENT:
                    self.sent(row, past.packet_id, nth, now - age)

    @property
    def is_short(self) -> bool:
        """True while DMs go before channel answers."""
        return self._manners.is_short(self._clock.monotonic())

    @property
    def hold_reason(self) -> str:
        """What stops every text of this radio now, "" for nothing."""
        return self._manners.hold_reason(self._clock.monotonic())

    @property
    def own_airtime_s(self) -> float:
        """Airtime of our texts in the last hour."""
        return self._manners.own_airtime_s(self._clock.monotonic())

    def wait_s(self) -> float:
        """Seconds until any text may go out."""
        return self._manners.wait_s(self._clock.monotonic())

    def budget_of(self, path: Path, whom: str) -> Callable[[Message], float]:
        """Look up a person's or channel's budget, once for all the rows that wait for it.

        The result tells the seconds until it has room for a row, and logs the first wait.
        """
        budget = self._manners.budget(self._clock.monotonic(), whom)

        def wait_s(row: Message) -> float:
            left_s = budget.wait_s(self._airtime_s(row))
            if left_s <= 0:
                self._over_budget.discard(path)
            elif path not in self._over_budget:
                self._over_budget.add(path)
                log.warning("airtime_budget_used", wait_s=left_s, **names_of(path, row))
            return left_s

        return wait_s

    def tell_hold(self, reason: str, *, queued: int) -> None:
        """Log once that the air is held, and once that it is free again."""
        if reason == self._told_hold:
            return
        use = self._manners.channel_use(self._clock.monotonic())
        if reason:
            log.warning("air_held", reason=reason, channel_use=use, queued=queued)
        else:
            log.info("air_free", reason=self._told_hold, channel_use=use)
        self._told_hold = reason

    def ack_timeout_s(self, row: Message) -> float:
        """Seconds after which the silence about a row counts, as busy as the air is now."""
        return retry.ack_timeout_s(
            _text_bytes(row),
            self._preset,
            channel_use_percent=self._manners.channel_use(self._clock.monotonic()),
        )

    def _airtime_s(self, row: Message) -> float:
        return self._manners.airtime_s(_text_bytes(row), is_dm=row.thread_type == "dm")


def _text_bytes(row: Message) -> int:
    return len(row.content.encode("utf-8", "replace"))
