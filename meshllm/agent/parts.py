"""Builds the parts of the agent out of settings and ties them together. Opens and starts nothing.

What each part does is its own module's business; how they work together is `service`.
"""

from dataclasses import dataclass
from typing import Final, Self

from meshllm.agent.admission import Admission, People
from meshllm.agent.answering import Answering, Ids
from meshllm.agent.courtesy import Courtesy
from meshllm.agent.deliveries import Deliveries
from meshllm.agent.health import Health, Heartbeat
from meshllm.agent.instant import Instant
from meshllm.agent.listing import ListCheck
from meshllm.agent.outcomes import Outcomes
from meshllm.agent.promptkeep import PromptKeep, prompt_keep, window_s
from meshllm.agent.promptlog import FilePromptLog, NoPromptLog, PromptLog
from meshllm.agent.thinking import Thinking
from meshllm.agent.threads import ThreadBook
from meshllm.agent.waiting import Waits
from meshllm.agent.wanted import limits, manners
from meshllm.clock import Clock
from meshllm.commands.registry import built_in
from meshllm.config import Settings
from meshllm.layout import Layout
from meshllm.observe.board import Board
from meshllm.store import atomic
from meshllm.store.space import DiskSpace

#: Real seconds to wait for a lock: a stuck process must not keep the agent from stopping in time.
MAX_LOCK_WAIT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything of the agent but its loop, its watch and its model's thread."""

    space: DiskSpace
    prompts: PromptLog
    prompt_keep: PromptKeep | None
    book: ThreadBook
    admission: Admission
    answering: Answering
    courtesy: Courtesy
    list_check: ListCheck
    instant: Instant
    health: Health
    thinking: Thinking
    outcomes: Outcomes
    waits: Waits
    heartbeat: Heartbeat
    deliveries: Deliveries

    @classmethod
    def built(
        cls, settings: Settings, layout: Layout, *, clock: Clock, ids: Ids, board: Board
    ) -> Self:
        """Build them all; those that share a part get the same one."""
        modes = atomic.Modes(settings.file_mode, settings.folder_mode, settings.lock_mode)
        lock_timeout_s = min(settings.lock_timeout_seconds, MAX_LOCK_WAIT_S)
        space = DiskSpace(
            (layout.data_dir, layout.nodes_dir, layout.prompts_dir),
            settings.disk_reserve_mb,
            consequence="nothing is asked or queued; every question stays open",
        )
        prompts = _prompt_log(settings, layout, clock, modes=modes, lock_timeout_s=lock_timeout_s)
        book = ThreadBook(
            layout,
            clock,
            max_age_s=settings.max_question_age_seconds,
            modes=modes,
            lock_timeout_s=lock_timeout_s,
        )
        admission = Admission(book, People(), prompts, clock, manners(settings))
        answering = Answering(book, prompts, clock, limits=limits(settings), ids=ids)
        health = Health(clock, model=settings.ollama_model_instruct)
        thinking = Thinking(settings.ollama_model_think)
        return cls(
            space=space,
            prompts=prompts,
            prompt_keep=prompt_keep(settings, layout, clock, book=book, modes=modes),
            book=book,
            admission=admission,
            answering=answering,
            courtesy=Courtesy(
                book,
                admission,
                answering,
                emergency_text=settings.emergency_text,
                hourly_limit=settings.max_answers_per_hour,
            ),
            list_check=ListCheck(settings),
            instant=Instant(
                built_in(),
                book,
                answering,
                layout,
                clock,
                room_bytes=limits(settings).reply_bytes,
            ),
            health=health,
            thinking=thinking,
            outcomes=Outcomes(answering, health, thinking),
            waits=Waits(clock),
            heartbeat=Heartbeat(
                layout,
                clock,
                model=settings.ollama_model_instruct,
                modes=modes,
                space=space,
                board=board,
            ),
            deliveries=Deliveries(answering, book, clock),
        )


def _prompt_log(
    settings: Settings, layout: Layout, clock: Clock, *, modes: atomic.Modes, lock_timeout_s: float
) -> PromptLog:
    if not settings.enable_prompt_logs:
        return NoPromptLog()
    return FilePromptLog(
        layout,
        clock,
        modes=modes,
        lock_timeout_s=lock_timeout_s,
        window_s=window_s(settings) / clock.scale,
    )
