"""The ChatModel contract, run against the scripted model and the Ollama client alike."""

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshllm.clock import SystemClock
from meshllm.errors import UserError
from meshllm.llm.base import (
    ChatMessage,
    ChatModel,
    ChatRequest,
    Outcome,
    ProbeResult,
    ProbeState,
    answer_tokens,
)
from meshllm.llm.ollama import LoadOptions, OllamaModel
from meshllm.testing.model import ScriptedModel
from meshllm.testing.ollama_server import (
    BUSY,
    INSTRUCT,
    KILLED,
    THINKING,
    End,
    FakeModel,
    OllamaServer,
    Raw,
    Refusal,
    Reply,
    Script,
)

ASK = ChatRequest(INSTRUCT, (ChatMessage("user", "battery?"),), num_predict=60, deadline_s=5.0)
HYBRID = "{{ if and $.IsThinkSet (not $.Think) }}<think>\n\n</think>{{ end }}"


@dataclass
class Subject:
    """A model under test, and how to hold back its answers."""

    model: ChatModel
    say: Callable[[str], None]
    hold: Callable[[], None]
    arrived: threading.Semaphore


def ollama(server: OllamaServer, model: str = INSTRUCT) -> OllamaModel:
    return OllamaModel(server.url, model, clock=SystemClock(), pause_s=lambda: 0.01)


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with OllamaServer() as running:
        yield running


@pytest.fixture
def model(server: OllamaServer) -> Iterator[OllamaModel]:
    with closing(ollama(server)) as client:
        yield client


@pytest.fixture(params=["scripted", "ollama"])
def subject(request: pytest.FixtureRequest, server: OllamaServer) -> Iterator[Subject]:
    if request.param == "scripted":
        scripted = ScriptedModel(models=(INSTRUCT, THINKING))
        yield Subject(
            scripted,
            lambda text: setattr(scripted, "script", text),
            scripted.gate.clear,
            scripted.arrived,
        )
        return
    with closing(ollama(server)) as client:
        yield Subject(
            client,
            lambda text: setattr(server, "script", text),
            lambda: setattr(server, "script", Reply("late", first_delay_s=60.0)),
            server.arrived,
        )


def test_an_answer_is_ok_and_usable(subject: Subject) -> None:
    subject.say("Battery at 81 percent.")

    result = subject.model.chat(ASK)

    assert (result.outcome, result.text, result.usable) == (
        Outcome.OK, "Battery at 81 percent.", True,
    )  # fmt: skip
    assert result.model == INSTRUCT


def test_an_answer_stops_at_a_sentence_end_once_the_budget_is_full(subject: Subject) -> None:
    subject.say("The battery is full. Two neighbours were heard. " * 20)

    result = subject.model.chat(replace(ASK, budget_bytes=60, num_predict=500))

    expected = "The battery is full. Two neighbours were heard."
    assert (result.outcome, result.text, result.usable) == (Outcome.CAPPED, expected, True)


def test_an_answer_cut_by_num_predict_is_capped(subject: Subject) -> None:
    subject.say("one two three four")

    result = subject.model.chat(replace(ASK, num_predict=2))

    assert (result.outcome, result.text) == (Outcome.CAPPED, "one two")


def test_reasoning_in_the_text_is_not_part_of_it(subject: Subject) -> None:
    subject.say("<think>The user asks.</think> It is 81.")

    assert subject.model.chat(ASK).text == "It is 81."


def test_no_budget_is_filled_by_reasoning_whatever_marks_it(subject: Subject) -> None:
    thoughts = "The user asks for a product, so I multiply. " * 10
    subject.say(f"<thought>{thoughts}</thought> It is 81.")

    result = subject.model.chat(replace(ASK, num_predict=400, budget_bytes=100, part_bytes=60))

    assert (result.outcome, result.text) == (Outcome.OK, "It is 81.")


def test_an_answer_of_nothing_is_empty_and_not_usable(subject: Subject) -> None:
    subject.say("<think>still thinking")

    result = subject.model.chat(ASK)

    assert (result.outcome, result.text, result.usable) == (Outcome.EMPTY, "", False)


def test_an_unknown_model_is_missing(subject: Subject) -> None:
    result = subject.model.chat(replace(ASK, model="qwen3-4b-q8-instruct"))

    assert (result.outcome, result.usable) == (Outcome.MISSING_MODEL, False)
    assert "model 'qwen3-4b-q8-instruct' not found" in result.error


