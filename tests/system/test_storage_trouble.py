"""Both processes on a disk that fills up or refuses writes, beside editors and forgers."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meshllm.errors import ExitCode
from meshllm.observe import status
from meshllm.records import Node
from meshllm.sim.packets import Packet
from meshllm.store import regular
from meshllm.store.table import Table
from tests.mounts import SmallDisk, small_disk
from tests.system.conftest import MakeWorld
from tests.system.world import World, stays, wait_until

MEGABYTES = 24
FLOOR_MB = 8  #: `disk_reserve_mb` here; with the bridge's own reserve well above it

MakeDisk = Callable[[Path], SmallDisk]


@pytest.fixture
def make_disk() -> Iterator[MakeDisk]:
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(small_disk(path, megabytes=MEGABYTES))


def events(world: World, role: str) -> list[str]:
    lines = (line for line in world.log(role).splitlines() if line.endswith("}"))
    return [str(json.loads(line).get("event")) for line in lines if line.startswith("{")]


def count(world: World, role: str, event: str) -> int:
    return events(world, role).count(event)


def radio_facts(world: World) -> dict[str, object]:
    return status.read(world.tree().radio_status)


def test_a_question_heard_on_a_full_disk_is_kept_and_answered_later(
    make_world: MakeWorld, tmp_path: Path, make_disk: MakeDisk
) -> None:
    disk = make_disk(tmp_path / "data")
    world = make_world(settings={"DISK_RESERVE_MB": str(FLOOR_MB)})
    world.start()
    ada = world.newcomer()
    world.wait_delivered(ada, ada.say("before", to=world.radio))
    wait_until(world.files.reserve(same_disk=True).exists, "the reserve is made")

    def is_low() -> bool:
        disk.fill()  # again and again: replaced files give their space back a little later
        return all(count(world, role, "disk_space_low") for role in world.running)

    def is_full() -> bool:
        disk.fill()
        return stays(lambda: os.statvfs(disk.path).f_bavail == 0, 0.5)

    wait_until(is_low, "both processes see it")
    # A status that was refused gives back the block that it had taken.
    wait_until(is_full, "the disk stays full")
    question = ada.say("on a full disk", to=world.radio)
    wait_until(lambda: world.question(ada, question), "the question is on disk")
    wait_until(lambda: radio_facts(world).get("storage") == "full", "radio.json says it")
    wait_until(lambda: status.read(world.files.agent_status)["storage"] == "low", "agent.json too")
    calls = world.model.calls_about("on a full disk")
    was_spent = not world.files.reserve(same_disk=True).exists()

    disk.empty()
    world.wait_delivered(ada, question)
    wait_until(world.files.reserve(same_disk=True).exists, "the reserve is made again")
    wait_until(lambda: radio_facts(world).get("storage") == "ok", "radio.json says it")

    assert (calls, was_spent) == (0, True)
    assert len(world.answers_heard(ada, question)) == 1
    assert [count(world, "bridge", e) for e in ("reserve_spent", "reserve_made")] == [1, 1]
    for role in ("bridge", "agent"):
        assert [count(world, role, e) for e in ("disk_space_low", "disk_space_back")] == [1, 1]
    assert count(world, "bridge", "message_not_written") == 0


def test_a_disk_full_from_the_start_keeps_texts_in_memory(
    make_world: MakeWorld, tmp_path: Path, make_disk: MakeDisk
) -> None:
    disk = make_disk(tmp_path / "data")
    world = make_world(settings={"DISK_RESERVE_MB": "0"})
    world.start("bridge")
    world.stop("bridge")
    world.files.reserve(same_disk=True).unlink()
    disk.fill()

    world.launch("bridge")
    ada = world.newcomer()
    wait_until(lambda: count(world, "bridge", "link_up") >= 2, "the radio is connected")
    question = ada.say("nowhere to write", to=world.radio)
    wait_until(lambda: count(world, "bridge", "message_not_written"), "the bridge says so")
    disk.empty()
    world.start("agent")
    world.wait_delivered(ada, question)

    assert count(world, "bridge", "reserve_not_made") == 1
    assert count(world, "bridge", "storage_refused") == 1
    assert count(world, "bridge", "storage_back") == 1


def test_an_answer_that_meets_a_full_disk_is_queued_later_without_asking_again(
    make_world: MakeWorld, tmp_path: Path, make_disk: MakeDisk
) -> None:
    disk = make_disk(tmp_path / "data")
    (tmp_path / "data" / "pages").mkdir()
    (tmp_path / "prompts").symlink_to(tmp_path / "data" / "pages")
    world = make_world(settings={"DISK_RESERVE_MB": "0"})
    world.start()
    ada = world.newcomer()

    def answer() -> str:
        disk.fill()
        return "while the disk filled up"

    world.model.answers["tell me"] = answer
    question = ada.say("tell me", to=world.radio)
    wait_until(lambda: count(world, "agent", "delivery_failed"), "the commit fails")
    assert world.replies(ada, question) == []
    disk.empty()
    row = world.wait_delivered(ada, question)

    assert row.content == "while the disk filled up"
    assert world.model.calls_about("tell me") == 1
    assert len(world.answers_heard(ada, question)) == 1


def test_a_read_only_disk_is_left_by_itself(
    make_world: MakeWorld, tmp_path: Path, make_disk: MakeDisk
) -> None:
    # The process locks of the data folder stay open, so only what is below is remounted.
    disk = make_disk(tmp_path / "data" / "nodes")
    world = make_world(settings={"DISK_RESERVE_MB": "0"})
    world.start()
    ada = world.newcomer()
    world.wait_delivered(ada, ada.say("before", to=world.radio))

    def remounted(*, read_only: bool) -> bool:
        try:
            disk.remount(read_only=read_only)
        except subprocess.CalledProcessError:
            return False
        return True

    wait_until(lambda: remounted(read_only=True), "no file is open for writing")
    texts = [ada.say(f"text {n}", to=world.radio) for n in range(3)]
    wait_until(lambda: count(world, "bridge", "message_not_written"), "the bridge says so")
    assert world.question(ada, texts[0]) is None
    disk.remount(read_only=False)
    world.wait_delivered(ada, texts[-1])

    assert all(world.question(ada, text) for text in texts)
    assert count(world, "bridge", "storage_refused") == 1
    assert count(world, "bridge", "storage_back") == 1
    assert all(world.running[role].poll() is None for role in world.running)


def test_a_start_on_a_read_only_folder_says_what_to_do(
    make_world: MakeWorld, tmp_path: Path, make_disk: MakeDisk
) -> None:
    disk = make_disk(tmp_path / "data")
    world = make_world()
    disk.remount(read_only=True)

    codes = [world.exit_code(world.spawn(role)) for role in ("bridge", "agent")]

    assert codes == [ExitCode.CONFIG] * 2
    for role in ("bridge", "agent"):
        assert "Read-only file system" in world.log(role)
        assert "set DATA_DIR" in world.log(role)
        assert "Traceback" not in world.log(role)


def test_a_locked_file_does_not_keep_others_waiting(make_world: MakeWorld) -> None:
    world = make_world()
    world.start()
    ada, bob = world.newcomer(), world.newcomer("Bob Example")
    world.wait_delivered(ada, ada.say("to make the file", to=world.radio))

    with world.locked(world.dm_file(ada)):
        question = ada.say("while it is locked", to=world.radio)
        wait_until(lambda: count(world, "bridge", "file_locked"), "the bridge notices")
        for n in range(3):
            world.wait_delivered(bob, bob.say(f"meanwhile {n}", to=world.radio))
        assert world.question(ada, question) is None
    world.wait_delivered(ada, question)

    assert [count(world, "bridge", e) for e in ("file_locked", "file_unlocked")] == [1, 1]
    assert count(world, "bridge", "message_not_written") == 1


def test_an_old_copy_from_a_spreadsheet_loses_and_repeats_nothing(world: World) -> None:
    ada = world.newcomer()
    first = ada.say("the first", to=world.radio)
    world.wait_delivered(ada, first)
    path = world.dm_file(ada)
    opened = path.read_bytes()
    asked = (*opened.splitlines(keepends=True)[:2],)  # before the answer was queued
    second = ada.say("the second", to=world.radio)
    world.wait_delivered(ada, second)
    calls = len(world.model.chats)

    saved = path.with_name("lu9876.tmp")
    saved.write_bytes(b"\xef\xbb\xbf" + b"".join(asked).replace(b"\n", b"\r\n"))
    saved.replace(path)
    third = ada.say("the third", to=world.radio)
    world.wait_delivered(ada, third)

    for question in (first, second, third):
        assert len(world.answers_heard(ada, question)) == 1
        assert len(world.replies(ada, question)) == 1
    assert Counter(row.direction for row in world.rows(ada)) == {"inbound": 3, "outbound": 3}
    assert len(world.model.chats) == calls + 1
    assert '"rows_vanished"' in world.log("bridge")


def test_what_stands_in_a_files_place_stops_nothing(make_world: MakeWorld, tmp_path: Path) -> None:
    """A FIFO is the worst of it: whoever opens one waits for ever."""
    world = make_world()
    world.start()
    ada = world.newcomer()
    world.wait_delivered(ada, ada.say("before", to=world.radio))
    tree = world.tree()
    outside = tmp_path / "outside.csv"
    outside.write_text("somebody else's\n")
    tree.sightings.unlink()
    tree.sightings.symlink_to(outside)
    for fifo in (world.dm_file(ada), tree.latest, world.files.prompts_table):
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
    tree.nodes.unlink()
    tree.nodes.mkdir()

    ada.send_position(50.1, 8.6)
    question = ada.say("after", to=world.radio)
    wait_until(lambda: not regular.kind_of(world.dm_file(ada)), "the thread is a file again")
    world.wait_delivered(ada, question)
    world.stop("agent")
    world.start("agent")
    world.wait_delivered(ada, ada.say("after a restart", to=world.radio))
    assert world.stop("bridge") == ExitCode.OK

    assert len(world.rows(ada)) == 6
    assert ada.node_id in {row.node_id for row in Table(tree.nodes, Node).read().rows}
    assert outside.read_text() == "somebody else's\n"
    moved = {path.name.split(".")[0] for path in tree.quarantine.iterdir()}
    assert {world.dm_file(ada).stem, "nodes"} <= moved


def test_forged_senders_leave_known_people_their_answers(make_world: MakeWorld) -> None:
    _forge(make_world, forged=150, threads=30, nodes=40)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_thousand_forged_senders_leave_known_people_their_answers(
    make_world: MakeWorld,
) -> None:
    _forge(make_world, forged=5000, threads=1000, nodes=2000)


def _forge(make_world: MakeWorld, *, forged: int, threads: int, nodes: int) -> None:
    world = make_world(settings={"MAX_THREADS": str(threads), "MAX_NODES": str(nodes)})
    world.start()
    ada, mallory = world.newcomer(), world.newcomer("Mallory")
    world.wait_delivered(ada, ada.say("I am real", to=world.radio))
    tree = world.tree()

    for n in range(forged):
        packet = Packet(
            sender=0xD0000000 + n, to=world.radio.num, id=n + 1, payload=b"forged", hop_limit=3
        )
        mallory.forge(packet)
    limit_s = 12.0 + forged / 12
    wait_until(lambda: count(world, "bridge", "thread_limit_reached"), "the bound holds", limit_s)
    question = ada.say("and still here", to=world.radio)
    world.wait_delivered(ada, question, limit_s)

    assert len(tree.thread_files()) <= threads
    assert len(Table(tree.nodes, Node).read().rows) <= nodes
    assert len(world.answers_heard(ada, question)) == 1
    told = Counter(events(world, "bridge"))
    assert told["thread_limit_reached"] <= 2
    assert told["node_limit_reached"] <= 2
    refused = forged - threads
    assert len(events(world, "bridge")) < 12 * threads + 200 + refused // 10
