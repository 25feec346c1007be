"""The pages over real sockets: whoever asks, and however slowly, the process goes on."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from structlog.typing import EventDict

from meshllm.clock import Clock, SystemClock
from meshllm.observe.board import Verdict
from meshllm.observe.server import CLIENT_LIMIT_S, MAX_CLIENTS, Pages, WatchServer
from meshllm.testing.clock import ManualClock
from tests.observe.waiting import until

READY = Verdict(live=True, ready=True)
WAITING = Verdict(live=True, ready=False, reasons=("no radio is linked",))
STUCK = Verdict(live=False, ready=False, reasons=("main: has not turned for 300 s",))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    verdict: Verdict = READY,
    *,
    metrics: bytes | None = b"meshllm_ready 1\n",
    clock: Clock | None = None,
) -> Iterator[WatchServer]:
    pages = Pages(lambda: verdict, None if metrics is None else lambda: metrics)
    server = WatchServer(free_port(), pages, clock=clock or SystemClock())
    server.start()
    try:
        yield server
    finally:
        server.stop()


def fetch(server: WatchServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=8)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def connect(stack: ExitStack, server: WatchServer) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 8))


@pytest.mark.parametrize(
    ("verdict", "live", "ready"),
    [(READY, 200, 200), (WAITING, 200, 503), (STUCK, 503, 503)],
)
def test_health_tells_live_from_ready(verdict: Verdict, live: int, ready: int) -> None:
    with serving(verdict) as server:
        assert fetch(server, "/livez")[0] == live
        assert fetch(server, "/readyz")[0] == ready
        status, body = fetch(server, "/healthz")

    assert status == ready
    assert json.loads(body) == {
        "live": verdict.live,
        "ready": verdict.ready,
        "reasons": list(verdict.reasons),
    }


def test_metrics_and_nothing_else_is_served() -> None:
    with serving() as server:
        assert fetch(server, "/metrics") == (200, b"meshllm_ready 1\n")
        assert fetch(server, "/metrics?x=1")[0] == 200
        assert fetch(server, "/metrics", "HEAD") == (200, b"")
        assert fetch(server, "/../../etc/passwd")[0] == 404
        assert fetch(server, "/metrics", "POST")[0] == 501


def test_without_the_library_the_health_pages_stay() -> None:
    with serving(metrics=None) as server:
        assert fetch(server, "/livez")[0] == 200
        assert fetch(server, "/metrics")[0] == 501


def test_only_this_machine_can_ask() -> None:
    with serving() as server:
        assert server._server is not None
        assert server._server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_costs_the_pages_and_one_event(events: list[EventDict]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = WatchServer(port, Pages(lambda: READY, None), clock=SystemClock())

        server.start()
        server.stop()

    (told,) = (e for e in events if e["event"] == "metrics_port_refused")
    assert (told["log_level"], told["port"]) == ("error", port)
    assert "metrics_port" in told["advice"]


def test_the_port_is_free_again_after_the_end() -> None:
    with serving() as server:
        port = server.port
        fetch(server, "/livez")

    with socket.create_server(("127.0.0.1", port)):
        pass


def test_clients_that_say_nothing_neither_block_others_nor_the_end() -> None:
    with ExitStack() as stack:
        with serving() as server:
            silent = [connect(stack, server) for _ in range(MAX_CLIENTS - 1)]
            assert fetch(server, "/livez")[0] == 200
        for client in silent:
            assert client.recv(1) == b"", "cut off at the end"


def test_a_slow_client_is_cut_off_and_its_place_is_free_again() -> None:
    clock = ManualClock()
    with serving(clock=clock) as server, ExitStack() as stack:
        slow = [connect(stack, server) for _ in range(MAX_CLIENTS)]
        for client in slow:
            client.sendall(b"GET /metr")  # and a byte now and then, for ever
        assert server._server is not None
        clients = server._server._clients
        until(lambda: len(clients) == MAX_CLIENTS, "all places taken")
        assert connect(stack, server).recv(1) == b"", "turned away"

        clock.advance(CLIENT_LIMIT_S + 1)

        for client in slow:
            assert client.recv(1) == b""
        until(lambda: not clients, "places are free")
        assert fetch(server, "/livez")[0] == 200


def test_a_bug_in_a_page_is_told_and_the_next_client_is_served(events: list[EventDict]) -> None:
    def broken() -> bytes:
        raise ValueError("a bug")

    server = WatchServer(free_port(), Pages(lambda: READY, broken), clock=SystemClock())
    server.start()
    try:
        with pytest.raises(http.client.HTTPException):
            fetch(server, "/metrics")
        assert fetch(server, "/livez")[0] == 200
    finally:
        server.stop()

    assert [e["log_level"] for e in events if e["event"] == "metrics_page_crashed"] == ["error"]


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\r\n\r\n", b"GET " + b"a" * 70_000 + b"\r\n", b"\r\n"]
)
def test_garbage_is_answered_or_dropped(garbage: bytes, events: list[EventDict]) -> None:
    with serving() as server:
        with socket.create_connection(("127.0.0.1", server.port), 8) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
        assert fetch(server, "/livez")[0] == 200

    assert "metrics_page_crashed" not in [event["event"] for event in events]
