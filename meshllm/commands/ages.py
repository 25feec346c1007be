"""How old a timestamp cell is, in words. Knows no file; takes its clock as an argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshllm.clock import Clock, boot_id, parse_utc, uptime_s
from meshllm.records import Message

SLACK_S: Final = 60.0  #: real seconds by which two clocks may differ without a jump between them
UNKNOWN: Final = "at an unknown time"


@dataclass(frozen=True, slots=True)
class Ages:
    """The age of cells that hold wall time alone, even where the clock was set in this boot.

    A cell tells the wall time when it was written. Rows heard in this boot tell the uptime too, so
    each of them says what the wall clock showed at the start; when these differ, the clock was set,
    and a cell that lies before the boot by today's clock may be one of minutes ago by yesterday's.
    """

    now_s: float  #: Unix time by the clock as it is
    up_s: float  #: real seconds since boot
    scale: float = 1.0
    #: Unix times of this boot's start by the clock as it was before, newest first.
    other_starts: tuple[float, ...] = ()

    def age_s(self, cell: str) -> float | None:
        """Scaled seconds since a cell was written; None when nothing can tell."""
        moment = parse_utc(cell)
        if moment is None:
            return None
        at = moment.timestamp()
        age_s = self.now_s - at
        if -SLACK_S <= age_s <= self.up_s:
            return max(0.0, age_s) * self.scale
        for start in self.other_starts:
            up_s = at - start
            if -SLACK_S <= up_s <= self.up_s + SLACK_S:
                return max(0.0, self.up_s - up_s) * self.scale
        return age_s * self.scale if age_s > 0 else None

    def ago(self, cell: str) -> str:
        """Say how long ago a cell was written, in words."""
        age_s = self.age_s(cell)
        return UNKNOWN if age_s is None else f"{span(age_s)} ago"


def read_ages(clock: Clock, rows: Sequence[Message]) -> Ages:
    """Take what the clock shows, and what the rows of a thread say of how it was set."""
    now_s, up_s = clock.utc().timestamp(), uptime_s(clock)
    starts: list[float] = []
    for row in reversed(rows):
        start = _start(row)
        if start is None or abs(start - (now_s - up_s)) <= SLACK_S:
            continue
        if all(abs(start - known) > SLACK_S for known in starts):
            starts.append(start)
    return Ages(now_s, up_s, clock.scale, tuple(starts))


def _start(row: Message) -> float | None:
    """Unix time of the boot by the clock that a row was stamped with; None for other boots."""
    if row.is_outgoing or '"up_s"' not in row.meta_json:
        return None
    meta = row.meta
    moment, up_s = parse_utc(row.timestamp), meta.get("up_s")
    if moment is None or not meta.get("boot") or meta.get("boot") != boot_id():
        return None
    return moment.timestamp() - up_s if isinstance(up_s, (int, float)) else None


def span(seconds: float) -> str:
    """Write a duration as a person would: its largest sensible unit, rounded."""
    if seconds < 60:
        return f"{int(seconds)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{round(seconds / 3600)} h"
    return f"{round(seconds / 86400)} days"
