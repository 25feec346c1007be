"""Keeps events that a stranger can cause at will from flooding the log. Logs nothing itself."""

from dataclasses import dataclass

from meshllm.clock import Clock


@dataclass(slots=True)
class _Bucket:
    left: float
    since: float
    left_out: int = 0


class Sparing:
    """For each kind of event: some at once, then one an interval, which tells of those left out."""

    def __init__(self, clock: Clock, *, burst: int, interval_s: float) -> None:
        """`burst` events of a kind may come at once; one more is allowed each interval."""
        self._clock = clock
        self._burst = burst
        self._interval_s = interval_s
        self._buckets: dict[str, _Bucket] = {}

    def left_out(self, kind: str) -> int | None:
        """Ask before an event: how many of its kind were left out since the last; None: stay quiet.

        The number of kinds must be bounded by the caller.
        """
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(kind, _Bucket(self._burst, now))
        refill = (now - bucket.since) / self._interval_s
        bucket.left, bucket.since = min(float(self._burst), bucket.left + refill), now
        if bucket.left < 1.0:
            bucket.left_out += 1
            return None
        bucket.left -= 1.0
        left_out, bucket.left_out = bucket.left_out, 0
        return left_out
