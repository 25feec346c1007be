"""A whole conversation as it stands in the thread file, ids and times masked."""

import re
from collections.abc import Callable

from meshllm.testing.ollama_server import Reply
from tests.system.conftest import MakeWorld
from tests.system.world import World, wait_until

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOMENT = re.compile(r'""(rx_time|boot|up_s)"":(""[^"]*""|[\d.]+)')
_NUMBER = re.compile(r"\b\d{6,10}\b")


def masked(text: str) -> str:
    """Put names in the place of what differs from run to run; equal ids get equal names."""
    text = _UUID.sub("PROMPT", _TIME.sub("TIME", text))
    text = _MOMENT.sub(r'""\1"":""MASKED""', text)
    names: dict[str, str] = {}
    return _NUMBER.sub(lambda m: names.setdefault(m[0], f"ID{len(names) + 1}"), text)


def settled(world: World, row_count: int) -> Callable[[], bool]:
    path = world.tree().dms / "51e0bb01.csv"

    def check() -> bool:
        text = path.read_text() if path.exists() else ""
        return text.count('""delivery"":""delivered""') == row_count

    return check


def test_thread_file_of_a_conversation(
    make_world: MakeWorld, golden: Callable[[str, str], None]
) -> None:
    world = make_world()
    world.start()
    ada = world.newcomer()
    world.model.answers["tell me everything"] = Reply(
        "Every tent has a number, and the number is written on the pole beside its door. "
        "The tents of the kitchen have the numbers from one to nine, those of the visitors go on "
        "from ten, and the radio is in the tent without one. The tent of the doctor has a red "
        "lamp over the door, day and night. Ask there for all that is missing here."
    )

    ada.say('Hello, is this "the library"?', to=world.radio)
    wait_until(settled(world, 1), "the first answer")
    ada.say("=tell me everything\nabout tents", to=world.radio)
    wait_until(settled(world, 3), "the second answer")
    ada.say("👍", to=world.radio, reply_to=ada.heard[-1], emoji=1)
    wait_until(lambda: len(world.rows(ada)) == 6, "the reaction")

    golden("system/conversation.csv", masked(world.dm_file(ada).read_bytes().decode()))
