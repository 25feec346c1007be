"""The client of Ollama's HTTP API: the only module that knows it. Keeps no conversation."""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import structlog

from meshllm.clock import Clock, Waker
from meshllm.errors import UserError
from meshllm.llm.answers import (
    Answer,
    Traits,
    full_name,
    is_named_thinking,
    model_names,
    model_sizes,
    quick_answer,
    refusal,
    traits,
)
from meshllm.llm.base import (
    ChatMessage,
    ChatRequest,
    ChatResult,
    Outcome,
    ProbeResult,
    ProbeState,
    never,
)
from meshllm.llm.exchange import Call, Ended, Ending, Head, Link, Patience
from meshllm.llm.reading import Reading
from meshllm.text import utf8_len

log = structlog.get_logger()

MAX_ANSWER_BYTES: Final = 8_000_000  #: most of a listing or an error page that is kept
QUICK_S: Final = 5.0  #: deadline of calls that do not touch the model
SHOW_S: Final = 10.0  #: deadline of asking what the model can do, before the first chat
WARM_UP_S: Final = 600.0  #: a cold load from an SD card and a long prompt head
AFTER_DONE_S: Final = 0.25  #: for the end of a stream whose last line is in, to keep the connection
NEXT_TOKEN_S: Final = 30.0  #: silence allowed between two tokens
FIRST_TOKEN_S: Final = 30.0  #: the fixed part of the silence before the first one
LOAD_S: Final = 90.0  #: allowance for loading the model from a slow card
SLOWEST_PROMPT_TPS: Final = 8.0  #: prompt tokens a second before a rate was measured
RETRY_S: Final = (0.1, 0.4)  #: range of the pause before the one retry
RETRIED: Final = frozenset({Outcome.UNREACHABLE, Outcome.BUSY, Outcome.BROKEN})


@dataclass(frozen=True)
class LoadOptions:
    """Set when the model loads. Any change between two calls reloads it and loses its cache."""

    num_ctx: int = 4096
    num_batch: int = 512
    num_thread: int | None = None  #: None leaves it to the server


