"""Runs a script with every fsync and fdatasync noted: `counted.py LOG SCRIPT [ARGUMENT…]`.

Notes a line per call: monotonic seconds since boot, and the name of what was flushed. Sees calls
made through `os`, which are all that the program makes.
"""

import os
import runpy
import sys
import time
from collections.abc import Callable


def _noted(original: Callable[[int], None], log: int) -> Callable[[int], None]:
    def call(descriptor: int) -> None:
        original(descriptor)
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        moment = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(log, f"{moment:.6f} {name}\n".encode("utf-8", "replace"))

    return call


def _main() -> None:
    log_name, script, *arguments = sys.argv[1:]
    log = os.open(log_name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.fsync = _noted(os.fsync, log)
    os.fdatasync = _noted(os.fdatasync, log)
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _main()
