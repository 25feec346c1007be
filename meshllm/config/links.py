"""What `link:` may say: the ways to reach a radio. Opens nothing and looks for no device."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Literal

LinkKind = Literal["serial", "tcp", "ble"]

DEFAULT_TCP_PORT: Final = 4403  #: where Meshtastic firmware listens
AUTO: Final = "auto"  #: target of a serial link that takes the first radio found
FORMS: Final = "serial:auto, serial:/dev/ttyUSB0, tcp:HOST[:PORT] or ble:ADDRESS"
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?")
_TCP: Final = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
_BLE: Final = re.compile(r"\S(?:.{0,62}\S)?")


@dataclass(frozen=True, slots=True)
class Link:
    """One way to a radio. `target` is a device path or `auto`, a host, or a Bluetooth address."""

    kind: LinkKind
    target: str
    port: int = 0  #: TCP only, else 0

    def __str__(self) -> str:
        """Write the form that `parse_link` reads."""
        if self.kind != "tcp":
            return f"{self.kind}:{self.target}"
        host = f"[{self.target}]" if ":" in self.target else self.target
        return f"tcp:{host}:{self.port}"

    @property
    def is_auto(self) -> bool:
        """Say whether the bridge has to look for the device itself."""
        return self.kind == "serial" and self.target == AUTO

    @property
    def identity(self) -> str:
        """Form in which two links to the same radio are equal."""
        return str(self) if self.kind == "serial" else str(self).lower()


def parse_link(text: str) -> Link:
    """Read a link. Raises ValueError with the reason and the valid forms."""
    kind, _, target = text.strip().partition(":")
    match kind.lower():
        case "serial":
            return _serial(target)
        case "tcp":
            return _tcp(target)
        case "ble":
            return _ble(target)
    raise ValueError(f"{text!r} is not a link{_hint(text.strip())}; write {FORMS}")


def _hint(text: str) -> str:
    if text.startswith("/dev/") or text.lower() == AUTO:
        return f" (did you mean serial:{text}?)"
    return ""


def _serial(target: str) -> Link:
    if target.lower() == AUTO:
        return Link("serial", AUTO)
    if not target.startswith("/") or target.endswith("/"):
        raise ValueError(f"{target!r} is not a device; write serial:auto or serial:/dev/ttyUSB0")
    return Link("serial", target)


def _tcp(target: str) -> Link:
    match = _TCP.fullmatch(target)
    if match is None:
        bare_v6 = target.count(":") > 1 and "[" not in target
        advice = "put an IPv6 address in brackets" if bare_v6 else "write tcp:HOST or tcp:HOST:PORT"
        raise ValueError(f"{target!r} is not a host with an optional port; {advice}")
    port = int(match["port"] or DEFAULT_TCP_PORT)
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} must be from 1 to 65535")
    if match["v6"] is not None:
        return Link("tcp", _v6(match["v6"]), port)
    if not _HOST.fullmatch(match["host"]):
        raise ValueError(f"{match['host']!r} is not a host name or an IPv4 address")
    return Link("tcp", match["host"], port)


def _v6(text: str) -> str:
    try:
        IPv6Address(text)
    except AddressValueError:
        raise ValueError(f"{text!r} is not an IPv6 address") from None
    return text


def _ble(target: str) -> Link:
    if not _BLE.fullmatch(target):
        raise ValueError(f"{target!r} is not a Bluetooth address; write ble:AA:BB:CC:DD:EE:FF")
    return Link("ble", target)
