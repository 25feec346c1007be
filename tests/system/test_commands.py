"""`run.sh`, `demo` and `start-check` as an operator types them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from meshllm.errors import ExitCode
from meshllm.testing.ollama_server import End, OllamaServer, Reply
from tests.system.conftest import MakeWorld
from tests.system.world import ROOT, World, clean_environment, end_process, wait_until

MESHLLM = (sys.executable, "-m", "meshllm")
UNREACHABLE = "http://127.0.0.1:9"
LONG_ANSWER = (
    "The spring is behind the mill, and its water is good in every season. Take the path along "
    "the wall, not the one through the yard, because the dog that lives there is no friend of "
    "strangers who come at dusk. "
    "Let it run for a moment before you fill a bottle. In winter the steps are covered with ice."
)


def run(arguments: Sequence[str | Path], **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments,
        env=clean_environment(**environ),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_demo_says_prints_each_part_as_received_and_nothing_else() -> None:
    with OllamaServer(Reply(LONG_ANSWER)) as model:
        done = run(
            [*MESHLLM, "demo", "--say", "librarian, where is water?"],
            MESHLLM_TIME_SCALE="20",
            OLLAMA_BASE_URL=model.url,
        )

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("(1/2) The spring is behind the mill")
    assert second.startswith("(2/2) ")
    assert max(len(first), len(second)) <= 200


def test_demo_waits_for_the_answer_when_it_is_told_that_one_is_coming() -> None:
    with OllamaServer(Reply("It is behind the mill.", first_delay_s=2.5)) as model:
        done = run(
            [*MESHLLM, "demo", "--say", "where is water?"],
            MESHLLM_TIME_SCALE="20",
            OLLAMA_BASE_URL=model.url,
        )

    assert (done.returncode, done.stdout) == (0, "It is behind the mill.\n")
    assert "working on it" in done.stderr


def test_demo_ends_with_3_when_no_answer_comes() -> None:
    with OllamaServer(Reply(end=End.HANG)) as model:
        done = run(
            [*MESHLLM, "demo", "--say", "hello?", "--timeout", "1"],
            MESHLLM_TIME_SCALE="20",
            OLLAMA_BASE_URL=model.url,
        )

    assert (done.returncode, done.stdout) == (3, "")
    assert "no answer within 1 s" in done.stderr


def test_run_sh_help_names_every_command() -> None:
    done = run(["./run.sh", "--help"])

    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("demo", "setup", "test", "bench", "soak", "--help", "Ctrl-C"):
        assert word in done.stdout


def test_start_check_lists_ports_and_points_at_the_demo() -> None:
    done = run(
        [*MESHLLM, "start-check"], RADIO="serial:/dev/none-such", OLLAMA_BASE_URL=UNREACHABLE
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert "radio serial:/dev/none-such: no such device (ports looked at: " in done.stderr
    assert "./run.sh demo needs none" in done.stderr
    assert f"model: unreachable: {UNREACHABLE}" in done.stderr
    assert "the librarian starts anyway" in done.stderr


def test_start_check_finds_a_radio_and_a_model(make_world: MakeWorld) -> None:
    world = make_world()

    done = run(
        [*MESHLLM, "start-check", "--json"],
        RADIO=f"tcp:{world.radio.address}",
        OLLAMA_BASE_URL=world.model.url,
    )

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["radios"] == [
        {
            "link": f"tcp:{world.radio.address}",
            "ready": True,
            "detail": "reachable",
            "ports": [],
        }
    ]
    assert facts["model"]["state"] == "ready"


def test_start_check_leaves_the_radio_to_a_running_bridge(world: World) -> None:
    connections = world.radio.connections
    done = run(
        [*MESHLLM, "start-check"],
        RADIO=f"tcp:{world.radio.address}",
        DATA_DIR=str(world.files.data_dir),
        OLLAMA_BASE_URL=world.model.url,
    )

    assert done.returncode == 0
    assert "not looked at: a running bridge uses it" in done.stderr
    assert world.radio.connections == connections


def test_start_check_refuses_wrong_settings() -> None:
    done = run([*MESHLLM, "start-check"], RADIO="wrong", FILE_MODE="99")

    assert (done.returncode, done.stdout) == (4, "")
    assert "RADIO" in done.stderr
    assert "FILE_MODE" in done.stderr


needs_checkout = pytest.mark.skipif(
    not (ROOT / ".venv" / ".installed").exists(), reason="run.sh would install packages first"
)


class Supervised:
    """`./run.sh` on a world's radio and folders, in a process group of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log = world.folder / "run.log"
        environ = world.environ() | {"RADIO": f"tcp:{world.radio.address}"}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                ["./run.sh"],
                env=environ,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def pid_of(self, role: str) -> int | None:
        lock = self.world.files.bridge_lock if role == "bridge" else self.world.files.agent_lock
        try:
            pid = int(lock.read_text())
        except (OSError, ValueError):
            return None
        return pid if _is_alive(pid) else None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_serving(self) -> None:
        for event in ("link_up", "model_state_changed"):
            wait_until(lambda e=event: f'"event": "{e}"' in self.text(), event)  # type: ignore[misc]

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        end_process(self.process)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@needs_checkout
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_sh_ends_both_in_order(make_world: MakeWorld, number: int) -> None:
    world = make_world()
    supervised = Supervised(world)
    try:
        supervised.wait_serving()
        pids = [supervised.pid_of(role) for role in ("bridge", "agent")]
        # Ctrl-C reaches the whole group, a service manager's signal the shell alone.
        if number == signal.SIGINT:
            os.killpg(supervised.process.pid, number)
        else:
            supervised.process.send_signal(number)

        assert supervised.process.wait(6) == 0, supervised.text()
        assert [pid is not None and _is_alive(pid) for pid in pids] == [False, False]
        assert supervised.text().count('"event": "process_stopped"') == 2
    finally:
        supervised.close()


