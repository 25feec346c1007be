"""Runs the simulated mesh: one thread, one event loop, timers in scaled seconds. Knows no radio."""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

import structlog

from meshllm.clock import Clock

log = structlog.get_logger()

T = TypeVar("T")


class Timer(Protocol):
    """A call that is due later and can still be called off."""

    def cancel(self) -> None:
        """Call it off; harmless after it ran."""


class Scheduler(Protocol):
    """What a node needs to know of time."""

    def now(self) -> float:
        """Monotonic scaled seconds."""

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Run an action once, that many scaled seconds from now, never before this returns."""


class VirtualTime:
    """A scheduler without any real time: `run` jumps from one due action to the next."""

    def __init__(self) -> None:
        """Start at second zero."""
        self._now = 0.0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, _VirtualTimer]] = []

    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Put an action on the list; actions due together run in the order they were put there."""
        timer = _VirtualTimer(action)
        heapq.heappush(self._heap, (self._now + max(0.0, delay_s), next(self._order), timer))
        return timer

    def run(self, seconds: float) -> None:
        """Run everything that falls due within that many seconds."""
        end = self._now + seconds
        while self._heap and self._heap[0][0] <= end:
            self._now, _, timer = heapq.heappop(self._heap)
            if not timer.cancelled:
                timer.action()
        self._now = end


class _VirtualTimer:
    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Engine:
    """An event loop in a thread of its own; all state of a mesh is changed there and only there."""

    def __init__(self, clock: Clock) -> None:
        """Make the loop; nothing runs before `start`."""
        self._clock = clock
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._on_exception)
        self._bugs: list[BaseException] = []
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """Monotonic scaled seconds."""
        return self._clock.monotonic()

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Run an action later on the loop. Only on the engine's thread, or before it runs."""
        if delay_s <= 0:
            return self.loop.call_soon(action)
        return self.loop.call_later(delay_s / self._clock.scale, action)

    @property
    def is_running(self) -> bool:
        """Say whether the thread is up."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread."""
        ready = threading.Event()
        self.loop.call_soon(ready.set)
        self._thread = threading.Thread(target=self.loop.run_forever, name="sim", daemon=True)
        self._thread.start()
        ready.wait()

    def call(self, action: Callable[[], T]) -> T:
        """Run an action on the engine's thread and return what it returns, or raise what it raises.

        Runs at once when the engine is not running or this is its thread.
        """
        if self._thread is None or threading.current_thread() is self._thread:
            return action()
        future: Future[T] = Future()
        self.loop.call_soon_threadsafe(_fulfil, future, action)
        return future.result()

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError):
            log.debug("sim_link_failed", reason=str(error))
            return
        bug = error if isinstance(error, BaseException) else RuntimeError(str(context["message"]))
        log.error("sim_action_failed", reason=repr(bug))
        self._bugs.append(bug)

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        # Two turns: closed transports finish in the first, their sockets in the second.
        for _ in range(2):
            await asyncio.sleep(0)

    def close(self) -> None:
        """Stop the thread and release the loop. Raises what an action on the loop raised first."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self._thread = None
        if not self.loop.is_closed():
            self.loop.run_until_complete(self._finish())
            self.loop.close()
        if self._bugs:
            raise self._bugs[0]


def _fulfil(future: "Future[T]", action: Callable[[], T]) -> None:
    try:
        future.set_result(action())
    except Exception as e:  # noqa: BLE001 (handed to the waiting thread, which raises it)
        future.set_exception(e)


class Journal(Generic[T]):
    """A growing list that other threads can read and wait on."""

    def __init__(self) -> None:
        """Start empty."""
        self._items: list[T] = []
        self._changed = threading.Condition()

    def add(self, item: T) -> None:
        """Append and wake whoever waits."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def items(self) -> tuple[T, ...]:
        """Everything so far."""
        with self._changed:
            return tuple(self._items)

    def wait_for(self, wanted: Callable[[T], bool], timeout_s: float, *, skip: int = 0) -> T | None:
        """Return the first item from `skip` on that is wanted, None after so many real seconds."""
        with self._changed:
            self._changed.wait_for(
                lambda: any(wanted(item) for item in self._items[skip:]), timeout_s
            )
            return next((item for item in self._items[skip:] if wanted(item)), None)

    def wait_count(self, count: int, timeout_s: float) -> bool:
        """Wait up to that many real seconds until it holds that many items."""
        return self.wait_until(lambda items: len(items) >= count, timeout_s)

    def wait_until(self, check: Callable[[Sequence[T]], bool], timeout_s: float) -> bool:
        """Wait up to that many real seconds until a claim about all items holds."""
        with self._changed:
            return self._changed.wait_for(lambda: check(self._items), timeout_s)
