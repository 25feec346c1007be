"""`meshllm prompts publish`: make the folder that may be pushed, and say what is in it."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Final

import click

from meshllm import config as settings_file
from meshllm.cli.where import check_owner
from meshllm.layout import Layout
from meshllm.site.publish import Publisher, Report
from meshllm.text import safe_for_terminal

SHOWN_TERMS: Final = 12  #: words listed for each kind; --json lists all
SHOWN_PAGES: Final = 5  #: pages listed for each reason
REVIEW: Final = (
    "Read what is in it before you push it: what was pushed once is public for good. Only what has "
    "a known form or name is replaced. Places and people told in words, nicknames, names of people "
    "without a radio, call signs, misspelt names and unusual notations are left."
)


@click.command()
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to make or bring up to date: a repository of its own, outside of this one.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Settings file (default: config.yaml beside the programs).",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; list pages and what is replaced.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def publish(folder: Path, config_path: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Write theme, public pages and their rows to a folder: the only thing to push.

    Direct messages stay back unless publish_dms is set, channels unless publish_channels names
    them. A page that cannot be read whole stays back. Nothing is removed but what an earlier run
    wrote. Exit code 4 when the folder or the settings forbid it.
    """
    settings = settings_file.load(
        config_path or settings_file.default_path(), os.environ, must_exist=config_path is not None
    ).settings
    root = settings_file.default_path().parent
    layout = Layout(settings.data_dir, settings.nodes_dir, settings.prompts_dir)
    if not dry_run:
        check_owner(layout.data_dir)  # a key that root made is closed to the owner of the data
    report = Publisher(layout, settings, root / "prompts", folder).run((root,), is_trial=dry_run)
    if as_json:
        click.echo(json.dumps(_facts(report, is_trial=dry_run), indent=2))
        return
    _say_pages(report, is_trial=dry_run)
    _say_terms(report, is_trial=dry_run)
    _say(REVIEW)


def _say(text: str) -> None:
    click.echo(safe_for_terminal(text))


def _facts(report: Report, *, is_trial: bool) -> dict[str, object]:
    changes = report.changes
    return {
        "folder": str(report.folder),
        "dry_run": is_trial,
        "published": report.published,
        "threads": {name or "direct messages": n for name, n in sorted(report.threads.items())},
        "kept_back": report.kept_back,
        "written": changes.written,
        "removed": changes.removed,
        "unchanged": changes.unchanged,
        "redacted": report.is_redacted,
        "replaced": [
            {"kind": kind, "text": text, "count": count}
            for (kind, text), count in sorted(report.terms.items())
        ],
        "review": REVIEW,
    }


def _say_pages(report: Report, *, is_trial: bool) -> None:
    changes = report.changes
    would = "would be " if is_trial else ""
    _say(f"{len(report.published)} pages {would}published in {report.folder}")
    for name, count in sorted(report.threads.items()):
        _say(f"  {count} of {f'channel {name}' if name else 'direct messages'}")
    _say(
        f"  files {would}written: {len(changes.written)}, removed: {len(changes.removed)}, "
        f"left as they are: {changes.unchanged}"
    )
    listed = [*changes.written, *(f"{name} (removed)" for name in changes.removed)]
    for name in listed if is_trial else ():
        _say(f"    {name}")
    _say(f"{sum(map(len, report.kept_back.values()))} pages kept back")
    for reason, names in sorted(report.kept_back.items()):
        shown = names if is_trial else names[:SHOWN_PAGES]
        more = [] if len(shown) == len(names) else ["…"]
        _say(f"  {len(names)} {reason}: {', '.join([*shown, *more])}")


def _say_terms(report: Report, *, is_trial: bool) -> None:
    if not report.is_redacted:
        _say("Nothing is replaced (publish_redaction: off): ids, names and places are in it.")
        return
    _say(f"{report.terms.total()} places replaced")
    kinds: dict[str, Counter[str]] = {}
    for (kind, text), count in report.terms.items():
        kinds.setdefault(kind, Counter())[text] += count
    for kind, found in sorted(kinds.items()):
        _say(f"  {kind}: {found.total()}")
        for text, count in found.most_common(SHOWN_TERMS) if is_trial else ():
            _say(f"    {count:5}  {text}")
        if is_trial and len(found) > SHOWN_TERMS:
            _say(f"    and {len(found) - SHOWN_TERMS} more (all with --json)")
