"""`meshllm export`: all of one kind, over all radios and archives, as one file. Reads only."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from meshllm.cli import show
from meshllm.cli.moments import Moment
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import trees_of
from meshllm.layout import NodeTree
from meshllm.reading.book import Book
from meshllm.reading.sorting import Entry, sorted_entries
from meshllm.records import Message, Node, PromptRow, Record, Sighting
from meshllm.store import codec
from meshllm.store.stream import replacing

TELL_EVERY: Final = 5_000  #: rows between two lines of progress
RADIO: Final = "node_uid"  #: column before those of the files, since a row is of one radio

_TYPES: Final[Mapping[str, type[Record]]] = {
    "messages": Message,
    "nodes": Node,
    "sightings": Sighting,
    "prompts": PromptRow,
}
#: The time by which rows are sorted and picked.
_TIMES: Final = {
    "messages": "timestamp",
    "nodes": "last_seen_at",
    "sightings": "observed_at",
    "prompts": "datetime",
}


@click.command()
@click.argument("kind", type=click.Choice(tuple(_TYPES)), default="messages")
@click.option(
    "--format", "form", type=click.Choice(("csv", "jsonl")), default="csv", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write; default: stdout.")
@click.option("--radio", metavar="RADIO", help="Only this radio's: its folder, id or name.")
@click.option("--since", type=Moment(), help="Not older than: 2h, 3d, 2026-03-01, …")
@click.option("--until", type=Moment(), help="Older than.")
@with_place
def export(
    place: Place,
    kind: str,
    form: str,
    out: Path | None,
    radio: str | None,
    since: str | None,
    until: str | None,
) -> None:
    """Write all messages, nodes, sightings or prompts as one CSV or JSON Lines, oldest first.

    Live and archived rows of all radios, each once. A cell that a spreadsheet might run as a
    formula has an apostrophe in front, as in the files themselves.
    """
    trees = trees_of(place.book, radio)
    found = (
        entry
        for entry in _entries(place.book, trees, kind, is_all=radio is None)
        if (not since or _comparable(entry[0]) >= since)
        and (not until or _comparable(entry[0]) < until)
    )
    ordered = sorted_entries(_told(found, "rows read"))
    _write(_lines(_told(ordered, "rows written"), kind, form), out)
    place.tell_problems()


def _entries(book: Book, trees: list[NodeTree], kind: str, *, is_all: bool) -> Iterator[Entry]:
    record_type = _TYPES[kind]
    at = record_type.columns().index(_TIMES[kind])
    if kind == "prompts":
        folders = {tree.node_uid for tree in trees}
        for call in book.prompts():
            if is_all or call.node_uid in folders:
                yield _entry(call, at, ())
        return
    for tree in trees:
        for row in _rows(book, tree, kind):
            yield _entry(row, at, (tree.node_uid,))


def _entry(row: Record, at: int, before: tuple[str, ...]) -> Entry:
    cells = row.cells()
    return cells[at], (*before, *cells)


def _rows(book: Book, tree: NodeTree, kind: str) -> Iterator[Record]:
    if kind == "nodes":
        yield from book.nodes(tree)
    elif kind == "sightings":
        yield from book.sightings(tree)
    else:
        for thread in book.threads(tree):
            yield from book.messages(thread)


def _comparable(cell: str) -> str:
    """Write the time of a model call as the other files write theirs."""
    return f"{cell[:10]}T{cell[11:]}Z" if cell[10:11] == " " else cell


def _lines(entries: Iterator[Entry], kind: str, form: str) -> Iterator[str]:
    record_type = _TYPES[kind]
    has_radio = kind != "prompts"  # a model call's row says itself of which radio it is
    if form == "csv":
        yield ",".join([*[RADIO] * has_radio, *record_type.columns()]) + "\n"
    for _, values in entries:
        cells = tuple(map(str, values))
        radio = cells[:1] if has_radio else ()
        row = record_type.from_cells(cells[len(radio) :])
        yield _csv_line(radio, row) if form == "csv" else _json_line(radio, row)


def _csv_line(radio: tuple[str, ...], row: Record) -> str:
    # The folder's name, guarded and quoted as the first cell of any row is.
    front = "".join(codec.encode_row(Node(uid)).decode().rstrip(",\n") + "," for uid in radio)
    return front + codec.encode_row(row).decode()


def _json_line(radio: tuple[str, ...], row: Record) -> str:
    facts: dict[str, object] = dict(zip((RADIO,), radio, strict=False))
    for name in row.columns():
        value = getattr(row, name)
        stem, is_nested, _ = name.partition("_json")
        facts[stem if is_nested else name] = _parsed(value) if is_nested else value
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n"


def _parsed(text: str) -> object:
    """Return what a JSON cell holds; its text when that is no JSON."""
    try:
        return json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return text


def _write(lines: Iterator[str], out: Path | None) -> None:
    if out is not None:
        with replacing(out) as target:
            for line in lines:
                target.write(line.encode("utf-8", "replace"))
        return
    is_seen = show.is_terminal()
    for line in lines:
        # Files keep the texts as they are; a screen must not.
        sys.stdout.write(show.safe(line, keep_lines=True) if is_seen else line)


def _told(entries: Iterable[Entry], what: str) -> Iterator[Entry]:
    """Pass entries on; count them on stderr where somebody watches."""
    is_watched = sys.stderr.isatty()
    count = 0
    for entry in entries:
        count += 1
        if is_watched and count % TELL_EVERY == 0:
            click.echo(f"\r{count} {what} ", nl=False, err=True)
        yield entry
    if is_watched:
        click.echo(f"\r{count} {what} ", err=True)
