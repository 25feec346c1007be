"""Decides which pages of the prompt log are public, and what of them. Reads no file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from meshllm.records import PromptRow, compact_json
from meshllm.site.page import Block, Page, parse
from meshllm.site.redaction import Redactor

#: Pages are named by the random id of their prompt; anything else in the folder is none of ours.
PAGE_NAME: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.md")
_OUTCOME: Final = re.compile(r"[a-z_]{1,20}")

UNREADABLE: Final = "not a whole page of the log"
OTHER_NAME: Final = "another prompt than its name says"
DISAGREES: Final = "prompts.csv says another thread"
WITHHELD: Final = "marked published: false"
DIRECT: Final = "direct message"
OTHER_CHANNEL: Final = "channel not in publish_channels"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator lets out."""

    channels: tuple[str, ...]  #: names, or patterns with `*` and `?`
    dms: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A page that is public, or why not."""

    page: Page | None
    reason: str = ""


def judge(text: str, stem: str, row: PromptRow | None, rules: Rules) -> Verdict:
    """Say whether a page may be published; `row` is what prompts.csv has of it, if anything.

    Whatever is not exactly as the agent writes it stays back.
    """
    page = parse(text)
    if page is None:
        return Verdict(None, UNREADABLE)
    if page.row.prompt_id != stem:
        return Verdict(None, OTHER_NAME)
    if row is not None and _thread(row) != _thread(page.row):
        return Verdict(None, DISAGREES)
    reason = _reason(page, rules)
    return Verdict(None, reason) if reason else Verdict(page)


def _thread(row: PromptRow) -> tuple[str, str, str]:
    return (row.node_uid, row.thread_type, row.thread_key)


def _reason(page: Page, rules: Rules) -> str:
    if page.row.thread_type == "dm":
        return "" if rules.dms else DIRECT
    if page.row.thread_type != "channel":
        return UNREADABLE
    if page.is_withheld:
        return WITHHELD
    name = page.row.thread_key
    return "" if any(fnmatchcase(name, one) for one in rules.channels) else OTHER_CHANNEL


def public(page: Page, redactor: Redactor | None) -> Page:
    """Return what of a page is shown. Message ids go whatever is set: they name packets on the air.

    The extras keep their outcome and the length of the question; everything else in them is the
    agent's own, or names people.
    """
    is_channel = page.row.thread_type == "channel"
    prompt, asked_chars = _prompt(page, redactor, is_channel=is_channel)
    outcome = page.outcome if _OUTCOME.fullmatch(page.outcome) else "unknown"
    first_token_ms = page.row.meta.get("first_token_ms")
    meta = {
        "outcome": outcome,
        "asked_chars": asked_chars,
        "first_token_ms": first_token_ms if isinstance(first_token_ms, int) else None,
    }
    thread_key, node_uid = page.row.thread_key, page.row.node_uid
    if redactor is not None:
        thread_key = thread_key if is_channel else redactor.node(thread_key)
        node_uid = redactor.node(node_uid)
    row = replace(
        page.row,
        node_uid=node_uid,
        datetime=_text(page.row.datetime, redactor),
        model=_text(page.row.model, redactor),
        thread_key=thread_key,
        source_message_id="",
        response_message_id="",
        meta_json=compact_json({k: v for k, v in meta.items() if v is not None}),
    )
    queued = tuple(_part(part, n, redactor) for n, part in enumerate(page.queued, 1))
    note = _text(page.context_note, redactor)
    return Page(row, outcome, queued, prompt, _text(page.response, redactor), note)


def _text(text: str, redactor: Redactor | None) -> str:
    return text if redactor is None else redactor.text(text)


def _part(part: Mapping[str, object], n: int, redactor: Redactor | None) -> dict[str, object]:
    shown: dict[str, object] = {"id": str(n), "content": _text(str(part["content"]), redactor)}
    return shown | {key: part[key] for key in ("part", "parts") if isinstance(part.get(key), int)}


def _prompt(
    page: Page, redactor: Redactor | None, *, is_channel: bool
) -> tuple[tuple[Block, ...], int | None]:
    """Redact the turns; the last one in two halves, so that the question's length is known."""
    asked_chars: Any = page.row.meta.get("asked_chars")
    if not isinstance(asked_chars, int) or asked_chars < 0:
        asked_chars = None
    if redactor is None or not page.prompt:
        return page.prompt, asked_chars
    turns = [redactor.turn(block, is_channel=is_channel) for block in page.prompt[:-1]]
    last = page.prompt[-1]
    at = len(last.text) if asked_chars is None else asked_chars
    halves = [
        redactor.turn(Block(last.role, half), is_channel=is_channel).text
        for half in (last.text[:at], last.text[at:])
    ]
    whole = Block(last.role, "".join(halves))
    return (*turns, whole), None if asked_chars is None else len(halves[0])


def by_time(rows: Sequence[PromptRow]) -> list[PromptRow]:
    """Order rows as the registry does."""
    return sorted(rows, key=lambda row: (row.datetime, row.prompt_id))
