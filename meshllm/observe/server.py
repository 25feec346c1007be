"""Metrics and health over HTTP on loopback, from threads of their own. Touches no service.

`/metrics` is for Prometheus. `/livez` says whether a restart would help, `/readyz` whether the
process can do what it is for, `/healthz` both with the reasons; 200 for yes, 503 for no.
"""

import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import structlog

from meshllm.clock import Clock
from meshllm.observe.board import Verdict

log = structlog.get_logger()

HOST: Final = "127.0.0.1"  #: never another: the pages are for this machine
MAX_CLIENTS: Final = 8  #: at once; more are turned away
CLIENT_LIMIT_S: Final = 10.0  #: real seconds that one client may take in all
_POLL_S: Final = 0.1  #: between two looks at whether to stop, and at slow clients
_PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Pages:
    """What the server shows; each is called on a thread of a client."""

    verdict: Callable[[], Verdict]
    metrics: Callable[[], bytes] | None  #: None without the library for it
    metrics_type: str = _PLAIN


class WatchServer:
    """Serves until it is stopped. A port that is taken costs the pages, never the process."""

    def __init__(self, port: int, pages: Pages, *, clock: Clock) -> None:
        """Bind nothing yet."""
        self._port = port
        self._pages = pages
        self._clock = clock
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is bound, 0 for none."""
        return self._server.server_address[1] if self._server else 0

    def start(self) -> None:
        """Bind and serve; one event where the port cannot be had."""
        try:
            self._server = _Server(self._port, self._pages, self._clock)
        except OSError as error:
            log.error(
                "metrics_port_refused",
                port=self._port,
                reason=error.strerror or str(error),
                consequence="no metrics and no health page; everything else goes on",
                advice="set another bridge_metrics_port or agent_metrics_port, or end what has it",
            )
            return
        threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True
        ).start()
        log.info("metrics_served", port=self.port)

    def stop(self) -> None:
        """Let the port go; clients that are being served are cut off."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_off(older_than_s=0.0)
        self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, port: int, pages: Pages, clock: Clock) -> None:
        self.pages = pages
        self._clock = clock
        self._guard = threading.Lock()
        self._clients: dict[socket.socket, float] = {}
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of this machine's name, which may wait for a name server."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client on a thread of its own, unless there are too many."""
        with self._guard:
            is_welcome = len(self._clients) < MAX_CLIENTS
            if is_welcome:
                self._clients[request] = self._clock.monotonic()
        if is_welcome:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a client's connection."""
        with self._guard:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off clients that take too long, whatever they do meanwhile."""
        self.cut_off(older_than_s=CLIENT_LIMIT_S)

    def cut_off(self, *, older_than_s: float) -> None:
        """End the connections that are older; their threads then end by themselves."""
        now, scale = self._clock.monotonic(), self._clock.scale
        with self._guard:
            old = [s for s, at in self._clients.items() if (now - at) / scale >= older_than_s]
            for client in old:
                try:
                    client.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # gone already

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Say nothing of clients that went away; anything else is a bug of a page."""
        if not isinstance(sys.exception(), OSError):
            crash = {"exc_info": sys.exception()}
            log.error("metrics_page_crashed", consequence="this client gets no page", **crash)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_LIMIT_S

    def do_GET(self) -> None:
        """Answer a page."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path in ("/livez", "/readyz", "/healthz"):
            self._health(path)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"/metrics /healthz /livez /readyz\n", _PLAIN)

    do_HEAD = do_GET  # noqa: N815  the name is the library's

    def _metrics(self) -> None:
        pages = self.server.pages
        if pages.metrics is None:
            text = b"the package prometheus_client is not installed\n"
            self._send(HTTPStatus.NOT_IMPLEMENTED, text, _PLAIN)
        else:
            self._send(HTTPStatus.OK, pages.metrics(), pages.metrics_type)

    def _health(self, path: str) -> None:
        verdict = self.server.pages.verdict()
        is_well = verdict.live if path == "/livez" else verdict.ready
        facts = {"live": verdict.live, "ready": verdict.ready, "reasons": verdict.reasons}
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(status, json.dumps(facts).encode() + b"\n", "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Tell no version of anything."""
        return "meshllm"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Write no line for each scrape."""
