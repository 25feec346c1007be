"""Checks of the configured radios: ports, permissions, reachability. Sends nothing to a radio."""

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from serial.tools import list_ports

from meshllm.config import Link, Radio
from meshllm.doctor.findings import Finding, fail, info, ok, warn
from meshllm.doctor.machine import Machine, Process, group_name, may, members_of
from meshllm.doctor.place import Place
from meshllm.observe import status

CONNECT_S: Final = 3.0  #: longest wait for a radio on the network
GROUP: Final = "radios"
DOWN_FIX: Final = (
    "is the radio on, in reach or plugged in, and free? It serves one program at a time: close the"
    " phone app or web client; `status` shows the link"
)
#: Programs that open every serial port they see, and so keep or reset a radio.
GRABBERS: Final = {
    "ModemManager": "sudo systemctl disable --now ModemManager",
    "brltty": "sudo apt remove brltty",
    "gpsd": "sudo systemctl disable --now gpsd.socket gpsd",
}
_READ_WRITE: Final = 6


def look(place: Place) -> Iterator[Finding]:
    """Look at every configured radio, then at what disturbs serial ones."""
    links = [radio.link for radio in place.settings.radios]
    for link in links:
        match link.kind:
            case "serial":
                yield from serial(link, place)
            case "tcp":
                yield from tcp(link, place)
            case _:
                yield from bluetooth(link, place.machine)
    if any(link.kind == "serial" for link in links):
        yield from grabbers(place.machine)
    yield from told(place, place.settings.radios)


def serial(link: Link, place: Place) -> Iterator[Finding]:
    """Look for the port of a serial link: there, free to use, and used by whom."""
    machine = place.machine
    stable = by_id(machine)
    if link.is_auto:
        paths = _likely_ports()
        if len(paths) != 1:
            seen = "no serial radio is plugged in"
            text = f"several serial radios: {', '.join(paths)}" if paths else seen
            fix = "name one: link: serial:PATH" if paths else "plug it in with a data cable"
            yield fail(GROUP, f"{link}: {text}{_shown(stable)}", fix)
            return
        path = Path(paths[0])
    else:
        path = machine.dev / link.target.removeprefix("/dev/")
    yield from port(link, path, place, stable)


def port(link: Link, path: Path, place: Place, stable: dict[str, str]) -> Iterator[Finding]:
    """Look at one serial port."""
    try:
        found = path.stat()
    except OSError:
        fix = f"plug it in, or set link: serial:{next(iter(stable), 'auto')}"
        yield fail(GROUP, f"{link}: no such device {path}{_shown(stable)}", fix)
        return
    yield permission(link, path, found, place.machine)
    bridge = place.bridge()
    ours = {os.getpid(), *((bridge.pid,) if bridge is not None else ())}
    for process in place.machine.users_of(path):
        if process.pid not in ours:
            fix = _grabber_fix(process) or f"end it: kill {process.pid}"
            yield fail(GROUP, f"{link}: {process} has {path} open", fix)
    name = next((n for n, target in stable.items() if target == os.path.realpath(path)), "")
    if name and link.target != name and not link.is_auto:
        fix = f"link: serial:{name}"
        yield info(GROUP, f"{link}: has a name that stays the same after replugging", fix)


def permission(link: Link, path: Path, found: os.stat_result, machine: Machine) -> Finding:
    """Say whether this user may open a port, and which command lets them."""
    if may(found, _READ_WRITE, uid=machine.uid, groups=machine.groups):
        return ok(GROUP, f"{link}: {path} is there and may be used")
    group, user = group_name(found.st_gid), machine.user
    text = f"{link}: {user} may not use {path} (group {group})"
    if user in members_of(found.st_gid):
        return fail(GROUP, text, "log out and in again: the group counts from the next login")
    if not found.st_mode & 0o060:
        return fail(GROUP, text, f"sudo chmod g+rw {path}")
    return fail(GROUP, text, f"sudo usermod -aG {group} {user}, then log out and in again")


