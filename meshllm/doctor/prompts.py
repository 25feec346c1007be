"""Checks of the prompt log: rows and pages that miss each other, the web site. Changes nothing."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml

from meshllm.doctor.findings import Finding, info, ok, warn
from meshllm.doctor.place import Place
from meshllm.layout import Layout
from meshllm.reading.book import Book
from meshllm.records import PromptRow
from meshllm.site import page as pages

GROUP: Final = "prompts"
_HEAD_CHARS: Final = 262_144  #: far more than our longest front matter


def look(place: Place) -> Iterator[Finding]:
    """Match rows and pages, and look at the site's settings."""
    if not place.settings.enable_prompt_logs:
        yield info(GROUP, "the prompt log is off (enable_prompt_logs)")
        return
    files = place.files
    rows = {row.prompt_id for row in Book(files).prompts()}
    lacking = rowless(files, rows)
    present = {path.stem for path in page_files(files)}
    pageless = sorted(rows - present)
    if lacking:
        fix = "the agent adds recent ones at its start, python -m meshllm doctor --repair all"
        yield warn(GROUP, f"{len(lacking)} pages without a row, such as {min(lacking)}.md", fix)
    if pageless:
        text = f"{len(pageless)} rows without a page, such as {pageless[0]}"
        yield info(GROUP, f"{text}: removed by hand, or lost; the rows hold the figures")
    if not lacking and not pageless:
        yield ok(GROUP, f"{len(rows)} rows and their pages agree")
    yield site(files.prompts_dir)


def page_files(files: Layout) -> list[Path]:
    """Markdown files of the prompts folder, pages of the site's own among them."""
    try:
        found = list(files.prompts_dir.iterdir())
    except OSError:
        return []
    return sorted(p for p in found if p.suffix == ".md" and not p.name.startswith("."))


def rowless(files: Layout, known: set[str]) -> Mapping[str, PromptRow]:
    """Rows out of pages of model calls that no registry has, by prompt id."""
    lacking: dict[str, PromptRow] = {}
    for path in page_files(files):
        if path.stem in known:
            continue
        row = read_row(path)
        if row is not None and row.prompt_id == path.stem:
            lacking[row.prompt_id] = row
    return lacking


def read_row(path: Path) -> PromptRow | None:
    """Read the registry row out of a page; None for other pages and for what cannot be read."""
    if not path.is_file() or path.is_symlink():
        return None
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            return pages.parse_row(file.read(_HEAD_CHARS))
    except OSError:
        return None


def site(folder: Path) -> Finding:
    """Look at the settings of the web site."""
    path = folder / "_config.yml"
    try:
        parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return info(GROUP, f"no {path}: the folder is no web site yet", "docs/how-to/publish.md")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        return warn(GROUP, f"{path} cannot be used: {reason}", "copy it anew from the repository")
    if isinstance(parsed, dict):
        return ok(GROUP, "the web site has its settings")
    return warn(GROUP, f"{path} holds no settings", "copy it anew from the repository")
