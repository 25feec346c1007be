"""`why` and `doctor` beside both real processes: what they say is what happened."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from meshllm.records import Message
from meshllm.sim.outcome import Outcome
from tests.system.conftest import MakeWorld
from tests.system.world import ROOT, SECOND, World, read, wait_until

TOOL = (sys.executable, "-m", "meshllm")


def ask(world: World, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [*TOOL, *arguments, "--config", str(world.folder / "config.yaml")],
        env=world.environ(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def why(world: World, message_id: object) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(ask(world, "why", str(message_id), "--json"))
    return facts


def test_an_answered_question_is_told_from_hearing_to_the_ack(world: World) -> None:
    ada = world.newcomer()
    question = ada.say("why is the sky dark?", to=world.radio)
    reply = world.wait_delivered(ada, question)

    facts = why(world, question)

    assert (facts["verdict"], facts["asked_for"]) == ("answered", str(question))
    assert "confirmed" in facts["text"]
    told = [step["what"] for step in facts["steps"] if step["what"] != "log"]
    assert told == ["heard", "asked", "queued", "tried", "result"]
    assert reply.meta["prompt_id"] in json.dumps(facts)
    same = why(world, reply.meta["prompt_id"])
    assert (same["message_id"], same["steps"]) == (str(question), facts["steps"])


def test_channel_talk_without_the_trigger_says_how_to_ask(world: World) -> None:
    ada = world.newcomer()
    said = ada.say("librarians, anybody home?", channel=1)
    thread = world.tree().channel_thread(SECOND.lower())
    wait_until(lambda: any(r.message_id == str(said) for r in read(thread)), "it is heard")

    facts = why(world, said)
    screen = ask(world, "why", "--node", ada.node_id)

    assert (facts["verdict"], facts["reason"], facts["proof"]) == (
        "not_answered",
        "not_a_trigger",
        "rows",
    )
    assert "librarians, anybody home?" in screen
    assert 'begins with "librarian"' in screen


def test_an_answer_that_could_not_be_sent_names_the_radios_error(world: World) -> None:
    ada = world.newcomer()
    world.radio.script_next(Outcome.nak("PKI_FAILED"))
    question = ada.say("how far is the hut?", to=world.radio)

    def given_up() -> Message | None:
        row = world.reply(ada, question)
        return row if row is not None and row.direction == "outbound" else None

    row = wait_until(given_up, "the answer is given up")
    facts = why(world, row.message_id)

    assert (facts["verdict"], facts["reason"]) == ("failed", "PKI_FAILED")
    assert (facts["message_id"], facts["asked_for"]) == (str(question), row.message_id)
    assert "exchange node info" in facts["advice"]


def test_a_copy_of_the_data_folder_tells_the_same_story_elsewhere(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world()
    world.start()
    ada = world.newcomer()
    question = ada.say("who has the key?", to=world.radio)
    world.wait_delivered(ada, question)
    world.stop("agent")
    world.stop("bridge")
    before = why(world, question)

    copy = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", world.folder / "data", copy], check=True)
    subprocess.run(["cp", "-r", world.folder / "prompts", copy], check=True)
    done = subprocess.run(
        [*TOOL, "why", str(question), "--data", copy, "--json"],
        cwd=tmp_path,
        env={**world.environ(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=15,
        check=True,
    )

    assert json.loads(done.stdout) == before


def test_doctor_sees_both_processes_and_leaves_the_radio_to_the_bridge(world: World) -> None:
    ada = world.newcomer()
    world.wait_delivered(ada, ada.say("is it well?", to=world.radio))
    connections = world.radio.connections

    found = json.loads(ask(world, "doctor", "--json"))["findings"]

    told = {(one["group"], one["state"], one["text"]) for one in found}
    assert {one["text"] for one in found if one["state"] == "fail"} == set()
    running = [text for group, state, text in told if group == "locks" and state == "ok"]
    assert len(running) == 2, running
    assert any("not connected to" in text for group, _, text in told if group == "radios")
    assert any("link up" in text for _, _, text in told)
    assert any(group == "model" and state == "ok" for group, state, _ in told)
    assert world.radio.connections == connections


def test_after_a_kill_and_damage_one_repair_and_the_next_start_answers(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    world.start()
    ada = world.newcomer()
    world.wait_delivered(ada, ada.say("is it raining?", to=world.radio))
    world.kill()
    path = world.dm_file(ada)
    damaged = path.read_bytes() + b'half "a row\n'
    path.chmod(0o600)
    path.write_bytes(damaged)
    (path.parent / f".{path.name}.0123abcd.tmp").write_bytes(b"half")

    would = ask(world, "doctor", "--repair", "--dry-run")
    assert path.read_bytes() == damaged
    done = ask(world, "doctor", "--repair")
    again = ask(world, "doctor", "--repair")

    assert would.count("would ") == done.count("done ") == 2
    assert again == "nothing to repair\n"
    assert damaged in [p.read_bytes() for p in world.tree().quarantine.iterdir() if p.is_file()]
    assert [row.direction for row in world.rows(ada)] == ["inbound", "outbound"]
    world.start()
    world.wait_delivered(ada, ada.say("and tomorrow?", to=world.radio))
