"""What is known of the model: state, when to try again, rates; and agent.json, which tells it."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, Literal

import structlog

from meshllm.agent.pace import Paces
from meshllm.clock import Clock, utc_in, utc_text, wall_age_s
from meshllm.errors import TransientError
from meshllm.layout import Layout
from meshllm.llm.base import ChatResult, ProbeResult, ProbeState, ServerState
from meshllm.llm.breaker import Breaker
from meshllm.observe import status
from meshllm.observe.board import AgentState, Board, StorageState
from meshllm.store import atomic
from meshllm.store.space import DiskSpace

log = structlog.get_logger()

BETTER_S: Final = 30.0  #: scaled seconds between two looks at an address that should come back
BEAT_S: Final = 60.0  #: least scaled seconds between two writes of agent.json without news
QUEUE_BEAT_S: Final = 10.0  #: the same when only the number of open questions has changed
#: Reasons that have cost a call's time; a model that keeps giving them is left alone for longer.
COSTLY: Final = frozenset({"timeout", "broken", "partial"})
ModelState = Literal["unknown", "ready", "offline", "resting"]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a person may be told of the model and of waiting for it."""

    model: str
    state: ModelState
    reason: str  #: outcome that took it away, "" while it is there
    queue: int  #: questions that wait or are being answered
    next_answer_s: float | None  #: scaled; for a question asked now; None while nobody knows
    retry_in_s: float | None  #: scaled; while it is away


@dataclass(frozen=True, slots=True)
class OpenQuestions:
    """What waits for an answer."""

    count: int
    oldest_s: Callable[[], float]  #: scaled age of the oldest one; asked only where it is told


class Health:
    """State of the model, derived from calls and probes.

    A failed call or probe takes it away: no question goes there until a pause is over, a probe
    has found it, and one question has been answered as a trial. Pauses grow with each failure;
    after failures that cost the model's time (`resting`) nothing is asked of it, not even a probe.
    """

    def __init__(self, clock: Clock, *, model: str = "") -> None:
        self._clock = clock
        self._breaker = Breaker()
        self._better_due = 0.0  #: monotonic; when to look again for an address that comes first
        self.model = model
        self.paces = Paces()
        self.servers: tuple[ServerState, ...] = ()
        self._is_tried = False  #: offline, but the last probe found it: one call may try
        self.state: ModelState = "unknown"
        self.reason = ""  #: outcome of the failed call or probe
        self.detail = ""
        self.rates: dict[str, float] = {}

    @property
    def may_call(self) -> bool:
        """True unless the model is known to be away."""
        return self.state in {"unknown", "ready"} or self._is_tried

    def probe_due_in(self, now: float) -> float | None:
        """Scaled seconds until the next look; None when none is wanted."""
        if not self.may_call:
            return max(0.0, self._breaker.due - now)
        return max(0.0, self._better_due - now) if self.is_second_best else None

    @property
    def is_second_best(self) -> bool:
        """True while an address is used that is not the first one."""
        return bool(self.servers) and not self.servers[0].is_used

    @property
    def server(self) -> str:
        """Address that the next call goes to, "" before anything is known."""
        return next((server.address for server in self.servers if server.is_used), "")

    def call_s(self, prompt_bytes: float | None = None, *, model: str = "") -> float | None:
        """Scaled seconds that a call will take by the last ones; None before the first."""
        pace = self.paces.find(model or self.model, self.server)
        return None if pace is None else pace.estimate_s(prompt_bytes)

    def outlook(self, *, queue: int, running_left_s: float | None = None) -> Outlook:
        """Say what a person who asks now has to expect; `running_left_s` of the call under way."""
        one_s = self.call_s()
        next_s = None
        if one_s is not None and self.may_call:
            ahead = max(0, queue - (running_left_s is not None))
            next_s = (running_left_s or 0.0) + (ahead + 1) * one_s
        retry_s = None if self.may_call else self.probe_due_in(self._clock.monotonic())
        return Outlook(self.model, self.state, self.reason, queue, next_s, retry_s)

    def measured(self, result: ChatResult, prompt_bytes: int) -> None:
        """Learn from a finished call how long such calls take."""
        self.paces.note(result, prompt_bytes, scale=self._clock.scale)

    def answered(self, result: ChatResult) -> None:
        """Note a call that reached a working model."""
        self._take(result.servers)
        rates = {"prompt_tps": result.prompt_tps, "eval_tps": result.eval_tps}
        self.rates |= {name: value for name, value in rates.items() if value is not None}
        self._breaker.reset()
        self._become("ready", "", "")

    def failed(self, reason: str, detail: str, *, servers: tuple[ServerState, ...] = ()) -> bool:
        """Note a call that brought nothing; False where another address can be asked at once."""
        self._take(servers)
        if any(server.is_used and server.state == "ready" for server in servers):
            return False
        self._lose(reason, detail, is_costly=reason in COSTLY)
        return True

    def probed(self, result: ProbeResult) -> None:
        """Note a look. A server that is there again is believed only once it has answered."""
        self._better_due = 0.0
        self._take(result.servers)
        if result.state is not ProbeState.READY:
            detail = f"{result.detail} ({result.pull_command})" if result.pull_command else ""
            self._lose(result.state.value, detail or result.detail, is_costly=False)
        elif self.state == "unknown":
            self._become("ready", "", result.detail)
        elif not self.may_call:
            self._is_tried = True

    @property
    def failures(self) -> int:
        """Failed calls and probes since the last success."""
        return self._breaker.failures

    def _take(self, servers: tuple[ServerState, ...]) -> None:
        self.servers = servers or self.servers
        if not self.is_second_best:
            self._better_due = 0.0
        elif not self._better_due:
            self._better_due = self._clock.monotonic() + BETTER_S

    def _lose(self, reason: str, detail: str, *, is_costly: bool) -> None:
        self._is_tried = False
        pause_s = self._breaker.fail(self._clock.monotonic(), is_costly=is_costly)
        state: ModelState = "resting" if is_costly else "offline"
        self._become(state, reason, detail, retry_in_s=pause_s, failures=self._breaker.failures)

    def _become(self, state: ModelState, reason: str, detail: str, **extras: float) -> None:
        is_news = (state, reason) != (self.state, self.reason)
        self.state, self.reason, self.detail = state, reason, detail
        if is_news:
            level = log.info if state == "ready" else log.warning
            level("model_state_changed", state=state, reason=reason, detail=detail, **extras)


