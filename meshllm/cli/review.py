"""`meshllm review`: what was heard, decided and sent in a period. Changes nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final

import click

from meshllm import reasons
from meshllm.cli import show
from meshllm.cli.moments import Moment, short
from meshllm.cli.show import Column, Tone
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import trees_of
from meshllm.clock import utc_text
from meshllm.commands.ages import span
from meshllm.layout import NodeTree
from meshllm.reading import decisions
from meshllm.reading.decisions import Decisions
from meshllm.reading.period import Period, Tally, calls_in, preset_of, spread
from meshllm.reasons import Kind

Facts = dict[str, Any]
Pair = tuple[str, object, Tone]

DEFAULT_SPAN: Final = timedelta(hours=24)
ALL_LIVE: Final = timedelta(hours=48)  #: younger rows are in no archive
_UNDECIDED: Final = "UNKNOWN"  #: a row that was given up without a reason
_COUNTS: Final = ("heard", "direct", "channel", "questions", "answers", "commands", "notices")
_SENT: Final = ("texts", "by_operator", "hand_overs", "again", "doubles")
#: Which tables of reasons there are, under which key and heading.
_TABLES: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("skipped", "skipped", "Not answered"),
    ("deferred", "deferred", "Answered later"),
    ("refused", "refused", "Refused without the model"),
    ("faulty", "fault", "Faulty answers of the model"),
    ("tries_failed", "sending", "Tries that failed, and air that was held"),
)
_REASONS: Final = (
    Column("count", right=True),
    Column("reason"),
    Column("text", "IN WORDS", wrap=True),
)
_HOURS: Final = (
    Column("hour", "HOUR UTC", show=lambda row: str(row["hour"]).replace("T", " ")),
    Column("airtime_s", "ON AIR S", right=True, show=lambda row: f"{row['airtime_s']:.1f}"),
)


@click.command()
@click.option("--since", type=Moment(), help="Not older than this (default: 24h).")
@click.option("--until", type=Moment(), help="Older than this (default: now).")
@click.option("--radio", metavar="RADIO", help="Only this radio's: its folder, id or name.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@with_place
def review(
    place: Place, since: str | None, until: str | None, radio: str | None, *, as_json: bool
) -> None:
    """Count a period: heard, answered, left out and why, sent, time on air, seconds."""
    now = place.clock.utc()
    soon = utc_text(now + timedelta(seconds=1))  # what happens in this second counts
    period = Period(since or utc_text(now - DEFAULT_SPAN), until or soon)
    facts = gather(place, period, trees_of(place.book, radio))
    if as_json:
        show.emit_json(facts)
        return
    render(facts)
    place.tell_problems()


def gather(place: Place, period: Period, trees: list[NodeTree]) -> Facts:
    """Count everything. The keys stay; see docs/reference/cli.md."""
    tally = Tally(period)
    book = place.book
    is_recent = period.since >= utc_text(place.clock.utc() - ALL_LIVE)
    for tree in trees:
        said = book.radio(tree)
        for thread in book.threads(tree):
            tally.add_thread(
                book.live(thread) if is_recent else book.messages(thread),
                node_uid=tree.node_uid,
                preset=preset_of(said.get("preset")),
                own_ids={str(said.get("node_id", ""))},
            )
    radios = [tree.node_uid for tree in trees]
    calls = (row for row in book.prompts() if row.node_uid in radios)
    logged = decisions.read(place.layout, period, radios)
    return {
        "since": period.since,
        "until": period.until,
        "radios": radios,
        **{key: tally.counts[key] for key in _COUNTS},
        "people": len(tally.people),
        "seconds": spread(tally.seconds),
        "parts": {str(number): tally.parts[number] for number in sorted(tally.parts)},
        "model": calls_in(calls, period),
        "sent": {key: tally.counts[key] for key in _SENT},
        "states": {state: count for state, count in tally.states.items() if count},
        "failed": _explained("sending", tally.failed),
        "airtime": _airtime(tally),
        **{key: _explained(kind, logged.reasons.get(kind, {})) for key, kind, _ in _TABLES},
        "events": {name: logged.events[name] for name in decisions.EVENTS if logged.events[name]},
        "logs": {role: _log_facts(logged, role, period) for role in decisions.ROLES},
        "problems": [str(problem) for problem in book.problems],
    }


def _explained(kind: Kind, counts: Mapping[str, int]) -> list[Facts]:
    """Put reasons into words, the most frequent first."""
    listed = Counter(counts).most_common()
    return [{"count": count, "reason": code, "text": _words(kind, code)} for code, count in listed]


def _words(kind: Kind, code: str) -> str:
    return "the row names no reason" if code == _UNDECIDED else reasons.explain(kind, code).text


def _airtime(tally: Tally) -> Facts:
    """Say how long we were on the air, by hour, and for whom most in one hour."""
    by_hour = sorted(tally.hours.items())
    hours = [{"hour": hour, "airtime_s": round(used, 1)} for hour, used in by_hour]
    most: Facts | None = None
    if tally.shares:
        (hour, node_uid, thread_key), used = max(tally.shares.items(), key=itemgetter(1))
        most = {"hour": hour, "node_uid": node_uid, "thread_key": thread_key}
        most["airtime_s"] = round(used, 1)
    return {"total_s": round(sum(tally.hours.values()), 1), "hours": hours, "most": most}


def _log_facts(logged: Decisions, role: str, period: Period) -> Facts:
    oldest = logged.oldest.get(role, "")
    return {"oldest_at": oldest, "covers": bool(oldest) and oldest <= period.since}


def render(facts: Facts) -> None:
    """Write what `gather` found for a person."""
    show.say(f"{short(facts['since'])} to {short(facts['until'])} UTC", "dim")
    show.facts(_asked(facts), title="Questions and answers")
    show.facts(_times(facts), title="Seconds")
    show.facts(_sent(facts), title="Sent")
    for key, _, heading in _TABLES:
        _table(heading, facts[key])
    _table("Given up", facts["failed"])
    if facts["airtime"]["hours"]:
        show.say("Time on air by hour", "head")
        show.table(facts["airtime"]["hours"], _HOURS)
    if facts["events"]:
        show.facts(_events(facts["events"]), title="Also")
    for line in _gaps(facts["logs"], facts["since"]):
        show.say(line, "warn")


def _table(heading: str, rows: list[Facts]) -> None:
    if rows:
        show.say(heading, "head")
        show.table(rows, _REASONS)


def _asked(facts: Facts) -> Iterator[Pair]:
    heard = f"{facts['heard']} texts: {facts['direct']} direct, {facts['channel']} on channels"
    yield "heard", heard, ""
    who = "person" if facts["people"] == 1 else "people"
    yield "questions", f"{facts['questions']} by {facts['people']} {who}", ""
    answers = f"{facts['answers']} of the model, {facts['commands']} of commands"
    yield "answers", answers, ""
    yield "notices", facts["notices"], ""
    parts = [f"{count} in {number}" for number, count in facts["parts"].items()]
    yield "messages of an answer", ", ".join(parts) or None, ""


def _times(facts: Facts) -> Iterator[Pair]:
    yield "to the first message", _spread(facts["seconds"]), ""
    model = facts["model"]
    yield "model call", _spread(model["seconds"]), ""
    ended = [f"{count} {outcome}" for outcome, count in model["outcomes"].items()]
    yield "model calls", f"{model['calls']}{': ' if ended else ''}{', '.join(ended)}", ""


def _spread(found: Facts) -> str:
    if not found["count"]:
        return "none measured"
    half, most = span(found["p50"]), span(found["most"])
    return f"half within {half}, nine of ten within {span(found['p90'])}, longest {most}"


def _sent(facts: Facts) -> Iterator[Pair]:
    sent = facts["sent"]
    operator = f", {sent['by_operator']} by the operator" if sent["by_operator"] else ""
    yield "texts", f"{sent['texts']}{operator}", ""
    states = [f"{count} {state}" for state, count in sorted(facts["states"].items())]
    yield "stand", ", ".join(states) or None, ""
    yield "tries", f"{sent['hand_overs']}, {sent['again']} of them repeats", ""
    yield "perhaps seen twice", sent["doubles"], "warn" if sent["doubles"] else ""
    air = facts["airtime"]
    yield "on air", f"{air['total_s']:.1f} s without the radio's own repeats", ""
    if air["most"]:
        most = air["most"]
        when = str(most["hour"]).replace("T", " ")
        used = f"{most['airtime_s']:.1f} s for {most['thread_key']}, {when}:00"
        yield "most in an hour", used, ""


def _events(counts: Mapping[str, int]) -> Iterator[Pair]:
    for name, count in counts.items():
        yield str(count), decisions.EVENTS[name], ""


def _gaps(logs: Mapping[str, Facts], since: str) -> Iterator[str]:
    for role, known in logs.items():
        if not known["oldest_at"]:
            yield f"no log of the {role}: what only it knows is not counted"
        elif not known["covers"]:
            begin = short(known["oldest_at"])
            yield f"the log of the {role} begins {begin}, after {short(since)}"
