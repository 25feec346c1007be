"""Deliveries on their way to the disk: committed at once, or kept and tried again. Builds none."""

import structlog

from meshllm.agent.answering import Answering, Delivery
from meshllm.agent.questions import Question
from meshllm.agent.threads import Thread, ThreadBook
from meshllm.clock import Clock
from meshllm.errors import TransientError

log = structlog.get_logger()


class Deliveries:
    """Keeps what the disk did not take yet. Used by the service's thread alone."""

    def __init__(self, answering: Answering, book: ThreadBook, clock: Clock) -> None:
        self._answering = answering
        self._book = book
        self._clock = clock
        self._kept: list[Delivery] = []

    def __len__(self) -> int:
        return len(self._kept)

    def subjects(self) -> set[tuple[object, ...]]:
        """Name the questions whose answers wait here."""
        return {subject(delivery.thread, delivery.question) for delivery in self._kept}

    def finish(self, delivery: Delivery) -> None:
        """Make a delivery durable, now or later."""
        if not self._commit(delivery):
            self._kept.append(delivery)

    def retry(self) -> None:
        """Try again what is due, up to the first that fails: each may wait for a lock."""
        now = self._clock.monotonic()
        due = [delivery for delivery in self._kept if delivery.backoff.due <= now]
        for delivery in due:
            if not self._commit(delivery):
                return
            self._kept.remove(delivery)

    def next_due(self) -> float | None:
        """Monotonic time of the next try; None when nothing waits."""
        return min((delivery.backoff.due for delivery in self._kept), default=None)

    def _commit(self, delivery: Delivery) -> bool:
        """Make one delivery durable; False when it must be tried again."""
        names = event_names(delivery.thread, delivery.question)
        try:
            was_queued = self._answering.commit(delivery)
        except TransientError as error:
            pause_s = delivery.backoff.fail(self._clock.monotonic())
            log.warning(
                "delivery_failed",
                kind=delivery.kind,
                reason=str(error),
                retry_in_s=pause_s,
                consequence="the question stays open; the same rows are tried again",
                **names,
            )
            return False
        if was_queued and delivery.command:
            log.info(
                "command_answered",
                command=delivery.command,
                reply_ids=[row.message_id for row in delivery.rows],
                **names,
            )
        elif was_queued:
            log.info(
                "notice_queued" if delivery.kind == "notice" else "reply_queued",
                reply_ids=[row.message_id for row in delivery.rows],
                prompt_id=delivery.prompt_id,
                **names,
            )
        elif delivery.kind == "reply":
            log.info("reply_not_queued", reason="question_closed_meanwhile", **names)
        self._book.reread(delivery.thread)
        return True


def subject(thread: Thread, question: Question) -> tuple[object, ...]:
    """Name what is asked: the same channel question heard by two radios is one subject."""
    row = question.row
    where = row.thread_key if row.thread_type == "channel" else thread.path
    return (row.thread_type, where, *question.key)


def event_names(thread: Thread, question: Question) -> dict[str, str]:
    """Fields of every event about a question."""
    return {
        "node_uid": thread.tree.node_uid,
        "thread_key": question.row.thread_key,
        "message_id": question.row.message_id,
    }
