"""Free space of the folders we write, and what a refused write tells of the disk. Frees nothing."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import structlog

log = structlog.get_logger()

BYTES_PER_MB: Final = 1_000_000
_MOST_SLACK_MB: Final = 5  #: space is back only this far above the limit, else every write is news
_SLACK_SHARE: Final = 50  #: or this part of a small limit

#: What a refusal means for every file of the disk; "" when it concerns one file alone.
Refusal = Literal["full", "read_only", "failing", ""]

_REFUSALS: Final[dict[int, Refusal]] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read_only",
    errno.EIO: "failing",
}


def refusal_of(error: BaseException) -> Refusal:
    """Say whether an error of the store, by the system's error behind it, concerns the disk."""
    cause = error.__cause__
    return _REFUSALS.get(cause.errno or 0, "") if isinstance(cause, OSError) else ""


def is_one_disk(one: Path, other: Path) -> bool:
    """Say whether two folders are on one file system; one that is not there counts as its parent's.

    True where nothing can be found out.
    """
    try:
        return _existing(one).stat().st_dev == _existing(other).stat().st_dev
    except OSError:
        return True


def _existing(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def is_enough(free_mb: int, reserve_mb: int, *, had_room: bool) -> bool:
    """Compare free space with the limit; what was too little must be more to be enough again."""
    slack_mb = 0 if had_room else min(_MOST_SLACK_MB, reserve_mb // _SLACK_SHARE)
    return free_mb >= reserve_mb + slack_mb


class DiskSpace:
    """Says whether there is room, and logs each change once. One thread looks, any may ask."""

    def __init__(self, folders: Sequence[Path], reserve_mb: int, *, consequence: str) -> None:
        """Look at several folders, since each may lie on a disk of its own; the fullest counts.

        `consequence` is what the event tells the operator.
        """
        self._folders = tuple(folders)
        self._reserve_mb = reserve_mb
        self._consequence = consequence
        self.has_room = True
        self.is_read_only = False
        self.free_mb: int | None = None  #: None until a first look, or while no folder answers

    def look(self) -> None:
        """Compare the free space with the reserve. Blocks as long as the file system does."""
        states = [state for folder in self._folders if (state := _look(folder)) is not None]
        if not states:
            self.free_mb = None
            return  # the next write tells what is wrong
        self.is_read_only = any(is_read_only for _, is_read_only in states)
        self.free_mb = free_mb = min(free for free, _ in states)
        had_room = self.has_room
        self.has_room = is_enough(free_mb, self._reserve_mb, had_room=had_room)
        if self.has_room and not had_room:
            log.info("disk_space_back", free_mb=free_mb)
        elif had_room and not self.has_room:
            log.error(
                "disk_space_low",
                free_mb=free_mb,
                reserve_mb=self._reserve_mb,
                consequence=self._consequence,
            )


def _look(folder: Path) -> tuple[int, bool] | None:
    try:
        state = os.statvfs(folder)
    except OSError:
        return None
    free_mb = state.f_bavail * state.f_frsize // BYTES_PER_MB
    return free_mb, bool(state.f_flag & os.ST_RDONLY)
