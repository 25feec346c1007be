"""What an Ollama server says and refuses, as scripts and JSON shapes. Listens nowhere."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

import regex

from meshllm.clock import SystemClock

INSTRUCT: Final = "qwen3:4b-instruct-2507-q8_0"
THINKING: Final = "qwen3:4b-thinking-2507-q8_0"
KILLED: Final = "an error was encountered while running the model: unexpected EOF"
BUSY: Final = "server busy, please try again.  maximum pending requests exceeded"
DEFAULT_NUM_CTX: Final = 4096
PROMPT_OVERHEAD_TOKENS: Final = 19  #: role marks around each message
_PIECE: Final = regex.compile(r"\s*\S+")
_DURATION: Final = regex.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)")
_INTEGER_OPTIONS: Final = frozenset(
    {"num_predict", "num_ctx", "num_batch", "num_thread", "num_gpu", "num_keep", "top_k", "seed"}
    | {"repeat_last_n", "main_gpu"}
)
_FLOAT_OPTIONS: Final = frozenset(
    {"temperature", "top_p", "min_p", "typical_p", "repeat_penalty"}
    | {"presence_penalty", "frequency_penalty"}
)
_BOOLEAN_OPTIONS: Final = frozenset({"use_mmap"})


class End(StrEnum):
    """How a reply ends."""

    DONE = "done"
    LOOP = "loop"  #: the stream just stops, as after 30 equal tokens
    KILLED = "killed"  #: an error line instead of the last one
    HALF_LINE = "half_line"  #: half a JSON line, then the connection closes
    HANG = "hang"  #: nothing more, and the connection stays


@dataclass(frozen=True)
class Reply:
    """A scripted answer. Delays are real seconds."""

    text: str = ""
    thinking: str = ""
    end: End = End.DONE
    end_after: int | None = None  #: pieces sent before an end other than DONE; None: all
    first_delay_s: float = 0.0
    piece_delay_s: float = 0.0
    opens_thinking: bool = True  #: False: the template opens the tag, so only the closing one shows


@dataclass(frozen=True)
class Refusal:
    """An error answer with Ollama's JSON body."""

    status: int
    error: str


@dataclass(frozen=True)
class Raw:
    """Any bytes at all, for servers that are not Ollama; the connection closes after them."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answer: TypeAlias = str | Reply | Refusal | Raw
Script: TypeAlias = "Answer | Callable[[Mapping[str, object]], Answer] | Sequence[Answer]"


@dataclass(frozen=True)
class FakeModel:
    """An installed model; `thinks` is the capability, `template` what /api/show tells."""

    name: str
    thinks: bool = False
    template: str = "{{ .Prompt }}"

    @property
    def full_name(self) -> str:
        """Return the name with the implied tag."""
        return self.name if ":" in self.name else f"{self.name}:latest"


class RefusedError(Exception):
    """Carries a refusal out of a check."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class Turn:
    """One generation: the request's facts and the lines that come of them."""

    def __init__(
        self, path: str, request: Mapping[str, object], model: FakeModel, prompt_tokens: int
    ) -> None:
        self.is_chat = path == "/api/chat"
        self.request = request
        self.prompt_tokens = prompt_tokens
        self._model = model

    def tokens(self, reply: Reply, num_predict: int) -> tuple[list[tuple[str, str]], str]:
        """Return (kind, text) per token and the reason to stop; hidden tokens are not shown."""
        tokens = list(self._tokens(reply))
        done_reason = "stop"
        if 0 < num_predict < len(tokens):
            tokens, done_reason = tokens[:num_predict], "length"
        return tokens, done_reason

    def line(
        self, content: str, *, thinking: str = "", done_reason: str = "", count: int | None = None
    ) -> dict[str, object]:
        """Return one line of the stream, or the whole answer."""
        stamp = SystemClock().utc().isoformat().replace("+00:00", "000Z")
        line: dict[str, object] = {"model": self.request["model"], "created_at": stamp}
        if self.is_chat:
            line["message"] = {"role": "assistant", "content": content}
            if thinking:
                line["message"] = {"role": "assistant", "content": content, "thinking": thinking}
        else:
            line["response"] = content
        line["done"] = bool(done_reason)
        if done_reason:
            line["done_reason"] = done_reason
        if count is not None:
            line |= self._figures(count + (done_reason == "stop"))
        return line

    def _tokens(self, reply: Reply) -> Iterator[tuple[str, str]]:
        if reply.thinking:
            is_parsed = self._model.thinks and self.request.get("think") is not False
            kind = "thinking" if is_parsed else "content"
            if reply.opens_thinking:
                yield "hidden" if is_parsed else "content", "<think>"
            for number, piece in enumerate(_PIECE.findall(" " + reply.thinking)):
                yield kind, piece.lstrip() if is_parsed and number == 0 else piece
            yield "hidden" if is_parsed else "content", "</think>"
            for number, piece in enumerate(_PIECE.findall(" " + reply.text)):
                yield "content", piece.lstrip() if is_parsed and number == 0 else piece
        else:
            # A grammar leaves no room for the usual space in front.
            pieces = reply.text if self.request.get("format") else _PIECE.findall(" " + reply.text)
            for piece in pieces:
                yield "content", piece

    def _figures(self, count: int) -> dict[str, object]:
        figures: dict[str, object] = {
            "total_duration": 5_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": 400_000,
            "eval_count": count,
            "eval_duration": 1_000_000,
        }
        if not self.is_chat and not self.request.get("raw"):
            figures = {"context": list(range(self.prompt_tokens)), **figures}
        return figures


