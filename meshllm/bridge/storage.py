"""What the bridge knows of its disk: room, refusals, the reserve. One per process, all stations'.

Decides who may write when space is short: messages and their states always, everything else only
while the reserve is whole and the disk takes writes.
"""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from meshllm.errors import StoreWriteError
from meshllm.store.reserve import Reserve
from meshllm.store.space import DiskSpace, Refusal, refusal_of

T = TypeVar("T")

LOOK_S: Final = 5.0  #: between two looks at the free space
CONSEQUENCE_LOW: Final = "nothing new is asked or queued; messages and their states are written"

_ADVICE: Final[dict[Refusal, str]] = {
    "full": "free some space; going on by itself",
    "read_only": "look for disk errors in the system log, remount it writable; going on by itself",
    "failing": "look for disk errors in the system log; the card may be worn out",
}

log = structlog.get_logger()


class Storage:
    """State of the disk. Safe from several threads; `look` belongs to one."""

    def __init__(self, reserve: Reserve | None = None, space: DiskSpace | None = None) -> None:
        """Without a reserve nothing is given up, without a space nothing is known to be low."""
        self._reserve = reserve
        self._space = space
        self._guard = threading.Lock()
        self._refusal: Refusal = ""

    def look(self) -> None:
        """Look at the free space, and make the reserve where there is room for it."""
        if self._space is None:
            return
        self._space.look()
        if self._space.is_read_only:
            self._refused("read_only", "the file system is mounted read-only")
        elif self._refusal == "read_only":
            self._took_again()
        if self._reserve is not None and not self._space.is_read_only:
            self._reserve.look()
            if self._refusal == "full" and self._reserve.is_kept:
                self._took_again()

    def write(self, act: Callable[[], T], *, may_spend: bool = True) -> T:
        """Run a commit of messages; a full disk makes the reserve give way, where it may be spent.

        `act` must be safe to repeat. Raises what it raises.
        """
        try:
            result = self._reserve.write(act) if self._reserve and may_spend else act()
        except StoreWriteError as error:
            self._refused(refusal_of(error), str(error))
            raise
        # Space is back only when the reserve is: a small write may succeed between two refusals.
        if self._refusal and (self._refusal != "full" or self._reserve is None):
            self._took_again()
        return result

    @property
    def has_room_for_rest(self) -> bool:
        """True unless only messages may be written now."""
        if self._reserve is not None and self._reserve.is_spent:
            return False
        return self._refusal in ("", "failing")

    @property
    def free_mb(self) -> int | None:
        """Free megabytes as last looked at."""
        return self._space.free_mb if self._space else None

    @property
    def state(self) -> str:
        """`ok`, `low`, `full`, `read_only` or `failing`."""
        if self._refusal:
            return self._refusal
        if self._reserve is not None and self._reserve.is_spent:
            return "full"
        return "low" if self._space is not None and not self._space.has_room else "ok"

    def _refused(self, refusal: Refusal, reason: str) -> None:
        with self._guard:
            if not refusal or refusal == self._refusal:
                return
            self._refusal = refusal
        log.error(
            "storage_refused",
            state=refusal,
            reason=reason,
            consequence="texts heard wait in memory; nothing is sent",
            advice=_ADVICE[refusal],
        )

    def _took_again(self) -> None:
        with self._guard:
            was, self._refusal = self._refusal, ""
        if was:
            log.info("storage_back", was=was)
