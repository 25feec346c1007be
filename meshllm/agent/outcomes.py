"""Says what becomes of a question when its model call has ended. Writes no file."""

from typing import Final

import structlog

from meshllm.agent.answering import Answering, Asked, Delivery
from meshllm.agent.deliveries import event_names
from meshllm.agent.health import Health
from meshllm.agent.reply import CANNOT_ANSWER
from meshllm.agent.thinking import Thinking
from meshllm.llm.base import ChatResult, Outcome

log = structlog.get_logger()

#: Outcomes that leave the question open until the model is back.
AWAY: Final = frozenset(
    {Outcome.BUSY, Outcome.MISSING_MODEL, Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.BROKEN}
)
#: Ends of a call that say nothing of the model that was to think.
_NOT_REACHED: Final = frozenset({Outcome.UNREACHABLE, Outcome.BUSY})


class Outcomes:
    """Turns results into deliveries and tells the model's health. For the service's thread."""

    def __init__(self, answering: Answering, health: Health, thinking: Thinking) -> None:
        self._answering = answering
        self._health = health
        self._thinking = thinking

    def judge(self, asked: Asked, result: ChatResult, *, is_thought: bool) -> Delivery:
        """Make an answer, a notice, or only a record after which it is asked once more.

        Raises TransientError; the question then stays open.
        """
        if is_thought and not result.usable and result.outcome not in _NOT_REACHED:
            return self._unthought(asked, result)
        is_cut_short = result.outcome is Outcome.PARTIAL and not result.usable
        if result.outcome in AWAY or is_cut_short:
            return self._failure(asked, result)
        self._health.answered(result)
        if result.outcome is Outcome.EMPTY:
            return self._answering.retry(asked, result)
        is_refused = result.outcome is Outcome.BAD_REQUEST
        return self._answering.reply(asked, result, CANNOT_ANSWER if is_refused else result.text)

    def _failure(self, asked: Asked, result: ChatResult) -> Delivery:
        is_away = self._health.failed(result.outcome.value, result.error, servers=result.servers)
        answering = self._answering
        return (answering.failure if is_away else answering.retry)(asked, result)

    def _unthought(self, asked: Asked, result: ChatResult) -> Delivery:
        """Leave a question whose thinking failed to the ordinary model."""
        self._thinking.failed(asked.question)
        log.warning(
            "thinking_failed",
            outcome=result.outcome.value,
            reason=result.error,
            consequence="the ordinary model answers",
            **event_names(asked.thread, asked.question),
        )
        return self._answering.retry(asked, result)
