"""The agent's loop: looks at what changed, asks the model, delivers. Decides little by itself.

Only this thread writes files. Watch events mark files, the model's thread hands results over; both
wake the loop and do nothing else.
"""

from pathlib import Path
from typing import Final

import structlog

from meshllm.agent.admission import Admission, Obstacle, People
from meshllm.agent.answering import Answering, Asked, Delivery, Ids, Limits, messages_of
from meshllm.agent.deliveries import Deliveries, event_names, subject
from meshllm.agent.health import Health, Heartbeat
from meshllm.agent.model_worker import Answered, ModelWorker
from meshllm.agent.policy import Backoff, Lists
from meshllm.agent.prompt import Assembled, system_text
from meshllm.agent.promptlog import FilePromptLog, NoPromptLog, PromptLog
from meshllm.agent.questions import Question
from meshllm.agent.reply import CANNOT_ANSWER
from meshllm.agent.threads import Thread, ThreadBook
from meshllm.clock import Clock, Waker
from meshllm.config import Settings
from meshllm.errors import TransientError
from meshllm.layout import Layout
from meshllm.llm.base import ChatModel, ChatResult, Outcome
from meshllm.store import atomic
from meshllm.store.space import DiskSpace
from meshllm.store.watch import FolderWatch

log = structlog.get_logger()

MAX_DELIVERIES: Final = 4  #: answers waiting for the disk; beyond, no more questions are asked
#: Real seconds to wait for a lock: a stuck process must not keep the agent from stopping in time.
MAX_LOCK_WAIT_S: Final = 0.5
#: Outcomes that leave the question open until the model is back.
_AWAY: Final = frozenset(
    {Outcome.BUSY, Outcome.MISSING_MODEL, Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.BROKEN}
)


