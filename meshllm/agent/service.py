"""The agent's loop: looks at what changed, asks the model, delivers. Decides little by itself.

Only this thread writes files. Watch events mark files, the model's thread hands results over; both
wake the loop and do nothing else.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from meshllm.agent import telling
from meshllm.agent.admission import Obstacle
from meshllm.agent.answering import Asked, Delivery, Ids, messages_of
from meshllm.agent.deliveries import event_names, subject
from meshllm.agent.fairness import MAX_LINE
from meshllm.agent.health import OpenQuestions
from meshllm.agent.model_worker import Answered, ModelWorker
from meshllm.agent.notices import THINKING, WORKING, thinking_text, working_text
from meshllm.agent.parts import Parts
from meshllm.agent.policy import ANSWERED_ELSEWHERE, Backoff
from meshllm.agent.prompt import Assembled, system_text
from meshllm.agent.questions import Question
from meshllm.agent.threads import Thread
from meshllm.agent.turns import in_order, waited_too_long
from meshllm.agent.waiting import Line, Running, due
from meshllm.clock import Clock, Waker
from meshllm.config import Settings
from meshllm.errors import TransientError
from meshllm.layout import Layout
from meshllm.llm.base import THOUGHT_TOKENS, ChatModel, ChatResult, Outcome
from meshllm.observe.board import Board
from meshllm.store import atomic
from meshllm.store.watch import FolderWatch

log = structlog.get_logger()

MAX_DELIVERIES: Final = 4  #: answers waiting for the disk; beyond, no more questions are asked
#: Share of a question's life that it may wait behind others; a line after that is still in time.
WAIT_SHARE: Final = 0.8
_Step: TypeAlias = Callable[[Thread, Question], Obstacle | None]
_Build: TypeAlias = Callable[[Thread, Question], Delivery | None]


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
        board: Board | None = None,
    ) -> None:
        parts = Parts.built(settings, layout, clock=clock, ids=ids or Ids(), board=board or Board())
        self._layout = layout
        self._clock = clock
        self._waker = waker
        self._space = parts.space
        self._prompts = parts.prompts
        self._prompt_keep = parts.prompt_keep
        self._book = parts.book
        self._admission = parts.admission
        self._answering = parts.answering
        self._courtesy = parts.courtesy
        self._list_check = parts.list_check
        self._instant = parts.instant
        self._health = parts.health
        self._thinking = parts.thinking
        self._outcomes = parts.outcomes
        self._waits = parts.waits
        self._heartbeat = parts.heartbeat
        self._deliveries = parts.deliveries
        self._max_age_s = settings.max_question_age_seconds
        self._max_wait_s = min(settings.max_wait_seconds, WAIT_SHARE * self._max_age_s)
        self._poll_s = settings.ai_poll_interval_ms / 1000
        self._notice_after_s = settings.working_notice_seconds
        self._worker = ModelWorker(model, waker)
        self._watch = FolderWatch(self._on_change, self._poll_s)
        self._asked: Asked | None = None
        self._running: Running | None = None
        self._queued: list[tuple[Thread, Question]] = []  #: for the model, in the order of turns
        self._is_cold = False  #: another model or address has answered since the last warm-up
        self._ticket = 0
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
        self._wake_in(self._heartbeat.beat(self._health, self._open_questions()))
        self._tidy_prompts()
        return 0.0 if self._book.has_backlog else self._remaining()

    def stop(self) -> None:
        """Cancel a running call and let go, within two real seconds. Open questions stay open."""
        has_ended = self._worker.stop()
        self._collect()  # what just ended is logged, and needs no second call
        self._watch.close()
        left = self._open_questions()
        self._heartbeat.beat(self._health, left, is_last=True)
        log.info("agent_stopped", open_questions=left.count, model_call_ended=has_ended)

    def _open_questions(self) -> OpenQuestions:
        count = sum(len(thread.standing.open) for thread in self._book.asking.values())
        return OpenQuestions(count, self._book.oldest_age_s)

    def _tidy_prompts(self) -> None:
        """Rotate and clear the prompt log while no answer waits for the disk."""
        is_quiet = not self._book.has_backlog and not len(self._deliveries)
        if self._prompt_keep is not None and is_quiet:
            self._wake_in(self._prompt_keep.tick(has_room=self._space.has_room))

    def _sweep(self) -> None:
        """Remove what a killed agent left half written; pages and its status are ours alone."""
        try:
            if self._layout.prompts_dir.is_dir():
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
                reason=str(error),
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
            telling.expired(
                thread,
                age_of=self._book.age_s,
                max_age_s=self._max_age_s,
                away_s=self._heartbeat.previous_age_s(),
                is_refused=self._admission.refusal,
            )
            for question in thread.standing.folded:
                telling.skipped(thread, question, "same_text_waits")
        self._list_check.look(self._book)
        for thread in self._book.asking.values():
            if thread.expires_at is not None:
                self._wake_in(thread.expires_at - now)

    def _collect(self) -> None:
        for report in self._worker.reports():
            if isinstance(report, Answered):
                asked, self._asked = self._asked, None
                running, self._running = self._running, None
                if running is not None:
                    self._health.measured(report.result, running.prompt_bytes)
                if asked is not None and report.ticket == self._ticket:
                    is_thought = running is not None and running.is_thinking
                    self._is_cold = self._is_cold or is_thought
                    self._settle(asked, report.result, is_thought=is_thought)
            else:
                self._is_probing = False
                server = self._health.server
                self._health.probed(report.result)
                self._is_cold = self._is_cold or bool(server and self._health.server != server)

    def _settle(self, asked: Asked, result: ChatResult, *, is_thought: bool) -> None:
        """Turn the model's result into a delivery."""
        log.info(
            "model_call_finished",
            outcome=result.outcome.value,
            prompt_id=asked.prompt_id,
            duration_ms=result.duration_ms,
            reason=result.error,
            model=result.model,
            server=result.server,
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            prompt_tps=result.prompt_tps,
            eval_tps=result.eval_tps,
            **event_names(asked.thread, asked.question),
        )
        if result.outcome is Outcome.CANCELLED:
            self._deliveries.finish(self._answering.record(asked, result))
            return
        try:
            delivery = self._outcomes.judge(asked, result, is_thought=is_thought)
        except TransientError as error:
            log.warning(
                "answer_dropped",
                reason=str(error),
                consequence="the question stays open and is asked again",
                **event_names(asked.thread, asked.question),
            )
            return
        self._deliveries.finish(delivery)

    def _deliver(self) -> None:
        if self._space.has_room:
            self._deliveries.retry()
        due = self._deliveries.next_due()
        if due is not None:
            self._wake_in(max(due - self._clock.monotonic(), self._poll_s / 10))

    def _consider_all(self) -> None:
        self._queued.clear()
        asked = [(t, q) for t in self._book.asking.values() for q in t.standing.open]
        admitted = [pair for pair in asked if not self._is_held(*pair) and self._admit(*pair)]
        commands = [pair for pair in admitted if _is_command(pair)]
        line = in_order(
            [pair for pair in admitted if not _is_command(pair)],
            self._book,
            self._answering.attempts,
        )
        # Commands come last here: they wait for no turn, and then "status" sees the whole line.
        for thread, question in (*line[:MAX_LINE], *commands):
            if question in thread.standing.open and not self._is_held(thread, question):
                self._consider(thread, question)
        for thread, question in line[MAX_LINE:]:
            self._note(thread, question, Obstacle("line_full", is_deferral=True))
        self._tell_waiting()

    def _is_held(self, thread: Thread, question: Question) -> bool:
        return subject(thread, question) in self._held()

    def _tell_waiting(self) -> None:
        """Tell people in DMs who have waited long that an answer is coming."""
        if not self._health.may_call or not self._space.has_room:
            return
        line = self._waits.seen(self._line())
        for thread, question in waited_too_long(line, self._max_wait_s):
            self._finish(thread, question, self._courtesy.too_late)
        told, next_s = due(line, self._notice_after_s)
        if next_s is not None:
            self._wake_in(next_s)
        for one in told:
            self._notify(one.thread, one.question, WORKING, working_text(one.left_s))

    def _line(self) -> list[Line]:
        """Return who waits for the model, the one whose answer is being made first."""
        line = []
        now, age_s = self._clock.monotonic(), self._book.age_s
        if self._asked is not None and self._running is not None:
            asked, running = self._asked, self._running
            call_s = self._health.call_s(running.prompt_bytes, model=running.request.model)
            elapsed_s = now - running.since
            age = age_s(asked.question)
            line.append(Line(asked.thread, asked.question, age, call_s, elapsed_s))
        for thread, question in self._queued:
            model = self._thinking.model if self._thinking.is_wanted(question) else ""
            call_s = self._health.call_s(model=model)
            line.append(Line(thread, question, age_s(question), call_s))
        return line

    def _notify(self, thread: Thread, question: Question, kind: str, text: str) -> None:
        self._finish(thread, question, partial(self._answering.notify, kind=kind, text=text))

    def _held(self) -> set[tuple[object, ...]]:
        """Name the questions that are being answered."""
        held = self._deliveries.subjects()
        if self._asked is not None:
            held.add(subject(self._asked.thread, self._asked.question))
        return held

    def _admit(self, thread: Thread, question: Question) -> bool:
        """Say whether a question is for us, and for this radio; log why not."""
        refusal = self._admission.refusal(thread, question)
        if refusal:
            self._finish(thread, question, partial(self._courtesy.refused, reason=refusal))
            telling.skipped(thread, question, refusal)
            return False
        if not self._space.has_room:
            return False
        self._courtesy.flag(thread, question)
        obstacle = self._tried(thread, question, self._admission.election)
        if obstacle is not None:
            self._note(thread, question, obstacle)
            if obstacle.reason == ANSWERED_ELSEWHERE:
                self._book.close(thread, question)
                self._wake_in(0.0)
        return obstacle is None

    def _consider(self, thread: Thread, question: Question) -> None:
        obstacle = self._tried(thread, question, self._next_step)
        if obstacle is not None:
            self._note(thread, question, obstacle)

    def _tried(self, thread: Thread, question: Question, step: _Step) -> Obstacle | None:
        """Take a step; storage trouble in it only defers the question."""
        try:
            return step(thread, question)
        except TransientError as error:
            return Obstacle(str(error), self._poll_s, is_deferral=True)

    def _finish(self, thread: Thread, question: Question, build: _Build) -> None:
        """Build and queue a line of ours, unless it must wait for the disk."""
        if not self._space.has_room or not self._book.own_id(thread.tree):
            return
        try:
            delivery = build(thread, question)
        except TransientError as error:
            self._note(thread, question, Obstacle(str(error), self._poll_s, is_deferral=True))
            return
        if delivery is not None:
            self._deliveries.finish(delivery)

    def _note(self, thread: Thread, question: Question, obstacle: Obstacle) -> None:
        if obstacle.retry_in_s is not None:
            self._wake_in(obstacle.retry_in_s)
        telling.hindered(thread, question, obstacle)

    def _next_step(self, thread: Thread, question: Question) -> Obstacle | None:
        """Recover, refuse, tell or ask, whichever fits; an obstacle when none does yet."""
        answering = self._answering
        if not self._book.own_id(thread.tree):
            return Obstacle("own_id_unknown", self._poll_s, is_deferral=True)
        if question.key in thread.standing.commands:
            return self._command(thread, question)
        logged = self._admission.logged_answer(thread, question.row)
        if logged is not None:
            self._deliveries.finish(answering.recovered(thread, question, logged))
            return None
        first = self._courtesy.step(thread, question)
        if isinstance(first, Obstacle):
            return first
        if first is not None:
            self._deliveries.finish(first)
            self._wake_in(0.0)
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

    def _command(self, thread: Thread, question: Question) -> Obstacle | None:
        """Answer without the model. Raises TransientError."""
        if len(self._deliveries) >= MAX_DELIVERIES:
            return Obstacle("storage", self._poll_s, is_deferral=True)
        is_stop = self._instant.is_stop(thread, question)
        limited = None if is_stop else self._courtesy.limit(thread, question)
        if isinstance(limited, Obstacle):
            return limited
        if limited is not None:
            self._deliveries.finish(limited)
            return None
        rest_s = self._instant.rest_s(thread.tree)
        if rest_s > 0:
            return Obstacle("command_rate", rest_s, is_deferral=True)
        answer = self._instant.answer(thread, question, self._line)
        if answer is not None:
            self._deliveries.finish(answer)
        return None

    def _ask(self, thread: Thread, question: Question) -> None:
        if self._asked is not None or len(self._deliveries) >= MAX_DELIVERIES:
            self._queued.append((thread, question))
            return
        mesh = self._instant.facts(thread, question)
        is_thinking = self._thinking.is_wanted(question)
        asked, request = self._answering.ask(
            thread,
            question,
            facts=mesh.table if mesh else "",
            thought_tokens=THOUGHT_TOKENS if is_thinking else 0,
        )
        asked = replace(asked, mesh=mesh)
        if is_thinking:
            request = self._thinking.request(request)
        self._ticket += 1
        if not self._worker.chat(self._ticket, request):
            self._queued.append((thread, question))
            return
        self._asked = asked
        self._running = Running(request, self._clock.monotonic(), is_thinking=is_thinking)
        if is_thinking:
            left_s = self._health.call_s(self._running.prompt_bytes, model=request.model)
            self._notify(thread, question, THINKING, thinking_text(left_s))
        log.info("question_asked", prompt_id=asked.prompt_id, **event_names(thread, question))

    def _look_for_model(self, now: float) -> None:
        if self._is_probing:
            return
        if self._is_cold and self._health.may_call and not (self._asked or self._queued):
            self._is_cold = False
            self._probe(warm_up=True)
            return
        due_in_s = self._health.probe_due_in(now)
        if due_in_s is None:
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


def _is_command(asked: tuple[Thread, Question]) -> bool:
    thread, question = asked
    return question.key in thread.standing.commands
