"""How much of the shared air one radio may take, and when. Pure: told the time, sends nothing.

Text from a client is not held back by the firmware however busy the channel is (facts of firmware
2.7: only its own housekeeping stops at 25 and 40 % channel use), so the bridge does it.
"""

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from meshllm.airtime import PRESETS, airtime_s

HOUR_S: Final = 3600.0
REST_SLOW: Final = 9.0  #: silence after a text, in its lengths, at the slow limit: a tenth for us
REST_HOLD: Final = 19.0  #: the same beyond the hold limit: a twentieth
BUSY_LIMIT_S: Final = 300.0  #: air that stays beyond the hold limit longer is this mesh's normal
FRESH_S: Final = 180.0  #: the radio tells its channel use every minute; older figures mean nothing
DUTY_SHARE: Final = 0.9  #: of the region's limit; the rest is for what the node relays for others
DUTY_WAIT_S: Final = 60.0  #: between two looks at a duty cycle that is used up
SLOWEST_PRESET: Final = "LONG_SLOW"  #: airtime of a radio with modem settings of its own
#: Percent of an hour that a node may send (firmware RadioInterface.cpp, region table).
DUTY_CYCLE_PERCENT: Final = {
    "EU_868": 10.0,
    "EU_433": 10.0,
    "UA_433": 10.0,
    "TH": 10.0,
    "EU_866": 2.5,
}


@dataclass(frozen=True, slots=True)
class Pace:
    """The limits an operator sets."""

    spacing_s: float = 2.5
    budget_s: float = 0.0  #: seconds of own airtime an hour for one person or channel; 0: no limit
    slow_percent: float = 25.0
    hold_percent: float = 40.0


@dataclass(frozen=True, slots=True)
class Budget:
    """The room that one person or channel has: more of it as earlier texts leave the hour."""

    rooms_s: tuple[float, ...] = (math.inf,)  #: airtime, now and after each wait; never less
    waits_s: tuple[float, ...] = (0.0,)

    def wait_s(self, airtime: float) -> float:
        """Seconds until there is room for a text, or until nothing else counts."""
        place = bisect_left(self.rooms_s, airtime)
        return self.waits_s[min(place, len(self.waits_s) - 1)]


@dataclass(frozen=True, slots=True)
class _Sent:
    at: float
    airtime_s: float
    whom: str
    mark: object