class OllamaModel:
    """One server and the model meant for answers. Blocking; safe to probe while a chat runs."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        clock: Clock,
        load: LoadOptions | None = None,
        pause_s: Callable[[], float] | None = None,
        quick_s: float = QUICK_S,
    ) -> None:
        """Connect to nothing yet. Raises UserError when `base_url` is no http(s) address."""
        self._quick_s = quick_s
        self._base = _parse_base(base_url)
        self._model = model
        self._clock = clock
        self._load = {
            name: value
            for name, value in asdict(load or LoadOptions()).items()
            if value is not None
        }
        self._pause_s = pause_s or (lambda: random.SystemRandom().uniform(*RETRY_S))
        self._chat_link = Link(clock)
        # A server that takes one connection at a time must not be held by an idle probe.
        self._probe_link = Link(clock, keep_alive=False)
        self._traits: dict[str, Traits] = {}
        self._plain: set[str] = set()  #: models that left reasoning out when they were told to
        self._reasons: set[str] = set()  #: models that reasoned though nobody asked them to
        self._prompt_tps = SLOWEST_PROMPT_TPS

    def chat(self, request: ChatRequest, cancel: Callable[[], bool] = never) -> ChatResult:
        """Ask and wait, at most the deadline and one second; see ChatModel.chat."""
        started = self._clock.monotonic()
        patience = Patience(
            self._clock,
            deadline=started + request.deadline_s,
            cancel=cancel,
            first_s=self._first_token_budget_s(request),
            next_s=NEXT_TOKEN_S,
        )
        result = self._attempt(request, patience)
        if result.outcome in RETRIED and result.first_token_ms is None and self._pause(patience):
            log.warning(
                "model_call_retried",
                model=request.model,
                outcome=str(result.outcome),
                reason=result.error,
            )
            result = self._attempt(request, patience)
        if result.outcome not in {Outcome.OK, Outcome.CAPPED, Outcome.PARTIAL}:
            # The server may have been replaced or the model pulled again: look anew next time.
            self._traits.pop(request.model, None)
            self._plain.discard(request.model)
        if result.prompt_tps:
            self._prompt_tps = max(1.0, min(result.prompt_tps, self._prompt_tps * 4))
        duration_s = (self._clock.monotonic() - started) / self._clock.scale
        return replace(result, duration_ms=round(duration_s * 1000))

    def probe(self) -> ProbeResult:
        """Ask for the version, then for the installed models. Seconds at most.

        Servers that imitate Ollama may offer neither: what is not offered says nothing about the
        model, so it counts as ready and the first question finds out.
        """
        version = self._ask(
            self._probe_link, Call("GET", f"{self._base}/api/version"), self._quick_s
        )
        if version.problem and not version.is_absent:
            return ProbeResult(version.problem, f"{self._base}: {version.detail}")
        if not version.is_absent and not isinstance(version.fields.get("version"), str):
            return ProbeResult(ProbeState.BROKEN, f"{self._base}: no Ollama server answers there")
        tags = self._ask(self._probe_link, Call("GET", f"{self._base}/api/tags"), self._quick_s)
        if tags.is_absent:
            return ProbeResult(ProbeState.READY, f"{self._base} does not list its models")
        if tags.problem:
            return ProbeResult(tags.problem, f"{self._base}: {tags.detail}")
        if full_name(self._model) in set(model_names(tags.fields)):
            return ProbeResult(
                ProbeState.READY, f"Ollama {version.fields.get('version', '')} at {self._base}"
            )
        return ProbeResult(
            ProbeState.MISSING_MODEL,
            f"{self._base} has no model {self._model}",
            pull_command=f"ollama pull {self._model}",
        )

    def sizes(self, *, loaded: bool = False) -> dict[str, int]:
        """Bytes of every installed model, or of those in memory; {} where nothing is told."""
        path = "ps" if loaded else "tags"
        call = Call("GET", f"{self._base}/api/{path}")
        return dict(model_sizes(self._ask(self._probe_link, call, self._quick_s).fields))

    def warm_up(
        self, messages: Sequence[ChatMessage], cancel: Callable[[], bool] = never
    ) -> ChatResult:
        """Load the model and evaluate this prompt head, with the options of every other call."""
        request = ChatRequest(self._model, messages, num_predict=1, deadline_s=WARM_UP_S)
        return self.chat(request, cancel)

    def close(self) -> None:
        """Give up a running call and release the connections."""
        self._chat_link.close()
        self._probe_link.close()

    def _attempt(self, request: ChatRequest, patience: Patience) -> ChatResult:
        think = self._think_field(request, patience)
        may_leak = self._may_leak(request, think=think)
        reading = Reading(request, self._clock, may_leak=may_leak)
        call = Call("POST", f"{self._base}/api/chat", self._payload(request, think=think))
        status, body, ended = 0, b"", Ended(Ending.COMPLETE)
        attempt = replace(patience)  # the end of one attempt may shorten its own copy
        with closing(self._chat_link.exchange(call, attempt)) as events:
            for event in events:
                if isinstance(event, Head):
                    status = event.status
                elif isinstance(event, Ended):
                    ended = event
                elif status != 200:
                    body = (body + event)[:MAX_ANSWER_BYTES]
                elif reading.feed(event):
                    break
                elif reading.is_done:
                    attempt.deadline = min(
                        attempt.deadline, self._clock.monotonic() + AFTER_DONE_S * self._clock.scale
                    )
        if status in {0, 200}:
            result = reading.result(ended)
            self._learn(request, reading, result.outcome)
            return result
        outcome, error = refusal(status, body)
        return ChatResult(outcome, model=request.model, error=error)

    def _payload(self, request: ChatRequest, *, think: bool | None) -> dict[str, object]:
        payload: dict[str, object] = {
            "model": request.model,
            "messages": [asdict(message) for message in request.messages],
            "stream": True,
            "options": {
                **self._load,
                **asdict(request.sampling),
                "num_predict": request.num_predict
                + (request.thought_tokens if self._will_think(request, think=think) else 0),
            },
            # A number: the string "-1" is refused.
            "keep_alive": -1,
            # Left on, these drop the oldest text, the system prompt included, without a word.
            "truncate": False,
            "shift": False,
        }
        if think is not None:
            payload["think"] = think
        return payload

    def _think_field(self, request: ChatRequest, patience: Patience) -> bool | None:
        """Return what to send as `think`; None leaves the field out.

        A model that can think takes an absent field as true. One that cannot think refuses true.
        For one that only thinks, false would turn off just the parser, and the reasoning would
        be the answer.
        """
        traits = self._traits_of(request.model, patience)
        if not traits.can_think or (traits.only_thinks and not request.think):
            return None
        return bool(request.think)

    def _traits_of(self, model: str, patience: Patience) -> Traits:
        if model not in self._traits:
            seconds = min(SHOW_S * self._clock.scale, patience.left_s() / 2)
            call = Call("POST", f"{self._base}/api/show", {"model": model})
            answer = self._ask(self._chat_link, call, seconds, patience.cancel)
            if answer.problem:
                return Traits(only_thinks=is_named_thinking(model))
            self._traits[model] = traits(model, answer.fields)
        return self._traits[model]

    def _may_leak(self, request: ChatRequest, *, think: bool | None) -> bool:
        """Say whether reasoning without an opening tag may stand in the text."""
        traits = self._traits.get(request.model, Traits())
        if request.model in self._reasons:
            return True
        if think is False:
            return request.model not in self._plain
        return not traits.can_think and is_named_thinking(request.model)

    def _will_think(self, request: ChatRequest, *, think: bool | None) -> bool:
        """Say whether reasoning comes before the answer, or may."""
        traits = self._traits.get(request.model, Traits())
        is_thinker = traits.only_thinks or is_named_thinking(request.model)
        is_known = think is True or is_thinker or request.model in self._reasons
        # Cut off, the first words of an unproven model could not be told from reasoning.
        return is_known or self._may_leak(request, think=think)

    def _learn(self, request: ChatRequest, reading: Reading, outcome: Outcome) -> None:
        """Remember whether the model reasons: what it says of itself is not always true."""
        model = request.model
        if reading.has_reasoned and not request.think and model not in self._reasons:
            self._reasons.add(model)
            self._plain.discard(model)
            log.warning(
                "model_reasons_unasked",
                model=model,
                consequence="every answer takes minutes; an instruct model is quicker",
            )
        elif outcome is Outcome.OK and not reading.has_reasoned:
            self._plain.add(model)

    def _first_token_budget_s(self, request: ChatRequest) -> float:
        tokens = sum(utf8_len(message.content) for message in request.messages) / 3
        return FIRST_TOKEN_S + LOAD_S + tokens / self._prompt_tps * 3

    def _pause(self, patience: Patience) -> bool:
        """Wait a moment before the retry; False when the caller or the deadline forbids it."""
        pause_s = self._pause_s()
        if patience.cancel() or patience.left_s() / self._clock.scale <= pause_s:
            return False
        Waker().wait_real(pause_s)
        return not patience.cancel()

    def _ask(
        self, link: Link, call: Call, seconds: float, cancel: Callable[[], bool] = never
    ) -> "Answer":
        """Make a quick call that answers with one JSON object."""
        deadline = self._clock.monotonic() + seconds
        patience = Patience(self._clock, deadline=deadline, cancel=cancel)
        status, body, ended = 0, b"", Ended(Ending.COMPLETE)
        with closing(link.exchange(call, patience)) as events:
            for event in events:
                if isinstance(event, Head):
                    status = event.status
                elif isinstance(event, Ended):
                    ended = event
                else:
                    body += event
                    if len(body) > MAX_ANSWER_BYTES:
                        return Answer({}, ProbeState.BROKEN, "the answer does not end")
        return quick_answer(status, body, ended)


def _parse_base(base_url: str) -> str:
    """Return the address without its last slash."""
    hint = "write it like http://localhost:11434"
    text = base_url.strip()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UserError(f"OLLAMA_BASE_URL: {base_url!r} is no address ({error}); {hint}") from error
    is_plain = not (parts.query or parts.fragment or any(c.isspace() for c in text))
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or not is_plain:
        raise UserError(f"OLLAMA_BASE_URL: {base_url!r} is no address; {hint}")
    return text.rstrip("/")
