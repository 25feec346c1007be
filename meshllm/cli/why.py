"""`meshllm why`: the whole story of one message. Changes nothing."""

from typing import Any, Final

import click

from meshllm.cli import show
from meshllm.cli.moments import short
from meshllm.cli.show import Column, Tone
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import Names, names_of
from meshllm.reasons import NOTHING
from meshllm.records import Message
from meshllm.why import story as stories
from meshllm.why.find import UNDECODED_ADVICE, find, newest_of, undecoded_words
from meshllm.why.story import Story

_TONES: Final[dict[str, Tone]] = {
    "answered": "good",
    "sent": "good",
    "failed": "bad",
    "unknown": "bad",
    "not_answered": "warn",
    "waits": "warn",
    "open": "warn",
}
_STEPS: Final = (
    Column("at", "UTC", show=lambda row: _clock_time(str(row["at"]))),
    Column("what"),
    Column("node_uid", "RADIO"),
    Column("text", "STORY", wrap=True),
)


@click.command()
@click.argument("message_id", required=False)
@click.option("--node", metavar="NODE", help="The newest message of this node, by name or id.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@with_place
def why(place: Place, message_id: str | None, node: str | None, *, as_json: bool) -> None:
    """Tell what became of MESSAGE_ID, and why.

    Takes a message id (decimal, !hex or 0xhex), the id of a reply or of any packet of it, a prompt
    id, or the beginning of one.
    """
    if message_id is None and node is None:
        raise click.UsageError("give a MESSAGE_ID, or --node for somebody's newest message")
    names = names_of(place.book, place.book.trees())
    person = names.node(node) if node else ""
    spots, unread = (
        newest_of(place.book, person)
        if message_id is None
        else (find(place.book, message_id, node=person), None)
    )
    told = stories.tell(stories.Desk(place.book, place.settings, place.clock), spots)
    if as_json:
        since = unread.at if unread is not None else ""
        show.emit_json({**_facts(told, names), "undecoded_at": since})
    else:
        if unread is not None:
            show.say(f"{undecoded_words(unread)}; what follows is about the one before", "bad")
            show.say(f"  > {UNDECODED_ADVICE}")
            show.say("")
        _print(told, names)
    place.tell_problems()


def _print(told: Story, names: Names) -> None:
    row, verdict = told.message, told.verdict
    show.say(_title(row, names), "head")
    if row.content:
        show.say(f'  "{row.content}"')
    if told.asked_for:
        show.say(f"  (asked about {told.asked_for}, which is about it)")
    show.say(f"{verdict.word.replace('_', ' ')}: {verdict.text}", _TONES.get(verdict.word, ""))
    if verdict.advice != NOTHING:
        show.say(f"  > {verdict.advice}")
    show.say("")
    show.table(_steps(told), _STEPS)
    if not told.logs_from:
        show.say("no log files: this is what the rows tell", "dim")
    elif told.logs_from > row.timestamp:
        show.say(f"log lines go back to {short(told.logs_from)} UTC only", "dim")


def _title(row: Message, names: Names) -> str:
    where = f"on #{row.thread_key}" if row.thread_type == "channel" else "as a direct message"
    name = names.name(row.sender_id)
    sender = f"{name} {row.sender_id}" if name else row.sender_id
    who = "from us" if row.is_outgoing else f"from {sender}"
    return f"message {row.message_id} {who} {where}, {short(row.timestamp)} UTC"


def _clock_time(cell: str) -> str:
    """Show seconds: a story happens within a minute."""
    return cell[11:19] if len(cell) == 20 else cell


def _steps(told: Story) -> list[dict[str, object]]:
    return [
        {"at": s.at, "what": s.what, "node_uid": s.node_uid, "text": s.text} for s in told.steps
    ]


def _facts(told: Story, names: Names) -> dict[str, Any]:
    row, verdict = told.message, told.verdict
    return {
        "message_id": row.message_id,
        "asked_for": told.asked_for or row.message_id,
        "direction": row.direction,
        "thread_type": row.thread_type,
        "thread_key": row.thread_key,
        "sender_id": row.sender_id,
        "sender_name": names.name(row.sender_id),
        "timestamp": row.timestamp,
        "content": row.content,
        "radios": list(told.node_uids),
        "verdict": verdict.word,
        "text": verdict.text,
        "reason": verdict.reason,
        "proof": verdict.proof,
        "advice": verdict.advice,
        "steps": _steps(told),
        "logs_from": told.logs_from,
    }