class Heartbeat:
    """Writes agent.json: at once when the model's state changes, else once a minute.

    The number of open questions may be ten seconds old.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        model: str,
        modes: atomic.Modes,
        space: DiskSpace,
        board: Board,
    ) -> None:
        self._board = board
        self._path = layout.agent_status
        self._space = space
        self._clock = clock
        self._model = model
        self._modes = modes
        self._due = 0.0
        self._queue_due = 0.0
        self._waiting = 0  #: as last written
        self._told: tuple[object, ...] | None = None
        self._has_failed = False
        self._has_swept = False
        self._started_at = utc_text(clock.utc())
        self.previous_at = str(status.read(self._path).get("heartbeat_at", ""))

    def previous_age_s(self) -> float | None:
        """Scaled seconds since the run before was last seen alive; None when there was none."""
        return wall_age_s(self._clock, self.previous_at)

    def beat(self, health: Health, questions: OpenQuestions, *, is_last: bool = False) -> float:
        """Write when due; return the scaled seconds until the next write is."""
        now = self._clock.monotonic()
        self._board.agent(lambda: _state(health, questions, scale=self._clock.scale))
        self._board.storage(lambda: StorageState(self._storage, self._space.free_mb))
        told = (health.state, health.reason, health.server, self._space.has_room)
        is_same = questions.count == self._waiting
        due = self._due if is_same else min(self._due, self._queue_due)
        if now < due and told == self._told and not is_last:
            return due - now
        self._due, self._queue_due = now + BEAT_S, now + QUEUE_BEAT_S
        self._told, self._waiting = told, questions.count
        try:
            self._sweep()
            status.write(self._path, self._facts(health, questions, is_last), modes=self._modes)
            self._has_failed = False
        except TransientError as error:
            if not self._has_failed:
                log.warning("heartbeat_failed", reason=str(error), consequence="status is stale")
            self._has_failed = True
        return BEAT_S

    def _sweep(self) -> None:
        """Remove what a killed agent left half written; the process lock makes us the only one."""
        if not self._has_swept:
            self._has_swept = True
            atomic.sweep(self._path.parent, self._path.name)

    def _facts(self, health: Health, questions: OpenQuestions, is_last: bool) -> dict[str, object]:
        return {
            "role": "agent",
            "pid": os.getpid(),
            "started_at": self._started_at,
            "heartbeat_at": utc_text(self._clock.utc()),
            "running": not is_last,
            "ready": health.state == "ready" and self._space.has_room and not is_last,
            "model": self._model_facts(health),
            "queue": questions.count,
            "oldest_s": round(questions.oldest_s(), 1),
            "rates": dict(health.rates),
            "answer_s": None if (answer_s := health.call_s()) is None else round(answer_s, 1),
            "storage": self._storage,
            "disk_free_mb": self._space.free_mb,
        }

    @property
    def _storage(self) -> str:
        return "ok" if self._space.has_room else "low"

    def _model_facts(self, health: Health) -> dict[str, object]:
        due_in_s = None if health.may_call else health.probe_due_in(self._clock.monotonic())
        facts: dict[str, object] = {
            "state": health.state,
            "reason": health.reason,
            "detail": health.detail,
            "name": self._model,
            "failures": health.failures,
            "retry_at": "" if due_in_s is None else utc_in(self._clock, due_in_s),
        }
        if len(health.servers) > 1:
            facts["servers"] = [asdict(server) for server in health.servers]
        return facts


def _state(health: Health, questions: OpenQuestions, *, scale: float) -> AgentState:
    is_ready = health.state == "ready"
    why_not = "" if is_ready else " ".join(filter(None, (health.state, health.reason)))
    return AgentState(
        is_ready,
        health.may_call,
        why_not,
        questions_open=questions.count,
        oldest_s=questions.oldest_s() / scale,
    )
