"""A disk of a few megabytes for one test: a mount of its own, or nothing where that is forbidden.

The folder is always unmounted, also when the test fails; `atexit` is the last net.
"""

import atexit
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_mounted: set[Path] = set()


@atexit.register
def _unmount_all() -> None:
    for path in tuple(_mounted):
        _unmount(path)


class SmallDisk:
    """A mounted folder that can be filled, emptied and made read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, *, leave: int = 0) -> None:
        """Take all the space but `leave` bytes."""
        state = os.statvfs(self.path)
        wanted = state.f_bavail * state.f_frsize - leave
        with self._filler.open("ab") as file:
            while wanted > 0:
                piece = min(wanted, 1 << 20)
                try:
                    file.write(b"x" * piece)
                    file.flush()
                except OSError:
                    return
                wanted -= piece

    def empty(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)

    def remount(self, *, read_only: bool) -> None:
        """Change whether the disk takes writes. Refused by the kernel while a file is written."""
        mode = "ro" if read_only else "rw"
        _run("mount", "-o", f"remount,{mode}", str(self.path))


@contextmanager
def small_disk(path: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a small file system in memory; skips the test where that is not permitted."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0750", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"file systems cannot be mounted here: {error}")
    _mounted.add(path)
    try:
        yield SmallDisk(path)
    finally:
        _unmount(path)


def _unmount(path: Path) -> None:
    # Lazily: a process that a failed test left behind must not keep the mount.
    subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
    _mounted.discard(path)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)
