"""Logs why a question is not answered, or not yet: once for each reason. Decides nothing."""

from collections.abc import Callable

import structlog

from meshllm.agent.admission import Obstacle
from meshllm.agent.deliveries import event_names
from meshllm.agent.questions import Question
from meshllm.agent.threads import Thread

log = structlog.get_logger()


def skipped(thread: Thread, question: Question, reason: str) -> None:
    """Tell that a question gets no answer."""
    if thread.tell(question, reason):
        log.info("question_skipped", reason=reason, **event_names(thread, question))


def hindered(thread: Thread, question: Question, obstacle: Obstacle) -> None:
    """Tell what is in the way: a deferral, or for good where nothing is to be tried again."""
    if obstacle.is_deferral and thread.tell(question, obstacle.reason):
        log.info(
            "question_deferred",
            reason=obstacle.reason,
            retry_in_s=obstacle.retry_in_s,
            **event_names(thread, question),
        )
    elif not obstacle.is_deferral and obstacle.retry_in_s is None:
        skipped(thread, question, obstacle.reason)


def expired(
    thread: Thread,
    *,
    age_of: Callable[[Question], float | None],
    max_age_s: float,
    away_s: float | None,
    is_refused: Callable[[Thread, Question], str],
) -> None:
    """Tell of each question that grew too old, unless an earlier run was there to do so.

    `away_s` has passed since a run before was last alive. Of one sender's questions the newest
    stands for the age of all: older ones cannot be younger.
    """
    ages: dict[str, float | None] = {}
    for question in reversed(thread.standing.expired):
        age_s = ages.setdefault(question.row.sender_id, age_of(question))
        was_told = away_s is not None and age_s is not None and age_s - max_age_s > away_s
        if not was_told and not is_refused(thread, question):
            skipped(thread, question, "expired" if age_s is not None else "no_timestamp")
