"""Watches the free space of the data folder, so that nothing is half queued. Frees nothing."""

import shutil
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

_BYTES_PER_MB: Final = 1_000_000


class DiskSpace:
    """Says whether there is room, and logs each change once."""

    def __init__(self, folder: Path, reserve_mb: int) -> None:
        self._folder = folder
        self._reserve_mb = reserve_mb
        self.has_room = True

    def look(self) -> None:
        """Compare the free space with the reserve."""
        try:
            free_mb = shutil.disk_usage(self._folder).free // _BYTES_PER_MB
        except OSError:
            return  # the next write tells what is wrong
        had_room, self.has_room = self.has_room, free_mb >= self._reserve_mb
        if self.has_room and not had_room:
            log.info("disk_space_back", free_mb=free_mb)
        elif had_room and not self.has_room:
            log.error(
                "disk_space_low",
                free_mb=free_mb,
                reserve_mb=self._reserve_mb,
                consequence="nothing is asked or queued; every question stays open",
            )
