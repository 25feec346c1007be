"""Waits for another thread without a sleep of a fixed length."""

from collections.abc import Callable
from typing import TypeVar

from meshllm.clock import SystemClock, Waker

T = TypeVar("T")


def until(claim: Callable[[], T | None], what: str, limit_s: float = 8.0) -> T:
    """Return the first true value of a claim."""
    waker, clock = Waker(), SystemClock()
    deadline = clock.monotonic() + limit_s
    while True:
        value = claim()
        if value:
            return value
        assert clock.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        waker.wait_real(0.003)