def test_a_call_is_given_up_while_nothing_has_come(subject: Subject) -> None:
    subject.hold()

    result = subject.model.chat(ASK, lambda: subject.arrived.acquire(blocking=False))

    assert (result.outcome, result.usable) == (Outcome.CANCELLED, False)
    assert result.duration_ms < 2000


def test_a_call_ends_at_its_deadline(subject: Subject) -> None:
    subject.hold()

    result = subject.model.chat(replace(ASK, deadline_s=0.3))

    assert (result.outcome, result.usable) == (Outcome.TIMEOUT, False)
    assert result.duration_ms < 1300


def test_a_probe_finds_the_model_ready(subject: Subject) -> None:
    assert subject.model.probe().state is ProbeState.READY


def test_a_closed_model_is_unreachable(subject: Subject) -> None:
    subject.model.close()

    assert subject.model.chat(ASK).outcome is Outcome.UNREACHABLE
    assert subject.model.probe().state is ProbeState.UNREACHABLE


def test_closing_ends_a_running_call(subject: Subject) -> None:
    subject.hold()

    def close_once_asked() -> None:
        subject.arrived.acquire(timeout=2)
        subject.model.close()

    closer = threading.Thread(target=close_once_asked)
    closer.start()

    result = subject.model.chat(ASK)

    closer.join(2)
    assert not result.usable
    assert result.duration_ms < 3000


def test_warming_up_leaves_the_next_answer_whole(subject: Subject) -> None:
    assert subject.model.warm_up((ChatMessage("system", "Be short."),)).outcome is Outcome.CAPPED
    assert subject.model.chat(ASK).outcome is Outcome.OK


def test_no_limit_on_tokens_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="num_predict"):
        replace(ASK, num_predict=0)


# What only a server can do.


def test_every_call_sends_the_same_options_and_nothing_by_default(
    server: OllamaServer, model: OllamaModel
) -> None:
    model.warm_up(ASK.messages)
    model.chat(ASK)

    warm, chat = server.chats
    options = {
        "num_ctx": 4096, "num_batch": 512,
        "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0, "seed": -1,
        "repeat_last_n": 64, "repeat_penalty": 1.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }  # fmt: skip
    assert chat == {
        "model": INSTRUCT,
        "messages": [{"role": "user", "content": "battery?"}],
        "stream": True,
        "options": {**options, "num_predict": 60},
        "keep_alive": -1,
        "truncate": False,
        "shift": False,
    }
    assert warm == {**chat, "options": {**options, "num_predict": 1}}


@pytest.mark.parametrize(
    ("installed", "think", "sent"),
    [
        (FakeModel("m"), None, None),
        (FakeModel("m"), True, None),
        (FakeModel("m", thinks=True, template=HYBRID), None, False),
        (FakeModel("m", thinks=True, template=HYBRID), True, True),
        (FakeModel("m", thinks=True, template="<think>\n"), None, None),
        (FakeModel("m", thinks=True, template="<think>\n"), False, None),
        (FakeModel("m:thinking", thinks=True), False, None),
        (FakeModel("m:thinking", thinks=True), True, True),
    ],
)
def test_think_is_sent_only_to_a_model_that_obeys_it(
    installed: FakeModel, think: bool | None, sent: bool | None
) -> None:
    with OllamaServer(models=[installed]) as server, closing(ollama(server)) as model:
        result = model.chat(replace(ASK, model=installed.name, think=think))

        assert result.outcome is Outcome.OK
        assert server.chats[-1].get("think") is sent


def test_what_a_model_can_do_is_asked_once(server: OllamaServer, model: OllamaModel) -> None:
    for _ in range(3):
        model.chat(ASK)

    assert [r.path for r in server.requests] == ["/api/show", *["/api/chat"] * 3]


def test_reasoning_in_its_own_field_is_ignored(server: OllamaServer, model: OllamaModel) -> None:
    server.script = Reply("It is 81.", thinking="The user asks.")

    assert model.chat(replace(ASK, model=THINKING, think=True)).text == "It is 81."


def test_reasoning_without_an_opening_tag_does_not_fill_the_budget() -> None:
    hybrid = FakeModel("m", thinks=True, template=HYBRID)
    script = Reply("It is 81.", thinking="Hm. " * 50, opens_thinking=False)
    with OllamaServer(script, models=[hybrid]) as server, closing(ollama(server)) as model:
        result = model.chat(replace(ASK, model="m", budget_bytes=30, num_predict=500))

        assert (result.outcome, result.text) == (Outcome.OK, "It is 81.")


