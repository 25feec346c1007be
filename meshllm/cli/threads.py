"""`meshllm threads` and `meshllm messages`: what was said, live and archived. Changes nothing."""

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import click

from meshllm.cli import rows, show
from meshllm.cli.moments import Moment, short
from meshllm.cli.show import Column
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import Names, names_of, threads_of, trees_of
from meshllm.reading.book import Book, Thread
from meshllm.reading.states import STATES, UNFINISHED, state_of
from meshllm.records import Message

Test = Callable[[Message], bool]

DEFAULT_LIMIT: Final = 50

_THREADS: Final = (
    Column("thread", show=rows.place, wrap=True),
    Column("heard", right=True),
    Column("sent", right=True),
    Column("queued", right=True, tone=lambda row: "warn" if row["queued"] else ""),
    Column("failed", right=True, tone=lambda row: "bad" if row["failed"] else ""),
    Column("last_at", "LAST UTC", show=lambda row: short(row["last_at"])),
)
_MESSAGES: Final = (
    Column("timestamp", "UTC", show=lambda row: short(row["timestamp"])),
    Column("message_id", "ID"),
    Column("thread", show=rows.place, wrap=True),
    Column("from", show=rows.person, wrap=True),
    Column("state", tone=rows.tone_of),
    Column("content", "TEXT", wrap=True),
)
_RADIO: Final = Column("node_uid", "RADIO")


@click.command()
@click.option("--radio", metavar="RADIO", help="Only this radio's: its folder, id or name.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list.")
@with_place
def threads(place: Place, radio: str | None, *, as_json: bool) -> None:
    """List all conversations: channels and direct messages, archived rows counted in."""
    trees = trees_of(place.book, radio)
    names = names_of(place.book, trees)
    found = [
        thread_facts(place.book, thread, names)
        for tree in trees
        for thread in place.book.threads(tree)
    ]
    found.sort(key=lambda facts: str(facts["last_at"]), reverse=True)
    columns = (*_THREADS, _RADIO) if len(trees) > 1 else _THREADS
    show.table(found, columns, as_json=as_json, empty="no conversations yet")
    place.tell_problems()


def thread_facts(book: Book, thread: Thread, names: Names) -> dict[str, Any]:
    """Count a thread's rows by what became of them."""
    counts: Counter[str] = Counter()
    first = last = key = ""
    for row in book.messages(thread):
        key = row.thread_key
        counts[_kind(row)] += 1
        first = min(first or row.timestamp, row.timestamp)
        last = max(last, row.timestamp)
    return {
        "node_uid": thread.tree.node_uid,
        "thread_type": thread.thread_type,
        "thread_key": key or thread.path.stem,
        "peer_name": names.name(key) if thread.thread_type == "dm" else "",
        "file": f"{thread.path.parent.name}/{thread.path.name}",
        "rows": sum(counts.values()),
        **{kind: counts[kind] for kind in ("heard", "sent", "queued", "failed")},
        "first_at": first,
        "last_at": last,
    }


def _kind(row: Message) -> str:
    state = state_of(row)
    if state in UNFINISHED:
        return "queued"
    return state if state in {"heard", "failed"} else "sent"


@click.command()
@click.argument("thread", required=False)
@click.option("--radio", metavar="RADIO", help="Only this radio's: its folder, id or name.")
@click.option("--node", metavar="NODE", help="Only what this node wrote or was sent.")
@click.option("--since", type=Moment(), help="Not older than: 2h, 3d, 2026-03-01, …")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these.")
@click.option("--grep", metavar="REGEX", help="Only texts in which this is found, in any case.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="The newest so many; 0 for all.",
)
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list.")
@with_place
def messages(
    place: Place, thread: str | None, radio: str | None, *, limit: int, as_json: bool, **wanted: Any
) -> None:
    """Show messages, the newest last; of one THREAD (a node's or channel's name, or an id)."""
    book = place.book
    trees = trees_of(book, radio)
    names = names_of(book, trees)
    chosen = (
        [found for tree in trees for found in book.threads(tree)]
        if thread is None
        else threads_of(book, trees, thread, names)
    )
    tests = _tests(names, **wanted)
    found = newest(_matching(book, chosen, tests), limit)
    facts = [rows.message_facts(where, row, names) for where, row in found]
    columns = (*_MESSAGES, _RADIO) if len(trees) > 1 else _MESSAGES
    show.table(facts, columns, as_json=as_json, empty="no such messages")
    place.tell_problems()


def _matching(
    book: Book, threads: Iterable[Thread], tests: list[Test]
) -> Iterator[tuple[Thread, Message]]:
    for thread in threads:
        for row in book.messages(thread):
            if all(test(row) for test in tests):
                yield thread, row


def newest(found: Iterable[tuple[Thread, Message]], limit: int) -> list[tuple[Thread, Message]]:
    """Return the newest rows, oldest first; rows of one time stay in the order of their file."""
    numbered = ((row.timestamp, n, thread, row) for n, (thread, row) in enumerate(found))
    kept = heapq.nlargest(limit, numbered, key=lambda one: one[:2]) if limit else list(numbered)
    return [(thread, row) for _, _, thread, row in sorted(kept, key=lambda one: one[:2])]


def _tests(
    names: Names,
    *,
    node: str | None,
    since: str | None,
    states: tuple[str, ...],
    grep: str | None,
) -> list[Test]:
    tests: list[Test] = []
    if node is not None:
        wanted = names.node(node)
        tests.append(lambda row: wanted in {row.sender_id, row.thread_key, _asker(row)})
    if since is not None:
        tests.append(lambda row: row.timestamp >= since)
    if states:
        tests.append(lambda row: state_of(row) in states)
    if grep is not None:
        pattern = _pattern(grep)
        tests.append(lambda row: pattern.search(row.content) is not None)
    return tests


def _asker(row: Message) -> str:
    """On a channel, whom a row of ours answers."""
    return str(row.meta.get("reply_to_sender", "")) if row.is_outgoing else ""


def _pattern(grep: str) -> re.Pattern[str]:
    try:
        return re.compile(grep, re.IGNORECASE)
    except re.error as error:
        raise click.BadParameter(f"{grep!r}: {error}", param_hint="--grep") from error
