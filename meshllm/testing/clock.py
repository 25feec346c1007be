"""A clock that moves only when told to, and one that can be set. Shared by all services' tests."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from meshllm.clock import SystemClock, Waker

NOON: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class ManualClock:
    """Implements Clock. `wait` returns at once and moves the clock by what was asked for."""

    def __init__(self, *, start: datetime = NOON, up_s: float = 1000.0, scale: float = 1.0) -> None:
        self.scale = scale
        self._utc = start
        self._monotonic = up_s * scale
        self._guard = threading.Lock()

    def monotonic(self) -> float:
        """Scaled seconds since the imagined boot."""
        with self._guard:
            return self._monotonic

    def utc(self) -> datetime:
        """Imagined wall time."""
        with self._guard:
            return self._utc

    def wait(self, waker: Waker, timeout_s: float) -> bool:
        """Return True for a wake-up that is pending; else let the time pass at once."""
        if waker.wait_real(0.0):
            return True
        self.advance(timeout_s)
        return False

    def advance(self, seconds: float) -> None:
        """Let scaled seconds pass."""
        with self._guard:
            self._monotonic += seconds
            self._utc += timedelta(seconds=seconds / self.scale)

    def set_utc(self, moment: datetime) -> None:
        """Set the wall time alone, as a time server does."""
        with self._guard:
            self._utc = moment


class SettableClock(SystemClock):
    """The machine's clocks, but its wall time is wrong by `off`, which may be set at any time."""

    def __init__(self, scale: float = 1.0, *, off: timedelta = timedelta()) -> None:
        """Start wrong by `off`; negative: behind."""
        super().__init__(scale)
        self.off = off

    def utc(self) -> datetime:
        """Wrong wall time."""
        return super().utc() + self.off
