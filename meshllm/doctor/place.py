"""One installation to look at, and whether its processes run. Keeps no lock."""

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meshllm.clock import Clock, SystemClock, parse_utc
from meshllm.config import Settings
from meshllm.doctor.machine import Machine, Process
from meshllm.layout import Layout
from meshllm.observe import status
from meshllm.store import atomic

BEAT_S: Final = 180.0  #: each process writes its status file once a minute


@dataclass(frozen=True, slots=True)
class Place:
    """Settings, their file, the folders they name, and the machine."""

    settings: Settings
    files: Layout
    config_file: Path
    machine: Machine = field(default_factory=Machine)
    clock: Clock = field(default_factory=SystemClock)

    @property
    def modes(self) -> atomic.Modes:
        """Permission bits that our files should have."""
        chosen = self.settings
        return atomic.Modes(chosen.file_mode, chosen.folder_mode, chosen.lock_mode)

    def bridge(self) -> Process | None:
        """The bridge that runs on these files, None when none does as far as can be seen."""
        return holder(self.files.bridge_lock, self.machine)

    def agent(self) -> Process | None:
        """The same for the agent."""
        return holder(self.files.agent_lock, self.machine)

    def bridge_runs(self) -> bool:
        """Say whether a bridge runs, also where its process cannot be seen from here."""
        told = (status.read(tree.radio_status) for tree in self.files.trees())
        return self.bridge() is not None or self._is_alive(self.files.bridge_lock, *told)

    def agent_runs(self) -> bool:
        """The same for the agent."""
        told = status.read(self.files.agent_status)
        return self.agent() is not None or self._is_alive(self.files.agent_lock, told)

    def _is_alive(self, lock: Path, *told: dict[str, Any]) -> bool:
        """Try the lock where a status is fresh: a process of another container holds it unseen."""
        return any(map(self._is_fresh, told)) and is_locked(lock)

    def _is_fresh(self, facts: dict[str, Any]) -> bool:
        beat = parse_utc(str(facts.get("heartbeat_at", "")))
        if beat is None:
            return False
        return 0 <= (self.clock.utc() - beat).total_seconds() <= BEAT_S


def holder(lock: Path, machine: Machine) -> Process | None:
    """Name the process that holds a lock file, without touching the lock.

    Some file systems tell the kernel another device number; there the id in the file decides.
    """
    try:
        found = lock.stat()
    except OSError:
        return None
    holders = machine.lock_holders()
    pid = holders.get((found.st_dev, found.st_ino))
    if pid is None:
        same = {p for (_, inode), p in holders.items() if inode == found.st_ino}
        written = written_pid(lock)
        pid = written if written in same else None
    return machine.process(pid) if pid is not None else None


def is_locked(lock: Path) -> bool:
    """Say whether somebody holds a process lock, by asking for a share of it for microseconds.

    A process that takes it in that very moment is refused; so this is asked only where a fresh
    status says that one runs already.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def written_pid(lock: Path) -> int | None:
    """Read the process id that a process lock names; None where there is none."""
    try:
        text = lock.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and len(text) < 10 else None
