"""What a language model is to the agent: a request, a result and a protocol. Talks to no server."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from meshllm.cleaning import strip_thinking
from meshllm.text import BUDGET_GRACE, cut_when_full, sentence_ends, utf8_len

DEFAULT_DEADLINE_S: Final = 300.0  #: whole call, queueing and a cold prompt on a Pi 5 included
#: A first message at least this full, with a sentence end there, is taken for the whole answer.
PART_FILL: Final = 0.8
_LIST: Final = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)]|[一二三四五六七八九十]、)", re.MULTILINE)
CLOSING_TOKENS: Final = 8  #: for what is generated and not shown: space, a closing mark, the end
#: Tokens for reasoning, about seven minutes on a Pi 5; the makers' own examples take 300 to 900.
THOUGHT_TOKENS: Final = 1000
#: Tokens in a row that add nothing to a text before it is given up: some 20 s on a Pi 5.
QUIET_TOKENS: Final = 48


class Outcome(StrEnum):
    """How a call ended. Every value is written to prompts.csv as it stands."""

    OK = "ok"
    CAPPED = "capped"  #: the reply budget or num_predict ended it; the text is usable
    PARTIAL = "partial"  #: text came, the end did not (loop stop, connection lost, deadline)
    EMPTY = "empty"  #: it ended properly and said nothing; usually reasoning ate num_predict
    BUSY = "busy"
    MISSING_MODEL = "missing_model"
    BAD_REQUEST = "bad_request"  #: refused; the same request will be refused again
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"  #: nothing usable within the deadline
    BROKEN = "broken"  #: an error instead of an answer, or no language model server at all
    CANCELLED = "cancelled"  #: the caller gave it up


USABLE: Final = frozenset({Outcome.OK, Outcome.CAPPED, Outcome.PARTIAL})


class ProbeState(StrEnum):
    """What a quick look at the server found."""

    READY = "ready"
    MISSING_MODEL = "missing_model"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"


@dataclass(frozen=True)
class ServerState:
    """What is known of one of several addresses."""

    address: str
    state: str  #: unknown, ready, or the outcome that ended its last call or probe
    is_used: bool = False  #: the next call goes there
    detail: str = ""


@dataclass(frozen=True)
class ChatMessage:
    """One turn; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """Every sampling value, since a server's defaults change between its versions."""

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 20
    min_p: float = 0.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1


INSTRUCT_SAMPLING: Final = Sampling()  #: what the makers of Qwen3 advise for plain answers
THINKING_SAMPLING: Final = Sampling(temperature=0.6, top_p=0.95)  #: and for reasoning first


@dataclass(frozen=True)
class ChatRequest:
    """One call. The caller keeps `messages` within the context window; nothing is truncated."""

    model: str
    messages: Sequence[ChatMessage]
    num_predict: int  #: most tokens of the answer; at least 1
    budget_bytes: int = 0  #: stop at a sentence end once the text has this many bytes; 0 = never
    part_bytes: int = 0  #: or sooner, at a sentence end that fills one message of so many; 0 = no
    think: bool | None = None  #: True: reason first, where the model can; else answer at once
    thought_tokens: int = 0  #: on top of num_predict, where the model reasons first
    deadline_s: float = DEFAULT_DEADLINE_S
    sampling: Sampling = INSTRUCT_SAMPLING

    def __post_init__(self) -> None:
        """Refuse a count below 1: servers take 0 as "no limit"."""
        if self.num_predict < 1:
            raise ValueError(f"num_predict must be at least 1, not {self.num_predict}")


@dataclass(frozen=True)
class ChatResult:
    """What came of a call. `text` has no reasoning in it and is otherwise as generated.

    A server tells its figures in its last line. Of an answer that ended before that,
    `completion_tokens` is the number of pieces that came, and `eval_tps` how fast they did.
    """

    outcome: Outcome
    text: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tps: float | None = None
    eval_tps: float | None = None
    duration_ms: int = 0
    first_token_ms: int | None = None
    raw: Mapping[str, int | str] = field(default_factory=dict)  #: the server's own figures
    error: str = ""
    server: str = ""  #: address that was asked last, where there are several
    servers: tuple[ServerState, ...] = ()  #: and what is known of them now

    @property
    def usable(self) -> bool:
        """Say whether the text may be sent to a person."""
        return self.outcome in USABLE and bool(self.text)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found, in words for the operator; `pull_command` is set on a missing model."""

    state: ProbeState
    detail: str = ""
    pull_command: str = ""
    servers: tuple[ServerState, ...] = ()


class ChatModel(Protocol):
    """A chat model. One call at a time; a second one waits for the first."""

    def chat(self, request: ChatRequest, cancel: Callable[[], bool] = ...) -> ChatResult:
        """Ask and wait, at most the deadline and one second. Never raises for server trouble.

        `cancel` is polled about ten times a second; once it says True the call ends, the server
        is told by the closed connection, and the outcome is `cancelled`.
        """

    def probe(self) -> ProbeResult:
        """Look whether the server is there and has the model. Seconds at most; loads nothing."""

    def warm_up(
        self, messages: Sequence[ChatMessage], cancel: Callable[[], bool] = ...
    ) -> ChatResult:
        """Load the model and evaluate this prompt head, generating one token. May take minutes."""

    def close(self) -> None:
        """Give up a running call and release connections. Later calls come back unreachable."""


def answer_tokens(budget_bytes: int) -> int:
    """Return the token cap of an answer whose byte budget ends it.

    Only a guard against text that never fills the budget. A token of English has four bytes, of
    Ukrainian two, of an emoji or a rare script one, and none has less: a smaller cap would cut
    some language short, and this one costs nothing, since the full budget closes the stream.
    """
    return int(budget_bytes * BUDGET_GRACE) + CLOSING_TOKENS


def never() -> bool:
    """Cancel nothing."""
    return False


def visible_text(content: str) -> str:
    """Drop the reasoning from generated text and the space around the rest."""
    return strip_thinking(content).strip()


def keep_when_full(content: str, request: ChatRequest) -> str | None:
    """Return the text to keep when generation may stop for a full budget, else None."""
    least = request.part_bytes or request.budget_bytes
    if request.budget_bytes <= 0 or len(content) * 4 < least:
        return None
    text = visible_text(content)
    return _full_part(text, request.part_bytes) or cut_when_full(text, request.budget_bytes)


def _full_part(text: str, part_bytes: int) -> str | None:
    """Return what fills one message up to a sentence end, once a text is too long for it.

    The steps of a list belong together: a text with one goes on to its whole budget.
    """
    if not part_bytes or utf8_len(text) <= part_bytes or _LIST.search(text):
        return None
    for end in reversed([*sentence_ends(text, is_growing=True)]):
        if PART_FILL * part_bytes <= utf8_len(text[:end]) <= part_bytes:
            return text[:end]
    return None