def test_reasoning_cut_before_its_end_is_not_taken_for_an_answer() -> None:
    unparsed = FakeModel("m:thinking")
    script = Reply("It is 81.", thinking="Hm. " * 50, opens_thinking=False)
    with OllamaServer(script, models=[unparsed]) as server, closing(ollama(server)) as model:
        result = model.chat(replace(ASK, model="m:thinking", num_predict=20))

        assert (result.outcome, result.text) == (Outcome.EMPTY, "")


def test_figures_come_as_tokens_a_second(server: OllamaServer, model: OllamaModel) -> None:
    server.script = "Battery at 81 percent."

    result = model.chat(ASK)

    assert (result.prompt_tokens, result.completion_tokens) == (21, 5)
    assert (result.prompt_tps, result.eval_tps) == (52500.0, 5000.0)
    assert result.raw["done_reason"] == "stop"


@pytest.mark.parametrize(
    ("script", "outcome", "text"),
    [
        (Reply("again " * 31, end=End.LOOP), Outcome.PARTIAL, ("again " * 31).strip()),
        (Reply("a b c d", end=End.HALF_LINE, end_after=2), Outcome.PARTIAL, "a b"),
        (Reply("a b c d", end=End.KILLED, end_after=2), Outcome.BROKEN, "a b"),
        (Reply("a b c d", end=End.HANG, end_after=2), Outcome.PARTIAL, "a b"),
        (Reply("a", end=End.HANG, end_after=0), Outcome.TIMEOUT, ""),
        (Reply("a", end=End.HALF_LINE, end_after=0), Outcome.BROKEN, ""),
        (Reply("a", end=End.LOOP, end_after=0), Outcome.BROKEN, ""),
        (Refusal(503, BUSY), Outcome.BUSY, ""),
        (Refusal(500, KILLED), Outcome.BROKEN, ""),
        (Refusal(500, 'option "seed" must be of type integer'), Outcome.BAD_REQUEST, ""),
        (Refusal(400, "no"), Outcome.BAD_REQUEST, ""),
        (Raw(b"404 page not found", 404), Outcome.BROKEN, ""),
        (Raw(b"", 302, {"Location": "http://127.0.0.1:1/"}), Outcome.BROKEN, ""),
        (Raw(b"<html>It works</html>"), Outcome.BROKEN, ""),
        (Raw(b""), Outcome.BROKEN, ""),
        (Raw(b"\xff\xfe\x00{\n"), Outcome.BROKEN, ""),
        (Raw(b"[1]\n"), Outcome.BROKEN, ""),
        (Raw(b"{}\n"), Outcome.BROKEN, ""),
        (Raw(b'{"message":7,"done":true}\n'), Outcome.BROKEN, ""),
        (Raw(b'{"message":{"content":7},"done":true}\n'), Outcome.BROKEN, ""),
        (Raw(b'{"message":{"content":"hi"},"done":true}'), Outcome.OK, "hi"),
        (Raw(b'{"message":{"content":"hi"},"done":true,"eval_count":"x"}'), Outcome.OK, "hi"),
        (Raw(b"[" * 100_000 + b"\n"), Outcome.BROKEN, ""),
        (Raw(b"x" * 2_000_000), Outcome.BROKEN, ""),
        (Raw(b"ab", headers={"Content-Length": "10"}), Outcome.BROKEN, ""),
        (Raw(b"zz\r\n", headers={"Transfer-Encoding": "chunked"}), Outcome.BROKEN, ""),
    ],
)
def test_whatever_a_server_answers_has_an_outcome(
    server: OllamaServer, model: OllamaModel, script: Script, outcome: Outcome, text: str
) -> None:
    server.script = script

    result = model.chat(replace(ASK, deadline_s=1.0))

    assert (result.outcome, result.text) == (outcome, text)
    assert result.usable is (outcome in {Outcome.OK, Outcome.PARTIAL})
    assert result.duration_ms < 2000


def test_a_trickling_server_is_left_at_the_deadline(
    server: OllamaServer, model: OllamaModel
) -> None:
    server.script = Reply("drop " * 1000, piece_delay_s=0.05)

    result = model.chat(replace(ASK, deadline_s=0.5, num_predict=1000))

    assert (result.outcome, result.error) == (Outcome.PARTIAL, "deadline passed")
    assert result.duration_ms < 1500
    assert server.abandoned.acquire(timeout=2)


