"""`meshllm send`: queue a text of the operator's, by the same way as an answer. Opens no radio."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from meshllm.cleaning import plain_line
from meshllm.cli import rows, show
from meshllm.cli.queue import fresh_ids
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import UnclearError, names_of, radios_listed, trees_of
from meshllm.clock import Clock, Waker, utc_text
from meshllm.errors import ExitCode, UserError
from meshllm.layout import NodeTree, node_id, sanitise
from meshllm.reading.book import Book, Thread
from meshllm.reading.states import State, state_of
from meshllm.records import Message, compact_json
from meshllm.store.table import Table
from meshllm.text import MAX_PARTS, split_reply

MAX_TEXT_BYTES: Final = 200  #: of one message; a radio refuses more in a packet with extras
DEFAULT_WAIT_S: Final = 300.0
LOOK_S: Final = 0.5  #: between two looks at the file
_BROADCAST: Final = node_id(0xFFFFFFFF)
_FINAL_DM: Final[frozenset[State]] = frozenset({"delivered", "unconfirmed", "failed"})
#: Nobody confirms a text on a channel: the radio's word is the last.
_FINAL_CHANNEL: Final[frozenset[State]] = _FINAL_DM | {"handed", "relayed"}


class TooLongError(UserError):
    """The text needs more messages than it may have."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Target:
    """Where a text goes: a thread of one radio, and the slot of the channel."""

    thread: Thread
    thread_key: str
    channel_index: int
    own_id: str


@click.command()
@click.option("--to", metavar="NODE", help="Person: id or exact name.")
@click.option("--channel", metavar="NAME", help="Channel, as the radio calls it.")
@click.option("--radio", metavar="RADIO", help="Which radio sends it, where there are several.")
@click.option(
    "--max-parts",
    type=click.IntRange(1, MAX_PARTS),
    help="Most messages it may take; default: `max_reply_parts`. Each takes air from everybody.",
)
@click.option("--wait", is_flag=True, help="Show how far it comes, until that is final.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=DEFAULT_WAIT_S,
    show_default=True,
    help="Seconds to wait at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the rows as a JSON list.")
@click.argument("text")
@with_place
def send(
    place: Place,
    text: str,
    *,
    radio: str | None,
    max_parts: int | None,
    wait: bool,
    timeout: float,
    as_json: bool,
    **addressee: str | None,
) -> None:
    """Send TEXT to a person (--to) or on a channel (--channel), as soon as the bridge runs.

    Exit code 0 when it is queued; with --wait when it was sent, 3 when it failed or time is up.
    """
    place.check_may_write()
    target = _target(place.book, trees_of(place.book, radio), **addressee)
    parts = _split(text, max_parts or place.settings.max_reply_parts, place)
    queued = build(target, parts, place)
    Table(target.thread.path, Message, modes=place.modes).append(queued)
    names = names_of(place.book, [target.thread.tree])
    for row in queued if not as_json else ():
        goal = rows.place(rows.message_facts(target.thread, row, names))
        show.say(f"{row.message_id}: queued for {goal}")
    final = _wait(place, target, queued, timeout, is_quiet=as_json) if wait else queued
    if as_json:
        show.emit_json([rows.message_facts(target.thread, row, names) for row in final])
    if wait and not all(_is_sent(row) for row in final):
        click.get_current_context().exit(ExitCode.NO_ANSWER)


def build(target: Target, parts: Sequence[str], place: Place) -> list[Message]:
    """Make the queued rows of one text: fresh ids, no question that they would answer."""
    live = place.book.live(target.thread)
    ids = fresh_ids(len(parts), {row.message_id for row in live})
    now = utc_text(place.clock.utc())
    made = []
    for number, (message_id, content) in enumerate(zip(ids, parts, strict=True), 1):
        meta: dict[str, object] = {"kind": "operator"}
        if len(parts) > 1:
            meta |= {"part": number, "parts": len(parts), "group": ids[0]}
        made.append(
            Message(
                thread_type=target.thread.thread_type,
                thread_key=target.thread_key,
                message_id=message_id,
                direction="queued",
                sender_id=target.own_id,
                timestamp=now,
                content=content,
                meta_json=compact_json({**meta, "channel_index": target.channel_index}),
            )
        )
    return made


def _split(text: str, max_parts: int, place: Place) -> tuple[str, ...]:
    chars = place.settings.max_message_chars
    whole = split_reply(
        plain_line(text), limit_bytes=MAX_TEXT_BYTES, limit_chars=chars, max_parts=MAX_PARTS
    )
    if not whole.parts:
        raise click.UsageError("the text is empty")
    count = len(whole.parts)
    if count > max_parts or whole.rest:
        hint = f"shorten it, or allow them with --max-parts {count}"
        raise TooLongError(f"the text takes {count} messages, not {max_parts}", [hint])
    return whole.parts


