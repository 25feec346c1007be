"""What a person gets before, or instead of, an answer of the model. Commits nothing.

Everything is derived from the rows: which lines a person had, and when, is what their thread says.
"""

from typing import Final

import structlog

from meshllm.agent import safety
from meshllm.agent.admission import Admission, Obstacle
from meshllm.agent.answering import Answering, Delivery
from meshllm.agent.bots import ENDLESS, LOOP
from meshllm.agent.deliveries import event_names
from meshllm.agent.etiquette import (
    DOWNGRADED,
    ENDLESS_REPLIES,
    LIMIT,
    WAITED_TOO_LONG,
    downgraded_text,
    endless_text,
    limit_text,
)
from meshllm.agent.policy import DOWNGRADE
from meshllm.agent.questions import Question, burst
from meshllm.agent.safety import EMERGENCY_NOTICE, Danger
from meshllm.agent.threads import Thread, ThreadBook

log = structlog.get_logger()

LINE_PAUSE_S: Final = 3600.0  #: least time between two lines of a kind to one person in a thread
#: The same for the hand-over line: who writes on while waiting for help needs the channel, too.
EMERGENCY_PAUSE_S: Final = 900.0
BOT_MARK: Final = "[AI]"  #: in front of the operator's text, which other librarians do not know


class Courtesy:
    """Decides on lines and refusals. Used by the service's thread alone."""

    def __init__(
        self,
        book: ThreadBook,
        admission: Admission,
        answering: Answering,
        *,
        emergency_text: str,
        hourly_limit: int,
    ) -> None:
        self._book = book
        self._admission = admission
        self._answering = answering
        self._emergency_text = emergency_text
        self._hourly_limit = hourly_limit

    def step(self, thread: Thread, question: Question) -> Delivery | Obstacle | None:
        """Return what comes before the model's answer to a question. Raises TransientError."""
        return self._safety(thread, question) or self.limit(thread, question)

    def limit(self, thread: Thread, question: Question) -> Delivery | Obstacle | None:
        """Hold back who had the answers of an hour; tell them so once. Raises TransientError."""
        rest_s = self._admission.rest_s(thread, question)
        if rest_s <= 0:
            return None
        text = limit_text(self._hourly_limit, rest_s)
        told = self._line(thread, question, LIMIT, text)
        return told or Obstacle("hourly_limit", rest_s, is_deferral=True)

    def flag(self, thread: Thread, question: Question) -> None:
        """Tell the operator, once a question, whose key is missing though they are answered."""
        if self._admission.is_flagged(thread, question) and thread.tell(question, DOWNGRADED):
            log.warning(
                "sender_downgraded",
                sender=question.row.sender_id,
                consequence="answered all the same (refuse_downgraded_senders)",
                **event_names(thread, question),
            )

    def refused(self, thread: Thread, question: Question, reason: str) -> Delivery | None:
        """Tell a person who can help it why nothing comes, once an hour. Raises TransientError."""
        if reason == DOWNGRADE:
            return self._line(thread, question, DOWNGRADED, downgraded_text())
        if reason in {LOOP, ENDLESS}:
            return self._line(thread, question, ENDLESS_REPLIES, endless_text())
        return None

    def too_late(self, thread: Thread, question: Question) -> Delivery:
        """Close a question that waited too long behind others. Raises TransientError."""
        log.info("question_waited_too_long", **event_names(thread, question))
        return self._answering.refusal(thread, question, WAITED_TOO_LONG)

    def _safety(self, thread: Thread, question: Question) -> Delivery | None:
        asked = burst(thread.rows or (), question, thread.standing)
        # Some words tell of a danger only where a text begins with them, whatever came before it.
        found = safety.danger(asked) or safety.danger(question.text)
        if found is None:
            return None
        if not found.is_refused:
            return self._hand_over(thread, question)
        text = safety.refusal_line(found, asked)
        if found is Danger.SELF_HARM and self._emergency_text:
            text = f"{text} {self._emergency_text}"
        log.info("question_refused", danger=found.value, **event_names(thread, question))
        return self._answering.refusal(thread, question, text)

    def _hand_over(self, thread: Thread, question: Question) -> Delivery | None:
        """Send the operator's line ahead; the question stays open for the model."""
        text = f"{BOT_MARK} {self._emergency_text}"
        if not self._emergency_text or self._had(thread, question, EMERGENCY_NOTICE):
            return None
        log.info("emergency_line_sent", **event_names(thread, question))
        return self._answering.notify(thread, question, EMERGENCY_NOTICE, text)

    def _line(self, thread: Thread, question: Question, kind: str, text: str) -> Delivery | None:
        is_dm = question.row.thread_type == "dm"
        if not is_dm or self._had(thread, question, kind):
            return None
        # A line that is dropped would be tried again for ever, before anything else.
        if self._answering.wants_silence(thread, question):
            return None
        return self._answering.notify(thread, question, kind, text)

    def _had(self, thread: Thread, question: Question, kind: str) -> bool:
        """Say whether this person had a line of a kind in this thread lately."""
        before = thread.standing.notified.get((question.row.sender_id, kind))
        if before is None:
            return False
        pause_s = EMERGENCY_PAUSE_S if kind == EMERGENCY_NOTICE else LINE_PAUSE_S
        age_s = self._book.row_age_s(before)
        return before.key == question.row.key or (age_s is not None and age_s < pause_s)
