"""Measures what the budget spares: tokens, seconds and airtime over a file of long answers.

Each answer of `answers.txt` streams from the shipped Ollama server through the real client, is
closed where the client closes it, and goes through the agent's own cleaning and splitting:
`python -m benchmarks answers`.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import regex

from benchmarks.report import Figure, Part, figure, percentile
from benchmarks.world import BenchmarkError
from meshllm.agent import reply
from meshllm.airtime import airtime_s
from meshllm.clock import SystemClock
from meshllm.config import Settings
from meshllm.llm.base import ChatMessage, ChatRequest, ChatResult, answer_tokens
from meshllm.llm.ollama import OllamaModel
from meshllm.testing.ollama_server import INSTRUCT, OllamaServer, Raw
from meshllm.text import MORE_HINT, sentence_ends

FILE: Final = Path(__file__).with_name("answers.txt")
EVAL_TPS: Final = 2.3  #: a 4-billion-parameter model with 8 bits on a Pi 5
PRESET: Final = "LONG_FAST"
MEAN_PARTS: Final = 1.6
#: Bytes of a token of a large multilingual vocabulary, by script, on the low side.
TOKEN_BYTES: Final = {"latin": 4.2, "cyrillic": 2.4, "arabic": 2.4, "devanagari": 2.0, "cjk": 3.0}
_SCRIPTS: Final = (
    ("cyrillic", regex.compile(r"\p{Cyrillic}")),
    ("arabic", regex.compile(r"\p{Arabic}")),
    ("devanagari", regex.compile(r"\p{Devanagari}")),
    ("cjk", regex.compile(r"\p{Han}")),
    ("emoji", regex.compile(r"\p{Extended_Pictographic}(?<!\d)")),
)
_WORD: Final = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one long answer."""

    language: str
    tokens: int  #: of the whole
    spent: int  #: generated before the stream was closed
    parts: tuple[str, ...]
    kept: int  #: whole sentences on the air
    sentences: int
    is_cut: bool  #: the last part ends within a sentence, though a whole one stands in it

    @property
    def airtime_s(self) -> float:
        """Seconds on the air of all parts, as direct messages, without repeats."""
        return sum(airtime_s(len(part.encode()), PRESET, pki=True) for part in self.parts)


def answers(path: Path = FILE) -> list[tuple[str, str]]:
    """Read (language, text) of every answer."""
    fields = re.split(r"(?m)^=== (\w+)\n", path.read_text(encoding="utf-8"))[1:]
    return list(zip(fields[::2], (text.strip() for text in fields[1::2]), strict=True))


def tokens_of(text: str) -> list[str]:
    """Cut a text into pieces about as large as the tokens of its script."""
    return [piece for word in _WORD.findall(text) for piece in _pieces(word)]


def _pieces(word: str) -> Iterator[str]:
    name = next((name for name, letters in _SCRIPTS if letters.search(word)), "latin")
    size = TOKEN_BYTES.get(name, 2.0)
    count = max(1, min(len(word), round(len(word.encode()) / size)))
    edges = [round(i * len(word) / count) for i in range(count + 1)]
    yield from (word[a:b] for a, b in itertools.pairwise(edges))


def stream(text: str) -> Callable[[Mapping[str, object]], Raw]:
    """Return a script that streams a text token by token, up to the request's num_predict."""

    def answer(body: Mapping[str, object]) -> Raw:
        options = body["options"]
        limit = int(options["num_predict"]) if isinstance(options, Mapping) else -1
        pieces = tokens_of(text)
        lines = [
            {"message": {"role": "assistant", "content": piece}, "done": False}
            for piece in pieces[:limit]
        ]
        last = {
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "length" if len(pieces) > limit else "stop",
            "eval_count": len(lines),
        }
        return Raw("".join(json.dumps(line) + "\n" for line in [*lines, last]).encode())

    return answer


def measure(_folder: Path, *, path: Path = FILE) -> Part:
    """Measure all answers under the default settings."""
    settings = Settings()
    limits = (settings.max_reply_parts, settings.max_message_chars)
    found = [_measure_one(*answer, *limits) for answer in _asked(answers(path), *limits)]
    return _part(found, *limits)


def _asked(
    texts: Sequence[tuple[str, str]], parts: int, chars: int
) -> Iterator[tuple[str, str, ChatResult]]:
    budget = reply.budget_bytes(max_parts=parts, max_chars=chars)
    with OllamaServer() as server:
        for language, text in texts:
            server.script = stream(text)
            with closing(OllamaModel(server.url, INSTRUCT, clock=SystemClock())) as model:
                request = ChatRequest(
                    INSTRUCT,
                    (ChatMessage("user", "?"),),
                    num_predict=answer_tokens(budget),
                    budget_bytes=budget,
                    part_bytes=reply.budget_bytes(max_parts=1, max_chars=chars),
                )
                result = model.chat(request)
            if not result.usable:
                raise BenchmarkError(f"{language}: {result.outcome} {result.error}")
            yield language, text, result


