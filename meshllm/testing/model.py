"""A chat model without a server: answers by script and keeps the contract of ChatModel."""

import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from meshllm.clock import Clock, SystemClock, Waker
from meshllm.llm.base import (
    ChatMessage,
    ChatRequest,
    ChatResult,
    Outcome,
    ProbeResult,
    ProbeState,
    keep_when_full,
    never,
    visible_text,
)

DEFAULT_ANSWER: Final = "The librarian is here."
POLL_S: Final = 0.02

Scripted: TypeAlias = str | ChatResult
Script: TypeAlias = "Scripted | Callable[[ChatRequest], Scripted] | Sequence[Scripted]"


class ScriptedModel:
    """Answers from a script: one text, one result, a function, or a sequence (last repeated).

    While `gate` is cleared every chat waits in it, as for a slow model, and honours cancel and
    deadline meanwhile; `arrived` is released once per chat that began.
    """

    def __init__(
        self,
        script: Script = DEFAULT_ANSWER,
        *,
        models: Sequence[str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Know every model name, or only those in `models`."""
        self.script = script
        self.models = models
        self.requests: list[ChatRequest] = []
        self.warm_ups: list[tuple[ChatMessage, ...]] = []
        self.probe_result = ProbeResult(ProbeState.READY, "scripted")
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.is_closed = False
        self._clock = clock or SystemClock()
        self._turn = 0

    def chat(self, request: ChatRequest, cancel: Callable[[], bool] = never) -> ChatResult:
        """Answer from the script, unless the gate, the deadline or `cancel` says otherwise."""
        self.requests.append(request)
        self.arrived.release()
        deadline = self._clock.monotonic() + request.deadline_s
        if self.is_closed:
            return _without_text(request, Outcome.UNREACHABLE, "closed")
        while not (is_cancelled := cancel() or self.is_closed) and not self.gate.is_set():
            if self._clock.monotonic() >= deadline:
                return _without_text(request, Outcome.TIMEOUT, "deadline passed")
            Waker().wait_real(POLL_S)
        if is_cancelled:
            return _without_text(request, Outcome.CANCELLED, "given up by the caller")
        if self.models is not None and request.model not in self.models:
            error = f"model '{request.model}' not found"
            return _without_text(request, Outcome.MISSING_MODEL, error)
        answer = self._next(request)
        return answer if isinstance(answer, ChatResult) else _generated(request, answer)

    def probe(self) -> ProbeResult:
        """Return `probe_result`, or unreachable once closed."""
        return (
            ProbeResult(ProbeState.UNREACHABLE, "closed") if self.is_closed else self.probe_result
        )

    def warm_up(
        self, messages: Sequence[ChatMessage], cancel: Callable[[], bool] = never
    ) -> ChatResult:
        """Note the prompt head; uses up no answer."""
        self.warm_ups.append(tuple(messages))
        if cancel():
            return ChatResult(Outcome.CANCELLED)
        return ChatResult(Outcome.UNREACHABLE if self.is_closed else Outcome.CAPPED)

    def close(self) -> None:
        """End a waiting chat and refuse later ones."""
        self.is_closed = True

    def _next(self, request: ChatRequest) -> Scripted:
        if isinstance(self.script, str | ChatResult):
            return self.script
        if callable(self.script):
            return self.script(request)
        answer = self.script[min(self._turn, len(self.script) - 1)]
        self._turn += 1
        return answer


def _without_text(request: ChatRequest, outcome: Outcome, error: str) -> ChatResult:
    return ChatResult(outcome, model=request.model, error=error)


def _generated(request: ChatRequest, answer: str) -> ChatResult:
    """Stream the words into the budget, one token each, as a server would."""
    words = answer.split(" ")
    outcome = Outcome.CAPPED if len(words) > request.num_predict else Outcome.OK
    content = ""
    for count, word in enumerate(words[: request.num_predict], start=1):
        content += f" {word}"
        if kept := keep_when_full(content, request):
            return ChatResult(Outcome.CAPPED, kept, request.model, completion_tokens=count)
    text = visible_text(content)
    return ChatResult(outcome if text else Outcome.EMPTY, text, request.model, duration_ms=1)
