"""Both processes while somebody watches: metrics, health, log files, and what goes wrong there."""

import http.client
import json
import os
import re
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.system.world import ROOT, World, start_process, wait_until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def watched() -> tuple[int, int, dict[str, str]]:
    """Ports of bridge and agent, and the settings for them."""
    bridge, agent = free_port(), free_port()
    return bridge, agent, {"BRIDGE_METRICS_PORT": str(bridge), "AGENT_METRICS_PORT": str(agent)}


def fetch(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()


def metric(port: int, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", fetch(port, "/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def logged(world: World, role: str) -> list[dict[str, Any]]:
    path = world.files.log_file(role)
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def has(world: World, role: str, name: str) -> bool:
    return any(line["event"] == name for line in logged(world, role))


def test_an_answer_is_seen_in_metrics_health_and_one_log_story(tmp_path: Path) -> None:
    bridge, agent, settings = watched()
    with World(tmp_path, settings=settings) as world:
        world.start()
        person = world.newcomer()
        wait_until(lambda: fetch(bridge, "/readyz")[0] == 200, "the bridge is ready")
        wait_until(lambda: fetch(agent, "/readyz")[0] == 200, "the agent is ready")
        asked = person.say("How long must water boil?", to=world.radio)
        answer = world.wait_delivered(person, asked)

        wait_until(lambda: metric(bridge, "meshllm_ack_seconds_count") == 1, "an ACK timed")
        assert metric(bridge, 'meshllm_messages_received_total{kind="dm"}') == 1
        assert metric(bridge, 'meshllm_send_states_total{reason="",state="delivered"}') == 1
        assert metric(bridge, 'meshllm_radio_up{radio="0"}') == 1
        assert metric(bridge, "meshllm_commit_seconds_count") > 3
        assert metric(bridge, "meshllm_disk_free_bytes") > 0
        assert metric(agent, "meshllm_questions_asked_total") == 1
        assert metric(agent, 'meshllm_model_call_seconds_count{outcome="ok"}') == 1
        assert metric(agent, 'meshllm_model_tokens_total{kind="completion"}') > 0
        pages = fetch(bridge, "/metrics")[1] + fetch(agent, "/metrics")[1]
        for secret in (person.node_id, person.node_id[1:], world.radio.node_id[1:], "boil"):
            assert secret not in pages

        for role in ("agent", "bridge"):
            assert world.stop(role) == 0
            assert logged(world, role)[-1]["event"] == "process_stopped"
        story = logged(world, "bridge") + logged(world, "agent")
        mine = {line["event"]: line for line in story if line.get("thread_key") == person.node_id}
        of_question = ("message_received", "question_asked", "model_call_finished", "reply_queued")
        of_answer = ("send_handed_over", "send_acknowledged")
        assert {mine[name]["message_id"] for name in of_question} == {str(asked)}
        assert {mine[name]["message_id"] for name in of_answer} == {answer.message_id}
        prompted = (*of_answer, *of_question[1:])
        assert len({mine[name]["prompt_id"] for name in prompted}) == 1
        assert {line["node_uid"] for line in mine.values()} == {world.tree().node_uid}
        assert "boil" not in json.dumps(story), "no message text in the log"


def test_a_process_without_its_radio_or_model_lives_and_is_not_ready(tmp_path: Path) -> None:
    bridge, agent, settings = watched()
    nobody = f"127.0.0.1:{free_port()}"
    with World(tmp_path, settings=settings) as world:
        changes = {"RADIO": f"tcp:{nobody}", "OLLAMA_BASE_URL": f"http://{nobody}"}
        for role in ("bridge", "agent"):
            world.running[role] = world.spawn(role, **changes)

        wait_until(lambda: "no radio" in fetch(bridge, "/healthz")[1], "the bridge says why")
        wait_until(lambda: "model: offline" in fetch(agent, "/healthz")[1], "so does the agent")
        for port in (bridge, agent):
            assert fetch(port, "/livez")[0] == 200
            assert fetch(port, "/readyz")[0] == 503


def test_slow_clients_and_a_port_in_use_hold_up_neither_start_nor_end(tmp_path: Path) -> None:
    port = free_port()
    settings = {"BRIDGE_METRICS_PORT": str(port), "AGENT_METRICS_PORT": str(port)}
    with World(tmp_path, settings=settings) as world:
        world.start("bridge")
        world.start("agent")
        with socket.create_connection(("127.0.0.1", port), 8) as silent:
            wait_until(lambda: has(world, "agent", "metrics_port_refused"), "the agent tells")
            assert world.stop("agent") == 0
            assert world.stop("bridge") == 0
            assert silent.recv(1) == b""


def test_log_files_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        path = world.files.log_file("bridge")
        world.start("bridge")
        wait_until(lambda: has(world, "bridge", "process_started"), "the first lines")
        world.kill("bridge")
        with path.open("ab") as file:
            file.write(b'{"event": "message_rec')

        world.start("bridge")
        assert world.stop("bridge") == 0

    broken, names = 0, Counter[str]()
    for line in path.read_text().splitlines():
        try:
            names[json.loads(line)["event"]] += 1
        except ValueError:
            broken += 1
    assert broken == 1
    assert (names["process_started"], names["process_stopped"]) == (2, 1)


def test_a_second_process_leaves_the_log_of_the_first_alone(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        world.start("bridge")
        first = world.running["bridge"].pid
        # A doubtful setting is told before the lock is asked for.
        assert world.exit_code(world.spawn("bridge", SEND_SPACING_SECONDS="1")) == 5
        assert world.stop("bridge") == 0

        assert not has(world, "bridge", "settings_warning")
        assert [x["pid"] for x in logged(world, "bridge") if "pid" in x] == [first]


@pytest.mark.parametrize("obstacle", ["file", "fifo", "dangling link"])
def test_logs_that_cannot_be_written_stop_no_answer(obstacle: str, tmp_path: Path) -> None:
    with World(tmp_path) as world:
        logs = world.files.logs_dir
        logs.parent.mkdir()
        if obstacle == "file":
            logs.write_text("in the way")
        else:
            logs.mkdir()
            for path in map(world.files.log_file, ("bridge", "agent")):
                os.mkfifo(path) if obstacle == "fifo" else path.symlink_to("/nowhere/at/all")
        world.start()
        person = world.newcomer()

        world.wait_delivered(person, person.say("Is it safe?", to=world.radio))

        for role in ("agent", "bridge"):
            assert world.stop(role, signal.SIGINT) == 0


def test_a_crash_lands_in_the_log_file(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom meshllm.app import main\n"
        "def build(*_, **__): raise RuntimeError('a bug')\n"
        "sys.exit(main('agent', build, lambda files: files.agent_lock, argv=sys.argv[1:],"
        " root=Path('.')))\n"
    )
    with World(tmp_path) as world:
        environ = world.environ() | {"PYTHONPATH": str(ROOT)}
        process = start_process(
            [sys.executable, script, "--config", tmp_path / "config.yaml"],
            environ=environ,
            log=tmp_path / "broken.log",
        )
        assert world.exit_code(process) == 1

        last = logged(world, "agent")[-1]
        assert last["event"] == "process_crashed"
        assert "RuntimeError: a bug" in last["exception"]


def test_no_log_files_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    with World(tmp_path, settings={"LOG_FILES": "0"}) as world:
        world.start("bridge")
        assert world.stop("bridge") == 0

        assert not world.files.logs_dir.exists()
