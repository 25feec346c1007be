"""Wall time, monotonic time, interruptible waits: the only caller of `time`. Schedules nothing.

`MESHLLM_TIME_SCALE` (a float, tests only) makes durations run faster: monotonic seconds are
real seconds times the scale. Wall time is never scaled, so rows always carry real timestamps;
`age_s` and `utc_in` convert between the two.
"""

import os
import queue
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from meshllm.errors import UserError

TIME_SCALE_VARIABLE: Final = "MESHLLM_TIME_SCALE"
_BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")  #: Linux: a new value at every boot
_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def utc_text(moment: datetime) -> str:
    """Format an aware time as the cell form `YYYY-MM-DDTHH:MM:SSZ`."""
    return moment.astimezone(UTC).strftime(_FORMAT)


def parse_utc(text: str) -> datetime | None:
    """Read the cell form back; None for anything else, since an editor may have reformatted it."""
    try:
        return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def time_scale_from_environment() -> float:
    """Return the scale, 1.0 when unset. Raises UserError unless it is from 0.01 to 1000."""
    raw = os.environ.get(TIME_SCALE_VARIABLE, "").strip()
    if not raw:
        return 1.0
    try:
        scale = float(raw)
    except ValueError:
        scale = 0.0
    if not 0.01 <= scale <= 1000:
        message = f"{TIME_SCALE_VARIABLE}={raw}: must be a number from 0.01 to 1000"
        raise UserError(message)
    return scale


@cache
def boot_id() -> str:
    """Name this boot of the machine (first 8 characters), empty where the system does not tell."""
    try:
        return _BOOT_ID_FILE.read_text().strip()[:8]
    except OSError:
        return ""


class Waker:
    """Lets one thread sleep until a time or a wake-up, whichever is first.

    Built on SimpleQueue because its put may be called from a signal handler; Event.set may not.
    """

    def __init__(self) -> None:
        """Start with no wake-up pending."""
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wake(self) -> None:
        """End the current or the next wait. Safe from any thread and any signal handler."""
        self._queue.put(None)

    def wait_real(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` real seconds; True when woken. Swallows pending wake-ups."""
        try:
            self._queue.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return False
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return True


class Clock(Protocol):
    """What a service may know about time."""

    scale: float

    def monotonic(self) -> float:
        """Seconds since boot, scaled, suspend included; shared by all processes of the machine."""

    def utc(self) -> datetime:
        """Wall time, aware, never scaled."""

    def wait(self, waker: Waker, timeout_s: float) -> bool:
        """Sleep up to `timeout_s` scaled seconds or until woken; True when woken."""


class SystemClock:
    """The machine's clocks."""

    def __init__(self, scale: float = 1.0) -> None:
        """Run durations `scale` times as fast as the machine."""
        self.scale = scale

    def monotonic(self) -> float:
        """Seconds since boot times the scale."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) * self.scale

    def utc(self) -> datetime:
        """Wall time in UTC."""
        return datetime.now(UTC)

    def wait(self, waker: Waker, timeout_s: float) -> bool:
        """Sleep up to `timeout_s / scale` real seconds or until woken."""
        return waker.wait_real(timeout_s / self.scale)


def utc_in(clock: Clock, delay_s: float) -> str:
    """Wall time at which `delay_s` scaled seconds will have passed, as a cell."""
    return utc_text(clock.utc() + timedelta(seconds=delay_s / clock.scale))


def wall_age_s(clock: Clock, cell: str) -> float | None:
    """Scaled seconds since a timestamp cell; None when the cell cannot be read. May be negative."""
    moment = parse_utc(cell)
    if moment is None:
        return None
    return (clock.utc() - moment).total_seconds() * clock.scale


def age_s(clock: Clock, cell: str, *, boot: object = None, up_s: object = None) -> float | None:
    """Age of a row: by uptime when it was written in this boot, else by wall time.

    A machine without a battery-backed clock jumps by days when its time is set; uptime does not.
    `boot` and `up_s` are what the row's meta_json holds. None when neither can be read.
    """
    if boot and boot == boot_id() and isinstance(up_s, (int, float)):
        return clock.monotonic() - up_s * clock.scale
    return wall_age_s(clock, cell)


def uptime_s(clock: Clock) -> float:
    """Real seconds since boot, to the millisecond: the `up_s` of a row, whatever the scale."""
    return round(clock.monotonic() / clock.scale, 3)


def boot_at(clock: Clock) -> float:
    """Reckon the wall time of this boot, Unix seconds: it moves when the clock is set."""
    return clock.utc().timestamp() - uptime_s(clock)


def steady_utc(clock: Clock, first_boot_at: float) -> datetime:
    """Wall time without what the clock was set forward since `boot_at` gave `first_boot_at`."""
    return clock.utc() - timedelta(seconds=max(0.0, boot_at(clock) - first_boot_at))


def deadline_passed(clock: Clock, deadline: float) -> bool:
    """Say whether a monotonic deadline lies behind us."""
    return clock.monotonic() >= deadline


def real_s() -> float:
    """Real seconds since some moment, for durations that no scale makes shorter."""
    return time.perf_counter()


def pause_real(seconds: float) -> None:
    """Block this thread for real seconds. Only for back-off outside any service loop."""
    time.sleep(seconds)
