"""How long answers take: rates measured on the last calls, and what they say of the next one."""

from dataclasses import dataclass
from typing import Final

from meshllm.llm.base import ChatResult

WEIGHT: Final = 0.5  #: of the newest call: a cold one, or a model just loaded, is soon forgotten
MAX_PACES: Final = 16  #: models and addresses that are remembered


@dataclass(frozen=True, slots=True)
class Pace:
    """What calls of one model at one address cost, in scaled seconds."""

    wait_s_per_byte: float  #: from the call to the first word, for each byte of the prompt
    tokens_per_s: float
    tokens: float  #: of an answer
    prompt_bytes: float

    def estimate_s(self, prompt_bytes: float | None = None) -> float:
        """Return the seconds that a call will take; without a prompt, one as long as the last."""
        size = self.prompt_bytes if prompt_bytes is None else prompt_bytes
        return size * self.wait_s_per_byte + self.tokens / self.tokens_per_s


def measured(result: ChatResult, prompt_bytes: int, *, scale: float) -> Pace | None:
    """Read the pace of one call; None when it tells none."""
    tokens, waited_ms = result.completion_tokens, result.first_token_ms
    if not result.usable or not tokens or waited_ms is None or prompt_bytes < 1:
        return None
    first_s = waited_ms / 1000 * scale
    rest_s = max(0.0, result.duration_ms / 1000 * scale - first_s)
    rate = result.eval_tps / scale if result.eval_tps else tokens / max(rest_s, 0.01)
    return Pace(first_s / prompt_bytes, rate, float(tokens), float(prompt_bytes))


class Paces:
    """The paces of all models and addresses. Belongs to the service's thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Pace] = {}

    def note(self, result: ChatResult, prompt_bytes: int, *, scale: float) -> None:
        """Learn from a finished call."""
        new = measured(result, prompt_bytes, scale=scale)
        if new is None:
            return
        key = (result.server, result.model)
        old = self._known.pop(key, None)
        self._known[key] = new if old is None else _between(old, new)
        if len(self._known) > MAX_PACES:
            self._known.pop(next(iter(self._known)))

    def find(self, model: str, server: str = "") -> Pace | None:
        """Return what is known of a model there, else anywhere; None before the first call."""
        here = self._known.get((server, model))
        elsewhere = (pace for key, pace in reversed(self._known.items()) if key[1] == model)
        return here or next(elsewhere, None)


def _between(old: Pace, new: Pace) -> Pace:
    """Move towards the newest call."""

    def mean(before: float, now: float) -> float:
        return before + (now - before) * WEIGHT

    return Pace(
        mean(old.wait_s_per_byte, new.wait_s_per_byte),
        mean(old.tokens_per_s, new.tokens_per_s),
        mean(old.tokens, new.tokens),
        new.prompt_bytes,
    )