def _measure_one(
    language: str, text: str, result: ChatResult, max_parts: int, max_chars: int
) -> Measured:
    parts = reply.compose(
        reply.judge(result.text).text, max_parts=max_parts, max_chars=max_chars, taken=()
    )
    shown = tuple(part.content for part in parts)
    said = " ".join(re.sub(r"^\(\d/\d\) ", "", part) for part in shown)
    sentences = sentences_of(reply.judge(text).text)
    kept = sum(_plain(sentence) in _plain(said) for sentence in sentences)
    return Measured(
        language,
        len(tokens_of(text)),
        result.completion_tokens or 0,
        shown,
        kept,
        len(sentences),
        is_cut=_is_cut(shown, sentences),
    )


def _is_cut(parts: Sequence[str], sentences: Sequence[str]) -> bool:
    """Say whether the end lies within a sentence though the last part could end with one."""
    last = _plain(parts[-1].removesuffix(MORE_HINT).removesuffix("…"))
    ends = [_plain(sentence)[-12:] for sentence in sentences]
    is_whole = any(last.endswith(end) for end in ends)
    return not is_whole and any(end in last for end in ends)


def sentences_of(text: str) -> list[str]:
    """Cut a cleaned text into sentences."""
    edges = [0, *sentence_ends(text), len(text)]
    found = (text[a:b].strip() for a, b in itertools.pairwise(edges))
    return [sentence for sentence in found if len(sentence) > 1]


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _exceeds(parts: Sequence[str], max_parts: int, max_chars: int) -> bool:
    is_long = any(len(p.encode()) > reply.MAX_TEXT_BYTES or len(p) > max_chars for p in parts)
    return is_long or len(parts) > max_parts


def _part(found: Sequence[Measured], max_parts: int, max_chars: int) -> Part:
    count = len(found)
    spent, tokens = sum(m.spent for m in found), sum(m.tokens for m in found)
    spared = [(m.tokens - m.spent) / EVAL_TPS for m in found]
    budget = reply.budget_bytes(max_parts=max_parts, max_chars=max_chars)
    too_large = sum(_exceeds(m.parts, max_parts, max_chars) for m in found)
    figures = (
        figure("answers", count, ""),
        figure("words of an answer, median", _words(), ""),
        figure("tokens generated, of those of the whole", 100 * spent / tokens, "%"),
        figure("tokens not spent, mean", (tokens - spent) / count, ""),
        figure("seconds not spent at 2.3 tokens/s, mean", sum(spared) / count, "s"),
        figure("the same, 90th percentile", percentile(spared, 0.9), "s"),
        figure("seconds of generation left, mean", spent / count / EVAL_TPS, "s"),
        figure("parts, mean", sum(len(m.parts) for m in found) / count, "", at_most=MEAN_PARTS),
        figure("airtime of an answer, mean", sum(m.airtime_s for m in found) / count, "s"),
        figure("airtime of an answer, most", max(m.airtime_s for m in found), "s"),
        _share("source sentences on the air", found, lambda m: m.kept, lambda m: m.sentences),
        figure("cut in a sentence where one fits", sum(m.is_cut for m in found), "", at_most=0),
        figure("above 200 bytes, 200 characters or 2 parts", too_large, "", at_most=0),
        *(_cap(name, found, cap) for name, cap in _caps(budget).items()),
    )
    return Part("answers", "What the budget spares", figures, _NOTES)


def _words() -> float:
    counts = sorted(len(text.split()) for language, text in answers() if language != "zh")
    return counts[len(counts) // 2]


def _share(
    what: str,
    found: Sequence[Measured],
    some: Callable[[Measured], int],
    whole: Callable[[Measured], int],
) -> Figure:
    return figure(what, 100 * sum(map(some, found)) / sum(map(whole, found)), "%")


def _caps(budget: int) -> dict[str, int]:
    return {"bytes / 3": budget // 3, "bytes / 2": budget // 2, "ours": answer_tokens(budget)}


def _cap(name: str, found: Sequence[Measured], cap: int) -> Figure:
    """Count answers that a cap on tokens would have ended before their budget did."""
    cut = sum(m.spent > cap for m in found)
    at_most = 0.0 if name == "ours" else None
    return figure(f"ended by num_predict = {name} ({cap}) first", cut, "", at_most=at_most)


_NOTES: Final = (
    "Streamed over local HTTP in pieces as large as tokens: English 4.2 bytes, Ukrainian 2.4.",
    "Prompt time is the same with and without the budget; at 12 tokens a second it is not counted.",
    "Airtime is LongFast, encrypted direct messages, without ACKs and repeats.",
)
