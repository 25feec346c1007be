"""Several addresses that serve the same models, as one: the first that works is used.

One call is under way at a time, over all addresses: they may be one machine's two names, and the
agent has one question in work. Each address has its own record of failures; the agent is told
what is known of each with every result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

import structlog

from meshllm.clock import Clock
from meshllm.llm.base import (
    ChatMessage,
    ChatModel,
    ChatRequest,
    ChatResult,
    Outcome,
    ProbeResult,
    ProbeState,
    ServerState,
    never,
)
from meshllm.llm.breaker import Breaker
from meshllm.llm.ollama import QUICK_S, OllamaModel

log = structlog.get_logger()

#: Ends of a call for which the next address may do better.
FAILURES: Final = frozenset(
    {
        Outcome.UNREACHABLE,
        Outcome.BUSY,
        Outcome.MISSING_MODEL,
        Outcome.BROKEN,
        Outcome.TIMEOUT,
        Outcome.PARTIAL,
    }
)
COSTLY: Final = frozenset({Outcome.TIMEOUT, Outcome.BROKEN, Outcome.PARTIAL})
MIN_LEFT_S: Final = 5.0  #: scaled; with less left of the deadline the next address is not tried


@dataclass
class _Server:
    address: str
    model: ChatModel
    breaker: Breaker = field(default_factory=Breaker)
    state: str = "unknown"
    detail: str = ""


class Servers:
    """A ChatModel over one or more addresses in order of preference. Never raises for trouble."""

    def __init__(self, servers: Sequence[tuple[str, ChatModel]], clock: Clock) -> None:
        """Take addresses, as shown to the operator, and their clients. Connects to nothing."""
        if not servers:
            raise ValueError("at least one address is needed")
        self._servers = tuple(_Server(address, model) for address, model in servers)
        self._clock = clock

    def chat(self, request: ChatRequest, cancel: Callable[[], bool] = never) -> ChatResult:
        """Ask the address in use; where it fails before any word, the next one, too."""
        deadline = self._clock.monotonic() + request.deadline_s
        return self._try_each(
            lambda server, left_s: server.model.chat(replace(request, deadline_s=left_s), cancel),
            deadline,
            is_about_server=request.think is not True,
        )

    def probe(self) -> ProbeResult:
        """Look at every address that may be looked at; the best one's result is the result."""
        best: ProbeResult | None = None
        for server in self._servers:
            if server.breaker.is_resting and server.breaker.due > self._clock.monotonic():
                continue
            result = server.model.probe()
            self._probed(server, result)
            if best is None or (best.state is not ProbeState.READY is result.state):
                best = result
        if best is None:  # every one has failed at cost, and rests
            server = self._in_use()
            best = ProbeResult(ProbeState.BROKEN, f"{server.address}: {server.detail}")
        return replace(best, servers=self._states())

    def warm_up(
        self, messages: Sequence[ChatMessage], cancel: Callable[[], bool] = never
    ) -> ChatResult:
        """Warm up the address in use."""
        server = self._in_use()
        result = server.model.warm_up(messages, cancel)
        return replace(result, server=server.address, servers=self._states())

    def close(self) -> None:
        """Close every client."""
        for server in self._servers:
            server.model.close()

    def _try_each(
        self,
        call: Callable[[_Server, float], ChatResult],
        deadline: float,
        *,
        is_about_server: bool,
    ) -> ChatResult:
        result = ChatResult(Outcome.UNREACHABLE, error="no address")
        for server in self._order():
            left_s = deadline - self._clock.monotonic()
            if result.server and left_s < MIN_LEFT_S:
                break
            result = replace(call(server, max(left_s, 0.001)), server=server.address)
            # A model for thinking that is missing or hangs says nothing of the other model.
            if is_about_server or result.outcome is Outcome.UNREACHABLE or result.usable:
                self._called(server, result)
            if not _may_do_better_elsewhere(result):
                break
        return replace(result, servers=self._states())

    def _order(self) -> list[_Server]:
        """Return the address in use, then the others that are not known to be down."""
        first, now = self._in_use(), self._clock.monotonic()
        others = [s for s in self._servers if s is not first and _is_open(s, now)]
        return [first, *others]

    def _in_use(self) -> _Server:
        """Return the first address that works, or may; when none does, the one due first."""
        now = self._clock.monotonic()
        usable = [server for server in self._servers if _is_open(server, now)]
        return usable[0] if usable else min(self._servers, key=lambda s: s.breaker.due)

    def _called(self, server: _Server, result: ChatResult) -> None:
        if result.outcome is Outcome.CANCELLED:
            return
        if result.outcome in FAILURES and not result.usable:
            self._down(server, result.outcome.value, result.error, result.outcome in COSTLY)
        else:
            self._up(server, "")

    def _probed(self, server: _Server, result: ProbeResult) -> None:
        if result.state is not ProbeState.READY:
            self._down(server, result.state.value, result.detail, is_costly=False)
        elif not server.breaker.is_resting:
            self._up(server, result.detail)
        else:  # it is there again, and believed once it has answered
            self._change(server, "unknown", result.detail)

    def _up(self, server: _Server, detail: str) -> None:
        server.breaker.reset()
        self._change(server, "ready", detail)

    def _down(self, server: _Server, state: str, detail: str, is_costly: bool) -> None:
        pause_s = server.breaker.fail(self._clock.monotonic(), is_costly=is_costly)
        self._change(server, state, detail, retry_in_s=pause_s)

    def _change(self, server: _Server, state: str, detail: str, **extras: float) -> None:
        is_news = state != server.state and len(self._servers) > 1
        server.state, server.detail = state, detail or server.detail
        if is_news:
            is_fine = state in {"ready", "unknown"}
            level = log.info if is_fine else log.warning
            level(
                "model_server_changed",
                server=server.address,
                state=state,
                detail=detail,
                used=self._in_use().address,
                **extras,
            )

    def _states(self) -> tuple[ServerState, ...]:
        used = self._in_use()
        return tuple(
            ServerState(server.address, server.state, server is used, server.detail)
            for server in self._servers
        )


def ollama_servers(
    urls: Sequence[str], model: str, *, clock: Clock, quick_s: float = QUICK_S
) -> Servers:
    """Build the clients of all addresses, empty ones left out. Raises UserError for a bad one."""
    return Servers(
        [
            (_shown(url), OllamaModel(url, model, clock=clock, quick_s=quick_s))
            for url in dict.fromkeys(urls)
            if url
        ],
        clock,
    )


def _shown(url: str) -> str:
    """Leave out of an address what may be a password: it stands in logs and in agent.json."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _is_open(server: _Server, now: float) -> bool:
    """Say whether a call may go to an address: it works, is not known yet, or is due again."""
    if server.state in {"ready", "unknown"}:
        return True
    return server.breaker.is_resting and server.breaker.due <= now


def _may_do_better_elsewhere(result: ChatResult) -> bool:
    is_early = result.first_token_ms is None and not result.text
    return result.outcome in FAILURES and is_early
