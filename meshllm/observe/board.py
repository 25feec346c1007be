"""The newest state of one process, told by its threads and read by whoever watches.

What happens is counted from the events; what is (a queue, a link) stands here. A process that
nobody watches gets `Board` itself, which keeps nothing.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from meshllm.clock import Clock

#: Real seconds after which a loop that does not turn is stuck; none rests longer than 60 s.
LIVE_LIMIT_S: Final = 120.0
MAIN: Final = "main"  #: the loop of the process itself


@dataclass(frozen=True, slots=True)
class RadioState:
    """One radio as its station sees it. Durations in real seconds, shares from 0 to 1."""

    is_up: bool
    connects: int = 0
    waiting: int = 0
    held: int = 0
    oldest_s: float = 0.0
    own_airtime_s: float = 0.0
    unwritten: int = 0
    channel_use: float | None = None
    air_transmit: float | None = None


@dataclass(frozen=True, slots=True)
class AgentState:
    """Is the agent's model to be had, and what waits for it. Durations in real seconds."""

    is_ready: bool
    may_call: bool
    why_not: str  #: a state in words of ours, "" while it is ready
    questions_open: int
    oldest_s: float = 0.0  #: age of the oldest open question, 0 for none


@dataclass(frozen=True, slots=True)
class StorageState:
    """The disk: `ok`, `low`, `full`, `read_only` or `failing`; no megabytes before a look."""

    state: str
    free_mb: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything told so far. `rests` are the real seconds since each loop last turned."""

    rests: Mapping[str, float] = field(default_factory=dict)
    radios: Mapping[int, RadioState] = field(default_factory=dict)
    agent: AgentState | None = None
    storage: StorageState | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a process lives and can work, and if not, why."""

    live: bool
    ready: bool
    reasons: tuple[str, ...] = ()


class Board:
    """What a service is given to tell of itself. This one keeps nothing and calls nothing."""

    def turned(self, loop: str = MAIN) -> None:
        """Note that a loop turned once more. Safe from any thread."""

    def radio(self, place: int, read: Callable[[], RadioState]) -> None:
        """Take the state of the radio at this place of `radios`; `read` is called at once."""

    def agent(self, read: Callable[[], AgentState]) -> None:
        """Take the state of the agent."""

    def storage(self, read: Callable[[], StorageState]) -> None:
        """Take the state of the disk."""


class KeptBoard(Board):
    """A board that somebody reads."""

    def __init__(self, clock: Clock) -> None:
        """The main loop counts as turning from now on: a start may take its time, too."""
        self._clock = clock
        self._guard = threading.Lock()
        self._turned: dict[str, float] = {}
        self._radios: dict[int, RadioState] = {}
        self._agent: AgentState | None = None
        self._storage: StorageState | None = None
        self.turned()

    def turned(self, loop: str = MAIN) -> None:
        """Note that a loop turned once more."""
        now = self._clock.monotonic()
        with self._guard:
            self._turned[loop] = now

    def radio(self, place: int, read: Callable[[], RadioState]) -> None:
        """Keep the state of a radio."""
        state = read()
        with self._guard:
            self._radios[place] = state

    def agent(self, read: Callable[[], AgentState]) -> None:
        """Keep the state of the agent."""
        self._agent = read()

    def storage(self, read: Callable[[], StorageState]) -> None:
        """Keep the state of the disk."""
        self._storage = read()

    def snapshot(self) -> Snapshot:
        """Return what was told last. Safe from any thread."""
        now, scale = self._clock.monotonic(), self._clock.scale
        with self._guard:
            rests = {loop: (now - at) / scale for loop, at in self._turned.items()}
            return Snapshot(rests, dict(self._radios), self._agent, self._storage)


def judge(role: str, seen: Snapshot) -> Verdict:
    """Say whether a process lives and is ready. Live is what a restart would help; ready is not."""
    stuck = [
        f"{loop}: has not turned for {rest_s:.0f} s"
        for loop, rest_s in seen.rests.items()
        if rest_s > LIVE_LIMIT_S
    ]
    missing = _bridge_lacks(seen) if role == "bridge" else _agent_lacks(seen)
    return Verdict(not stuck, not stuck and not missing, (*stuck, *missing))


def _bridge_lacks(seen: Snapshot) -> list[str]:
    lacks = [] if any(radio.is_up for radio in seen.radios.values()) else ["no radio is linked"]
    if seen.storage is not None and seen.storage.state not in ("ok", "low"):
        lacks.append(f"storage is {seen.storage.state}")
    return lacks


def _agent_lacks(seen: Snapshot) -> list[str]:
    if seen.agent is None:
        return ["the prompt log is not loaded"]
    lacks = [] if seen.agent.is_ready else [f"model: {seen.agent.why_not}"]
    if seen.storage is not None and seen.storage.state != "ok":
        lacks.append(f"storage is {seen.storage.state}")
    return lacks
