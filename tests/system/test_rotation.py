"""Both processes on threads with a long history: old rows go, conversations go on."""

from datetime import timedelta

from meshllm.clock import SystemClock, utc_text
from meshllm.records import Message, PromptRow
from meshllm.sim.people import Person
from meshllm.store import rotate
from meshllm.store.table import Table
from tests.system.conftest import MakeWorld
from tests.system.world import World, read, wait_until

ROWS = 240
LIVE_ROWS = 50


def old_world(make_world: MakeWorld) -> tuple[World, Person, list[Message]]:
    """Give a person a thread of old answered questions; no process runs yet."""
    world = make_world(settings={"LIVE_ROWS": str(LIVE_ROWS)})
    person = world.newcomer()
    rows = [_row(n, person.node_id, world.radio.node_id) for n in range(ROWS)]
    path = world.dm_file(person)
    path.parent.mkdir(parents=True)
    Table(path, Message).append(rows)
    return world, person, rows


def _row(number: int, peer: str, own: str) -> Message:
    # As many days ago as 48 hours of the world's fast time never are.
    moment = SystemClock().utc() - timedelta(days=40) + timedelta(hours=number)
    if number % 2 == 0:
        name = str(1_000_000 + number)
        return Message("dm", peer, name, "inbound", peer, "", utc_text(moment), f"old {number}")
    return Message(
        "dm", peer, str(1_000_000 + number), "outbound", own, str(1_000_000 + number - 1),
        utc_text(moment), f"old answer {number}", 1, "sent", '{"delivery":"delivered"}',
    )  # fmt: skip


def history(world: World, person: Person) -> list[Message]:
    path = world.dm_file(person)
    return list(rotate.history(Table(path, Message), world.tree().shelf(path)))


def is_short(world: World, person: Person) -> bool:
    return len(world.rows(person)) <= 2 * LIVE_ROWS


def _logged(world: World) -> list[str]:
    """Questions that cost a model call, in order."""
    rows = Table(world.files.prompts_table, PromptRow).read().rows
    return [row.source_message_id for row in rows]


def test_a_conversation_goes_on_while_its_history_is_archived(make_world: MakeWorld) -> None:
    world, person, rows = old_world(make_world)
    world.start()

    asked = []
    for n in range(3):
        asked.append(person.say(f"question {n}?", to=world.radio))
        world.wait_delivered(person, asked[-1])
    wait_until(lambda: is_short(world, person), "the thread is short")
    asked.append(person.say("and after?", to=world.radio))
    world.wait_delivered(person, asked[-1])

    found = history(world, person)
    assert found[:ROWS] == rows
    assert len(found) == ROWS + 2 * len(asked)
    assert [len(world.answers_heard(person, one)) for one in asked] == [1] * len(asked)
    assert _logged(world) == [str(one) for one in asked]
    assert "thread_rotated" in world.log("bridge")


def test_a_kill_between_archive_and_live_file_loses_and_doubles_nothing(
    make_world: MakeWorld,
) -> None:
    world, person, rows = old_world(make_world)
    shelf = world.tree().shelf(world.dm_file(person))
    with world.locked(world.dm_file(person)):
        world.start("bridge")
        wait_until(shelf.parts, "the archive is written")
        world.kill("bridge")
        assert list(world.rows(person)) == rows
    in_both = [row for _, _, path in shelf.parts() for row in read(path)]
    assert in_both
    assert history(world, person)[-ROWS:] == rows

    world.start()
    wait_until(lambda: is_short(world, person), "the thread is short")
    asked = person.say("still there?", to=world.radio)
    world.wait_delivered(person, asked)

    archived = [row for _, _, path in shelf.parts() for row in read(path)]
    assert len(archived) == len(set(archived))
    assert history(world, person)[:ROWS] == rows
    assert len(world.answers_heard(person, asked)) == 1
    assert _logged(world) == [str(asked)]
