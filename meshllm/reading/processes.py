"""Whether the two processes run, by their lock, their heartbeat and this machine. Takes no lock.

Taking a process's lock to see whether it is free could stop that process from starting, so the
kernel's list of locks is read instead. It shows no locks of other containers.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from meshllm.clock import parse_utc

HEARTBEAT_S: Final = 60.0  #: both processes write their status at least so often
STALE_S: Final = 3 * HEARTBEAT_S  #: a heartbeat older than this is no sign of life
_LOCKS: Final = Path("/proc/locks")

ProcessState = Literal["running", "stuck", "stopped", "dead", "unclear", "never"]


@dataclass(frozen=True, slots=True)
class Process:
    """What can be seen of one process."""

    state: ProcessState
    detail: str
    pid: int | None = None
    heartbeat_at: str = ""
    age_s: float | None = None  #: of the heartbeat, by this machine's clock


def look_at(lock: Path, *, heartbeat_at: str, now_s: float, said_goodbye: bool = False) -> Process:
    """Judge one process by its lock file and its newest heartbeat.

    `now_s` is Unix time; `said_goodbye` means that its status file tells of a regular stop.
    """
    moment = parse_utc(heartbeat_at)
    age_s = None if moment is None else now_s - moment.timestamp()
    pid = _pid_in(lock)
    is_held = _is_held(lock, pid)
    state, detail = _judge(is_held=is_held, age_s=age_s, said_goodbye=said_goodbye)
    return Process(state, detail, pid if is_held else None, heartbeat_at, age_s)


def _judge(*, is_held: bool, age_s: float | None, said_goodbye: bool) -> tuple[ProcessState, str]:
    if is_held and age_s is not None and age_s > STALE_S:
        return "stuck", "it holds its lock but has written nothing lately; see its log"
    if is_held:
        return "running", ""
    if age_s is None:
        return "never", "it has not run on this folder"
    if said_goodbye:
        return "stopped", "it was stopped; ./run.sh starts both"
    if age_s <= STALE_S:
        return "unclear", "its lock is free here: it ended just now, or runs in another container"
    return "dead", "./run.sh starts both"


def _pid_in(lock: Path) -> int | None:
    try:
        text = lock.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _is_held(lock: Path, pid: int | None) -> bool:
    """Find the lock in the kernel's list: by device and file, or where those differ by process."""
    try:
        status = lock.stat()
        listed = _LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for line in listed:
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK":
            continue
        place, _, inode = fields[5].rpartition(":")
        is_same = place == device or fields[4] == str(pid)  # overlays show another device
        if inode == str(status.st_ino) and is_same:
            return True
    return False
