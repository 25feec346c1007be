"""Which serial port to open: finds a radio again whose port has another name now. Opens nothing.

The choice is a pure function. What each link opened last is remembered for the life of the process.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from meshllm.config import Link
from meshllm.errors import LinkDownError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Port:
    """One serial port that the system has, and what tells its device from others."""

    path: str
    vendor: int | None = None
    product: int | None = None
    serial: str = ""  #: of the USB device; cheap converters have none, or all the same one
    location: str = ""  #: the socket it is in, such as 1-1.2
    is_likely: bool = True  #: a maker of boards or converters that radios have

    @property
    def identity(self) -> tuple[int, int | None, str] | None:
        """What stays the same when the name changes; None for a port that is not USB."""
        if self.vendor is None:
            return None
        return self.vendor, self.product, self.serial

    @property
    def interface(self) -> str:
        """Which one of a device with several ports; empty for a device with one."""
        return self.location.partition(":")[2]

    @property
    def device(self) -> str:
        """The device behind the port, for people."""
        if self.vendor is None:
            return "no USB device"
        serial = f" serial {self.serial}" if self.serial else ""
        return f"USB {self.vendor:04x}:{self.product or 0:04x}{serial}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one link is after: `path` as configured, empty for the first radio found."""

    path: str
    is_there: bool = False  #: a device of that name exists
    known: Port | None = None  #: what this link opened last
    not_ours: frozenset[str] = frozenset()  #: ports of other links, configured or in use


def choose(wanted: Wanted, seen: Sequence[Port]) -> str:
    """Return the path to open. Raises LinkDownError with what was looked for and what was seen.

    A configured path that exists is taken, unless the device known from it is now elsewhere; a
    path that is gone is followed by the device's identity alone.
    """
    free = [port for port in seen if port.path not in wanted.not_ours]
    again = _again(wanted.known, free)
    if wanted.path and wanted.is_there and not (len(again) == 1 and _moved(wanted, seen)):
        return wanted.path
    if len(again) == 1:
        return again[0].path
    if again:
        raise _failure("several devices look like the one that was here", wanted, seen)
    if wanted.path:
        raise _failure(f"no such device {wanted.path}", wanted, seen)
    if wanted.known is not None and wanted.known.identity is not None:
        raise _failure("the radio is gone", wanted, seen)
    likely = [port for port in free if port.is_likely]
    if len(likely) == 1:
        return likely[0].path
    if likely:
        names = ", ".join(port.path for port in likely)
        raise LinkDownError(f"several serial radios, name one of them in config.yaml: {names}")
    raise _failure("no radio on any serial port", wanted, seen)


def _again(known: Port | None, ports: Sequence[Port]) -> list[Port]:
    """Ports that may hold the known device; its socket decides between equal ones."""
    if known is None or known.identity is None:
        return []
    same = [port for port in ports if port.identity == known.identity]
    if len(same) > 1:
        in_place = [port for port in same if port.location == known.location]
        return in_place or [port for port in same if port.interface == known.interface]
    return same


def _moved(wanted: Wanted, seen: Sequence[Port]) -> bool:
    """Say whether another device than the known one has the configured path now."""
    here = [port for port in seen if port.path == wanted.path]
    known = wanted.known
    return bool(here and known) and here[0].identity != (known and known.identity)


def _failure(what: str, wanted: Wanted, seen: Sequence[Port]) -> LinkDownError:
    known = wanted.known
    looked = f"; looked for {known.device}" if known is not None and known.identity else ""
    ports = ", ".join(
        f"{port.path} ({port.device}{', taken' if port.path in wanted.not_ours else ''})"
        for port in seen
    )
    advice = "plug it in, or name its port in config.yaml (best by /dev/serial/by-id) and restart"
    return LinkDownError(f"{what}{looked}; ports seen: {ports or 'none'}; {advice}")


class SerialPorts:
    """The serial ports of this machine, shared out among the links of one process. Thread-safe."""

    def __init__(self, look: Callable[[], Sequence[Port]], configured: Sequence[Link] = ()) -> None:
        """`look` lists the ports; `configured` are all links, so that none takes another's."""
        self._look = look
        self._reserved = [link for link in configured if link.kind == "serial" and not link.is_auto]
        self._lock = threading.Lock()
        self._known: dict[Link, Port] = {}
        self._using: dict[Link, str] = {}
        self._told: dict[Link, str] = {}

    def take(self, link: Link) -> str:
        """Choose the port for a link and hold it until `release`. Raises LinkDownError."""
        with self._lock:
            seen = self._look()
            path = "" if link.is_auto else os.path.realpath(link.target)
            wanted = Wanted(
                path=path,
                is_there=bool(path) and Path(path).exists(),
                known=self._known.get(link),
                not_ours=self._not_ours(link),
            )
            taken = choose(wanted, seen)
            self._using[link] = taken
            self._tell(link, path, taken)
            # The name as configured where it leads there: error messages then say what is known.
            return link.target if taken == path else taken

    def opened(self, link: Link) -> None:
        """Remember the device behind the port of a link: a radio answered there."""
        with self._lock:
            path = self._using.get(link)
            found = next((port for port in self._look() if port.path == path), None)
            if found is not None:
                self._known[link] = found

    def release(self, link: Link) -> None:
        """Give the port of a link back; what was behind it stays known."""
        with self._lock:
            self._using.pop(link, None)

    def _not_ours(self, link: Link) -> frozenset[str]:
        used = {path for other, path in self._using.items() if other != link}
        reserved = {os.path.realpath(other.target) for other in self._reserved if other != link}
        return frozenset(used | reserved)

    def _tell(self, link: Link, path: str, taken: str) -> None:
        known = self._known.get(link)
        was = self._told.get(link) or path or (known.path if known else taken)
        if taken != was:
            device = known.device if known else ""
            log.warning("port_renamed", radio=str(link), was=was, now=taken, device=device)
        self._told[link] = taken
