"""Starting and stopping: exit codes, messages, and how long it takes."""

import signal
from pathlib import Path

import pytest

from meshllm.testing.ollama_server import End, Reply
from tests.system.conftest import MakeWorld
from tests.system.world import ROLES, World, wait_until


@pytest.mark.parametrize("role", ROLES)
def test_second_process_on_the_same_data_names_the_first(world: World, role: str) -> None:
    second = world.spawn(role)

    assert world.exit_code(second) == 5
    holder = world.running[role].pid
    assert f"error: the {role} is already running (pid {holder})" in world.log(role)
    assert world.running[role].poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("role", ROLES)
def test_signal_ends_a_process_in_order(world: World, role: str, number: int) -> None:
    assert world.stop(role, number) == 0
    assert f'"signal": {int(number)}, "event": "process_stopped"' in world.log(role)


def test_signal_ends_the_agent_while_the_model_works(world: World) -> None:
    ada = world.newcomer()
    world.model.answers["a hard one"] = Reply(end=End.HANG)
    question = ada.say("a hard one", to=world.radio)
    wait_until(lambda: world.model.calls_about("a hard one"), "the model is asked")

    assert world.stop("agent") == 0

    assert world.model.abandoned.acquire(timeout=2)
    del world.model.answers["a hard one"]
    world.start("agent")
    world.wait_delivered(ada, question)
    assert len(world.answers_heard(ada, question)) == 1


def test_signal_ends_the_bridge_while_no_radio_answers(make_world: MakeWorld) -> None:
    world = make_world()
    world.radio.switch_off()
    world.launch("bridge")
    wait_until(lambda: '"link_down"' in world.log("bridge"), "the bridge misses its radio")

    assert world.stop("bridge") == 0


def test_signal_ends_the_bridge_while_a_radio_is_mute(make_world: MakeWorld) -> None:
    world = make_world()
    world.radio.stall()
    world.launch("bridge")
    wait_until(lambda: world.radio.connections, "the bridge connected")

    assert world.stop("bridge") == 0


@pytest.mark.parametrize("role", ROLES)
def test_every_problem_of_the_settings_is_listed(make_world: MakeWorld, role: str) -> None:
    world = make_world()

    process = world.spawn(role, MAX_REPLY_PARTS="99", SEND_SPACING_SECONDS="soon")

    assert world.exit_code(process) == 4
    log = world.log(role)
    assert "MAX_REPLY_PARTS: must be from 1 to 9, not 99" in log
    assert "SEND_SPACING_SECONDS: must be a number, not 'soon'" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("role", ROLES)
def test_data_folder_that_is_a_file_is_named(
    make_world: MakeWorld, tmp_path: Path, role: str
) -> None:
    world = make_world()
    in_the_way = tmp_path / "in-the-way"
    in_the_way.touch()

    process = world.spawn(role, DATA_DIR=str(in_the_way))

    assert world.exit_code(process) == 4
    assert "error: the data folder cannot be written" in world.log(role)
    assert str(in_the_way) in world.log(role)
    assert "Traceback" not in world.log(role)


def test_unknown_option_is_a_usage_error(make_world: MakeWorld) -> None:
    world = make_world()

    assert world.exit_code(world.spawn("agent", "--nonsense")) == 2
    assert "--nonsense" in world.log("agent")