def test_the_server_sees_a_cancelled_call_end(server: OllamaServer, model: OllamaModel) -> None:
    server.script = Reply("late", first_delay_s=60.0)

    model.chat(ASK, lambda: server.arrived.acquire(blocking=False))

    assert server.abandoned.acquire(timeout=2)


@pytest.mark.parametrize(
    ("first", "calls"),
    [
        (Refusal(503, BUSY), 2),
        (Refusal(500, KILLED), 2),
        (Raw(b"<html>"), 2),
        (Refusal(400, "no"), 1),
        (Reply("a b", end=End.KILLED, end_after=1), 1),
        (Reply("a b", end=End.LOOP), 1),
    ],
)
def test_only_trouble_before_any_text_is_tried_once_more(
    server: OllamaServer, model: OllamaModel, first: Reply | Refusal | Raw, calls: int
) -> None:
    server.script = [first, "It is 81."]

    result = model.chat(ASK)

    assert len(server.chats) == calls
    assert (result.outcome is Outcome.OK) is (calls == 2)


def test_a_context_too_long_is_refused_with_the_servers_words(
    server: OllamaServer, model: OllamaModel
) -> None:
    result = model.chat(replace(ASK, messages=(ChatMessage("user", "x " * 20_000),)))

    assert result.outcome is Outcome.BAD_REQUEST
    assert "exceeds the available context size (4096 tokens)" in result.error


def test_one_connection_serves_all_chats(server: OllamaServer, model: OllamaModel) -> None:
    for _ in range(5):
        assert model.chat(ASK).outcome is Outcome.OK

    assert server.connections == 1


def test_a_server_started_again_on_its_port_is_found_again() -> None:
    with OllamaServer() as first:
        model = ollama(first)
        assert model.chat(ASK).outcome is Outcome.OK
        port = int(first.url.rsplit(":", 1)[-1])

    assert model.chat(ASK).outcome is Outcome.UNREACHABLE
    with OllamaServer(port=port), closing(model):
        assert model.chat(ASK).outcome is Outcome.OK


def test_a_probe_does_not_wait_for_a_running_chat(server: OllamaServer, model: OllamaModel) -> None:
    server.script = Reply("late", first_delay_s=60.0)
    stop = threading.Event()
    chat = threading.Thread(target=model.chat, args=(ASK, stop.is_set))
    chat.start()
    assert server.arrived.acquire(timeout=2)

    state = model.probe().state

    stop.set()
    chat.join(2)
    assert state is ProbeState.READY


@pytest.mark.parametrize("asked", ["think-hybrid", "think-hybrid:latest"])
def test_a_probe_matches_names_with_the_implied_tag(asked: str) -> None:
    with OllamaServer(models=[FakeModel("think-hybrid")]) as server:
        assert ollama(server, asked).probe().state is ProbeState.READY


def test_a_probe_names_the_command_that_gets_a_missing_model(server: OllamaServer) -> None:
    assert ollama(server, "qwen3-4b").probe() == ProbeResult(
        ProbeState.MISSING_MODEL,
        f"{server.url} has no model qwen3-4b",
        pull_command="ollama pull qwen3-4b",
    )


def test_a_server_that_only_chats_counts_as_ready() -> None:
    """What is not offered says nothing about the model: the first question finds out."""

    class ChatOnly(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), ChatOnly) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        model = OllamaModel(f"http://127.0.0.1:{web.server_port}", INSTRUCT, clock=SystemClock())

        state = model.probe().state

        model.close()
        web.shutdown()
        thread.join()
    assert state is ProbeState.READY


def test_a_probe_of_nothing_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    model = OllamaModel(f"http://127.0.0.1:{port}", INSTRUCT, clock=SystemClock())

    result = model.probe()

    assert result.state is ProbeState.UNREACHABLE
    assert "refused" in result.detail


def test_a_name_lookup_that_hangs_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> object:
        release.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    model = OllamaModel("http://ollama:11434", INSTRUCT, clock=SystemClock())

    result = model.chat(replace(ASK, deadline_s=0.3))

    release.set()
    assert result.outcome is Outcome.TIMEOUT
    assert result.duration_ms < 1800


