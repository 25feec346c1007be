"""A local HTTP server that answers as Ollama does, by script. Runs no model.

It refuses what the real server refuses, in the same words. By hand:
`python -m meshllm.testing.ollama_server --port 11434 --answer "text" [--delay S]`.
"""

import argparse
import json
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self
from urllib.parse import urlsplit

from meshllm.clock import SystemClock, Waker
from meshllm.testing.ollama_shapes import (
    BUSY,
    DEFAULT_NUM_CTX,
    INSTRUCT,
    KILLED,
    PROMPT_OVERHEAD_TOKENS,
    THINKING,
    Answer,
    End,
    FakeModel,
    Raw,
    Refusal,
    RefusedError,
    Reply,
    Script,
    Turn,
    check_keep_alive,
    check_think,
    checked_body,
    checked_options,
    dump,
    listed,
    loaded_entry,
    shown,
    too_long,
)

__all__ = [
    "BUSY",
    "INSTRUCT",
    "KILLED",
    "THINKING",
    "Answer",
    "End",
    "FakeModel",
    "OllamaServer",
    "Raw",
    "Recorded",
    "Refusal",
    "Reply",
    "Script",
]

_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 compared only
_ROUTES: Final = {
    "/": "GET",
    "/api/version": "GET",
    "/api/tags": "GET",
    "/api/ps": "GET",
    "/api/show": "POST",
    "/api/chat": "POST",
    "/api/generate": "POST",
}


@dataclass(frozen=True)
class Recorded:
    """One request as it came; `json` is None when the body was none."""

    method: str
    path: str
    json: Mapping[str, object] | None


