"""Finds the message that an operator means: by id, its start, a packet, a prompt or a node."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from meshllm.errors import ExitCode, UserError
from meshllm.reading.book import Book, Thread
from meshllm.records import Message, PromptRow
from meshllm.why import events
from meshllm.why.events import Event

MIN_PREFIX: Final = 4  #: shorter beginnings of an id fit too much
MAX_LISTED: Final = 10  #: candidates named in an error
UNDECODED_ADVICE: Final = "see docs/how-to/exchange-keys.md: the two radios lack each other's key"
_HEX: Final = re.compile(r"(?:!|0x)([0-9a-fA-F]{1,8})")
_PROMPT: Final = re.compile(r"[0-9a-fA-F-]{4,36}")


class NotFoundError(UserError):
    """Nothing, or more than one thing, is meant."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Spot:
    """One radio's copy of a message."""

    thread: Thread
    row: Message


def find(book: Book, wanted: str, *, node: str = "") -> tuple[Spot, ...]:
    """Return every radio's copy of the one message that is meant.

    `wanted` is a message id (decimal, `!hex` or `0xhex`), a packet id of any try, a prompt id, or
    the beginning of one of them. `node` narrows to what that node wrote or was sent. Raises
    NotFoundError with what was looked for, or with the candidates.
    """
    text = canonical(wanted)
    exact: list[Spot] = []
    tried: list[Spot] = []
    begun: list[Spot] = []
    for spot in _spots(book, node):
        if spot.row.message_id == text:
            exact.append(spot)
        elif text.isdecimal() and f'"id":{text},' in spot.row.meta_json:
            tried.append(spot)
        elif len(text) >= MIN_PREFIX and spot.row.message_id.startswith(text):
            begun.append(spot)
    prompted = [] if exact or tried else _by_prompt(book, wanted, node)
    for found in (exact, tried, prompted, begun):
        if found:
            return _one(found, wanted)
    raise NotFoundError(
        f"no message, packet or prompt {wanted!r} is in the files",
        ["`messages` lists ids; `why --node NAME` tells of somebody's newest message"],
    )


def newest_of(book: Book, node: str) -> tuple[tuple[Spot, ...], Event | None]:
    """Return the newest message that a node sent, and what came since that nobody could read.

    Raises NotFoundError.
    """
    heard = [s for s in _spots(book, node) if s.row.sender_id == node and not s.row.is_outgoing]
    unread = events.undecoded(book.layout.logs_dir, node)
    if not heard and unread is not None:
        raise NotFoundError(undecoded_words(unread), [UNDECODED_ADVICE])
    if not heard:
        raise NotFoundError(
            f"nothing was heard from {node}",
            ["`nodes` shows who was heard; a text that never arrived leaves no row"],
        )
    newest = max(heard, key=lambda spot: spot.row.timestamp).row
    is_later = unread is not None and unread.at > newest.timestamp
    return tuple(s for s in heard if _is_same(s.row, newest)), unread if is_later else None


def undecoded_words(event: Event) -> str:
    """Say that a direct message came that our radio could not open."""
    sender = event.fields.get("sender")
    return f"a direct message of {sender} at {event.at} could not be decrypted, and was not read"


def canonical(wanted: str) -> str:
    """Write an id as message_id has it: decimal."""
    text = wanted.strip()
    match = _HEX.fullmatch(text)
    return str(int(match[1], 16)) if match else text


def _spots(book: Book, node: str) -> Iterator[Spot]:
    for tree in book.trees():
        for thread in book.threads(tree):
            for row in book.messages(thread):
                if not node or node in {row.sender_id, row.thread_key}:
                    yield Spot(thread, row)


def _by_prompt(book: Book, wanted: str, node: str) -> list[Spot]:
    """Find the question of a prompt, by the prompt's id or its beginning."""
    text = wanted.strip().lower()
    if not _PROMPT.fullmatch(text):
        return []
    calls = [row for row in book.prompts() if row.prompt_id.lower().startswith(text)]
    questions = {(row.node_uid, row.thread_key, row.source_message_id) for row in calls}
    if not questions:
        return []
    if len(questions) > 1:
        listed = [f"{row.prompt_id} {row.datetime} {row.thread_key}" for row in calls]
        raise NotFoundError(f"{wanted!r} begins several prompts:", listed[:MAX_LISTED])
    found = [s for s in _spots(book, node) if _is_asked_by(s, calls[0])]
    if not found:
        raise NotFoundError(
            f"prompt {calls[0].prompt_id} is in the log, the message it answers is not",
            [f"message {calls[0].source_message_id} in {calls[0].thread_key}: its row is gone"],
        )
    return found


def _is_asked_by(spot: Spot, call: PromptRow) -> bool:
    row = spot.row
    is_here = spot.thread.tree.node_uid == call.node_uid and row.thread_key == call.thread_key
    return is_here and row.message_id == call.source_message_id and not row.is_outgoing


def _one(found: list[Spot], wanted: str) -> tuple[Spot, ...]:
    first = found[0].row
    if all(_is_same(spot.row, first) for spot in found):
        return tuple(found)
    listed = list(dict.fromkeys(_described(found)))
    raise NotFoundError(
        f"{wanted!r} means several messages; give the whole id, or --node for the sender:",
        listed[:MAX_LISTED],
    )


def _described(found: Iterable[Spot]) -> Iterator[str]:
    for spot in found:
        row = spot.row
        yield f"{row.message_id} of {row.sender_id} in {row.thread_key} at {row.timestamp}"


def _is_same(one: Message, other: Message) -> bool:
    """Say whether two rows are copies of one message; each radio has its own time for it."""
    return (one.key, one.content) == (other.key, other.content)
