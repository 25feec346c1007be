"""Checks of what surrounds the programs: log folder, systemd units. Changes nothing."""

from collections.abc import Iterator
from typing import Final

from meshllm.doctor.findings import Finding, info, ok, warn
from meshllm.doctor.machine import Machine, may
from meshllm.doctor.place import Place
from meshllm.store.space import BYTES_PER_MB

GROUP: Final = "system"
LARGE_LOGS_MB: Final = 200  #: more than rotation leaves at its defaults


def look(place: Place) -> Iterator[Finding]:
    """Look at the log folder, then for units."""
    yield logs(place)
    yield units(place.machine)


def logs(place: Place) -> Finding:
    """Say whether log files are written, and how much room they take."""
    folder = place.files.logs_dir
    try:
        found = [entry.lstat() for entry in folder.iterdir() if entry.is_file()]
        own = folder.stat()
    except FileNotFoundError:
        return info(GROUP, f"no {folder} yet: `why` then knows the files alone")
    except OSError as error:
        return warn(GROUP, f"{folder} cannot be read: {error.strerror or error}")
    machine = place.machine
    if not may(own, 3, uid=machine.uid, groups=machine.groups):
        fix = f"sudo chown -R {machine.user}: {folder}"
        return warn(GROUP, f"{machine.user} cannot write to {folder}", fix)
    size_mb = sum(status.st_size for status in found) / BYTES_PER_MB
    text = f"{len(found)} log files, {size_mb:.1f} MB in {folder}"
    if size_mb > LARGE_LOGS_MB:
        return warn(GROUP, text, "older ones may be removed")
    return ok(GROUP, text)


def units(machine: Machine) -> Finding:
    """Say whether systemd starts the programs."""
    folder = machine.etc / "systemd" / "system"
    names = sorted(path.name for path in folder.glob("*mesh*.service"))
    found = [name for name in names if not name.startswith("meshtasticd")]
    if found:
        return info(GROUP, f"systemd units: {', '.join(found)}")
    return info(GROUP, "no systemd unit: nothing starts at boot by itself")