@needs_checkout
def test_run_sh_does_not_restart_what_wrong_settings_end() -> None:
    done = run(["./run.sh"], RADIO="wrong")

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: the settings need attention")


@needs_checkout
def test_second_run_sh_on_the_same_data_ends_with_5(world: World) -> None:
    environ = world.environ() | {"RADIO": f"tcp:{world.radio.address}"}

    done = run(["./run.sh"], **environ)

    assert done.returncode == 5
    assert "is already running" in done.stderr
    assert "starting it again" not in done.stderr
    assert [process.poll() for process in world.running.values()] == [None, None]


@needs_checkout
def test_run_sh_starts_a_killed_bridge_again(make_world: MakeWorld) -> None:
    world = make_world()
    ada = world.newcomer()
    supervised = Supervised(world)
    try:
        supervised.wait_serving()
        first = supervised.pid_of("bridge")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not world.radio.is_connected, "the radio has noticed")
        question = ada.say("are you back?", to=world.radio)

        world.wait_delivered(ada, question)
        assert supervised.pid_of("bridge") not in {None, first}
        assert "run.sh: bridge ended with 137; starting it again in 1 s" in supervised.text()
        supervised.process.send_signal(signal.SIGTERM)
        assert supervised.process.wait(6) == 0
    finally:
        supervised.close()


def test_a_demo_that_is_stopped_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*MESHLLM, "demo", "--say", "hi", "--timeout", "15"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: any(tmp_path.glob("*/data/agent.json")), "both processes are up")

        process.terminate()

        assert process.wait(15) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typed", [["--say", "hi", "--timeout", "60"], []])
def test_a_demo_ends_with_the_reason_when_a_process_of_it_has_ended(
    tmp_path: Path, typed: list[str]
) -> None:
    with (
        OllamaServer(Reply(end=End.HANG)) as model,
        subprocess.Popen(
            [*MESHLLM, "demo", *typed],
            cwd=ROOT,
            env=clean_environment(TMPDIR=str(tmp_path), OLLAMA_BASE_URL=model.url),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        locks = wait_until(lambda: [*tmp_path.glob("*/data/.agent.lock")], "the agent runs")
        wait_until(lambda: any(tmp_path.glob("*/data/agent.json")), "the agent serves")
        agent = int(locks[0].read_text())

        os.kill(agent, signal.SIGKILL)

        assert process.wait(12) == ExitCode.CONFIG
        assert process.stderr is not None
        assert "ai_agent.py of the demo ended by itself, with -9" in process.stderr.read()
    assert list(tmp_path.iterdir()) == []
