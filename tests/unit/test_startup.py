"""A stop signal that comes while a program is still being loaded."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Runs a program that gets a signal at the moment it begins to load a module of ours.
SIGNALLED = """
import os, runpy, signal, sys

class Signaller:
    def find_spec(self, name, path=None, target=None):
        if name == "meshllm.app":
            os.kill(os.getpid(), int(sys.argv[2]))
        return None

sys.meta_path.insert(0, Signaller())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def end_of(program: str, number: int, before: str = "") -> subprocess.CompletedProcess[str]:
    code = before + SIGNALLED
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT / program), str(int(number)), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.mark.parametrize("program", ["meshtastic_bridge.py", "ai_agent.py"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_program_that_is_stopped_while_it_loads_ends_with_0(program: str, number: int) -> None:
    ended = end_of(program, number)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_hang_up_that_was_ignored_stays_ignored_while_loading() -> None:
    """As under nohup: the program goes on to its arguments."""
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"

    ended = end_of("ai_agent.py", signal.SIGHUP, before)

    assert ended.returncode == 0
    assert ended.stdout.startswith("Usage:")
