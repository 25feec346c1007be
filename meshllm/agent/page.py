"""Renders the Markdown page of one model call, and reads its front matter back. Writes nothing.

Everything on a page may be hostile: values go through a YAML dumper, bodies into <pre> with
every character that HTML or Liquid knows as an entity.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import yaml

from meshllm.agent.context import Reach, Role, RowKey, Sent, Turn, plain
from meshllm.agent.prompt import Assembled
from meshllm.agent.reply import Part
from meshllm.records import BadCellError, PromptRow
from meshllm.text import unmarked

try:
    from yaml import CSafeDumper as _Base  # ten times as fast as the one in Python
except ImportError:
    from yaml import SafeDumper as _Base  # type: ignore[assignment] # same class, in Python

_TAGS: Final = ("librarian", "meshtastic", "ollama")
_FENCE: Final = "---\n"
_PROMPT_HEAD: Final = "\n## Prompt\n"
_PRE: Final = re.compile(r"\n### (system|user|assistant)\n\n<pre>([^<]*)</pre>\n")
_RESPONSE: Final = re.compile(r"\n## Response\n\n<pre>([^<]*)</pre>\n")
#: Share of the generated letters that must have been worth sending: a loop is cut to its first
#: round, and would go on in the next answer.
KEPT_SHARE: Final = 0.5
_WORD: Final = re.compile(r"\w+")
_MAX_LINE: Final = 2**30  #: no value is ever folded over lines
_ENTITIES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "{": "&#123;", "}": "&#125;"}
    | {chr(code): chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    | {"\x7f": "\u2421"}
    | {chr(code): "\ufffd" for code in range(0x80, 0xA0)}
)


class _Dumper(_Base):
    """Writes every text on one line, so that none can look like the end of the front matter."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(char in text for char in "\n\r") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True, slots=True)
class Page:
    """All that is known of one model call."""

    row: PromptRow
    outcome: str
    queued: tuple[Mapping[str, object], ...]
    prompt: Assembled
    response: str
    context_note: str


def render(page: Page) -> str:
    """Render the whole file."""
    body = (
        _prompt_section(page.prompt),
        _section("Response", page.response),
        _section("Queued", _queued_text(page.queued)),
        f"## Context\n\n{page.context_note.translate(_ENTITIES)}\n",
    )
    return "\n".join((_front_matter(page), *body))


def _front_matter(page: Page) -> str:
    cells = {name: getattr(page.row, name) for name in PromptRow.columns()}
    node_uid, meta_json = cells.pop("node_uid"), cells.pop("meta_json")
    values: dict[str, object] = {
        "layout": "prompt",
        "title": f"Prompt {page.row.prompt_id}",
        **cells,
        "tags": list(_TAGS),
    }
    if page.row.thread_type == "dm":
        values["published"] = False
    values |= {
        "node_uid": node_uid,
        "outcome": page.outcome,
        "queued": [dict(part) for part in page.queued],
        "meta_json": meta_json,
    }
    dumped = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_MAX_LINE)
    return f"{_FENCE}{dumped}{_FENCE}"


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n<pre>{text.translate(_ENTITIES)}</pre>\n"


def _prompt_section(prompt: Assembled) -> str:
    """Give each turn a block of its own, since a text may hold anything but the tag."""
    turns = (("system", prompt.system), *((turn.role, turn.text) for turn in prompt.turns))
    blocks = (f"\n### {role}\n\n<pre>{text.translate(_ENTITIES)}</pre>\n" for role, text in turns)
    return "## Prompt\n" + "".join(blocks)


def _queued_text(queued: Sequence[Mapping[str, object]]) -> str:
    return "\n".join(f"{part['id']}: {part['content']}" for part in queued) or "(nothing)"


def parse_row(text: str) -> PromptRow | None:
    """Read the registry row out of a page; None when the front matter is not ours."""
    if not text.startswith(_FENCE):
        return None
    front, fence, _ = text[len(_FENCE) :].partition(f"\n{_FENCE}")
    try:
        values = yaml.safe_load(front) if fence else None
    except yaml.YAMLError:
        return None
    if not isinstance(values, dict):
        return None
    try:
        return PromptRow.from_cells(tuple(_cell(values.get(n)) for n in PromptRow.columns()))
    except BadCellError:
        return None


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def parse_meta(row: PromptRow) -> dict[str, Any]:
    """Read a row's extras; {} when they are not a JSON object."""
    try:
        parsed = json.loads(row.meta_json or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


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
    shown = html.unescape(page.response.translate(_ENTITIES))
    return _sent(page.row, page.prompt.turns, shown)


def parse_sent(text: str) -> Sent | None:
    """Read the same out of a page; None when the page does not hold it, or not whole."""
    row = parse_row(text)
    start = text.find(_PROMPT_HEAD)
    if row is None or start < 0:
        return None
    at = start + len(_PROMPT_HEAD)
    turns: list[Turn] = []
    while block := _PRE.match(text, at):
        if block[1] != "system":
            turns.append(Turn(_role(block[1]), html.unescape(block[2])))
        at = block.end()
    response = _RESPONSE.match(text, at)
    return _sent(row, tuple(turns), html.unescape(response[1])) if response else None


def _role(name: str) -> Role:
    return "assistant" if name == "assistant" else "user"


def _sent(row: PromptRow, turns: tuple[Turn, ...], response: str) -> Sent | None:
    meta = parse_meta(row)
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