class OllamaServer:
    """The server, on a thread of its own, from construction until `close`."""

    def __init__(
        self,
        script: Script = "The librarian is here.",
        *,
        models: Sequence[FakeModel] = (FakeModel(INSTRUCT), FakeModel(THINKING, thinks=True)),
        host: str = "127.0.0.1",
        port: int = 0,
        bytes_per_token: float = 4.0,
    ) -> None:
        """Listen on `port`, any free one by default. A sequence is used up, its last repeated."""
        self.script = script
        self.models = tuple(models)
        self.bytes_per_token = bytes_per_token
        self.requests: list[Recorded] = []
        self.loaded: dict[str, int] = {}  #: model and its num_ctx
        self.connections = 0
        self.abandoned = threading.Semaphore(0)  #: released once per client that left early
        self.arrived = threading.Semaphore(0)  #: released once per chat or generate request
        self.closing = threading.Event()
        self._turn = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._http = _Http((host, port), self)
        self.url = f"http://{host}:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.02,), name="fake-ollama", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut every connection and end every thread."""
        self.closing.set()
        self._http.shutdown()
        with self._lock:
            for connection in self._open:
                _shut(connection)
        self._http.server_close()
        self._thread.join()

    @property
    def chats(self) -> list[Mapping[str, object]]:
        """Return the bodies of the chat requests so far, loads included."""
        return [r.json for r in self.requests if r.path == "/api/chat" and r.json is not None]

    def find(self, name: object) -> FakeModel | None:
        """Return the installed model of that name, with or without its implied tag."""
        matches = (model for model in self.models if name in {model.name, model.full_name})
        return next(matches, None)

    def next_answer(self, body: Mapping[str, object]) -> Answer:
        """Take the script's next answer."""
        script = self.script
        if callable(script):
            return script(body)
        if isinstance(script, str | Reply | Refusal | Raw):
            return script
        with self._lock:
            answer = script[min(self._turn, len(script) - 1)]
            self._turn += 1
        return answer

    def _track(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(connection)
        if self.closing.is_set():
            _shut(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for each of them
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], fake: OllamaServer) -> None:
        self.fake = fake
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that left is what many scripts are about."""


class _ClientGoneError(Exception):
    """The client closed its end, or the server is closing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.fake._track(self.connection)

    def finish(self) -> None:
        self.server.fake._forget(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
        """Keep standard error clean."""

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Serve every method alike; which ones a path knows is the route table's to say."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parsed = _parse(body)
        path = urlsplit(self.path).path
        fake.requests.append(
            Recorded(self.command, path, parsed if isinstance(parsed, dict) else None)
        )
        try:
            self._check_origin()
            self._check_route(path)
            self._answer(path, body, parsed)
        except RefusedError as refused:
            self._json(refused.status, {"error": refused.error})
        except _HandledError:
            return
        except (_ClientGoneError, ConnectionError):
            self.close_connection = True
            if not fake.closing.is_set():
                fake.abandoned.release()

    def _check_origin(self) -> None:
        origin = self.headers.get("Origin")
        host = urlsplit("//" + (self.headers.get("Host") or "localhost")).hostname
        is_foreign = origin is not None and urlsplit(origin).hostname not in _LOOPBACK_HOSTS
        if is_foreign or host not in _LOOPBACK_HOSTS:
            self._send(403, b"", "")
            raise _HandledError

    def _check_route(self, path: str) -> None:
        if path not in _ROUTES:
            self._send(404, b"404 page not found", "text/plain")
            raise _HandledError
        if _ROUTES[path] != self.command:
            self._send(405, b"405 method not allowed", "text/plain")
            raise _HandledError

    def _answer(self, path: str, body: bytes, parsed: object) -> None:
        fake = self.server.fake
        if path == "/":
            self._send(200, b"Ollama is running", "text/plain; charset=utf-8")
        elif path == "/api/version":
            self._json(200, {"version": "0.0.0"})
        elif path == "/api/tags":
            self._json(200, {"models": [listed(model) for model in fake.models]})
        elif path == "/api/ps":
            loaded = [
                loaded_entry(model, fake.loaded[model.full_name])
                for model in fake.models
                if model.full_name in fake.loaded
            ]
            self._json(200, {"models": loaded})
        else:
            request = checked_body(body, parsed)
            if path == "/api/show":
                self._json(200, shown(self._model(request)))
            else:
                self._generate(path, request)

    def _model(self, request: Mapping[str, object]) -> FakeModel:
        name = request.get("model", "")
        if not name:
            raise RefusedError(400, "model is required")
        model = self.server.fake.find(name)
        if model is None:
            raise RefusedError(404, f"model '{name}' not found")
        return model

    def _generate(self, path: str, request: Mapping[str, object]) -> None:
        fake = self.server.fake
        check_think(request.get("think"))
        check_keep_alive(request.get("keep_alive"))
        model = self._model(request)
        if request.get("think") not in {None, False} and not model.thinks:
            raise RefusedError(400, f'"{request["model"]}" does not support thinking')
        options = checked_options(request.get("options"))
        num_ctx = int(options.get("num_ctx", DEFAULT_NUM_CTX))
        turn = Turn(path, request, model, self._prompt_tokens(path, request))
        if not request.get("messages" if turn.is_chat else "prompt"):
            is_unload = request.get("keep_alive") == 0
            if is_unload:
                fake.loaded.pop(model.full_name, None)
            else:
                fake.loaded[model.full_name] = num_ctx
            self._json(200, turn.line("", done_reason="unload" if is_unload else "load"))
            return
        fake.loaded[model.full_name] = num_ctx
        if turn.prompt_tokens > num_ctx and request.get("truncate") is False:
            self._send(
                400, dump({"error": too_long(turn.prompt_tokens, num_ctx)}), "application/json"
            )
            return
        fake.arrived.release()
        self._play(turn, fake.next_answer(request), int(options.get("num_predict", -1)))

    def _prompt_tokens(self, path: str, request: Mapping[str, object]) -> int:
        messages = request.get("messages") if path == "/api/chat" else None
        texts = (
            [str(message.get("content", "")) for message in messages if isinstance(message, dict)]
            if isinstance(messages, list)
            else [str(request.get("prompt", ""))]
        )
        overhead = 0 if request.get("raw") else PROMPT_OVERHEAD_TOKENS * len(texts)
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return overhead + round(size / self.server.fake.bytes_per_token)

    def _play(self, turn: "Turn", answer: Answer, num_predict: int) -> None:
        if isinstance(answer, Refusal):
            raise RefusedError(answer.status, answer.error)
        if isinstance(answer, Raw):
            self._raw(answer)
            return
        reply = Reply(answer) if isinstance(answer, str) else answer
        self._wait(reply.first_delay_s)
        if turn.request.get("stream", True) is False:
            self._play_whole(turn, reply, num_predict)
        else:
            self._play_stream(turn, reply, num_predict)

    def _play_whole(self, turn: "Turn", reply: Reply, num_predict: int) -> None:
        tokens, done_reason = turn.tokens(reply, num_predict)
        pieces = [token for token in tokens if token[0] != "hidden"]
        if reply.end is End.HANG:
            self._wait(None)
        if reply.end is End.KILLED:
            raise RefusedError(500, KILLED)
        self._wait(reply.piece_delay_s * len(pieces))
        thinking = "".join(text for kind, text in pieces if kind == "thinking")
        content = "".join(text for kind, text in pieces if kind != "thinking")
        if reply.end is not End.DONE:
            self._json(200, turn.line(content, thinking=thinking))
            return
        self._json(
            200, turn.line(content, thinking=thinking, done_reason=done_reason, count=len(tokens))
        )

    def _play_stream(self, turn: "Turn", reply: Reply, num_predict: int) -> None:
        tokens, done_reason = turn.tokens(reply, num_predict)
        pieces = [token for token in tokens if token[0] != "hidden"]
        shown = pieces if reply.end is End.DONE else pieces[: reply.end_after]
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        # The real server sends its headers together with the first token.
        head = self._taken_head()
        for number, (kind, text) in enumerate(shown):
            if number:
                self._wait(reply.piece_delay_s)
            line = turn.line("", thinking=text) if kind == "thinking" else turn.line(text)
            self._chunk(dump(line) + b"\n", before=head)
            head = b""
        last = turn.line("", done_reason=done_reason, count=len(tokens))
        self._end_stream(reply.end, dump(last), head)

    def _end_stream(self, end: End, last: bytes, head: bytes) -> None:
        if end is End.HANG:
            self.wfile.write(head)
            self._wait(None)
        if end is End.HALF_LINE:
            self._chunk(last[: len(last) // 2], before=head)
            self.close_connection = True
            return
        if end is End.DONE:
            self._chunk(last + b"\n", before=head)
        elif end is End.KILLED:
            self._chunk(dump({"error": KILLED}), before=head)
        elif head:
            self.wfile.write(head)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, content: bytes, *, before: bytes = b"") -> None:
        self.wfile.write(before + b"%x\r\n%s\r\n" % (len(content), content))

    def _raw(self, answer: Raw) -> None:
        self.send_response(answer.status)
        for name, value in {"Connection": "close", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = True

    def _json(self, status: int, fields: Mapping[str, object]) -> None:
        self._send(status, dump(fields), "application/json; charset=utf-8")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.wfile.write(self._taken_head() + (b"" if self.command == "HEAD" else body))

    def _taken_head(self) -> bytes:
        """Take the headers written so far, to send them in one piece with what follows."""
        if self.close_connection:
            self.send_header("Connection", "close")
        head = b"".join(self._header_lines) + b"\r\n"
        self._header_lines.clear()
        return head

    @property
    def _header_lines(self) -> list[bytes]:
        lines: list[bytes] = vars(self).setdefault("_headers_buffer", [])
        return lines

    def _wait(self, seconds: float | None) -> None:
        """Let real time pass (None: for ever), but notice a client that leaves."""
        clock = SystemClock()
        end = None if seconds is None else clock.monotonic() + seconds
        while end is None or clock.monotonic() < end:
            left = 0.02 if end is None else max(0.0, min(0.02, end - clock.monotonic()))
            readable, _, _ = select.select([self.connection], [], [], left)
            if self.server.fake.closing.is_set():
                raise _ClientGoneError
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise _ClientGoneError


class _HandledError(Exception):
    """The answer is out; only the control flow ends here."""


def _parse(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was faster


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Answer as an Ollama server does, by script.")
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("--answer", default="The librarian is here.")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the first token")
    parser.add_argument("--model", action="append", help=f"installed model (default {INSTRUCT})")
    options = parser.parse_args(arguments)
    models = [FakeModel(name) for name in options.model or (INSTRUCT, THINKING)]
    waker = Waker()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: waker.wake())
    script = Reply(options.answer, first_delay_s=options.delay)
    with OllamaServer(script, models=models, port=options.port) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        while not waker.wait_real(3600.0):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(_main())