@pytest.mark.parametrize("path", ["", "/", "/ollama", "/ollama/"])
def test_a_base_address_may_have_a_path_and_a_last_slash(server: OllamaServer, path: str) -> None:
    model = OllamaModel(server.url + path, INSTRUCT, clock=SystemClock())

    model.probe()

    assert server.requests[0].path == f"{path.rstrip('/')}/api/version"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:11434",
        "ftp://host",
        "http://",
        "http://h:x",
        "http://h:99999",
        "http://h?a=1",
    ],
)
def test_a_base_address_that_is_none_is_the_operators_to_mend(address: str) -> None:
    with pytest.raises(UserError, match="OLLAMA_BASE_URL"):
        OllamaModel(address, INSTRUCT, clock=SystemClock())


def test_load_time_options_can_be_chosen(server: OllamaServer) -> None:
    load = LoadOptions(num_ctx=2048, num_batch=128, num_thread=3)
    with closing(OllamaModel(server.url, INSTRUCT, clock=SystemClock(), load=load)) as model:
        model.chat(ASK)

    options = server.chats[0]["options"]
    assert isinstance(options, dict)
    assert {name: options[name] for name in ("num_ctx", "num_batch", "num_thread")} == {
        "num_ctx": 2048, "num_batch": 128, "num_thread": 3,
    }  # fmt: skip


# Reasoning, in every shape that servers deliver it.

FIXTURES = Path(__file__).parent.parent / "fixtures" / "ollama"
THOUGHT = "Hm. The user asks about water. " * 5


def recorded_lines(name: str) -> list[bytes]:
    body = json.loads((FIXTURES / f"{name}.json").read_text())["body"]
    return [line.encode() for line in body.splitlines()]


@pytest.mark.parametrize(
    "name", ["chat_think_stream", "chat_think_false_leak", "chat_forced_think_false_leak"]
)
@pytest.mark.parametrize("think", [None, True])
def test_no_recorded_reasoning_is_ever_text_wherever_the_stream_ends(
    name: str, think: bool | None
) -> None:
    lines = recorded_lines(name)
    installed = FakeModel("m", thinks=True, template=HYBRID)
    with OllamaServer(models=[installed]) as server, closing(ollama(server)) as model:
        texts = []
        for end in range(len(lines) + 1):
            server.script = Raw(b"\n".join(lines[:end]) + b"\n")
            texts.append(model.chat(replace(ASK, model="m", think=think)).text)

    whole = "It is 81 percent."
    assert texts[-1] == whole
    assert all(whole.startswith(text) for text in texts)


@pytest.mark.parametrize("end", range(0, 40, 3))
def test_reasoning_whose_tag_was_opened_by_the_template_is_never_text(end: int) -> None:
    hybrid = FakeModel("m", thinks=True, template=HYBRID)
    script = Reply(
        "It is 81.", thinking=THOUGHT, opens_thinking=False, end=End.HALF_LINE, end_after=end
    )
    with OllamaServer(script, models=[hybrid]) as server, closing(ollama(server)) as model:
        text = model.chat(replace(ASK, model="m", num_predict=500)).text

    assert "It is 81.".startswith(text)


def test_a_model_that_was_proven_not_to_reason_is_stopped_at_its_budget() -> None:
    hybrid = FakeModel("m", thinks=True, template=HYBRID)
    ask = replace(ASK, model="m", budget_bytes=60, num_predict=500)
    with OllamaServer("Yes.", models=[hybrid]) as server, closing(ollama(server)) as model:
        model.chat(ask)
        server.script = "The battery is full. Two neighbours were heard. " * 20

        result = model.chat(ask)

    assert (result.outcome, result.text) == (
        Outcome.CAPPED, "The battery is full. Two neighbours were heard.",
    )  # fmt: skip


def options_of(body: Mapping[str, object]) -> Mapping[str, object]:
    options = body["options"]
    assert isinstance(options, dict)
    return options


@pytest.mark.parametrize(
    ("installed", "think", "tokens"),
    [
        (FakeModel("m"), None, 60),
        (FakeModel("m"), True, 60),
        (FakeModel("m", thinks=True, template=HYBRID), True, 160),
        (FakeModel("m", thinks=True, template="<think>\n"), None, 160),
        (FakeModel("m:thinking", thinks=True), True, 160),
    ],
)
def test_only_a_model_that_reasons_gets_tokens_for_it(
    installed: FakeModel, think: bool | None, tokens: int
) -> None:
    ask = replace(ASK, model=installed.name, think=think, thought_tokens=100)
    with OllamaServer(models=[installed]) as server, closing(ollama(server)) as model:
        model.chat(ask)

        assert options_of(server.chats[-1])["num_predict"] == tokens


