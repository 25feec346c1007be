"""Golden prompts in the writing systems of the mesh: DM, channel, burst, and after a cut."""

import json
from collections.abc import Callable

import pytest

from meshllm.agent.answering import Ids
from meshllm.agent.prompt import system_text
from meshllm.config import Settings
from meshllm.llm.base import ChatRequest
from meshllm.records import Latest, Node
from meshllm.store.table import Table
from tests.agent.conftest import ALICE, BOB, HOME, World
from tests.conftest import GOLDEN_DIR

Golden = Callable[[str, str], None]

#: Names of two people, four questions, four answers, and what others say meanwhile.
TEXTS = json.loads((GOLDEN_DIR / "agent/languages.json").read_text(encoding="utf-8"))


def shown(title: str, request: ChatRequest) -> str:
    head, *turns = request.messages
    assert head.content == system_text()
    return "\n\n".join((f"== {title}", *(f"[{m.role}]\n{m.content}" for m in turns))) + "\n"


@pytest.mark.parametrize("language", TEXTS)
def test_golden_prompts(world: World, golden: Golden, language: str) -> None:
    texts = TEXTS[language]
    (name, other), questions = texts["names"], texts["questions"]
    world.ids = Ids(message=iter(map(str, range(5001, 5099))).__next__)
    world.settings = Settings(max_context_chars=420)
    world.model.script = texts["answers"] * 2
    world.name(Node(ALICE, name[:1], name))
    world.name(Node(BOB, other[:1], other))
    latest = Latest(
        ALICE, 6.25, -87, 1, "2026-03-01T11:59:30Z", 50.0, 8.0, "", "2026-03-01T11:30:00Z",
        87, 3.9, "2026-03-01T11:55:00Z",
    )  # fmt: skip
    Table(world.layout.tree(HOME).latest, Latest).append([latest])
    prompts: list[str] = []

    for question in questions:
        world.hear(question)
        world.idle()
        world.clock.advance(90)
    dms = world.model.requests
    prompts.append(shown("DM, first question", dms[0]))
    prompts.append(shown("DM, second question, with history", dms[1]))
    first_cut = next(n for n in range(1, 4) if len(dms[n].messages) <= len(dms[n - 1].messages))
    prompts.append(shown(f"DM, question {first_cut + 1}, after the cut", dms[first_cut]))

    world.stop()
    world.settings = Settings()
    world.hear(f"librarian {questions[0]}", key="LongFast")
    world.idle()
    for text in texts["chatter"]:
        world.hear(text, key="LongFast", sender=BOB)
    world.hear(f"librarian {questions[1]}", key="LongFast")
    world.hear(f"librarian {questions[2]}", key="LongFast")
    world.idle()
    prompts.append(shown("channel, with history and a burst", world.model.requests[-1]))

    golden(f"agent/prompts-{language}.txt", "\n".join(prompts))
