"""Turns an answer into rows to queue, and rows into what the prompt log keeps. Writes nothing.

What is no answer (nothing, a loop, a refusal, the rules recited) becomes one honest line here.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from meshllm.cleaning import clean_model_text, plain_line
from meshllm.records import Message, compact_json
from meshllm.refusals import refusal_line
from meshllm.text import split_reply
from meshllm.verdicts import is_leak, says_something, without_loop

MAX_TEXT_BYTES: Final = 200  #: payload of one message; more and a packet with extras is refused
NO_ANSWER: Final = "I have no good answer to that."
CANNOT_ANSWER: Final = "I cannot answer that now."
LEAKED: Final = "I keep my instructions to myself. Ask me something else."
#: A part mostly ends at a sentence, short of its limit; a model that fills it to the last byte
#: writes a sentence that waits for "more".
UNUSED_BYTES: Final = 30
NewId = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Part:
    """What one queued row says beyond its question: with it, enough to queue the row again."""

    id: str
    content: str
    part: int
    parts: int
    rest: str = ""
    is_unsaid: bool = False  #: the model was stopped here: "more" is a question for it

    def facts(self, source: Message) -> dict[str, object]:
        """Render for the prompt log."""
        facts: dict[str, object] = {
            "id": self.id,
            "content": self.content,
            "part": self.part,
            "parts": self.parts,
            "rest": self.rest,
            "unsaid": True if self.is_unsaid else "",
            "reply_to_id": source.message_id,
            "channel_index": channel_index(source),
        }
        return {key: value for key, value in facts.items() if value != ""}

    @classmethod
    def parse(cls, facts: object) -> "Part | None":
        """Read one back; None when it is not what `facts` writes."""
        if not isinstance(facts, dict):
            return None
        texts = [facts.get("id"), facts.get("content"), facts.get("rest", "")]
        numbers = [facts.get("part"), facts.get("parts")]
        if not all(isinstance(text, str) for text in texts):
            return None
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            return None
        part = cls(
            str(texts[0]),
            str(texts[1]),
            int(str(numbers[0])),
            int(str(numbers[1])),
            str(texts[2]),
            facts.get("unsaid") is True,
        )
        is_packet_id = part.id.isascii() and part.id.isdigit() and 0 < int(part.id) < 2**32
        return part if is_packet_id and part.content else None


def packet_id() -> str:
    """Draw a random non-zero 32-bit id, as a cell."""
    return str(secrets.randbelow(2**32 - 1) + 1)


@dataclass(frozen=True, slots=True)
class Judged:
    """What an answer comes to: its text, and what was wrong with it.

    `fault` is "" for an answer that stands, `looped` for one that was shortened to what it says
    before it repeats itself, and `empty`, `refused` or `leaked` for one that gave way to an honest
    line.
    """

    text: str
    fault: str = ""


def judge(answer: str, *, question: str = "", system_text: str = "") -> Judged:
    """Clean an answer and put an honest line in the place of one that is none."""
    text = clean_model_text(answer, question=question)
    if not says_something(text):
        return Judged(NO_ANSWER, "empty")
    if system_text and is_leak(text, system_text):
        return Judged(LEAKED, "leaked")
    unlooped = without_loop(text)
    if not unlooped.text:
        return Judged(NO_ANSWER, "looped")
    refusal = refusal_line(unlooped.text)
    if refusal:
        return Judged(refusal, "refused")
    return Judged(unlooped.text, "looped" if unlooped.is_loop else "")


def compose(
    text: str,
    *,
    max_parts: int,
    max_chars: int,
    taken: Collection[str],
    new_id: NewId = packet_id,
    is_unsaid: bool = False,
) -> tuple[Part, ...]:
    """Split a text into parts with fresh ids, never none; also what an earlier part left over.

    `is_unsaid` marks the last part of an answer that its model would have gone on with.

    The words of a model are judged before; here only what a screen would obey or hide is dropped.
    """
    split = split_reply(
        plain_line(text) or NO_ANSWER,
        limit_bytes=MAX_TEXT_BYTES,
        limit_chars=max_chars,
        max_parts=max_parts,
    )
    ids = fresh_ids(len(split.parts), taken, new_id)
    last = len(split.parts)
    return tuple(
        Part(ids[i], content, i + 1, last, *((split.rest, is_unsaid) if i + 1 == last else ()))
        for i, content in enumerate(split.parts)
    )


def budget_bytes(*, max_parts: int, max_chars: int) -> int:
    """Bytes that an answer may have, its part marks and what sentence ends leave free taken off."""
    room = min(MAX_TEXT_BYTES, max_chars)
    if max_parts == 1:
        return room
    room -= len("(1/2) ")
    return max_parts * room - (max_parts - 1) * min(UNUSED_BYTES, room // 4)


def fresh_ids(count: int, taken: Collection[str], new_id: NewId = packet_id) -> list[str]:
    """Draw ids that are unlike each other and unlike every taken one."""
    ids: list[str] = []
    while len(ids) < count:
        candidate = new_id()
        if candidate not in taken and candidate not in ids:
            ids.append(candidate)
    return ids


def reply_rows(
    parts: Sequence[Part], source: Message, *, own_id: str, now: str, prompt_id: str
) -> tuple[Message, ...]:
    """Build the queued rows of one reply, all naming the question."""
    return tuple(
        queued_row(
            source,
            message_id=part.id,
            own_id=own_id,
            now=now,
            content=part.content,
            reply_to_id=source.message_id,
            meta=_part_meta(part, prompt_id),
        )
        for part in parts
    )


def _part_meta(part: Part, prompt_id: str) -> dict[str, object]:
    meta: dict[str, object] = {"kind": "reply", "part": part.part, "parts": part.parts}
    if prompt_id:
        meta["prompt_id"] = prompt_id
    if part.rest:
        meta["rest"] = part.rest
    if part.is_unsaid:
        meta["unsaid"] = True
    return meta


def queued_row(
    source: Message,
    *,
    message_id: str,
    own_id: str,
    now: str,
    content: str,
    reply_to_id: str,
    meta: Mapping[str, object],
) -> Message:
    """Build one queued row in the thread of `source`, for the channel index it came on."""
    extras = {**meta, "channel_index": channel_index(source)}
    if source.thread_type == "channel":  # ids are unique only with their sender
        extras["reply_to_sender"] = source.sender_id
    return Message(
        thread_type=source.thread_type,
        thread_key=source.thread_key,
        message_id=message_id,
        direction="queued",
        sender_id=own_id,
        reply_to_id=reply_to_id,
        timestamp=now,
        content=content,
        meta_json=compact_json(extras),
    )


def channel_index(source: Message) -> int:
    """Index to send on: the one the question came on, 0 for a message under public keys."""
    meta: Mapping[str, Any] = source.meta
    index = meta.get("channel_index")
    if meta.get("pki") or not isinstance(index, int) or isinstance(index, bool):
        return 0
    return index if 0 <= index <= 7 else 0
