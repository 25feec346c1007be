"""A site of prompts for tests: pages by the program's own writer, Jekyll as it is, HTML parsed."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from meshllm.records import PromptRow, compact_json
from meshllm.site.page import Block, Page, render, shown

THEME: Final = Path(__file__).resolve().parents[2] / "prompts"
THEME_FILES: Final = (
    "_config.yml",
    "00-order.txt",
    "all.html",
    "index.html",
    "stats.html",
    "_includes",
    "_layouts",
    "assets",
)
VOID: Final = frozenset({"meta", "link", "br", "img", "input", "hr", "line", "rect"})

needs_jekyll = pytest.mark.skipif(
    shutil.which("jekyll") is None, reason="needs jekyll on the PATH (Debian: apt install jekyll)"
)
needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="needs chromium on the PATH"
)


def make_page(
    prompt_id: str,
    text: str = "plain",
    *,
    moment: str = "2026-01-01 00:00:00",
    thread_type: str = "channel",
    queued: int = 1,
    outcome: str = "ok",
    name: str | None = None,
    **cells: float | None,
) -> Page:
    """One prompt that has `text` wherever a stranger or a model can put one."""
    parts = tuple({"id": str(9 + n), "content": text, "rest": text} for n in range(1, queued + 1))
    row = PromptRow(
        prompt_id=prompt_id,
        node_uid="5c0ffee1",
        datetime=moment,
        model=text if name is None else name,
        thread_type=thread_type,
        thread_key=text if name is None else name,
        source_message_id="7",
        response_message_id="10" if queued else "",
        prompt_tokens=_whole(cells.get("prompt_tokens", 100)),
        completion_tokens=_whole(cells.get("completion_tokens", 20)),
        prompt_tps=cells.get("prompt_tps", 50.5),
        eval_tps=cells.get("eval_tps", 5.25),
        duration_ms=_whole(cells.get("duration_ms", 4000)),
        meta_json=compact_json({"reason": text, "queued": parts, "asked_chars": len(text)}),
    )
    prompt = (
        Block("system", text),
        Block("user", text),
        Block("assistant", text),
        Block("user", text),
    )
    return Page(row, outcome, parts, prompt, text, "1 turn of history")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def copy_theme(source: Path) -> Path:
    """Copy what the repository tracks of the prompts' folder."""
    source.mkdir(parents=True)
    for name in THEME_FILES:
        path = THEME / name
        if path.is_dir():
            shutil.copytree(path, source / name)
        else:
            shutil.copy(path, source / name)
    return source


def add(source: Path, *pages: Page) -> None:
    """Put pages there as the agent does, text that is no text included."""
    for page in pages:
        content = render(page).encode("utf-8", "replace")
        (source / f"{page.row.prompt_id}.md").write_bytes(content)


def run_jekyll(source: Path) -> subprocess.CompletedProcess[str]:
    """Build a site beside its source, as GitHub Pages does it: safe, without plugins."""
    command = ["jekyll", "build", "--safe", "--disable-disk-cache"]
    folders = ["--source", str(source), "--destination", str(source.parent / "site")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(source.parent), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [*command, *folders],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def build(source: Path) -> Path:
    """Build a site that must build, without a warning."""
    done = run_jekyll(source)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert not [word for word in ("Liquid", "Warning", "Error", "rror reading") if word in told]
    return source.parent / "site"


@dataclass
class Html(HTMLParser):
    """A parsed page: its elements with their attributes, and the texts of some."""

    source: str
    elements: list[tuple[str, tuple[tuple[str, str], ...]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)  #: element and all text in it
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, list[str]]] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element; links are apart, as they differ between pages that are alike."""
        values = [(name, value or "") for name, value in attrs]
        self.links += [value for name, value in values if name in {"href", "src"}]
        self.elements.append((tag, tuple(pair for pair in values if pair[0] != "href")))
        if tag not in VOID:
            self._open.append((tag, []))

    def handle_endtag(self, tag: str) -> None:
        """Close an element, and all that were left open in it."""
        if tag not in [name for name, _ in self._open]:
            return
        while True:
            name, pieces = self._open.pop()
            self.texts.append((name, "".join(pieces)))
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        """Add a text to every element that is open."""
        for _, pieces in self._open:
            pieces.append(data)

    def text_of(self, tag: str) -> list[str]:
        """Texts of all elements of a kind, in the order of their ends."""
        return [text for name, text in self.texts if name == tag]


def parse(path: Path) -> Html:
    """Parse a built page."""
    return Html(path.read_bytes().decode())


def complaints(found: Html, plain: Html, texts: Sequence[str]) -> list[str]:
    """Say what a hostile page has that the same page with a plain text has not, or lacks."""
    said = [f"element {e}" for e in found.elements if e not in plain.elements]
    if len(found.elements) != len(plain.elements):
        said.append(f"{len(found.elements)} elements instead of {len(plain.elements)}")
    blocks = found.text_of("pre")
    said += [f"not shown: {text!r}" for text in texts if shown(text) not in blocks]
    return said
