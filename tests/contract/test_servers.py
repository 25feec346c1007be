"""Two addresses as one model: real clients, two shipped servers, a clock that is moved."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from meshllm.clock import SystemClock
from meshllm.config import Settings
from meshllm.llm.base import ChatMessage, ChatRequest, Outcome, ProbeState, ServerState
from meshllm.llm.servers import MIN_LEFT_S, Servers, ollama_servers
from meshllm.testing.ollama_server import (
    BUSY,
    INSTRUCT,
    KILLED,
    THINKING,
    End,
    FakeModel,
    OllamaServer,
    Refusal,
    Reply,
)

ASK = ChatRequest(INSTRUCT, (ChatMessage("user", "battery?"),), num_predict=60, deadline_s=20.0)


class MovedClock(SystemClock):
    """Runs on, and jumps when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Pair:
    """A first and a second address; the first may be down."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.first: OllamaServer | None = None
        self.port = free_port()
        self.second = stack.enter_context(OllamaServer("second"))
        self.clock = MovedClock()
        self.raise_first()
        urls = (f"http://127.0.0.1:{self.port}", self.second.url)
        self.model = ollama_servers(urls, INSTRUCT, clock=self.clock)
        stack.callback(self.model.close)

    def raise_first(self) -> OllamaServer:
        self.first = self._stack.enter_context(OllamaServer("first", port=self.port))
        return self.first

    def end_first(self) -> None:
        assert self.first is not None
        self.first.close()
        self.first = None

    def say(self, request: ChatRequest = ASK) -> str:
        return self.model.chat(request).text

    def states(self) -> list[str]:
        return [server.state for server in self.model.probe().servers]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


def test_the_first_address_answers_while_it_works(pair: Pair) -> None:
    assert [pair.say() for _ in range(3)] == ["first"] * 3
    assert pair.second.requests == []


def test_the_second_answers_the_same_call_when_the_first_is_down(pair: Pair) -> None:
    pair.end_first()

    result = pair.model.chat(ASK)

    assert (result.text, result.server) == ("second", pair.second.url)
    assert result.servers == (
        ServerState(f"http://127.0.0.1:{pair.port}", "unreachable", is_used=False,
                    detail=result.servers[0].detail),
        ServerState(pair.second.url, "ready", is_used=True),
    )  # fmt: skip
    assert "refused" in result.servers[0].detail


def test_the_first_is_not_tried_again_for_every_question(pair: Pair) -> None:
    first = pair.first
    assert first is not None
    first.script = Refusal(503, BUSY)
    assert pair.say() == "second"
    tried = len(first.chats)

    assert [pair.say() for _ in range(3)] == ["second"] * 3
    assert len(first.chats) == tried


def test_the_first_is_used_again_once_a_probe_finds_it(pair: Pair) -> None:
    pair.end_first()
    assert pair.say() == "second"
    pair.raise_first()
    assert pair.say() == "second"

    assert pair.states() == ["ready", "ready"]
    assert pair.say() == "first"


@pytest.mark.parametrize(
    "trouble",
    [Refusal(503, BUSY), Refusal(500, KILLED), Refusal(404, "model 'x' not found"),
     Reply("a", end=End.HALF_LINE, end_after=0)],
)  # fmt: skip
def test_trouble_before_any_word_goes_to_the_second(pair: Pair, trouble: Refusal | Reply) -> None:
    assert pair.first is not None
    pair.first.script = trouble

    assert pair.say() == "second"


def test_a_refused_request_is_refused_once(pair: Pair) -> None:
    """The second would refuse it, too."""
    assert pair.first is not None
    pair.first.script = Refusal(400, "no")

    assert pair.model.chat(ASK).outcome is Outcome.BAD_REQUEST
    assert pair.second.chats == []


def test_words_that_came_are_kept_and_not_asked_for_twice(pair: Pair) -> None:
    assert pair.first is not None
    pair.first.script = Reply("a b c", end=End.LOOP, end_after=2)

    assert pair.say() == "a b"
    assert pair.second.chats == []


def test_a_timeout_leaves_the_first_alone_for_longer_each_time(pair: Pair) -> None:
    assert pair.first is not None
    pair.first.script = Reply("late", first_delay_s=60.0)
    short = replace(ASK, deadline_s=0.3)
    assert pair.model.chat(short).outcome is Outcome.TIMEOUT

    rests = []
    for _ in range(3):
        start = pair.clock.ahead_s
        while pair.say() == "second":
            assert pair.states()[0] == "timeout"  # a probe does not disturb it
            pair.clock.ahead_s += 5
            if pair.clock.ahead_s - start > 200:
                pytest.fail("never tried again")
            if pair.model._in_use().address != pair.second.url:
                break
        rests.append(round(pair.clock.ahead_s - start))
        assert pair.model.chat(short).outcome is Outcome.TIMEOUT

    assert rests == [15, 30, 60]


def test_both_down_is_told_of_the_last_and_asked_again_later(pair: Pair) -> None:
    pair.end_first()
    pair.second.script = Refusal(503, BUSY)

    assert pair.model.chat(ASK).outcome is Outcome.BUSY
    pair.second.script = "second"
    assert pair.model.probe().state is ProbeState.READY
    assert pair.say() == "second"


def test_little_time_left_is_not_spent_on_the_second(pair: Pair) -> None:
    assert pair.first is not None
    pair.first.script = Refusal(503, BUSY)

    result = pair.model.chat(replace(ASK, deadline_s=MIN_LEFT_S - 1))

    assert result.outcome is Outcome.BUSY
    assert pair.second.chats == []


def test_a_missing_thinking_model_says_nothing_of_the_address(pair: Pair) -> None:
    assert pair.first is not None
    pair.first.models = (FakeModel(INSTRUCT),)
    pair.second.models = (FakeModel(INSTRUCT), FakeModel(THINKING, thinks=True))

    assert pair.say(replace(ASK, model=THINKING, think=True)) == "second"
    assert pair.say() == "first"


def test_each_change_is_one_event_without_passwords(pair: Pair) -> None:
    with ExitStack() as stack, capture_logs() as events:
        second = stack.enter_context(OllamaServer("second"))
        url = f"http://ada:secret@127.0.0.1:{free_port()}"
        model = ollama_servers((url, second.url), INSTRUCT, clock=SystemClock())
        for _ in range(3):
            model.chat(ASK)

    changes = [e for e in events if e["event"] == "model_server_changed"]
    assert [(e["state"], e["used"]) for e in changes] == [
        ("unreachable", second.url), ("ready", second.url),
    ]  # fmt: skip
    assert "secret" not in str(events)


def test_a_probe_looks_at_both(pair: Pair) -> None:
    result = pair.model.probe()

    assert (result.state, [s.state for s in result.servers]) == (
        ProbeState.READY, ["ready", "ready"],
    )  # fmt: skip
    assert [s.is_used for s in result.servers] == [True, False]


def test_one_address_is_a_pair_of_one() -> None:
    with OllamaServer("only") as server:
        model = ollama_servers((server.url, "", server.url), INSTRUCT, clock=SystemClock())

        result = model.chat(ASK)
        model.close()

    assert (result.text, len(result.servers)) == ("only", 1)


def test_the_second_address_may_be_left_empty_and_must_be_one_else() -> None:
    assert Settings().ollama_base_url_2 == ""
    with pytest.raises(ValueError, match="not an address"):
        Settings(ollama_base_url_2="ollama:11434")


def test_closing_closes_both(pair: Pair) -> None:
    pair.model.close()

    assert pair.model.chat(ASK).outcome is Outcome.UNREACHABLE


def test_no_address_at_all_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="address"):
        Servers((), SystemClock())
