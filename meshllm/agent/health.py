"""What is known of the model: state, when to try again, rates; and agent.json, which tells it."""

import os
from typing import Final, Literal

import structlog

from meshllm.agent.policy import Backoff
from meshllm.clock import Clock, utc_text, wall_age_s
from meshllm.errors import TransientError
from meshllm.layout import Layout
from meshllm.llm.base import ChatResult, ProbeResult, ProbeState
from meshllm.observe import status
from meshllm.store import atomic
from meshllm.store.space import DiskSpace

log = structlog.get_logger()

BEAT_S: Final = 60.0  #: least scaled seconds between two writes of agent.json without news
ModelState = Literal["unknown", "ready", "offline"]


class Health:
    """State of the model, derived from calls and probes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._backoff = Backoff()
        self._is_tried = False  #: offline, but the last probe found it: one call may try
        self.state: ModelState = "unknown"
        self.reason = ""  #: outcome of the failed call or probe
        self.detail = ""
        self.rates: dict[str, float] = {}

    @property
    def may_call(self) -> bool:
        """True unless the model is known to be away."""
        return self.state != "offline" or self._is_tried

    def probe_due_in(self, now: float) -> float | None:
        """Scaled seconds until the next look; None when none is wanted."""
        if self.may_call:
            return None
        return max(0.0, self._backoff.due - now)

    def answered(self, result: ChatResult) -> None:
        """Note a call that reached a working model."""
        rates = {"prompt_tps": result.prompt_tps, "eval_tps": result.eval_tps}
        self.rates |= {name: value for name, value in rates.items() if value is not None}
        self._backoff.reset()
        self._become("ready", "", "")

    def failed(self, reason: str, detail: str) -> None:
        """Note a call or probe that found no working model."""
        self._is_tried = False
        pause_s = self._backoff.fail(self._clock.monotonic())
        self._become("offline", reason, detail, retry_in_s=pause_s)

    def probed(self, result: ProbeResult) -> None:
        """Note a look. A server that is there again is believed only once it has answered."""
        if result.state is not ProbeState.READY:
            detail = f"{result.detail} ({result.pull_command})" if result.pull_command else ""
            self.failed(result.state.value, detail or result.detail)
        elif self.state == "unknown":
            self._become("ready", "", result.detail)
        else:
            self._is_tried = True

    def _become(self, state: ModelState, reason: str, detail: str, **extras: float) -> None:
        is_news = (state, reason) != (self.state, self.reason)
        self.state, self.reason, self.detail = state, reason, detail
        if is_news:
            level = log.warning if state == "offline" else log.info
            level("model_state_changed", state=state, reason=reason, detail=detail, **extras)


class Heartbeat:
    """Writes agent.json: at once when the model's state changes, else once a minute."""

    def __init__(
        self, layout: Layout, clock: Clock, *, model: str, modes: atomic.Modes, space: DiskSpace
    ) -> None:
        self._path = layout.agent_status
        self._space = space
        self._clock = clock
        self._model = model
        self._modes = modes
        self._due = 0.0
        self._told: tuple[str, str, bool] | None = None
        self._has_failed = False
        self._has_swept = False
        self._started_at = utc_text(clock.utc())
        self.previous_at = str(status.read(self._path).get("heartbeat_at", ""))

    def previous_age_s(self) -> float | None:
        """Scaled seconds since the run before was last seen alive; None when there was none."""
        return wall_age_s(self._clock, self.previous_at)

    def beat(self, health: Health, *, waiting: int, is_last: bool = False) -> float:
        """Write when due; return the scaled seconds until the next write is."""
        now = self._clock.monotonic()
        told = (health.state, health.reason, self._space.has_room)
        if now < self._due and told == self._told and not is_last:
            return self._due - now
        self._due, self._told = now + BEAT_S, told
        try:
            self._sweep()
            status.write(self._path, self._facts(health, waiting, is_last), modes=self._modes)
            self._has_failed = False
        except TransientError as error:
            if not self._has_failed:
                log.warning("heartbeat_failed", error=str(error), consequence="status is stale")
            self._has_failed = True
        return BEAT_S

    def _sweep(self) -> None:
        """Remove what a killed agent left half written; the process lock makes us the only one."""
        if not self._has_swept:
            self._has_swept = True
            atomic.sweep(self._path.parent, self._path.name)

    def _facts(self, health: Health, waiting: int, is_last: bool) -> dict[str, object]:
        return {
            "role": "agent",
            "pid": os.getpid(),
            "started_at": self._started_at,
            "heartbeat_at": utc_text(self._clock.utc()),
            "running": not is_last,
            "model": {"state": health.state, "detail": health.detail, "name": self._model},
            "queue": waiting,
            "rates": dict(health.rates),
            "storage": "ok" if self._space.has_room else "low",
            "disk_free_mb": self._space.free_mb,
        }
