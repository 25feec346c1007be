"""What a stop signal does while a program is still being loaded: end it with 0. Loads nothing."""

import os
import signal
from types import FrameType


def leave_on_signal() -> None:
    """End the process at once at a stop signal, until `app` knows better.

    Loading takes seconds on a slow card; without this, whoever stops the program meanwhile sees
    it die of the signal. Nothing is open yet that would have to be closed. A hang-up that is
    ignored (nohup) stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)
