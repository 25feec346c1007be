"""Tells a service manager such as systemd that this process is ready, lives, or stops.

Only where NOTIFY_SOCKET names a socket; elsewhere every call does nothing. Whether the process
lives is for others to judge.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol, Self

import structlog

from meshllm.observe.board import Verdict

log = structlog.get_logger()

ADDRESS: Final = "NOTIFY_SOCKET"
WATCHDOG_PERIOD: Final = "WATCHDOG_USEC"  #: microseconds of silence after which we are killed
WATCHDOG_PID: Final = "WATCHDOG_PID"  #: the process that period is meant for
PINGS_PER_PERIOD: Final = 3  #: one or two may come late on a card that is slow to write


class Manager:
    """The service manager, if there is one. A message that it does not take is lost."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """Talk to a socket: a path, or `@` and a name in the abstract space; "" for nobody."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._has_failed = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, pid: int | None = None) -> Self:
        """Take what the manager has set; a watchdog set for another process is not ours."""
        address = environ.get(ADDRESS, "")
        if not address.startswith(("/", "@")):
            return cls()
        is_ours = environ.get(WATCHDOG_PID, "") in ("", str(pid or os.getpid()))
        period_us = environ.get(WATCHDOG_PERIOD, "")
        is_set = is_ours and period_us.isascii() and period_us.isdecimal()
        return cls(address, int(period_us) / 1_000_000 if is_set else 0.0)

    @property
    def ping_s(self) -> float:
        """Real seconds between two signs of life that the manager wants; 0 when it wants none."""
        return self._watchdog_s / PINGS_PER_PERIOD

    def ready(self) -> None:
        """Say that the start is over: what was ordered after this service may start."""
        self._send("READY=1")

    def alive(self) -> None:
        """Say that the process is not stuck; without it for a whole period it is killed."""
        if self._watchdog_s:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        """Send without ever waiting: a manager that hangs must not take us with it."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode("ascii"), self._address)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                log.warning(
                    "notify_failed",
                    reason=error.strerror or str(error),
                    consequence="the service manager may take this process for stuck",
                )
        else:
            self._has_failed = False


class Service(Protocol):
    """What the scaffold of a process runs."""

    def start(self) -> None:
        """Open what is needed."""

    def tick(self) -> float:
        """Do what is due; return the seconds until the next tick is wanted."""

    def stop(self) -> None:
        """Finish and let go."""


class Reported:
    """A service whose start, ticks and end the manager hears of.

    A tick alone proves that the main loop turns; `judge` knows of the other threads. While one of
    them is stuck the manager hears nothing, and starts the process again after its period.
    """

    def __init__(self, service: Service, manager: Manager, judge: Callable[[], Verdict]) -> None:
        self._service = service
        self._manager = manager
        self._judge = judge
        self._is_told = False

    def start(self) -> None:
        """Start it, then say so; a start that fails is not told as one."""
        self._service.start()
        self._manager.ready()

    def tick(self) -> float:
        """Pass one tick on; the next comes in time for the watchdog."""
        try:
            wait_s = self._service.tick()
        finally:
            # A full disk fails every tick; the loop turns all the same, and a kill would not help.
            self._tell_alive()
        return min(wait_s, self._manager.ping_s or wait_s)

    def stop(self) -> None:
        """Tell of the end, then end it."""
        self._manager.stopping()
        self._service.stop()

    def _tell_alive(self) -> None:
        verdict = self._judge()
        if verdict.live:
            self._is_told = False
            self._manager.alive()
        elif self._manager.ping_s and not self._is_told:
            self._is_told = True
            log.error(
                "watchdog_not_fed",
                reasons=list(verdict.reasons),
                consequence="the service manager starts this process again after its period",
            )