def test_a_model_that_reasons_unasked_is_told_of_once_and_given_room() -> None:
    script = f"<think>{THOUGHT}</think> It is 81."
    ask = replace(ASK, model="m", num_predict=20, thought_tokens=100)
    with (
        OllamaServer(script, models=[FakeModel("m")]) as server,
        closing(ollama(server)) as model,
        capture_logs() as events,
    ):
        outcomes = [model.chat(ask).outcome for _ in range(3)]

        assert outcomes == [Outcome.EMPTY, Outcome.OK, Outcome.OK]
        assert [e["model"] for e in events if e["event"] == "model_reasons_unasked"] == ["m"]


# What ends an answer early, and what is known of it then.


@pytest.mark.parametrize(("said", "outcome"), [("It is 81.", Outcome.CAPPED), ("", Outcome.EMPTY)])
def test_a_stream_that_adds_nothing_readable_is_closed(
    server: OllamaServer, model: OllamaModel, said: str, outcome: Outcome
) -> None:
    blank = json.dumps({"message": {"role": "assistant", "content": "\n"}, "done": False})
    first = json.dumps({"message": {"role": "assistant", "content": said}, "done": False})
    done = json.dumps({"message": {"role": "assistant", "content": "!"}, "done": True})
    server.script = Raw("\n".join([first, *[blank] * 60, done, ""]).encode())

    result = model.chat(replace(ASK, budget_bytes=200))

    assert (result.outcome, result.text) == (outcome, said)
    assert result.error == "nothing readable came any more"


def test_an_answer_stopped_early_still_tells_its_tokens_and_their_rate(
    server: OllamaServer, model: OllamaModel
) -> None:
    server.script = Reply("The battery is full. " * 40, piece_delay_s=0.03)

    result = model.chat(replace(ASK, budget_bytes=60, num_predict=500))

    assert result.outcome is Outcome.CAPPED
    assert result.completion_tokens == 12  # three sentences of four words fill 60 bytes
    assert result.eval_tps is not None
    assert 8 < result.eval_tps < 34
    assert server.abandoned.acquire(timeout=2)


SAMPLES = {
    "English": "Boil the water for one minute. ",
    "Spanish": "Hierva el agua un minuto. ",
    "Ukrainian": "Кип'ятіть воду одну хвилину. ",
    "Arabic": "اغلِ الماء دقيقة واحدة. ",
    "Hindi": "पानी को एक मिनट उबालें। ",
    "Chinese": "把水烧开一分钟。",
    "emoji": "🔥💧✅🙂 ",
}


@pytest.mark.parametrize("language", SAMPLES)
@pytest.mark.parametrize("budget", [100, 388])
def test_the_token_cap_never_ends_an_answer_before_its_budget(
    server: OllamaServer, model: OllamaModel, language: str, budget: int
) -> None:
    """Even where every byte is a token of its own, as tokenizers do with rare scripts."""
    text = SAMPLES[language] * 40
    pieces = [{"message": {"content": char}, "done": False} for char in text]
    cap = answer_tokens(budget)
    kept, tokens = [], 0
    for piece, char in zip(pieces, text, strict=True):
        tokens += len(char.encode())
        if tokens > cap:
            break
        kept.append(json.dumps(piece))
    last = json.dumps({"message": {"content": ""}, "done": True, "done_reason": "length"})
    server.script = Raw("\n".join([*kept, last, ""]).encode())

    result = model.chat(replace(ASK, budget_bytes=budget, num_predict=cap))

    assert "done_reason" not in result.raw  # it was we who ended it
    assert len(result.text.encode()) >= budget / 2


STEPS = "Boil the water for one minute. Let it cool with the lid on. Pour it into a clean bottle. "


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (STEPS, STEPS.strip()),  # it fits, and is over
        (STEPS * 3, STEPS.strip()),  # the second sentence end in the last fifth of 100 bytes
        ("- Boil it.\n" + STEPS * 3, None),  # a list goes on
        ("Boil it. " + "and then wait " * 30, None),  # no sentence end where one would do
    ],
)
def test_what_fills_one_message_well_is_the_whole_answer(
    subject: Subject, answer: str, kept: str | None
) -> None:
    subject.say(answer)
    ask = replace(ASK, num_predict=500, budget_bytes=200, part_bytes=100)

    text = subject.model.chat(ask).text

    assert text == kept if kept else len(text.encode()) > 100
