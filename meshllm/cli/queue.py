"""`meshllm queue`: what waits to be sent and why; try it again, or take it back."""

import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import click

from meshllm import grouping
from meshllm.cli import changes, rows, show
from meshllm.cli.moments import ago, short
from meshllm.cli.show import Column, Row
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import UnclearError, names_of, trees_of
from meshllm.clock import parse_utc, utc_text
from meshllm.errors import ExitCode, UserError
from meshllm.layout import NodeTree
from meshllm.observe.status import STOPPED
from meshllm.reading.book import Book, Thread
from meshllm.reading.states import UNFINISHED, state_of
from meshllm.records import Message
from meshllm.store.table import Table

MAX_PACKET_ID: Final = 2**32 - 1
FAILED_FOR: Final = timedelta(days=1)  #: how long the list shows what was given up
MAX_CANDIDATES: Final = 8
_UNDER_WAY: Final = (
    "a try is under way and may be on the air; the bridge cancels it unless the radio took it"
)


def _age(row: Row) -> str:
    age_s = row["age_s"]
    return ago(age_s) if isinstance(age_s, (int, float)) else short(row["timestamp"])


_COLUMNS: Final = (
    Column("message_id", "ID"),
    Column("thread", "TO", show=rows.place, wrap=True),
    Column("age_s", "QUEUED", show=_age),
    Column("send_attempts", "TRIES", right=True),
    Column("state_words", "STATE", wrap=True, tone=rows.tone_of),
    Column("content", "TEXT", wrap=True),
)


class NotChangedError(UserError):
    """The row is not in a state in which that can be done; nothing was written."""

    exit_code = ExitCode.BUG


@dataclass(frozen=True, slots=True)
class Found:
    """A row that we send, and the thread it is in."""

    thread: Thread
    row: Message


