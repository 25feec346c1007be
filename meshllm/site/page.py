"""The Markdown page of one model call: rendered, and read back. Reads and writes no file.

Everything on a page may be hostile: values go through a YAML dumper, bodies into <pre> with
every character that HTML or Liquid knows as an entity.
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from meshllm.records import BadCellError, PromptRow

try:
    from yaml import CSafeDumper as _Base  # ten times as fast as the ones in Python
    from yaml import CSafeLoader as _Loader
except ImportError:
    from yaml import SafeDumper as _Base  # type: ignore[assignment] # same class, in Python
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

_TAGS: Final = ("librarian", "meshtastic", "ollama")
_FENCE: Final = "---\n"
_PROMPT_HEAD: Final = "\n## Prompt\n"
_BLOCK: Final = re.compile(r"\n### (system|user|assistant)\n\n<pre>([^<]*)</pre>\n")
_RESPONSE: Final = re.compile(r"\n## Response\n\n<pre>([^<]*)</pre>\n")
_REST: Final = re.compile(r"\n## Queued\n\n<pre>[^<]*</pre>\n\n## Context\n\n([^<{\n]*)\n\Z")
_PLAIN_WORD: Final = re.compile(r"[a-z][a-z_]+")
_MAX_LINE: Final = 2**30  #: no value is ever folded over lines
_MAX_QUESTION_CHARS: Final = 300  #: of the question as lists of pages show it
_ENTITIES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "{": "&#123;", "}": "&#125;"}
    | {chr(code): chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    | {"\x7f": "\u2421"}
    | {chr(code): "\ufffd" for code in range(0x80, 0xA0)}
)


class _Dumper(_Base):
    """Writes every text on one line, so that none can look like the end of the front matter."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Quote all but plain words: Ruby's YAML reads more as a number or a symbol than Python's."""
    style = None if _PLAIN_WORD.fullmatch(text) else '"'
    whole = text.encode("utf-8", "replace").decode()  # the C dumper fails on a lone surrogate
    return dumper.represent_scalar("tag:yaml.org,2002:str", whole, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True, slots=True)
class Block:
    """One turn of the prompt as the model got it."""

    role: str  #: system, user or assistant
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """All that is known of one model call."""

    row: PromptRow
    outcome: str
    queued: tuple[Mapping[str, object], ...]
    prompt: tuple[Block, ...]
    response: str
    context_note: str
    is_withheld: bool = field(default=False, compare=False)  #: read from a `published: false`


@dataclass(frozen=True, slots=True)
class Body:
    """What stands below the front matter of a page."""

    prompt: tuple[Block, ...]
    response: str
    end: int  #: where the response's section ends


def render(page: Page, *, is_public: bool = False) -> str:
    """Render the whole file; a direct message is kept out of a site unless it `is_public`."""
    body = (
        _prompt_section(page.prompt),
        _section("Response", page.response),
        _section("Queued", _queued_text(page.queued)),
        f"## Context\n\n{page.context_note.translate(_ENTITIES)}\n",
    )
    return "\n".join((_front_matter(page, is_public=is_public), *body))


def _front_matter(page: Page, *, is_public: bool) -> str:
    cells = {name: getattr(page.row, name) for name in PromptRow.columns()}
    node_uid, meta_json = cells.pop("node_uid"), cells.pop("meta_json")
    values: dict[str, object] = {
        "layout": "prompt",
        "title": f"Prompt {page.row.prompt_id}",
        **cells,
        "tags": list(_TAGS),
    }
    if page.row.thread_type == "dm" and not is_public:
        values["published"] = False
    values |= {
        "node_uid": node_uid,
        "outcome": page.outcome,
        "question": _question(page),
        "queued": [dict(part) for part in page.queued],
        "meta_json": meta_json,
    }
    dumped = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_MAX_LINE)
    return f"{_FENCE}{dumped}{_FENCE}"


def _question(page: Page) -> str:
    """Return the start of what was asked, for lists of pages; "" when the page does not say."""
    chars = page.row.meta.get("asked_chars")
    asked = [block.text for block in page.prompt if block.role == "user"][-1:]
    if not isinstance(chars, int) or not asked:
        return ""
    return shown(asked[0][: max(chars, 0)])[:_MAX_QUESTION_CHARS]


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n<pre>{text.translate(_ENTITIES)}</pre>\n"


def _prompt_section(prompt: Sequence[Block]) -> str:
    """Give each turn a block of its own, since a text may hold anything but the tag."""
    blocks = (f"\n### {b.role}\n\n<pre>{b.text.translate(_ENTITIES)}</pre>\n" for b in prompt)
    return "## Prompt\n" + "".join(blocks)


def _queued_text(queued: Sequence[Mapping[str, object]]) -> str:
    return "\n".join(f"{part['id']}: {part['content']}" for part in queued) or "(nothing)"


def shown(text: str) -> str:
    """Return a text as a page gives it back: without what a page cannot hold."""
    return html.unescape(text.translate(_ENTITIES))


def parse_row(text: str) -> PromptRow | None:
    """Read the registry row out of a page; None when the front matter is not ours."""
    values = _values(text)
    return _row(values) if values is not None else None


def parse_body(text: str) -> Body | None:
    """Read prompt and response out of a page; None when they are not there, or not whole."""
    start = text.find(_PROMPT_HEAD)
    if start < 0:
        return None
    at = start + len(_PROMPT_HEAD)
    blocks: list[Block] = []
    while block := _BLOCK.match(text, at):
        blocks.append(Block(block[1], html.unescape(block[2])))
        at = block.end()
    response = _RESPONSE.match(text, at)
    if response is None:
        return None
    return Body(tuple(blocks), html.unescape(response[1]), response.end())


def parse(text: str) -> Page | None:
    """Read a whole page; None unless every part of it is as `render` writes it."""
    values = _values(text)
    row, body = (_row(values), parse_body(text)) if values is not None else (None, None)
    rest = _REST.match(text, body.end) if body is not None else None
    if values is None or row is None or body is None or rest is None:
        return None
    outcome, queued = values.get("outcome"), values.get("queued")
    if not isinstance(outcome, str) or not isinstance(queued, list):
        return None
    if not all(isinstance(part, dict) and {"id", "content"} <= part.keys() for part in queued):
        return None
    return Page(
        row,
        outcome,
        tuple(queued),
        body.prompt,
        body.response,
        html.unescape(rest[1]),
        is_withheld=values.get("published", True) is not True,
    )


def _values(text: str) -> dict[str, Any] | None:
    if not text.startswith(_FENCE):
        return None
    front, fence, _ = text[len(_FENCE) :].partition(f"\n{_FENCE}")
    try:
        values = yaml.load(front, Loader=_Loader) if fence else None
    except (yaml.YAMLError, ValueError, RecursionError):  # a bad date; a thousand brackets
        return None
    return values if isinstance(values, dict) else None


def _row(values: Mapping[str, Any]) -> PromptRow | None:
    cells = [values.get(name) for name in PromptRow.columns()]
    if any(isinstance(cell, dict | list) for cell in cells):
        return None
    try:
        return PromptRow.from_cells(tuple("" if cell is None else str(cell) for cell in cells))
    except BadCellError:
        return None