def checked_body(body: bytes, parsed: object) -> Mapping[str, object]:
    """Return the body as an object; refuse an empty, broken or misshapen one."""
    if not body:
        raise RefusedError(400, "missing request body")
    if not isinstance(parsed, dict):
        raise RefusedError(400, "invalid character in request body")
    messages = parsed.get("messages")
    if messages is not None and not (
        isinstance(messages, list)
        and all(isinstance(m, dict) and isinstance(m.get("content", ""), str) for m in messages)
    ):
        raise RefusedError(400, "json: cannot unmarshal messages into Go struct field")
    return parsed


def check_think(think: object) -> None:
    """Refuse a value that `think` cannot have."""
    if think is not None and not isinstance(think, bool) and think not in {
        "high", "medium", "low", "max",
    }:  # fmt: skip
        raise RefusedError(
            400,
            f'invalid think value: "{think}" '
            '(must be "high", "medium", "low", "max", true, or false)',
        )


def check_keep_alive(keep_alive: object) -> None:
    """Refuse a string without a unit; numbers and durations pass."""
    if isinstance(keep_alive, str) and not _DURATION.match(keep_alive):
        raise RefusedError(400, f'time: missing unit in duration "{keep_alive}"')


def checked_options(options: object) -> Mapping[str, float]:
    """Refuse a wrong type with the real server's 500; unknown names pass, as they do there."""
    known: dict[str, float] = {}
    for name, value in (options if isinstance(options, dict) else {}).items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _INTEGER_OPTIONS and not is_number:
            raise RefusedError(500, f'option "{name}" must be of type integer')
        if name in _FLOAT_OPTIONS and not is_number:
            raise RefusedError(500, f'option "{name}" must be of type float32')
        if name in _BOOLEAN_OPTIONS and not isinstance(value, bool):
            raise RefusedError(500, f'option "{name}" must be of type boolean')
        if is_number:
            known[name] = value
    return known


def too_long(tokens: int, num_ctx: int) -> str:
    """Return the engine's refusal of a long prompt: JSON in a string."""
    return dump(
        {
            "error": {
                "code": 400,
                "message": f"request ({tokens} tokens) exceeds the available context size "
                f"({num_ctx} tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": tokens,
                "n_ctx": num_ctx,
            }
        }
    ).decode()


def _capabilities(model: FakeModel) -> list[str]:
    return ["completion", "thinking"] if model.thinks else ["completion"]


_DETAILS: Final = {
    "parent_model": "",
    "format": "gguf",
    "family": "qwen3",
    "families": ["qwen3"],
    "parameter_size": "333K",
    "quantization_level": "unknown",
}


def listed(model: FakeModel) -> dict[str, object]:
    """Return the entry of /api/tags."""
    return {
        "name": model.full_name,
        "model": model.full_name,
        "modified_at": "2026-01-01T00:00:00Z",
        "size": 1337369,
        "digest": "0" * 64,
        "details": {**_DETAILS, "context_length": 32768, "embedding_length": 288},
        "capabilities": _capabilities(model),
    }


def loaded_entry(model: FakeModel, num_ctx: int) -> dict[str, object]:
    """Return the entry of /api/ps."""
    return {
        "name": model.full_name,
        "model": model.full_name,
        "size": 9542041,
        "digest": "0" * 64,
        "details": _DETAILS,
        "expires_at": "2318-01-01T00:00:00Z",
        "size_vram": 0,
        "context_length": num_ctx,
    }


def shown(model: FakeModel) -> dict[str, object]:
    """Return the answer of /api/show."""
    return {
        "modelfile": f"FROM {model.full_name}\n",
        "parameters": "",
        "template": model.template,
        "details": _DETAILS,
        "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 32768},
        "tensors": [],
        "capabilities": _capabilities(model),
        "modified_at": "2026-01-01T00:00:00Z",
    }


def dump(fields: Mapping[str, object]) -> bytes:
    """Write JSON with the marks of HTML escaped, as Go does."""
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text.encode("utf-8", "replace")
