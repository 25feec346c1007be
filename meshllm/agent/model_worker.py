"""One thread that waits for the language model, so that the service never does. Writes no file."""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from meshllm.clock import Waker
from meshllm.llm.base import (
    ChatMessage,
    ChatModel,
    ChatRequest,
    ChatResult,
    Outcome,
    ProbeResult,
    ProbeState,
)

log = structlog.get_logger()

MAX_WAITING: Final = 2  #: jobs that may wait; questions wait in their files, not here
STOP_TIMEOUT_S: Final = 1.5  #: real seconds; the model gives a cancelled call up in a tenth


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished chat call; `ticket` is what the caller gave with it."""

    ticket: int
    result: ChatResult


@dataclass(frozen=True, slots=True)
class Probed:
    """A finished look at the server."""

    result: ProbeResult


Report = Answered | Probed
_Job = tuple[Literal["chat"], int, ChatRequest] | tuple[Literal["probe"], Sequence[ChatMessage]]


class ModelWorker:
    """Runs one model call at a time. Results are collected by `reports`, after a wake-up."""

    def __init__(self, model: ChatModel, waker: Waker) -> None:
        self._model = model
        self._waker = waker
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._done: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._yielding = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def chat(self, ticket: int, request: ChatRequest) -> bool:
        """Hand a call over; False when the queue is full. Ends a warm-up that is under way."""
        self._yielding.set()
        return self._put(("chat", ticket, request))

    def probe(self, warm_up: Sequence[ChatMessage] = ()) -> bool:
        """Ask whether the model is there; when it is, let it read `warm_up` in advance."""
        return self._put(("probe", warm_up))

    def reports(self) -> list[Report]:
        """Take what has finished since the last call."""
        found: list[Report] = []
        while True:
            try:
                found.append(self._done.get_nowait())
            except queue.Empty:
                return found

    def stop(self) -> bool:
        """Cancel what runs and end the thread; False when it did not end in time."""
        self._stopping.set()
        self._put(None)  # a full queue needs no wake-up: the thread looks at the flag
        if self._thread.ident is None:
            return True
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            self._model.close()
            self._thread.join(STOP_TIMEOUT_S / 5)
        return not self._thread.is_alive()

    def _put(self, job: _Job | None) -> bool:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            job = self._jobs.get()
            if job is None or self._stopping.is_set():
                return
            if job[0] == "chat":
                self._report(Answered(job[1], self._chat(job[2])))
            else:
                self._probe(job[1])

    def _report(self, report: Report) -> None:
        self._done.put(report)
        self._waker.wake()

    def _chat(self, request: ChatRequest) -> ChatResult:
        self._yielding.clear()
        try:
            return self._model.chat(request, self._stopping.is_set)
        except Exception as error:  # a thread ends here; the question must not end with it
            log.exception("model_call_crashed", consequence="the question stays open")
            return ChatResult(Outcome.BROKEN, error=f"{type(error).__name__}: {error}"[:200])

    def _probe(self, warm_up: Sequence[ChatMessage]) -> None:
        try:
            result = self._model.probe()
            self._report(Probed(result))
            if warm_up and result.state is ProbeState.READY:
                self._model.warm_up(warm_up, self._must_end_warm_up)
        except Exception as error:  # a thread ends here; the next probe may do better
            log.exception("model_probe_crashed", consequence="the model is tried again later")
            self._report(Probed(ProbeResult(ProbeState.BROKEN, f"{type(error).__name__}")))

    def _must_end_warm_up(self) -> bool:
        return self._stopping.is_set() or self._yielding.is_set()