class Manners:
    """What one radio sent in the last hour, how busy its air is, and what follows from both."""

    def __init__(self, pace: Pace) -> None:
        """Know of no text and no channel use."""
        self._pace = pace
        self._sent: deque[_Sent] = deque()
        self._marks: set[object] = set()
        self._channel_use = 0.0
        self._own_use = 0.0
        self._measured_at = float("-inf")
        self._busy_since: float | None = None
        self._duty_percent: float | None = None
        self._preset = ""

    def radio(self, region: str, preset: str) -> None:
        """Go by the rules of this region and the airtime of this preset."""
        self._duty_percent = DUTY_CYCLE_PERCENT.get(region)
        self._preset = preset if preset in PRESETS else SLOWEST_PRESET

    def measured(self, now: float, *, channel_use: float | None, own_use: float | None) -> None:
        """Take in what the radio tells of its air, in percent."""
        if channel_use is not None:
            is_busy = channel_use >= self._pace.hold_percent
            if now - self._measured_at > FRESH_S:
                self._busy_since = None  # another time of busy air
            self._busy_since = (self._busy_since or now) if is_busy else None
            self._channel_use = channel_use
            self._measured_at = now
        if own_use is not None:
            self._own_use = own_use

    def airtime_s(self, text_bytes: int, *, is_dm: bool) -> float:
        """Airtime of one transmission of a text by our own radio, relays not counted."""
        return airtime_s(text_bytes, self._preset or SLOWEST_PRESET, pki=is_dm)

    def note(self, at: float, airtime: float, whom: str, *, mark: object) -> None:
        """Count one text given to the radio at that moment; `whom` is a person or a channel.

        `mark` names the try, so that one read again from its row counts once.
        """
        if mark in self._marks:
            return
        self._marks.add(mark)
        entry = _Sent(at, airtime, whom, mark)
        if self._sent and self._sent[-1].at > at:
            self._sent = deque(sorted([*self._sent, entry], key=lambda sent: sent.at))
        else:
            self._sent.append(entry)

    def channel_use(self, now: float) -> float:
        """Channel use in percent; 0 when nobody told lately."""
        return self._channel_use if now - self._measured_at <= FRESH_S else 0.0

    def is_short(self, now: float) -> bool:
        """Say whether the air is short: DMs go before channel answers then."""
        use = self.channel_use(now)
        return use >= self._pace.slow_percent or self._duty_left_s(now) is not None

    def hold_reason(self, now: float) -> str:
        """Name what stops every text of this radio now, "" for nothing."""
        if self._duty_left_s(now) is not None:
            return "DUTY_CYCLE"
        return "CHANNEL_BUSY" if self._busy_left_s(now) > 0 else ""

    def wait_s(self, now: float) -> float:
        """Seconds until any text may go out: hold, duty cycle and the gap after the last text."""
        return max(self._busy_left_s(now), self._duty_left_s(now) or 0.0, self._gap_left_s(now))

    def budget_wait_s(self, now: float, airtime: float, whom: str) -> float:
        """Seconds until this person's or channel's hourly budget has room for one more text.

        A text that is longer than the whole budget goes out when nothing else counts against it.
        """
        return self.budget(now, whom).wait_s(airtime)

    def budget(self, now: float, whom: str) -> Budget:
        """What is left for a person or channel now, for as many texts as are to be compared."""
        limit_s = self._pace.budget_s
        if not limit_s:
            return Budget()
        self._forget(now)
        mine = [sent for sent in self._sent if sent.whom == whom]
        room_s = limit_s - sum(sent.airtime_s for sent in mine)
        rooms = accumulate((sent.airtime_s for sent in mine), initial=room_s)
        waits = (max(0.0, sent.at + HOUR_S - now) for sent in mine)
        return Budget(tuple(rooms), (0.0, *waits))

    def own_airtime_s(self, now: float) -> float:
        """Airtime of our texts in the last hour, repeats by the radio not counted."""
        self._forget(now)
        return sum(sent.airtime_s for sent in self._sent)

    def _gap_left_s(self, now: float) -> float:
        if not self._sent:
            return 0.0
        last = self._sent[-1]
        # Spacing 0 is an operator's wish for none; else a text of a slow preset takes longer.
        least_s = max(self._pace.spacing_s, last.airtime_s) if self._pace.spacing_s else 0.0
        return max(0.0, last.at + max(least_s, last.airtime_s * self._rest(now)) - now)

    def _rest(self, now: float) -> float:
        """Lengths of a text to be silent after it, growing with the airtime that is used."""
        use = self.channel_use(now)
        if use >= self._pace.hold_percent:
            return REST_HOLD
        return REST_SLOW * min(1.0, use / self._pace.slow_percent)

    def _busy_left_s(self, now: float) -> float:
        if self._busy_since is None or self.channel_use(now) < self._pace.hold_percent:
            return 0.0
        return max(0.0, self._busy_since + BUSY_LIMIT_S - now)

    def _duty_left_s(self, now: float) -> float | None:
        if self._duty_percent is None:
            return None
        limit = self._duty_percent * DUTY_SHARE
        mine = 100.0 * self.own_airtime_s(now) / HOUR_S
        told = self._own_use if now - self._measured_at <= FRESH_S else 0.0
        return DUTY_WAIT_S if max(mine, told) >= limit else None

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0].at <= now - HOUR_S:
            self._marks.discard(self._sent.popleft().mark)
