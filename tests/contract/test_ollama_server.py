"""The shipped server answers recorded requests as the real one did."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from meshllm.testing.ollama_server import (
    INSTRUCT,
    End,
    FakeModel,
    OllamaServer,
    Reply,
    Script,
)

FIXTURES = Path(__file__).parent.parent / "fixtures" / "ollama"
BATTERY = "Battery at 81 percent, two neighbours heard."
THOUGHT = Reply("It is 81 percent.", thinking="The user asks about battery. Keep it short.")
LOOP = Reply("again " * 31, end=End.LOOP)
SCRIPTS: Mapping[str, Script] = {
    "chat_forced_think_false_leak": THOUGHT,
    "chat_no_done_loop": LOOP,
    "chat_no_done_loop_once": LOOP,
    "chat_runner_killed": Reply("indexprop onnames ncols wearyi more", end=End.KILLED, end_after=4),
    "chat_think_cut": THOUGHT,
    "chat_think_false_leak": THOUGHT,
    "chat_think_stream": THOUGHT,
    "format_schema": Reply('{\n\t\r   \n "a": 1}'),
}
MODELS = (
    FakeModel("think-jinja"),
    FakeModel("think-forced", thinks=True),
    FakeModel("think-hybrid", thinks=True),
    FakeModel("q06b"),
    FakeModel("qwen3:4b-thinking-2507-q8_0"),
    FakeModel("script-loop"),
    FakeModel(INSTRUCT),
)
#: Fields that differ between any two answers; for these only the type is compared.
VARYING = {
    "created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration",
    "prompt_eval_count", "modified_at", "expires_at", "size", "digest", "context",
}  # fmt: skip
LISTINGS = {"show", "ps", "tags"}


def comparable(line: Any) -> Any:
    if isinstance(line, dict):
        return {
            key: type(value).__name__ if key in VARYING else comparable(value)
            for key, value in line.items()
        }
    return line


def lines(body: str) -> list[Any]:
    return [comparable(json.loads(line)) for line in body.splitlines()]


def answer_of(server: OllamaServer, request: Mapping[str, Any]) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            request.get("method", "POST"),
            server.url + request["path"],
            json=request.get("json") or ({"model": "q06b", "messages": [{"content": "x"}]}
                                         if request["path"] == "/api/chat" else None),
            timeout=5,
        )  # fmt: skip


@pytest.mark.parametrize("name", sorted({p.stem for p in FIXTURES.glob("*.json")} - LISTINGS))
def test_a_recorded_request_gets_the_recorded_answer(name: str) -> None:
    recorded = json.loads((FIXTURES / f"{name}.json").read_text())
    with OllamaServer(SCRIPTS.get(name, BATTERY), models=MODELS, bytes_per_token=1.0) as server:
        answer = answer_of(server, recorded["request"])

    assert answer.status_code == recorded["status"]
    assert answer.headers["Content-Type"] == recorded["headers"]["Content-Type"]
    assert lines(answer.text) == lines(recorded["body"])


@pytest.mark.parametrize("name", sorted(LISTINGS))
def test_a_listing_has_the_recorded_fields(name: str) -> None:
    recorded = json.loads((FIXTURES / f"{name}.json").read_text())
    with OllamaServer(models=MODELS) as server:
        for model in (INSTRUCT, "script-loop", "q06b"):
            requests.post(
                f"{server.url}/api/chat", json={"model": model, "messages": []}, timeout=5
            )
        answer = answer_of(server, recorded["request"])

    expected, got = json.loads(recorded["body"]), answer.json()
    if name == "show":
        assert got.keys() == expected.keys()
        assert got["capabilities"] == expected["capabilities"]
        return
    assert [sorted(model) for model in got["models"]] == [sorted(m) for m in expected["models"]]
    assert {m["name"] for m in got["models"]} == {m["name"] for m in expected["models"]}
    assert {m["name"]: m.get("capabilities") for m in got["models"]} == {
        m["name"]: m.get("capabilities") for m in expected["models"]
    }


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "body"),
    [
        ("GET", "/", {}, 200, "Ollama is running"),
        ("GET", "/api/chat", {}, 405, "405 method not allowed"),
        ("POST", "/api/tags", {}, 405, "405 method not allowed"),
        ("GET", "/v2", {}, 404, "404 page not found"),
        ("GET", "/api/tags", {"headers": {"Origin": "http://evil.example"}}, 403, ""),
        ("GET", "/api/tags", {"headers": {"Host": "evil.example"}}, 403, ""),
        ("POST", "/api/chat", {}, 400, '{"error":"missing request body"}'),
        ("POST", "/api/chat", {"json": {}}, 400, '{"error":"model is required"}'),
        (
            "POST", "/api/chat", {"json": {"model": INSTRUCT, "keep_alive": "-1"}}, 400,
            r'{"error":"time: missing unit in duration \"-1\""}',
        ),
    ],
)  # fmt: skip
def test_what_the_real_server_refuses_is_refused(
    method: str, path: str, options: dict[str, Any], status: int, body: str
) -> None:
    with OllamaServer() as server:
        answer = requests.request(method, server.url + path, timeout=5, **options)

    assert (answer.status_code, answer.text) == (status, body)


@pytest.mark.parametrize("keep_alive", [-1, 0, 300, "24h", "-1m", "1h30m"])
def test_numbers_and_durations_are_taken_as_keep_alive(keep_alive: object) -> None:
    body = {"model": INSTRUCT, "messages": [], "keep_alive": keep_alive}
    with OllamaServer() as server:
        assert requests.post(f"{server.url}/api/chat", json=body, timeout=5).status_code == 200


def test_bad_json_is_refused() -> None:
    with OllamaServer() as server:
        assert requests.post(f"{server.url}/api/chat", data="{", timeout=5).status_code == 400


def test_closing_leaves_no_thread_even_with_open_connections() -> None:
    before = set(threading.enumerate())
    with requests.Session() as session:
        with OllamaServer() as server:
            session.get(f"{server.url}/api/version", timeout=5)
        assert set(threading.enumerate()) == before
