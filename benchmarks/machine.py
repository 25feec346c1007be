"""Describes the machine, the file system and the versions that figures were taken with."""

import os
import platform
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.report import Figure, Part

_VERSIONS: Final = ("filelock", "watchdog", "meshtastic", "requests", "pydantic", "structlog")


def describe(folder: Path) -> Part:
    """Describe everything that a reader needs to judge the figures by."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "libraries": libraries,
        "file system": _file_system(folder),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return Part("machine", "Machine", tuple(Figure(name, text) for name, text in facts.items()))


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or "unknown"


def _file_system(folder: Path) -> str:
    """Name type and options of the mount that a folder is on."""
    best = ("", "unknown", "")
    for line in _lines(Path("/proc/self/mounts")):
        _, point, kind, options, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind, options)
    return f"{best[1]}, {best[2]}".rstrip(", ")


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text(errors="replace").splitlines()
    except OSError:
        return
