"""When something that keeps failing is tried again. Pure: takes moments, keeps no clock."""

from typing import Final

FIRST_PAUSE_S: Final = 5.0  #: scaled; after a failure that cost nothing but a look
MAX_PAUSE_S: Final = 60.0
#: After a call that took the model's time in vain. Two or three of them outlast a model that
#: loads, or a machine that swaps; ten minutes let a hot Pi cool down.
FIRST_REST_S: Final = 15.0
MAX_REST_S: Final = 600.0


class Breaker:
    """Growing pauses: 5, 10, 20, 40, 60, 60 … s, and 15, 30, 60 … 600 s after costly failures."""

    def __init__(self) -> None:
        """Begin closed: calls may go through."""
        self.failures = 0  #: since the last success
        self.is_resting = False  #: the last failure was a costly one
        self.due = 0.0  #: monotonic; nothing should be tried before
        self._pause_s = FIRST_PAUSE_S
        self._rest_s = FIRST_REST_S

    def fail(self, now: float, *, is_costly: bool = False) -> float:
        """Note a failure; return the scaled seconds to leave it alone."""
        self.failures += 1
        if is_costly:
            pause_s, self._rest_s = self._rest_s, min(MAX_REST_S, 2 * self._rest_s)
            self.is_resting = True
        else:
            pause_s, self._pause_s = self._pause_s, min(MAX_PAUSE_S, 2 * self._pause_s)
            self.is_resting = False
        self.due = now + pause_s
        return pause_s

    def reset(self) -> None:
        """Note a success."""
        self.failures, self.is_resting, self.due = 0, False, 0.0
        self._pause_s, self._rest_s = FIRST_PAUSE_S, FIRST_REST_S
