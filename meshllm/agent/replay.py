"""What the pages of the prompt log tell the agent: parts to queue, prompts to continue."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from meshllm.agent.context import Reach, Role, RowKey, Sent, Turn, plain
from meshllm.agent.prompt import Assembled
from meshllm.agent.reply import Part
from meshllm.records import PromptRow
from meshllm.site.page import Block, Page, parse_body, parse_row, shown
from meshllm.text import unmarked

#: Share of the generated letters that must have been worth sending: a loop is cut to its first
#: round, and would go on in the next answer.
KEPT_SHARE: Final = 0.5
_WORD: Final = re.compile(r"\w+")


def blocks(prompt: Assembled) -> tuple[Block, ...]:
    """Render a prompt as the blocks of its page."""
    turns = (Block(turn.role, turn.text) for turn in prompt.turns)
    return (Block("system", prompt.system), *turns)


def queued_parts(row: PromptRow, meta: Mapping[str, Any]) -> tuple[Part, ...]:
    """Read the parts out of a row's extras; () when there are none or one of them is not whole."""
    listed = meta.get("queued")
    if not isinstance(listed, list) or not listed:
        return ()
    parts = tuple(part for part in map(Part.parse, listed) if part is not None)
    is_whole = len(parts) == len(listed) and parts[0].id == row.response_message_id
    return parts if is_whole else ()


def sent(page: Page) -> Sent | None:
    """Say what the next prompt of the thread continues; None when nothing was to be queued."""
    return _sent(page.row, page.prompt, shown(page.response))


def parse_sent(text: str) -> Sent | None:
    """Read the same out of a page; None when the page does not hold it, or not whole."""
    row, body = parse_row(text), parse_body(text)
    if row is None or body is None:
        return None
    return _sent(row, body.prompt, body.response)


def _role(name: str) -> Role:
    return "assistant" if name == "assistant" else "user"


def _sent(row: PromptRow, prompt: Sequence[Block], response: str) -> Sent | None:
    turns = tuple(Turn(_role(one.role), one.text) for one in prompt if one.role != "system")
    meta = row.meta
    parts = queued_parts(row, meta)
    asked_chars = meta.get("asked_chars")
    if not parts or not isinstance(asked_chars, int) or not turns or turns[-1].role != "user":
        return None
    if any(one.role == other.role for one, other in pairwise(turns)):
        return None
    reach = Reach(_row_key(meta.get("heard")), _row_key(meta.get("seen")))
    asked = turns[-1].text[:asked_chars]
    return Sent(row.prompt_id, turns, _answer(response, parts), asked, reach)


def _row_key(value: object) -> RowKey:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _answer(response: str, parts: Sequence[Part]) -> str:
    """Choose the assistant's turn: as generated where what was sent is from it, else as sent.

    The server has read its own words already, so they cost nothing. Where something else went
    out instead, or most was thrown away, the model must not find its own words in the history.
    """
    generated = plain(response).strip()
    as_sent = " ".join(unmarked(part.content) for part in parts).strip()
    kept, whole = _words(f"{as_sent} {parts[-1].rest}"), _words(generated)
    is_from_it = kept in whole and len(kept) >= KEPT_SHARE * len(whole)
    return generated if is_from_it and generated else plain(as_sent)


def _words(text: str) -> str:
    """Return letters and digits alone; a text without any as it is."""
    return "".join(_WORD.findall(text)) or text.strip()
