"""Which questions go to the model that reasons first, and how it is asked. Calls no model."""

import re
from dataclasses import dataclass, replace
from typing import Final

from meshllm.agent.questions import Question
from meshllm.llm.base import THINKING_SAMPLING, THOUGHT_TOKENS, ChatRequest

#: The word that asks for it, with something behind it: "think" alone is a question like any.
_WISH: Final = re.compile(r"think\b[\s,.:;!-]*(?=\w)", re.IGNORECASE)
DEADLINE_FACTOR: Final = 2.0  #: of an ordinary call's: two thirds of the time go into reasoning
MAX_FAILED: Final = 500  #: questions whose thinking failed, kept until a restart


def wants_thought(text: str) -> bool:
    """Say whether a question, without the trigger word, begins with "think" and goes on."""
    return _WISH.match(text.strip()) is not None


@dataclass(slots=True)
class Thinking:
    """Chooses the model. `model` is "" where no thinking model is configured."""

    model: str
    _failed: dict[tuple[str, ...], None]

    def __init__(self, model: str) -> None:
        self.model = model
        self._failed = {}

    def is_wanted(self, question: Question) -> bool:
        """Say whether this question is to be thought about; not again where that failed."""
        is_asked = bool(self.model) and wants_thought(question.text)
        return is_asked and _name(question) not in self._failed

    def request(self, plain: ChatRequest) -> ChatRequest:
        """Turn an ordinary request into one for the thinking model."""
        return replace(
            plain,
            model=self.model,
            think=True,
            thought_tokens=THOUGHT_TOKENS,
            sampling=THINKING_SAMPLING,
            deadline_s=plain.deadline_s * DEADLINE_FACTOR,
        )

    def failed(self, question: Question) -> None:
        """Have the ordinary model answer this one."""
        self._failed[_name(question)] = None
        if len(self._failed) > MAX_FAILED:
            self._failed.pop(next(iter(self._failed)))


def _name(question: Question) -> tuple[str, ...]:
    return (question.row.thread_type, question.row.thread_key, *question.key)