class AgentService:
    """Answers questions out of the thread files of all radios. `tick` belongs to one thread."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        *,
        clock: Clock,
        model: ChatModel,
        waker: Waker,
        ids: Ids | None = None,
    ) -> None:
        modes = atomic.Modes(settings.file_mode, settings.folder_mode, settings.lock_mode)
        lock_timeout_s = min(settings.lock_timeout_seconds, MAX_LOCK_WAIT_S)
        self._layout = layout
        self._clock = clock
        self._waker = waker
        self._space = DiskSpace(
            (layout.data_dir, layout.nodes_dir, layout.prompts_dir),
            settings.disk_reserve_mb,
            consequence="nothing is asked or queued; every question stays open",
        )
        self._max_age_s = settings.max_question_age_seconds
        self._poll_s = settings.ai_poll_interval_ms / 1000
        self._prompts: PromptLog = NoPromptLog()
        if settings.enable_prompt_logs:
            self._prompts = FilePromptLog(layout, clock, modes=modes, lock_timeout_s=lock_timeout_s)
        self._book = ThreadBook(
            layout,
            clock,
            max_age_s=settings.max_question_age_seconds,
            modes=modes,
            lock_timeout_s=lock_timeout_s,
        )
        people = People()
        self._admission = Admission(
            self._book,
            people,
            self._prompts,
            clock,
            lists=_lists(settings),
            cooldown_s=settings.reply_cooldown_seconds,
        )
        self._answering = Answering(
            self._book, people, self._prompts, clock, limits=_limits(settings), ids=ids or Ids()
        )
        self._health = Health(clock)
        self._heartbeat = Heartbeat(
            layout, clock, model=settings.ollama_model_instruct, modes=modes, space=self._space
        )
        self._worker = ModelWorker(model, waker)
        self._watch = FolderWatch(self._on_change, self._poll_s)
        self._asked: Asked | None = None
        self._ticket = 0
        self._deliveries = Deliveries(self._answering, self._book, clock)
        self._is_probing = False
        self._has_log = False
        self._log_backoff = Backoff()
        self._look_due = 0.0
        self._wake_at = 0.0

    def start(self) -> None:
        """Begin watching and look for the model. Reads no thread file yet."""
        self._sweep()
        self._worker.start()
        self._book.discover(self._watch.watch)
        self._probe(warm_up=True)
        log.info("agent_started", trees=self._book.tree_count)

    def tick(self) -> float:
        """Do what is due; return the scaled seconds until the next tick is wanted."""
        now = self._clock.monotonic()
        self._wake_at = now + self._poll_s
        if not self._load_log(now):
            return self._remaining()
        self._collect()
        self._look(now)
        self._deliver()
        self._consider_all()
        self._look_for_model(now)
        waiting = sum(len(thread.standing.open) for thread in self._book.asking.values())
        self._wake_in(self._heartbeat.beat(self._health, waiting=waiting))
        return 0.0 if self._book.has_backlog else self._remaining()

    def stop(self) -> None:
        """Cancel a running call and let go, within two real seconds. Open questions stay open."""
        has_ended = self._worker.stop()
        self._watch.close()
        waiting = sum(len(thread.standing.open) for thread in self._book.asking.values())
        self._heartbeat.beat(self._health, waiting=waiting, is_last=True)
        log.info("agent_stopped", open_questions=waiting, model_call_ended=has_ended)

    def _sweep(self) -> None:
        """Remove what a killed agent left half written; pages and its status are ours alone."""
        try:
            atomic.sweep(self._layout.prompts_dir)
            atomic.sweep(self._layout.data_dir, self._layout.agent_status.name)
        except TransientError as error:
            log.warning("sweep_failed", reason=str(error), consequence="left-over files stay")

    def _on_change(self, path: Path) -> None:
        self._book.mark(path)
        self._waker.wake()

    def _load_log(self, now: float) -> bool:
        if self._has_log:
            return True
        if now < self._log_backoff.due:
            self._wake_in(self._log_backoff.due - now)
            return False
        try:
            self._prompts.load()
        except TransientError as error:
            pause_s = self._log_backoff.fail(now)
            log.warning(
                "prompt_log_unavailable",
                error=str(error),
                retry_in_s=pause_s,
                consequence="nothing is answered; every question stays open",
            )
            self._wake_in(pause_s)
            return False
        self._has_log = True
        return True

    def _look(self, now: float) -> None:
        if now >= self._look_due:
            self._look_due = now + self._poll_s
            self._book.discover(self._watch.watch)
            self._watch.poll(now)
            self._space.look()
        for thread in self._book.refresh():
            self._tell_expired(thread)
        for thread in self._book.asking.values():
            if thread.expires_at is not None:
                self._wake_in(thread.expires_at - now)

    def _tell_expired(self, thread: Thread) -> None:
        """Log each question that grew too old, unless an earlier run was there to do so."""
        heartbeat_age_s = self._heartbeat.previous_age_s()
        ages: dict[str, float | None] = {}
        for question in reversed(thread.standing.expired):
            sender = question.row.sender_id
            age_s = ages.setdefault(sender, self._book.age_s(question))
            was_told = (
                heartbeat_age_s is not None
                and age_s is not None
                and age_s - self._max_age_s > heartbeat_age_s
            )
            if not was_told and not self._admission.refusal(thread, question):
                self._skip(thread, question, "expired" if age_s is not None else "no_timestamp")

    def _skip(self, thread: Thread, question: Question, reason: str) -> None:
        if thread.tell(question, reason):
            log.info("question_skipped", reason=reason, **event_names(thread, question))

    def _collect(self) -> None:
        for report in self._worker.reports():
            if isinstance(report, Answered):
                asked, self._asked = self._asked, None
                if asked is not None and report.ticket == self._ticket:
                    self._settle(asked, report.result)
            else:
                self._is_probing = False
                self._health.probed(report.result)

    def _settle(self, asked: Asked, result: ChatResult) -> None:
        """Turn the model's result into a delivery."""
        log.info(
            "model_call_finished",
            outcome=result.outcome.value,
            prompt_id=asked.prompt_id,
            duration_ms=result.duration_ms,
            reason=result.error,
            **event_names(asked.thread, asked.question),
        )
        if result.outcome is Outcome.CANCELLED:
            return
        try:
            delivery = self._judge(asked, result)
        except TransientError as error:
            log.warning(
                "answer_dropped",
                error=str(error),
                consequence="the question stays open and is asked again",
                **event_names(asked.thread, asked.question),
            )
            return
        self._deliveries.finish(delivery)

    def _judge(self, asked: Asked, result: ChatResult) -> Delivery:
        is_cut_short = result.outcome is Outcome.PARTIAL and not result.usable
        if result.outcome in _AWAY or is_cut_short:
            self._health.failed(result.outcome.value, result.error)
            return self._answering.failure(asked, result)
        self._health.answered(result)
        is_refused = result.outcome is Outcome.BAD_REQUEST
        return self._answering.reply(asked, result, CANNOT_ANSWER if is_refused else result.text)

    def _deliver(self) -> None:
        if self._space.has_room:
            self._deliveries.retry()
        due = self._deliveries.next_due()
        if due is not None:
            self._wake_in(max(due - self._clock.monotonic(), self._poll_s / 10))

    def _consider_all(self) -> None:
        waiting = [(t, q) for t in self._book.asking.values() for q in t.standing.open]
        for thread, question in sorted(waiting, key=_turn):
            is_open = question in thread.standing.open
            if is_open and subject(thread, question) not in self._held():
                self._consider(thread, question)

    def _held(self) -> set[tuple[object, ...]]:
        """Name the questions that are being answered."""
        held = self._deliveries.subjects()
        if self._asked is not None:
            held.add(subject(self._asked.thread, self._asked.question))
        return held

    def _consider(self, thread: Thread, question: Question) -> None:
        refusal = self._admission.refusal(thread, question)
        if refusal:
            self._skip(thread, question, refusal)
            return
        if not self._space.has_room:
            return
        try:
            obstacle = self._admission.election(thread, question) or self._next_step(
                thread, question
            )
        except TransientError as error:
            obstacle = Obstacle(str(error), self._poll_s, is_deferral=True)
        if obstacle is not None:
            self._note(thread, question, obstacle)

    def _note(self, thread: Thread, question: Question, obstacle: Obstacle) -> None:
        if obstacle.retry_in_s is not None:
            self._wake_in(obstacle.retry_in_s)
        if obstacle.is_deferral and thread.tell(question, obstacle.reason):
            log.info(
                "question_deferred",
                reason=obstacle.reason,
                retry_in_s=obstacle.retry_in_s,
                **event_names(thread, question),
            )
        elif not obstacle.is_deferral and obstacle.retry_in_s is None:
            self._skip(thread, question, obstacle.reason)

    def _next_step(self, thread: Thread, question: Question) -> Obstacle | None:
        """Recover, refuse, tell or ask, whichever fits; an obstacle when none does yet."""
        answering = self._answering
        if not self._book.own_id(thread.tree):
            return Obstacle("own_id_unknown", self._poll_s, is_deferral=True)
        logged = self._admission.logged_answer(thread, question.row)
        if logged is not None:
            self._deliveries.finish(answering.recovered(thread, question, logged))
        elif answering.has_used_up_calls(thread, question):
            self._deliveries.finish(answering.refusal(thread, question))
        elif not self._health.may_call:
            if not answering.is_noticed(thread, question):
                self._deliveries.finish(answering.notice(thread, question, self._health.reason))
        else:
            resting = self._admission.cooldown(thread)
            if resting is not None:
                return resting
            self._ask(thread, question)
        return None

    def _ask(self, thread: Thread, question: Question) -> None:
        if self._asked is not None or len(self._deliveries) >= MAX_DELIVERIES:
            return
        asked, request = self._answering.ask(thread, question)
        self._ticket += 1
        if not self._worker.chat(self._ticket, request):
            return
        self._asked = asked
        log.info("question_asked", prompt_id=asked.prompt_id, **event_names(thread, question))

    def _look_for_model(self, now: float) -> None:
        due_in_s = self._health.probe_due_in(now)
        if due_in_s is None or self._is_probing:
            return
        if due_in_s > 0:
            self._wake_in(due_in_s)
        else:
            self._probe(warm_up=False)

    def _probe(self, *, warm_up: bool) -> None:
        head = messages_of(Assembled(system_text(), ())) if warm_up else ()
        self._is_probing = self._worker.probe(head)

    def _wake_in(self, seconds: float) -> None:
        self._wake_at = min(self._wake_at, self._clock.monotonic() + max(0.0, seconds))

    def _remaining(self) -> float:
        return max(0.0, self._wake_at - self._clock.monotonic())


def _turn(asked: tuple[Thread, Question]) -> tuple[bool, str]:
    """Order questions: first where somebody was answered before, then the oldest.

    Ids can be forged by the thousand: a stranger's flood must not keep known people waiting.
    """
    thread, question = asked
    return not thread.standing.last_reply_at, question.row.timestamp


def _lists(settings: Settings) -> Lists:
    return Lists(
        channel_allow=settings.channel_allowlist,
        channel_block=settings.channel_blocklist,
        dm_allow=settings.dm_allowlist,
        dm_block=settings.dm_blocklist,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        model=settings.ollama_model_instruct,
        context_chars=settings.max_context_chars,
        message_chars=settings.max_message_chars,
        reply_parts=settings.max_reply_parts,
        keep_s=settings.max_question_age_seconds,
        deadline_s=settings.model_deadline_seconds,
    )
