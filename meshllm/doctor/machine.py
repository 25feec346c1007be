"""The machine as the kernel's files show it: processes, locks, devices, memory. Changes nothing."""

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from meshllm.store.space import BYTES_PER_MB


@dataclass(frozen=True, slots=True)
class Process:
    """One process, by number and short name."""

    pid: int
    name: str

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.name or 'a process'} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the kernel's files are. Tests point it at folders of their own."""

    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    run: Path = Path("/run")
    uid: int = field(default_factory=os.geteuid)
    groups: frozenset[int] = field(
        default_factory=lambda: frozenset({os.getegid(), *os.getgroups()})
    )

    @property
    def user(self) -> str:
        """Name of the user who looks."""
        return user_name(self.uid)

    def processes(self) -> Iterator[Process]:
        """Every process that can be seen from here."""
        with suppress(OSError):
            for entry in sorted(self.proc.iterdir()):
                if entry.name.isdecimal():
                    yield self.process(int(entry.name))

    def process(self, pid: int) -> Process:
        """One process; its name is empty where it has ended."""
        try:
            name = (self.proc / str(pid) / "comm").read_text(errors="replace").strip()
        except OSError:
            name = ""
        return Process(pid, name)

    def lock_holders(self) -> dict[tuple[int, int], int]:
        """Process ids of all flocks, by device and inode; none of other containers."""
        try:
            lines = (self.proc / "locks").read_text().splitlines()
        except OSError:
            return {}
        return dict(found for line in lines if (found := _flock(line)) is not None)

    def users_of(self, path: Path) -> list[Process]:
        """Processes that have a file open, as far as this user may see."""
        target = os.path.realpath(path)
        return [p for p in self.processes() if self._has_open(p.pid, target)]

    def _has_open(self, pid: int, target: str) -> bool:
        try:
            links = list((self.proc / str(pid) / "fd").iterdir())
        except OSError:
            return False
        return any(_leads_to(link, target) for link in links)

    def memory_mb(self) -> dict[str, int]:
        """Figures of /proc/meminfo in megabytes; {} where there is none."""
        found: dict[str, int] = {}
        with suppress(OSError, ValueError):
            for line in (self.proc / "meminfo").read_text().splitlines():
                name, _, rest = line.partition(":")
                if rest.split()[1:] == ["kB"]:
                    found[name] = int(rest.split()[0]) * 1024 // BYTES_PER_MB
        return found


def user_name(uid: int) -> str:
    """Name of a user, its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Name of a group, its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def members_of(gid: int) -> frozenset[str]:
    """Names that /etc/group lists for a group: who is in it after the next login."""
    try:
        return frozenset(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return frozenset()


def may(status: os.stat_result, wanted: int, *, uid: int, groups: frozenset[int]) -> bool:
    """Say whether a user may use a file; `wanted` is made of 4 read, 2 write, 1 enter."""
    if uid == 0:
        return True
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
    return (status.st_mode >> shift) & wanted == wanted


def _flock(line: str) -> tuple[tuple[int, int], int] | None:
    """Read `1: FLOCK ADVISORY WRITE 4711 b3:02:131 0 EOF`; None for other locks and waiters."""
    parts = line.split()
    if len(parts) < 6 or parts[1] != "FLOCK":
        return None
    try:
        major, minor, inode = parts[5].split(":")
        device = os.makedev(int(major, 16), int(minor, 16))
        return (device, int(inode)), int(parts[4])
    except ValueError:
        return None


def _leads_to(link: Path, target: str) -> bool:
    try:
        return os.readlink(link) == target  # noqa: PTH115 - /proc names sockets that are no paths
    except OSError:
        return False
