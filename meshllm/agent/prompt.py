"""Assembles what the model reads: fixed text first, what changes last. Calls no model.

A model server keeps what it has read and reads only what differs from there on, so the system
text is the same byte for byte for everybody, and names and limits stand in the last message.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from meshllm.agent.context import Turn
from meshllm.records import Node

#: What stands in for a question that is only the trigger word.
EMPTY_QUESTION: Final = "(The message is empty. Say in one sentence what you are and how to ask.)"


@dataclass(frozen=True, slots=True)
class Assembled:
    """One prompt, ready for the model."""

    system: str
    turns: tuple[Turn, ...]  #: the last one is the question


@cache
def system_text() -> str:
    """Return the system text, from the file beside this module."""
    return resources.files(__package__).joinpath("system.txt").read_text("utf-8").strip()


def assemble(
    question: str, *, before: Sequence[Turn], person: Node | None, limit_bytes: int
) -> Assembled:
    """Put a question behind its history; a burst of the same person becomes part of it."""
    turns = list(before)
    asked = question or EMPTY_QUESTION
    if turns and turns[-1].role == "user":
        asked = f"{turns.pop().text}\n{asked}"
    tail = f"Answer in at most {limit_bytes} bytes."
    facts = _facts(person)
    last = "\n".join((asked, "", facts, tail) if facts else (asked, "", tail))
    return Assembled(system_text(), (*turns, Turn("user", last)))


def _facts(person: Node | None) -> str:
    """Render names as one line of JSON: a name cannot end its own quotes or start a line."""
    if person is None:
        return ""
    names = {"short_name": person.short_name, "long_name": person.long_name}
    known = {key: value for key, value in names.items() if value}
    return f"Sender (data): {json.dumps(known, ensure_ascii=False)}" if known else ""
