"""One HTTP exchange on a thread of its own, to be given up at any moment. Knows no API.

A blocking call cannot be left: it sits in name resolution, or waits minutes for a first byte. So
the request runs on a short-lived thread that only passes on what arrives, and the caller's thread
watches the clock. Giving up shuts the socket, which tells the server to stop working.
"""

import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

import requests
import structlog
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from meshllm.clock import Clock

log = structlog.get_logger()

CONNECT_TIMEOUT_S: Final = 3.0  #: real seconds, for each address of the host
POLL_S: Final = 0.1  #: real seconds between two looks at the clock and at the caller's wish
JOIN_S: Final = 0.2  #: real seconds to wait for the thread after its socket was shut
READ_SIZE: Final = 65536
MAX_BODY_BYTES: Final = 64_000_000  #: an answer longer than this is cut off as broken
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "meshllm"}

_Adopt: TypeAlias = Callable[[HTTPConnection], None]


class Ending(StrEnum):
    """How an exchange ended."""

    COMPLETE = "complete"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Head:
    """The status line and headers are in."""

    status: int


@dataclass(frozen=True)
class Ended:
    """Nothing more comes."""

    how: Ending
    detail: str = ""


Event: TypeAlias = Head | bytes | Ended
Events: TypeAlias = Generator[Event, None, None]


@dataclass(frozen=True)
class Call:
    """What to ask for."""

    method: str
    url: str
    payload: Mapping[str, object] | None = None


@dataclass
class Patience:
    """How long to wait, in seconds of the given clock; the caller may shorten it on the way."""

    clock: Clock
    deadline: float  #: monotonic
    cancel: Callable[[], bool]
    first_s: float = 30.0  #: silence allowed before the status line
    next_s: float = 30.0  #: and between two arrivals after it

    def left_s(self) -> float:
        """Return the seconds left until the deadline, never negative."""
        return max(0.0, self.deadline - self.clock.monotonic())

    def verdict(self, quiet_until: float) -> Ended | None:
        """Say why to give up now, or None."""
        if self.cancel():
            return Ended(Ending.CANCELLED, "given up by the caller")
        now = self.clock.monotonic()
        if now >= self.deadline:
            return Ended(Ending.TIMEOUT, "deadline passed")
        if now >= quiet_until:
            return Ended(Ending.TIMEOUT, "nothing came for too long")
        return None


