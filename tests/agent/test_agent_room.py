"""How much a prompt may cost, and what gives way."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from meshllm.agent.context import Turn
from meshllm.agent.tokens import Room, clip, cost, prompt_room, tokens, trim, turn_cost
from meshllm.config import Settings
from meshllm.llm.ollama import LoadOptions
from meshllm.records import Message
from meshllm.testing.ollama_shapes import PROMPT_OVERHEAD_TOKENS
from tests.agent.conftest import ALICE, OWN, World

#: Texts whose tokens can be told by hand: whole common words, single digits, JSON's marks.
KNOWN = (
    ("The quick brown fox jumps over the lazy dog.", 10),
    ("0123456789", 10),
    ('{"a":1}', 5),
    ("a b c d", 4),
)


def cost_of(turns: tuple[Turn, ...]) -> Room:
    total = Room(0, 0)
    for turn in turns:
        total += turn_cost(turn)
    return total


def exchange(number: int, size: int = 100) -> tuple[Turn, Turn]:
    return Turn("user", f"{number:03}".ljust(size, "u")), Turn("assistant", "a" * size)


def test_the_estimate_lies_above_what_a_tokenizer_counts() -> None:
    assert all(tokens(text) >= count for text, count in KNOWN)
    assert tokens("Де найближча вода?") >= 14
    assert tokens("最近的水源在哪里") >= 8
    assert tokens("🧭💧👨‍👩‍👧") >= 5 * 3
    assert tokens("") == 0


@given(st.text(), st.text())
def test_the_estimate_never_falls_when_a_text_grows(text: str, more: str) -> None:
    assert tokens(text) <= tokens(text + more) <= tokens(text) + tokens(more) + 1


@given(st.text())
def test_the_estimate_stays_below_a_few_tokens_a_byte(text: str) -> None:
    assert tokens(text) <= len(text.encode("utf-8", "surrogatepass"))


@given(st.text(), st.integers(0, 50), st.integers(0, 50))
def test_a_clipped_text_is_the_longest_beginning_that_fits(
    text: str, chars: int, limit: int
) -> None:
    room = Room(chars, limit)

    fitting = [n for n in range(len(text) + 1) if room.holds(cost(text[:n]))]
    longest = text[: fitting[-1]]
    assert clip(text, room) == (text if longest == text else longest.rstrip())


def test_history_is_cut_to_about_half_and_then_left_alone() -> None:
    room = Room(2000, 10_000)
    turns: tuple[Turn, ...] = ()
    firsts = []
    for number in range(100):
        turns = trim((*turns, *exchange(number)), room)
        assert room.holds(cost_of(turns))
        assert turns[0].role == "user"
        assert turns[-2:] == exchange(number)
        firsts.append(turns[0].text)

    cuts = sum(one != other for one, other in pairwise(firsts))
    assert 15 <= cuts <= 20, "one cut in five or six exchanges of 200 characters"


def test_an_exchange_longer_than_half_the_room_stays_as_long_as_it_fits() -> None:
    assert trim((*exchange(1), *exchange(2, 300)), Room(700, 10_000)) == exchange(2, 300)
    assert trim((*exchange(1), *exchange(2, 300)), Room(500, 10_000)) == ()


def test_tokens_cut_as_characters_do() -> None:
    turns = tuple(turn for number in range(20) for turn in exchange(number, 10))
    assert 0 < len(trim(turns, Room(10_000, 300))) < 20


def test_a_thread_of_very_short_messages_fits_into_the_window(world: World) -> None:
    for number in range(0, 400, 2):
        world.hear(f"n{number}", message_id=str(number + 1), timestamp="2026-01-01T00:00:00Z")
        reply = ("dm", ALICE, str(90_000 + number), "outbound", OWN, str(number + 1))
        world.put(Message(*reply, content=f"a{number}"))
    world.hear("and now?")

    world.idle()

    (request,) = world.model.requests
    used = sum(PROMPT_OVERHEAD_TOKENS + len(m.content.encode()) / 4 for m in request.messages)
    assert used + request.num_predict < LoadOptions().num_ctx
    assert len(request.messages) > 40
    assert request.messages[1].role == "user"


def test_no_script_makes_a_prompt_that_exceeds_the_window(world: World) -> None:
    world.settings = Settings(max_context_chars=100_000)
    for text in ("пошук води ", "最近的水源在哪里", "पानी कहाँ है ", "🧭💧🥾", "0x9f{};" * 3):
        for _ in range(8):
            world.model.script = text * 40
            world.hear(text * 12)
            world.idle()
            request = world.model.requests[-1]
            estimated = sum(20 + tokens(m.content) for m in request.messages)
            assert estimated + request.num_predict <= LoadOptions().num_ctx - 64
    assert len(request.messages) > 3


def test_a_question_to_be_thought_about_leaves_the_thought_its_room(world: World) -> None:
    world.settings = Settings(max_context_chars=100_000, ollama_model_think="thinker")
    for number in range(24):
        world.model.script = f"answer {number}: " + " ".join(f"word{n}" for n in range(30))
        world.hear(f"think question {number}")
        world.idle()

    for request in world.model.requests:
        assert request.model == "thinker"
        estimated = sum(20 + tokens(m.content) for m in request.messages)
        generated = request.num_predict + request.thought_tokens
        assert estimated + generated <= LoadOptions().num_ctx
    assert max(len(request.messages) for request in world.model.requests) > 20


def test_the_window_is_shared_with_the_answer() -> None:
    room = prompt_room(max_chars=6000, context_tokens=4096, num_predict=195)

    assert room == Room(6000, 4096 - 195 - 64)
