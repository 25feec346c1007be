"""A reply while it arrives, line by line: when enough has come, and what came of it in the end."""

from collections.abc import Mapping
from typing import Final

from meshllm.cleaning import has_thinking, has_thought, is_thinking
from meshllm.clock import Clock
from meshllm.llm.answers import (
    count,
    error_text,
    parse_object,
    quote,
    rate,
    without_text,
)
from meshllm.llm.base import (
    QUIET_TOKENS,
    ChatRequest,
    ChatResult,
    Outcome,
    keep_when_full,
    visible_text,
)
from meshllm.llm.exchange import Ended, Ending

MAX_LINE_BYTES: Final = 1_000_000  #: a longer line is no answer of a chat server
MIN_PACE_PIECES: Final = 5  #: fewer pieces, or pieces in less time, make no rate
MIN_PACE_S: Final = 0.2
_FIGURES: Final = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)


class Reading:
    """A reply while it arrives: takes bytes, knows when enough has come, names the outcome."""

    def __init__(self, request: ChatRequest, clock: Clock, *, may_leak: bool) -> None:
        """Begin now; `may_leak` says that reasoning may come without its opening tag."""
        self._request = request
        self._clock = clock
        self._started = clock.monotonic()
        self._may_leak = may_leak
        self._pending = b""
        self._content = ""
        self._pieces = 0
        self._first_at = self._last_at = 0.0  #: monotonic, of the pieces that came
        self._first_token_ms: int | None = None
        self._visible = ""
        self._quiet = 0  #: pieces since the visible text grew
        self._has_thoughts = False
        self._kept: str | None = None
        self._malformed = ""
        self._failure = ""
        self._last: Mapping[str, object] = {}

    @property
    def is_done(self) -> bool:
        """True once the server's last line is in."""
        return bool(self._last)

    @property
    def has_reasoned(self) -> bool:
        """True when reasoning came, in its own field or as tags in the text."""
        return self._has_thoughts or has_thinking(self._content)

    def feed(self, chunk: bytes) -> bool:
        """Take what arrived; True when nothing more is wanted."""
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        if len(self._pending) > MAX_LINE_BYTES:
            self._malformed = "a line without end"
        for line in lines:
            self._take(line)
            if self._is_over():
                break
        return self._is_over()

    def result(self, ended: Ended) -> ChatResult:
        """Settle what came, once nothing more comes."""
        self._take_unended()
        text = self._text()
        outcome, error = self._outcome(text, ended)
        figures = {name: value for name in _FIGURES if (value := count(self._last.get(name)))}
        is_told = "eval_count" in figures
        reason = self._last.get("done_reason")
        return ChatResult(
            outcome,
            text=text,
            model=self._request.model,
            prompt_tokens=figures.get("prompt_eval_count"),
            completion_tokens=figures.get("eval_count", self._pieces or None),
            prompt_tps=rate(figures, "prompt_eval"),
            eval_tps=rate(figures, "eval") if is_told else self._pace(),
            first_token_ms=self._first_token_ms,
            raw={**figures, "done_reason": reason[:40]} if isinstance(reason, str) else figures,
            error=error,
        )

    def _pace(self) -> float | None:
        """Pieces a second, one a token, of a stream that was not heard to its end."""
        seconds = (self._last_at - self._first_at) / self._clock.scale
        if self._pieces < MIN_PACE_PIECES or seconds < MIN_PACE_S:
            return None
        return round((self._pieces - 1) / seconds, 2)

    def _take_unended(self) -> None:
        """Take a last line without its newline, which error lines lack, unless it is cut off."""
        if self._pending.strip() and not self._is_over() and not self.is_done:
            if self._pending.startswith(b"{") and parse_object(self._pending) is None:
                self._malformed = "the answer was cut off in a line"
            else:
                self._take(self._pending)

    def _text(self) -> str:
        if self._kept is not None:
            return self._kept
        is_finished = self._last.get("done_reason") == "stop"
        return visible_text(self._content) if is_finished or not self._thought_only() else ""

    def _is_over(self) -> bool:
        is_wrong = bool(self._malformed or self._failure)
        return is_wrong or self._kept is not None or self._is_stalled()

    def _is_stalled(self) -> bool:
        """Say whether nothing that a person could read has come for too long."""
        return self._quiet > QUIET_TOKENS

    def _take(self, line: bytes) -> None:
        if not line.strip() or self.is_done:
            return
        fields = parse_object(line)
        message = fields.get("message", {}) if fields else None
        content = message.get("content", "") if isinstance(message, Mapping) else None
        if fields is None or not isinstance(content, str):
            self._malformed = "a line that is no chat answer: " + quote(line)
        elif "error" in fields:
            self._failure = error_text(fields)
        elif not isinstance(fields.get("done"), bool):
            self._malformed = "a line that is no chat answer: " + quote(line)
        else:
            thoughts = message.get("thinking") if isinstance(message, Mapping) else None
            if thoughts:
                self._has_thoughts = True
            if content or thoughts:
                self._note_piece()
            self._grow(content)
            self._last = fields if fields["done"] else {}

    def _grow(self, content: str) -> None:
        if not content:
            return
        if self._first_token_ms is None:
            self._first_token_ms = self._elapsed_ms()
        self._content += content
        if self._thought_only() or is_thinking(self._content):
            return
        self._kept = keep_when_full(self._content, self._request)
        visible = visible_text(self._content)
        self._quiet = self._quiet + 1 if visible == self._visible else 0
        self._visible = visible

    def _note_piece(self) -> None:
        self._last_at = self._clock.monotonic()
        if not self._pieces:
            self._first_at = self._last_at
        self._pieces += 1

    def _elapsed_ms(self) -> int:
        elapsed_s = (self._clock.monotonic() - self._started) / self._clock.scale
        return round(elapsed_s * 1000)

    def _thought_only(self) -> bool:
        """Say whether all of this may still be reasoning whose closing tag is to come.

        A reply that ended by itself is an answer: a model that can reason, told not to, has no tag.
        """
        return self._may_leak and not has_thought(self._content)

    def _outcome(self, text: str, ended: Ended) -> tuple[Outcome, str]:
        if ended.how is Ending.CANCELLED and not self.is_done:
            return Outcome.CANCELLED, ended.detail
        if self._failure:
            return Outcome.BROKEN, self._failure
        if self._kept is not None or self.is_done:
            return self._outcome_of_done(text), ""
        if self._is_stalled():
            return Outcome.CAPPED if text else Outcome.EMPTY, "nothing readable came any more"
        error = self._malformed or ended.detail or "the answer ended without its last line"
        if text:
            return Outcome.PARTIAL, error
        return without_text(ended.how, malformed=bool(self._malformed)), error

    def _outcome_of_done(self, text: str) -> Outcome:
        if self._kept is not None:
            return Outcome.CAPPED
        reason = self._last.get("done_reason")
        if not text and reason not in {"load", "unload"}:
            return Outcome.EMPTY
        return Outcome.CAPPED if reason == "length" else Outcome.OK
