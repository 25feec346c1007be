"""Runs a script with every fsync and fdatasync noted: `counted.py LOG SCRIPT [ARGUMENT…]`.

Adds a line per call to LOG when the script ends: monotonic seconds since boot, bytes and name of
what was flushed. Sees the calls made through `os`, which are all that the program makes. Writes
nothing before the end, since a file that grows would wait for the disk beside the others.
"""

import atexit
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

_notes: list[str] = []


def _noted(original: Callable[[int], None]) -> Callable[[int], None]:
    def call(descriptor: int) -> None:
        original(descriptor)
        moment = time.clock_gettime(time.CLOCK_BOOTTIME)
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        _notes.append(f"{moment:.6f} {os.fstat(descriptor).st_size} {name}\n")

    return call


def _save(name: str) -> None:
    with Path(name).open("a", encoding="utf-8", errors="replace") as log:
        log.write("".join(_notes))


def _main() -> None:
    log_name, script, *arguments = sys.argv[1:]
    for name in ("fsync", "fdatasync"):
        setattr(os, name, _noted(getattr(os, name)))
    atexit.register(_save, log_name)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _main()