class Link:
    """A connection to one server. One exchange at a time; a second one waits."""

    def __init__(self, clock: Clock, *, keep_alive: bool = True) -> None:
        """Open nothing yet."""
        self._clock = clock
        self._keep_alive = keep_alive
        self._headers = _HEADERS if keep_alive else {**_HEADERS, "Connection": "close"}
        self._turn = threading.Lock()
        self._wire: _Wire | None = None
        self._is_closed = False

    def exchange(self, call: Call, patience: Patience) -> Events:
        """Yield the head, the body as it arrives, and last an Ended. Close it to give up early."""
        while not self._turn.acquire(timeout=POLL_S):
            if verdict := patience.verdict(patience.deadline):
                yield verdict
                return
        try:
            yield from self._run(call, patience)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Give up a running exchange and refuse later ones."""
        self._is_closed = True
        if wire := self._wire:
            wire.cut()

    def _run(self, call: Call, patience: Patience) -> Events:
        if self._is_closed:
            yield Ended(Ending.UNREACHABLE, "closed")
            return
        wire = self._wire = self._wire or _Wire(self._headers)
        events: SimpleQueue[Event] = SimpleQueue()
        real_s = patience.left_s() / self._clock.scale
        worker = threading.Thread(
            target=wire.carry, args=(call, real_s, events.put), name="model-exchange", daemon=True
        )
        worker.start()
        is_over = False
        try:
            for event in self._relay(events, patience):
                is_over = isinstance(event, Ended) and event.how is Ending.COMPLETE
                yield event
        finally:
            if not (is_over and self._keep_alive):
                wire.cut()
                self._wire = None
            # A thread stuck in name resolution cannot be woken; it ends by itself and is harmless.
            worker.join(JOIN_S)

    def _relay(self, events: "SimpleQueue[Event]", patience: Patience) -> Events:
        quiet_until = self._clock.monotonic() + patience.first_s
        while True:
            if verdict := patience.verdict(quiet_until):
                yield verdict
                return
            with suppress(Empty):
                event = events.get(timeout=POLL_S)
                quiet_until = self._clock.monotonic() + patience.next_s
                yield event
                if isinstance(event, Ended):
                    return


class _Wire:
    """A session whose one connection can be cut from another thread."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._is_cut = False
        self._connection: HTTPConnection | None = None
        self._session = requests.Session()
        # A proxy or a .netrc of the user has no say in talking to the box's own model.
        self._session.trust_env = False
        self._session.headers.update(headers)
        for scheme in ("http://", "https://"):
            adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
            adapter.poolmanager.pool_classes_by_scheme = _watched_pools(self._adopt)
            self._session.mount(scheme, adapter)

    def carry(self, call: Call, real_s: float, put: Callable[[Event], None]) -> None:
        """Do the exchange on this thread, passing on all that arrives; an Ended is always last."""
        try:
            self._carry(call, real_s, put)
            ended = Ended(Ending.COMPLETE)
        except (requests.Timeout, ReadTimeoutError) as error:
            how = (
                Ending.UNREACHABLE if isinstance(error, requests.ConnectTimeout) else Ending.TIMEOUT
            )
            ended = Ended(how, _reason(error))
        except (requests.RequestException, HTTPError, OSError) as error:
            ended = Ended(_kind(error), _reason(error))
        except Exception as error:
            # The thread ends here; the caller must not wait for it. Odd servers find odd gaps.
            if not self._is_cut:
                log.exception("model_exchange_crashed", url=call.url)
            ended = Ended(Ending.BROKEN, _reason(error))
        put(ended)

    def cut(self) -> None:
        """Shut the connection under a running exchange and keep any later one from opening."""
        with self._lock:
            self._is_cut = True
            connection = self._connection
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with suppress(OSError):
                # Not the TLS object's own shutdown, which is not made for two threads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self._session.close()

    def _carry(self, call: Call, real_s: float, put: Callable[[Event], None]) -> None:
        response = self._session.request(
            call.method,
            call.url,
            json=call.payload,
            stream=True,
            allow_redirects=False,
            # The caller's own clock decides; this only frees an abandoned thread.
            timeout=(max(0.05, min(CONNECT_TIMEOUT_S, real_s)), real_s + 1.0),
        )
        put(Head(response.status_code))
        total = 0
        while chunk := response.raw.read1(READ_SIZE, decode_content=False):
            put(chunk)
            total += len(chunk)
            if total > MAX_BODY_BYTES:
                response.close()
                raise requests.RequestException("the answer does not end")
        response.raw.release_conn()

    def _adopt(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._connection = connection
            is_cut = self._is_cut
        if is_cut:
            connection.close()
            raise ConnectionAbortedError("given up while connecting")


def _watched_pools(adopt: _Adopt) -> dict[str, type[HTTPConnectionPool]]:
    """Return pools whose connections report themselves, the only way to reach a socket in use."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            adopt(self)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            adopt(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _kind(error: Exception) -> Ending:
    """No connection is unreachable; a connection that ended badly is broken."""
    return (
        Ending.UNREACHABLE if isinstance(_innermost(error), NewConnectionError) else Ending.BROKEN
    )


def _innermost(error: BaseException) -> BaseException:
    """Follow the library's nesting: ConnectionError(MaxRetryError(reason=…))."""
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    return _innermost(inner) if isinstance(inner, HTTPError) and inner is not error else error


def _reason(error: Exception) -> str:
    inner = _innermost(error)
    # urllib3 puts the connection's repr before the words.
    return (str(inner).rsplit("): ", 1)[-1] or type(inner).__name__)[:300]