def _target(
    book: Book, trees: Sequence[NodeTree], *, to: str | None, channel: str | None
) -> Target:
    if to is not None and channel is None:
        return _person(book, trees, to)
    if channel is not None and to is None:
        return _channel(book, trees, channel)
    raise click.UsageError("say where it goes: either --to NODE or --channel NAME")


def _person(book: Book, trees: Sequence[NodeTree], wanted: str) -> Target:
    node = names_of(book, trees).node(wanted)
    tree = _one(book, trees, [tree for tree in trees if _knows(book, tree, node)])
    own_id = _own_id(book, tree)
    if node in {own_id, _BROADCAST, node_id(0)}:
        raise UnclearError(f"{node} is no person to write to", ["--channel writes to everybody"])
    thread = Thread(tree, tree.dm_thread(node), "dm")
    return Target(thread, node, _index_of_last(book.live(thread)), own_id)


def _channel(book: Book, trees: Sequence[NodeTree], wanted: str) -> Target:
    name = wanted.removeprefix("#")
    having = {tree: _slots(book, tree, name) for tree in trees}
    tree = _one(book, trees, [tree for tree in trees if having[tree]])
    slots = having[tree]
    if len(slots) != 1:
        known = [f"{slot['index']} {show.safe(slot['name'])}" for slot in _all(book, tree)]
        problem = (
            f"no channel is called {wanted!r}" if not slots else f"{len(slots)} are {wanted!r}"
        )
        raise UnclearError(f"{problem}; {tree.node_uid} has:", known or ["none that is known yet"])
    slot = slots[0]
    thread = Thread(tree, tree.channel_thread(sanitise(slot["file"])), "channel")
    return Target(thread, slot["name"], slot["index"], _own_id(book, tree))


def _one(book: Book, trees: Sequence[NodeTree], likely: Sequence[NodeTree]) -> NodeTree:
    """Pick the radio: the only one, or the only one that knows the addressee."""
    if not trees:
        raise UserError("no radio has been connected yet", ["start the bridge once: ./run.sh"])
    if len(trees) == 1 or len(likely) == 1:
        return (likely if len(likely) == 1 else trees)[0]
    listed = radios_listed(book, trees)
    raise UnclearError("several radios could send it; name one with --radio:", listed)


def _knows(book: Book, tree: NodeTree, node: str) -> bool:
    return any(row.node_id == node for row in book.nodes(tree))


def _own_id(book: Book, tree: NodeTree) -> str:
    said = book.radio(tree).get("node_id")
    if isinstance(said, str) and said:
        return said
    raise UserError(
        f"{tree.radio_status}: the radio's own id is not known",
        ["start the bridge once with the radio connected: ./run.sh"],
    )


def _slots(book: Book, tree: NodeTree, name: str) -> list[dict[str, Any]]:
    found = _all(book, tree)
    exact = [slot for slot in found if slot["name"] == name]
    return exact or [slot for slot in found if slot["name"].casefold() == name.casefold()]


def _all(book: Book, tree: NodeTree) -> list[dict[str, Any]]:
    listed = book.radio(tree).get("channels")
    kinds = {"index": int, "name": str, "file": str}
    return [
        slot
        for slot in (listed if isinstance(listed, list) else [])
        if isinstance(slot, dict) and all(isinstance(slot.get(k), t) for k, t in kinds.items())
    ]


def _index_of_last(live: Sequence[Message]) -> int:
    """Slot on which the person wrote last; 0 for a text under public keys, or none."""
    for row in reversed(live):
        if not row.is_outgoing:
            meta = row.meta
            index = meta.get("channel_index")
            if meta.get("pki") or not isinstance(index, int) or isinstance(index, bool):
                return 0
            return index if 0 <= index <= 7 else 0
    return 0


def _wait(
    place: Place, target: Target, queued: Sequence[Message], timeout_s: float, *, is_quiet: bool
) -> list[Message]:
    """Look at the rows until they are final or time is up; return them as they are then."""
    clock: Clock = place.clock
    deadline = clock.monotonic() + timeout_s * clock.scale
    told: dict[str, str] = {}
    waker = Waker()
    while True:
        live = {row.key: row for row in place.book.live(target.thread) if row.is_outgoing}
        now = [live.get(row.key, row) for row in queued]
        for row in now:
            words = rows.state_words(row)
            if words != told.get(row.message_id) and not is_quiet:
                show.say(f"{row.message_id}: {words}")
            told[row.message_id] = words
        if all(_is_final(row) for row in now) or clock.monotonic() >= deadline:
            return now
        clock.wait(waker, LOOK_S * clock.scale)


def _is_final(row: Message) -> bool:
    return state_of(row) in (_FINAL_DM if row.thread_type == "dm" else _FINAL_CHANNEL)


def _is_sent(row: Message) -> bool:
    return _is_final(row) and state_of(row) != "failed"