class _ListByDefault(click.Group):
    """A group whose `list` may be left off."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_list = not args or (args[0].startswith("-") and args[0] != "--help")
        return super().parse_args(ctx, ["list", *args] if is_list else args)


@click.group(cls=_ListByDefault)
def queue() -> None:
    """Show what waits to be sent (`list`, the default); try again, or take back."""


@queue.command("list")
@click.option("--radio", metavar="RADIO", help="Only this radio's: its folder, id or name.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list.")
@with_place
def queue_list(place: Place, radio: str | None, *, as_json: bool) -> None:
    """List what waits, and what was given up in the last day, with the reasons."""
    trees = trees_of(place.book, radio)
    names = names_of(place.book, trees)
    now = place.clock.utc()
    listed: list[dict[str, Any]] = []
    for found in _unsettled(place.book, trees, failed_after=utc_text(now - FAILED_FOR)):
        moment = parse_utc(found.row.timestamp)
        age_s = (now - moment).total_seconds() if moment else None
        facts = rows.message_facts(found.thread, found.row, names)
        if found.row.direction == "queued" and (obstacle := _obstacle(place.book, found.thread)):
            facts["state_words"] += f"; {obstacle}"
        listed.append({**facts, "age_s": age_s})
    listed.sort(key=lambda facts: str(facts["timestamp"]))
    show.table(listed, _COLUMNS, as_json=as_json, empty="nothing waits")
    place.tell_problems()


def _obstacle(book: Book, thread: Thread) -> str:
    """Say what keeps everything that a radio is to send from going; "" for nothing."""
    said = book.radio(thread.tree)
    if said.get("link_state") != "down":
        return ""
    return "no bridge runs" if said.get("link_cause") == STOPPED else "its radio is not connected"


def _unsettled(book: Book, trees: Sequence[NodeTree], *, failed_after: str) -> Iterator[Found]:
    """Yield what waits, and what was given up lately and not queued again."""
    for tree in trees:
        for thread in book.threads(tree):
            live = book.live(thread)
            renewed = _renewed(live)
            for row in live:
                state = state_of(row)
                is_lost = state == "failed" and row.message_id not in renewed
                if state in UNFINISHED or (is_lost and row.timestamp >= failed_after):
                    yield Found(thread, row)


@queue.command("cancel")
@click.argument("message_id")
@with_place
def queue_cancel(place: Place, message_id: str) -> None:
    """Take a queued text back, with the parts that come after it. A beginning of its id will do.

    What the radio took already cannot be taken back. Works while the bridge runs.
    """
    place.check_may_write()
    found = find(place.book, message_id)
    parts = _from_here_on(place.book, found)
    if found.row not in parts:
        raise NotChangedError(f"{found.row.message_id}: {_cannot_cancel(found.row)}")
    table = _table(place, found.thread)
    done = table.update({row.key: changes.cancel for row in parts})
    asked = table.update({row.key: changes.ask_to_cancel for row in parts if row.key not in done})
    if not done and not asked:
        raise NotChangedError(f"{found.row.message_id}: was not queued any more")
    for row in parts:
        if row.key in done:
            click.echo(f"{row.message_id}: cancelled")
        elif row.key in asked:
            click.echo(f"{row.message_id}: {_UNDER_WAY}")
        else:
            click.echo(f"{row.message_id}: the bridge was faster; `queue list` shows its state")


@queue.command("retry")
@click.argument("message_id")
@with_place
def queue_retry(place: Place, message_id: str) -> None:
    """Send at once what waits for a retry or for its person; queue again what was given up.

    What was given up goes out as a fresh text with a new id, its failed parts together. Works while
    the bridge runs, and while it is down for when it comes back.
    """
    place.check_may_write()
    found = find(place.book, message_id)
    if state_of(found.row) == "failed":
        _renew(place, found)
    else:
        _hasten(place, found)


def _hasten(place: Place, found: Found) -> None:
    row = found.row
    if not _table(place, found.thread).update({row.key: changes.hasten}):
        raise NotChangedError(f"{row.message_id}: {_cannot_retry(row)}")
    click.echo(f"{row.message_id}: goes out as soon as the radio is free")


def _renew(place: Place, found: Found) -> None:
    """Append copies of the parts that failed, in one commit; the old rows stay as they are."""
    wanted, now = found.row, utc_text(place.clock.utc())

    def copies(live: Sequence[Message]) -> list[Message]:
        renewed = _renewed(live)
        if wanted.message_id in renewed:
            raise NotChangedError(f"{wanted.message_id}: was queued again already")
        failed = [row for row in _parts(live, wanted) if state_of(row) == "failed"]
        old = [row for row in failed if row.message_id not in renewed]
        fresh = fresh_ids(len(old), {row.message_id for row in live})
        made = (changes.renew(r, message_id=i, now=now) for r, i in zip(old, fresh, strict=True))
        return [row for row in made if row is not None]

    # Decided under the lock: two who retry at once would each add a copy, and both would go out.
    made = _table(place, found.thread).append_made(copies)
    if not made:
        raise NotChangedError(f"{wanted.message_id}: is not given up any more")
    for row in made:
        click.echo(f"{row.meta['retry_of']}: queued again as {row.message_id}")


def _renewed(live: Sequence[Message]) -> set[object]:
    """Name the rows that were given up and queued again under another id."""
    return {row.meta.get("retry_of") for row in live if '"retry_of"' in row.meta_json}


def find(book: Book, wanted: str) -> Found:
    """Find the row of ours that an id, or a beginning of one, means. Raises UnclearError."""
    found = [
        Found(thread, row)
        for tree in book.trees()
        for thread in book.threads(tree)
        for row in book.live(thread)
        if row.is_outgoing and row.message_id.startswith(wanted)
    ]
    whole = [one for one in found if one.row.message_id == wanted]
    chosen = whole or found
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        hint = "`queue list` shows what waits; what was heard, or is archived, cannot be sent"
        raise UnclearError(f"no text of ours has the id {wanted!r}", [hint])
    listed = [_listed(one) for one in chosen[:MAX_CANDIDATES]]
    raise UnclearError(f"{wanted!r} means {len(chosen)} texts; name one:", listed)


def fresh_ids(count: int, taken: Collection[str]) -> list[str]:
    """Draw packet ids, as cells, unlike each other and every taken one."""
    ids: list[str] = []
    while len(ids) < count:
        candidate = str(secrets.randbelow(MAX_PACKET_ID) + 1)
        if candidate not in taken and candidate not in ids:
            ids.append(candidate)
    return ids


def _from_here_on(book: Book, found: Found) -> list[Message]:
    """Collect the row and the later parts of its text, as far as they are queued."""
    first = _part(found.row)
    parts = _parts(book.live(found.thread), found.row)
    return [row for row in parts if row.direction == "queued" and _part(row) >= first]


def _parts(live: Sequence[Message], one: Message) -> list[Message]:
    named = grouping.named(live)
    names = {name for name, row in named if row.key == one.key}
    return [row for name, row in named if name in names]


def _part(row: Message) -> int:
    part = row.meta.get("part")
    return part if isinstance(part, int) else 0


def _table(place: Place, thread: Thread) -> Table[Message]:
    return Table(thread.path, Message, modes=place.modes)


def _cannot_cancel(row: Message) -> str:
    if state_of(row) == "failed":
        return "was given up already"
    return f"the radio took it already ({rows.state_words(row)}); it cannot be taken back"


def _cannot_retry(row: Message) -> str:
    state = state_of(row)
    if state == "queued":
        return "waits for its turn already"
    if state == "trying":
        return "a try is under way"
    return f"{rows.state_words(row)}: not sent again, `send` makes a new text of it"


def _listed(found: Found) -> str:
    row = found.row
    return f"{row.message_id} in {found.thread.path.stem}: {show.safe(row.content[:40])}"
