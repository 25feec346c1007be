"""The operator's verbs while the real processes run on a simulated mesh."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshllm.observe import status
from meshllm.records import Message
from tests.system.world import ROOT, World, end_process, read, wait_until

SPACING = "240"  #: scaled seconds; 12 real ones, in which the second text waits


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


@pytest.fixture
def slow_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, settings={"SEND_SPACING_SECONDS": SPACING}) as world:
        yield world


def tool(world: World, *arguments: object) -> "subprocess.CompletedProcess[str]":
    config = ("--config", str(world.folder / "config.yaml"))
    return subprocess.run(
        [sys.executable, "-m", "meshllm", *map(str, arguments), *config],
        env=world.environ(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def send(world: World, to: str, text: str) -> str:
    """Send a text and return its id."""
    done = tool(world, "send", "--to", to, text, "--json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    return str(row["message_id"])


def row_of(world: World, message_id: str) -> Message | None:
    rows = [row for path in world.tree().thread_files() for row in read(path)]
    return next((row for row in rows if row.message_id == message_id), None)


def delivery(world: World, message_id: str) -> object:
    row = row_of(world, message_id)
    return row.meta.get("delivery") if row else None


def queued(world: World) -> object:
    """How many rows the bridge itself knows to wait."""
    return status.read(world.tree().radio_status).get("queued")


def test_send_wait_tells_every_state_until_the_last(world: World) -> None:
    person = world.newcomer()
    world.start("bridge")

    done = tool(world, "send", "--to", person.node_id, "hello", "--wait", "--timeout", "10")

    assert done.returncode == 0, done.stderr
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert lines[0].startswith("queued for ")
    assert lines[-1] == "delivered"
    assert [heard.text for heard in person.heard] == ["hello"]


@pytest.mark.slow
def test_cancelled_text_never_goes_out_and_its_copy_goes_out_once(slow_world: World) -> None:
    world = slow_world
    person = world.newcomer()
    world.start("bridge")
    first = send(world, person.node_id, "the first")
    wait_until(lambda: person.heard, "the first is heard")
    second = send(world, person.node_id, "the second")
    wait_until(lambda: queued(world) == 1, "the bridge has it")

    cancelled = tool(world, "queue", "cancel", second[:9])

    assert cancelled.stdout == f"{second}: cancelled\n"
    wait_until(lambda: queued(world) == 0, "the bridge noticed")
    row = row_of(world, second)
    assert row is not None
    assert (row.direction, row.send_status) == ("outbound", "failed")
    assert row.meta["reason"] == "CANCELLED"

    again = tool(world, "queue", "retry", second)

    renewed = again.stdout.removeprefix(f"{second}: queued again as ").strip()
    wait_until(lambda: delivery(world, renewed) == "delivered", "the copy arrives", 16.0)
    assert [heard.text for heard in person.heard] == ["the first", "the second"]
    assert row_of(world, second) == row  # the old row is not touched again
    refused = tool(world, "queue", "cancel", first)
    assert refused.returncode == 1
    assert "the radio took it already" in refused.stderr


@pytest.mark.slow
def test_text_of_the_operator_is_no_answer(world: World) -> None:
    person = world.newcomer()
    world.start()
    send(world, person.node_id, "Supper is ready")
    wait_until(lambda: person.heard, "it is heard")

    question = person.say("librarian, where is water?", to=world.radio)

    answer = world.wait_delivered(person, question)
    assert (answer.reply_to_id, answer.meta["kind"]) == (str(question), "reply")


@pytest.mark.slow
def test_retry_lets_a_held_text_go_at_once(world: World) -> None:
    world.start("bridge")
    message_id = send(world, "!deadbeef", "anybody there?")

    def waiting() -> Message | None:
        row = row_of(world, message_id)
        return row if row is not None and row.send_status == "failed" else None

    held = wait_until(waiting, "the text waits for a retry or its person")

    done = tool(world, "queue", "retry", message_id)

    assert done.stdout == f"{message_id}: goes out as soon as the radio is free\n", done.stderr
    wait_until(
        lambda: (row := row_of(world, message_id)) and row.send_attempts > held.send_attempts,
        "it is tried again",
    )


@pytest.mark.slow
def test_status_sees_who_runs_and_who_was_killed(world: World) -> None:
    world.start()
    facts = json.loads(tool(world, "status", "--json").stdout)
    running = {role: one["state"] for role, one in facts["processes"].items()}

    world.kill("agent")
    killed = json.loads(tool(world, "status", "--json").stdout)["processes"]

    assert running == {"bridge": "running", "agent": "running"}
    assert facts["processes"]["bridge"]["pid"] == world.running["bridge"].pid
    assert (killed["bridge"]["state"], killed["agent"]["state"]) == ("running", "unclear")
    assert facts["radios"][0]["link_state"] == "up"


def test_watch_ends_with_ctrl_c_and_code_0(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "meshllm", "status", "--watch", "0.2", "--data", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        blocks = 0
        while blocks < 2:
            line = process.stdout.readline()
            assert line, "it ended by itself"
            blocks += line == b"Processes\n"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=10)
    finally:
        end_process(process)

    assert (process.returncode, errors) == (0, b"")
    assert b"\x1b" not in rest


@pytest.mark.skipif(
    not (ROOT / ".venv" / ".installed").exists(), reason="run.sh would install packages first"
)
@pytest.mark.parametrize("verb", ["status", "queue"])
def test_run_sh_passes_verbs_on_and_names_files_from_where_it_was_called(
    verb: str, tmp_path: Path
) -> None:
    """`cd` to the repository must not move the operator's `copy` there."""
    (tmp_path / "copy/data").mkdir(parents=True)

    done = subprocess.run(
        [ROOT / "run.sh", verb, "--data", "copy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
