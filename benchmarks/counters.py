"""Counts what the machine did: flushes, bytes written, processor time, memory. Linux only."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SECTOR_BYTES: Final = 512
_WRITTEN_FIELD: Final = 6
_FLUSH_FIELD: Final = 15


@dataclass(slots=True)
class Calls:
    """How often this process flushed."""

    count: int = 0


@contextmanager
def flush_calls() -> Iterator[Calls]:
    """Count the calls of fsync and fdatasync that this process makes meanwhile."""
    calls = Calls()
    originals = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

    def counted(original: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            calls.count += 1
            original(descriptor)

        return call

    for name, original in originals.items():
        setattr(os, name, counted(original))
    try:
        yield calls
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


@dataclass(frozen=True, slots=True)
class Device:
    """What a disk has done so far, for all processes of the machine."""

    flushes: int
    written_bytes: int


def device(folder: Path) -> Device | None:
    """Read the counters of the disk below a folder; None where the system does not tell."""
    number = folder.stat().st_dev
    entry = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    try:
        entry = entry.resolve(strict=True)
        if (entry / "partition").exists():
            entry = entry.parent  # flushes are counted for the whole disk
        fields = (entry / "stat").read_text().split()
        return Device(int(fields[_FLUSH_FIELD]), int(fields[_WRITTEN_FIELD]) * _SECTOR_BYTES)
    except (OSError, IndexError, ValueError):
        return None


def written_bytes(process: int | str = "self") -> int:
    """Bytes that a process has caused to be written to storage."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(fields["write_bytes"])


def processor_s(pid: int) -> float:
    """Processor seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one or several processes, in megabytes of 10^6 bytes."""

    resident_mb: float
    proportional_mb: float  #: pages that several processes share are counted once


def memory(*pids: int) -> Memory:
    """Add up the memory of processes."""
    totals = {"Rss": 0, "Pss": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in totals:
                totals[name] += int(rest.split()[0])
    return Memory(totals["Rss"] * 1024 / 1e6, totals["Pss"] * 1024 / 1e6)
