"""Decides whether a row asks the librarian something, and what. Knows no state and no history."""

import re
import string
import unicodedata
from collections.abc import Collection
from typing import Final

from meshllm.records import Message

TRIGGER_WORD: Final = "librarian"
#: Punctuation that stands alone after the word ("librarian - what …") goes with it.
_LONE_PUNCTUATION: Final = re.compile(r"[,.:;!?\u2026\u2013\u2014-]+(\s+|$)")


def question_text(row: Message, *, own_ids: Collection[str] = ()) -> str | None:
    """Return what the row asks, without the trigger word; None when it asks nothing.

    Every inbound DM asks; on a channel only text that begins with the trigger word. Reactions
    and rows of our own radios never do. An empty question is "", and still wants an answer.
    """
    if row.direction != "inbound" or row.sender_id in own_ids or _is_reaction(row):
        return None
    return row.content.strip() if row.thread_type == "dm" else _after_trigger(row.content)


def _is_reaction(row: Message) -> bool:
    if '"emoji"' not in row.meta_json:  # spares a JSON parse for nearly every row
        return False
    meta = row.meta
    return bool(meta.get("emoji")) and bool(meta.get("reply_id"))


def _after_trigger(content: str) -> str | None:
    text = content.lstrip()
    head, rest = text[: len(TRIGGER_WORD)], text[len(TRIGGER_WORD) :]
    if head.lower() != TRIGGER_WORD or (rest and not _ends_word(rest[0])):
        return None
    attached = 0
    while attached < len(rest) and _is_punctuation(rest[attached]):
        attached += 1
    rest = rest[attached:].strip()
    return _LONE_PUNCTUATION.sub("", rest, count=1) if _LONE_PUNCTUATION.match(rest) else rest


def _ends_word(char: str) -> bool:
    return char.isspace() or _is_punctuation(char) or unicodedata.category(char).startswith("Z")


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")
