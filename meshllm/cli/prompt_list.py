"""`meshllm prompts list` and `show`: the log of model calls, live and archived. Changes nothing."""

import heapq
from typing import Any, Final

import click

from meshllm.cli import show
from meshllm.cli.moments import Moment
from meshllm.cli.show import Column, Row
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import UnclearError
from meshllm.reading.book import Book
from meshllm.reading.states import text_of
from meshllm.records import PromptRow

DEFAULT_LIMIT: Final = 20
MAX_CANDIDATES: Final = 8
SHORT_ID: Final = 8  #: characters of an id in the list; any beginning that is unique will do


def _thread(row: Row) -> str:
    return f"#{row['thread_key']}" if row["thread_type"] == "channel" else str(row["thread_key"])


def _seconds(row: Row) -> str:
    duration: Any = row["duration_ms"]
    return "" if duration is None else f"{duration / 1000:.1f}"


_COLUMNS: Final = (
    Column("datetime", "UTC", show=lambda row: str(row["datetime"])[:16]),
    Column("prompt_id", "ID", show=lambda row: str(row["prompt_id"])[:SHORT_ID]),
    Column("thread", show=_thread),
    Column("source_message_id", "QUESTION"),
    Column(
        "outcome",
        tone=lambda row: "good" if row["outcome"] in {"ok", "capped"} else "warn",
    ),
    Column("completion_tokens", "TOKENS", right=True),
    Column("eval_tps", "TOKENS/S", right=True),
    Column("duration_ms", "SECONDS", right=True, show=_seconds),
    Column("model", wrap=True),
)


@click.command("list")
@click.option("--since", type=Moment(), help="Not older than: 2h, 3d, 2026-03-01, …")
@click.option("--outcome", metavar="OUTCOME", help="Only these, such as ok or timeout.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="The newest so many; 0 for all.",
)
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list.")
@with_place
def prompt_list(
    place: Place, since: str | None, outcome: str | None, *, limit: int, as_json: bool
) -> None:
    """List model calls, the newest last."""
    after = (since or "").replace("T", " ").removesuffix("Z")
    found = (
        (row.datetime, n, facts)
        for n, row in enumerate(place.book.prompts())
        if row.datetime >= after
        and (facts := prompt_facts(row))
        and outcome in {None, facts["outcome"]}
    )
    kept = heapq.nlargest(limit, found, key=lambda one: one[:2]) if limit else list(found)
    shown = [facts for _, _, facts in sorted(kept, key=lambda one: one[:2])]
    show.table(shown, _COLUMNS, as_json=as_json, empty="no model calls are logged")
    place.tell_problems()


@click.command("show")
@click.argument("prompt_id")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object: row and page.")
@with_place
def prompt_show(place: Place, prompt_id: str, *, as_json: bool) -> None:
    """Print the page of one model call; a beginning of its id that is unique will do."""
    row = find_prompt(place.book, prompt_id)
    page = place.book.prompt_page(row.prompt_id)
    facts = prompt_facts(row)
    if as_json:
        show.emit_json({**facts, "page": page or None})
    elif page:
        show.say(page.rstrip("\n"))
    else:
        show.facts((key, value, "") for key, value in facts.items() if key != "meta")
        show.say("its page is missing", "warn")
    place.tell_problems()


def find_prompt(book: Book, prompt_id: str) -> PromptRow:
    """Find the call of an id or of a beginning of one. Raises UnclearError."""
    found = [row for row in book.prompts() if row.prompt_id.startswith(prompt_id)]
    whole = [row for row in found if row.prompt_id == prompt_id]
    if len(found) == 1 or whole:
        return (whole or found)[0]
    if not found:
        raise UnclearError(f"no model call {prompt_id!r}", ["`prompts list` shows them"])
    listed = [show.safe(row.prompt_id) for row in found[:MAX_CANDIDATES]]
    raise UnclearError(f"{prompt_id!r} is the beginning of {len(found)} calls:", listed)


def prompt_facts(row: PromptRow) -> dict[str, Any]:
    """Everything of a row, its outcome and reason besides."""
    meta = row.meta
    cells = {name: getattr(row, name) for name in PromptRow.columns() if name != "meta_json"}
    return {
        **cells,
        "outcome": text_of(meta, "outcome"),
        "reason": text_of(meta, "reason"),
        "meta": meta,
    }