def by_id(machine: Machine) -> dict[str, str]:
    """Names under /dev/serial/by-id with the devices that they lead to."""
    folder = machine.dev / "serial" / "by-id"
    try:
        return {str(link): os.path.realpath(link) for link in sorted(folder.iterdir())}
    except OSError:
        return {}


def _shown(stable: dict[str, str]) -> str:
    ports = sorted(str(p.device) for p in list_ports.comports())
    names = f"; by id: {', '.join(stable)}" if stable else ""
    return f" (ports seen: {', '.join(ports) or 'none'}{names})"


def _likely_ports() -> list[str]:
    from meshllm.radio.device import serial_ports  # noqa: PLC0415  costs half a second to import

    return serial_ports()


def tcp(link: Link, place: Place) -> Iterator[Finding]:
    """Reach a radio on the network for a moment, unless the bridge uses it.

    Such a radio has room for one client and throws the older one out.
    """
    if place.bridge_runs():
        yield info(GROUP, f"{link}: not connected to: the bridge runs and may be using it")
        return
    try:
        socket.create_connection((link.target, link.port), timeout=CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        fix = f"is it on, and in this network? try: ping {link.target}"
        yield fail(GROUP, f"{link}: cannot be reached: {reason}", fix)
        return
    yield ok(GROUP, f"{link}: something listens there")


def bluetooth(link: Link, machine: Machine) -> Iterator[Finding]:
    """See whether bluetoothd and the system bus are there. Looks for no device."""
    if not any(process.name == "bluetoothd" for process in machine.processes()):
        fix = "sudo apt install bluez && sudo systemctl enable --now bluetooth"
        yield fail(GROUP, f"{link}: bluetoothd does not run", fix)
        return
    if not (machine.run / "dbus" / "system_bus_socket").exists():
        fix = "in a container, mount /run/dbus/system_bus_socket"
        yield fail(GROUP, f"{link}: the system bus is not there", fix)
        return
    try:
        adapters = list((machine.sys / "class" / "bluetooth").iterdir())
    except OSError:
        adapters = []
    if not adapters:
        yield fail(GROUP, f"{link}: no Bluetooth adapter", "sudo rfkill unblock bluetooth")
        return
    fix = "pairing: docs/how-to/connect-over-bluetooth.md"
    yield info(GROUP, f"{link}: bluetoothd runs; the radio itself is not looked for", fix)


def grabbers(machine: Machine) -> Iterator[Finding]:
    """Name running programs that are known to take serial ports."""
    for process in machine.processes():
        fix = _grabber_fix(process)
        if fix:
            yield warn(GROUP, f"{process} opens serial ports by itself", fix)


def _grabber_fix(process: Process) -> str:
    return GRABBERS.get(process.name, "")


def told(place: Place, radios: Sequence[Radio]) -> Iterator[Finding]:
    """Repeat what the bridge last said of each radio."""
    links = {str(radio.link) for radio in radios}
    for tree in place.files.trees():
        facts = status.read(tree.radio_status)
        if not facts or str(facts.get("link")) not in links:
            continue
        name = f"{facts.get('long_name') or tree.node_uid} ({facts.get('node_id', '')})"
        state, cause = facts.get("link_state"), facts.get("link_cause")
        said = f"{name}: link {state}, as the bridge said at {facts.get('heartbeat_at', '')}"
        if state == "up":
            yield info(GROUP, said)
        else:
            said = f"{said}: {cause or 'no cause told'}"
            yield warn(GROUP, said, DOWN_FIX) if place.bridge_runs() else info(GROUP, said)
        if facts.get("region") == "UNSET":
            fix = "set its region with the Meshtastic app"
            yield fail(GROUP, f"{name}: no region is set, so it sends nothing", fix)
        elif state == "up" and cause:
            yield warn(GROUP, f"{name}: sends nothing: {cause}", "python -m meshllm status")
