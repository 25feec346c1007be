"""What a check finds, and how checks are run: side by side, each within a limit. Checks nothing."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshllm.clock import SystemClock

State = Literal["ok", "warn", "fail", "info"]
GROUPS: Final = (
    "settings",
    "python",
    "radios",
    "model",
    "disk",
    "files",
    "permissions",
    "locks",
    "clock",
    "prompts",
    "system",
)
LIMIT_S: Final = 60.0  #: real seconds for all checks together; a slow card with years of files


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was found, and what to do about it."""

    group: str
    state: State
    text: str
    fix: str = ""  #: a command or a step; empty where there is nothing to do


def ok(group: str, text: str) -> Finding:
    """All is well."""
    return Finding(group, "ok", text)


def info(group: str, text: str, fix: str = "") -> Finding:
    """Worth knowing, and no trouble."""
    return Finding(group, "info", text, fix)


def warn(group: str, text: str, fix: str = "") -> Finding:
    """It works, and the operator should look."""
    return Finding(group, "warn", text, fix)


def fail(group: str, text: str, fix: str = "") -> Finding:
    """Something does not work until it is mended."""
    return Finding(group, "fail", text, fix)


@dataclass(frozen=True, slots=True)
class Check:
    """One family of questions; `look` may raise anything, and may hang."""

    group: str
    name: str
    look: Callable[[], Iterable[Finding]]


def run(checks: Sequence[Check], limit_s: float = LIMIT_S) -> list[Finding]:
    """Run all checks side by side; return what they found, in the order of the checks.

    A check that raises is a finding, and so is one that has not ended within the limit, which
    counts for all together. Its thread is left behind and does not keep the process alive.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + limit_s
    running = [_Running(check) for check in checks]
    return [
        finding
        for one in running
        for finding in one.findings(max(0.0, deadline - clock.monotonic()), limit_s)
    ]


class _Running:
    """A check on a thread of its own."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=check.name, daemon=True)
        self._thread.start()

    def findings(self, left_s: float, limit_s: float) -> Iterator[Finding]:
        self._thread.join(left_s)
        has_ended = not self._thread.is_alive()
        yield from tuple(self._found)
        if not has_ended:
            text = f"the check of {self._check.name} did not end within {limit_s:g} s"
            yield warn(self._check.group, text, "run it again when the machine has less to do")

    def _run(self) -> None:
        try:
            for finding in self._check.look():
                self._found.append(finding)
        except Exception as error:  # noqa: BLE001 - the end of a thread: a finding, no traceback
            text = f"the check of {self._check.name} failed: {type(error).__name__}: {error}"
            self._found.append(fail(self._check.group, text, "please report this with the text"))
