"""Files that break while everything runs: kept byte for byte, and the conversation goes on."""

from pathlib import Path

import pytest

from tests.system.conftest import MakeWorld
from tests.system.world import World, wait_until

EVIL = (
    "dm,{key},77,queued,{own},,2026-01-01T00:00:00Z,EVIL,0,,"
    '"{{""kind"":""reply"",""part"":1,""parts"":1}}"\n'
)


def replace(path: Path, content: bytes) -> None:
    """Change a file as an editor does."""
    changed = path.with_name("editor.tmp")
    changed.write_bytes(content)
    changed.replace(path)


@pytest.mark.parametrize("damage", ["open quote", "rubbish", "wrong header", "half a row"])
def test_damaged_thread_is_quarantined_and_goes_on(world: World, damage: str) -> None:
    ada = world.newcomer()
    before = ada.say("the one before", to=world.radio)
    world.wait_delivered(ada, before)
    path = world.dm_file(ada)
    good = path.read_bytes()
    evil = EVIL.format(key=ada.node_id, own=world.radio.node_id).encode()
    broken = {
        "open quote": good + b'dm,x,1,inbound,x,,,"left open\n' + evil,
        "rubbish": bytes(range(256)) * 8,
        "wrong header": good.replace(b"thread_type", b"type", 1) + evil,
        "half a row": good[: len(good) - 40],
    }[damage]

    replace(path, broken)
    after = ada.say("the one after", to=world.radio)
    world.wait_delivered(ada, after)

    saved = [p for p in world.tree().quarantine.glob(f"{path.stem}.*") if p.suffix == ".csv"]
    assert [p.read_bytes() for p in saved] == [broken]
    assert world.question(ada, after) is not None
    if damage in {"open quote", "half a row"}:
        assert world.question(ada, before) is not None
    assert "EVIL" not in {item.packet.text for item in world.radio.received}
    assert len(world.answers_heard(ada, after)) == 1


def test_emptied_thread_gets_back_what_the_bridge_wrote(world: World) -> None:
    ada = world.newcomer()
    before = ada.say("the one before", to=world.radio)
    world.wait_delivered(ada, before)

    replace(world.dm_file(ada), b"")
    after = ada.say("the one after", to=world.radio)
    world.wait_delivered(ada, after)

    assert [row.reply_to_id for row in world.rows(ada)] == ["", str(before), "", str(after)]
    assert len(world.answers_heard(ada, before)) == 1


def test_lock_held_for_too_long_loses_nothing(make_world: MakeWorld) -> None:
    world = make_world(settings={"LOCK_TIMEOUT_SECONDS": "0.3"})
    world.start()
    ada = world.newcomer()
    first = ada.say("to make the file", to=world.radio)
    world.wait_delivered(ada, first)

    with world.locked(world.dm_file(ada)):
        question = ada.say("while it is locked", to=world.radio)
        wait_until(lambda: '"message_not_written"' in world.log("bridge"), "the bridge gives up")
    world.wait_delivered(ada, question)

    assert len(world.answers_heard(ada, question)) == 1
    assert len(world.rows(ada)) == 4
