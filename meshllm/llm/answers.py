"""What the answers of Ollama's HTTP API mean: pure readings of bodies and figures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from meshllm.cleaning import clean_model_text
from meshllm.llm.base import Outcome, ProbeState
from meshllm.llm.exchange import Ended, Ending

MAX_COUNT: Final = 2**53  #: larger figures are dropped; they are not real and would not fit a cell


@dataclass(frozen=True)
class Traits:
    """What /api/show says about a model."""

    can_think: bool = False
    only_thinks: bool = False


@dataclass(frozen=True)
class Answer:
    """A quick call's JSON object, or what was wrong."""

    fields: Mapping[str, object]
    problem: ProbeState | None = None
    detail: str = ""
    is_absent: bool = False  #: the server is there and does not offer this call


def without_text(how: Ending, *, malformed: bool) -> Outcome:
    """Name the outcome of a chat that brought no text."""
    if how is Ending.UNREACHABLE:
        return Outcome.UNREACHABLE
    return Outcome.TIMEOUT if how is Ending.TIMEOUT and not malformed else Outcome.BROKEN


def refusal(status: int, body: bytes) -> tuple[Outcome, str]:
    """Sort an answer other than 200 by what can be done about it."""
    fields = parse_object(body)
    error = error_text(fields) if fields else ""
    detail = f"HTTP {status}: {error or quote(body) or 'no text'}"
    if status == 404 and error:
        return Outcome.MISSING_MODEL, detail
    if status in {429, 503}:
        return Outcome.BUSY, detail
    if (400 <= status < 500 and status != 404) or (status == 500 and error.startswith("option ")):
        return Outcome.BAD_REQUEST, detail
    return Outcome.BROKEN, detail


_NOT_OFFERED: Final = frozenset({404, 405, 501})


def quick_answer(status: int, body: bytes, ended: Ended) -> Answer:
    """Read a quick call: its object, or what was wrong."""
    if ended.how is Ending.UNREACHABLE:
        return Answer({}, ProbeState.UNREACHABLE, ended.detail)
    if ended.how is not Ending.COMPLETE:
        # Connected and silent is no working server, whichever way it shows.
        return Answer({}, ProbeState.BROKEN, ended.detail or str(ended.how))
    fields = parse_object(body)
    if status != 200 or fields is None:
        detail = f"HTTP {status}: {quote(body) or 'no text'}"
        return Answer({}, ProbeState.BROKEN, detail, is_absent=status in _NOT_OFFERED)
    return Answer(fields)


def traits(model: str, fields: Mapping[str, object]) -> Traits:
    """Read what /api/show says of a model."""
    abilities = fields.get("capabilities")
    template = fields.get("template")
    can_think = isinstance(abilities, Sequence) and "thinking" in abilities
    # A template that can be told not to think asks whether the field was set.
    opens_always = (
        isinstance(template, str) and "<think>" in template and "IsThinkSet" not in template
    )
    return Traits(can_think, only_thinks=is_named_thinking(model) or opens_always)


def is_named_thinking(model: str) -> bool:
    """True for the names of models that always think."""
    return "thinking" in model.lower()


def full_name(model: str) -> str:
    """Add the tag that the server implies."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def model_names(fields: Mapping[str, object]) -> Iterator[str]:
    """Yield the names of /api/tags, with their tags."""
    models = fields.get("models")
    for entry in models if isinstance(models, list) else ():
        if isinstance(entry, Mapping):
            for key in ("name", "model"):
                if isinstance(name := entry.get(key), str):
                    yield full_name(name)


def model_sizes(fields: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    """Yield the names of /api/tags or /api/ps, with their tags, and their bytes."""
    models = fields.get("models")
    for entry in models if isinstance(models, list) else ():
        if isinstance(entry, Mapping) and isinstance(name := entry.get("name"), str):
            yield full_name(name), count(entry.get("size")) or 0


def parse_object(body: bytes) -> Mapping[str, object] | None:
    """Parse a JSON object; None for anything else."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def error_text(fields: Mapping[str, object]) -> str:
    """Return the words of an error; some come as JSON in a string."""
    error = fields.get("error", "")
    if isinstance(error, str) and error.startswith("{"):
        inner = parse_object(error.encode("utf-8", "replace"))
        error = inner.get("error", error) if inner else error
    if isinstance(error, Mapping):
        error = error.get("message", "")
    return clean_model_text(str(error)[:300]) or ("error" if "error" in fields else "")


def quote(body: bytes) -> str:
    """Quote the start of a body for a log line."""
    return clean_model_text(body[:120].decode("utf-8", "replace"))


def count(value: object) -> int | None:
    """Read a figure; None for what is no count."""
    is_real = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT
    return value if is_real and isinstance(value, int) else None


def rate(figures: Mapping[str, int], name: str) -> float | None:
    """Tokens a second; durations are nanoseconds and a field that is zero is left out."""
    count, nanoseconds = figures.get(f"{name}_count"), figures.get(f"{name}_duration")
    return round(count / nanoseconds * 1e9, 2) if count and nanoseconds else None
