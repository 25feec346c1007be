"""`meshllm status`: how both processes, radios, queues and the model stand. Changes nothing."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TextIO

import click

from meshllm.cli import show
from meshllm.cli.moments import ago, short
from meshllm.cli.overview import overview
from meshllm.cli.show import Column, Tone
from meshllm.cli.where import Place, with_place
from meshllm.clock import Clock, Waker, parse_utc
from meshllm.commands.ages import span

Pair = tuple[str, object, Tone]

WATCH_S: Final = 5.0
_PROCESS_TONES: Final[Mapping[str, Tone]] = {
    "running": "good",
    "stopped": "warn",
    "unclear": "warn",
    "never": "dim",
    "stuck": "bad",
    "dead": "bad",
}
_WAITING: Final = (
    ("queued", "to be sent"),
    ("trying", "on the way to the radio"),
    ("retry", "waiting for a retry"),
    ("held", "held until somebody is heard"),
)
_ERRORS: Final = (
    Column("timestamp", "UTC", show=lambda row: str(row["timestamp"])[:16].replace("T", " ")),
    Column("role", "BY"),
    Column("level", tone=lambda row: "warn" if row["level"] == "warning" else "bad"),
    Column("event"),
    Column("reason", wrap=True),
)


@click.command()
@click.option(
    "--watch",
    "watch_s",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=WATCH_S,
    type=click.FloatRange(min=0.2),
    help="Show it again and again, every 5 seconds; Ctrl-C ends.",
)
@click.option("--count", type=click.IntRange(min=1), help="With --watch: end after so many times.")
@click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object; a line each, watched."
)
@with_place
def status(place: Place, watch_s: float | None, count: int | None, *, as_json: bool) -> None:
    """Show processes, radios, queues, model, disk, rates and the last errors."""
    if watch_s is None:
        _once(place, as_json=as_json)
        return
    try:
        for number in _rounds(place.clock, watch_s, count):
            _again(place, number, as_json=as_json)
    except KeyboardInterrupt:
        return


def _once(place: Place, *, as_json: bool) -> None:
    facts = overview(place)
    if as_json:
        show.emit_json(facts)
    else:
        render(facts)
        place.tell_problems()


def _again(place: Place, number: int, *, as_json: bool) -> None:
    facts = overview(place)
    if as_json:
        click.echo(show.json_text(facts))
        return
    with show.frame(is_first=not number) as out:
        if number and not show.is_terminal():
            out.write("\n")
        show.say(f"{facts['at']}  {facts['data_dir']}", "dim", out=out)
        render(facts, out=out)


def _rounds(clock: Clock, every_s: float, count: int | None) -> Iterator[int]:
    waker, number = Waker(), 0
    while True:
        yield number
        number += 1
        if number == count:
            return
        clock.wait(waker, every_s * clock.scale)


def render(facts: Mapping[str, Any], *, out: TextIO | None = None) -> None:
    """Write the facts of `overview` for a person."""
    now = parse_utc(facts["at"])
    now_s = now.timestamp() if now else 0.0
    show.facts(_processes(facts["processes"]), title="Processes", out=out)
    for radio in facts["radios"]:
        name = " ".join(str(radio[key]) for key in ("node_uid", "long_name") if radio[key])
        show.facts(_radio(radio, now_s), title=f"Radio {name}", out=out)
    if not facts["radios"]:
        show.facts([("none", "no radio has been connected yet", "dim")], title="Radios", out=out)
    show.facts(_queue(facts["queue"]), title="Queue", out=out)
    show.facts(_model(facts["model"]), title="Model", out=out)
    show.facts(_disk(facts["disk"]), title="Disk", out=out)
    show.facts(_rates(facts["rates"]), title="Texts", out=out)
    if facts["errors"]:
        show.say("Last errors and warnings", "head", out=out)
        show.table(facts["errors"], _ERRORS, out=out)


def _processes(found: Mapping[str, Any]) -> Iterator[Pair]:
    for role, process in found.items():
        pieces = [process["state"]]
        if process["pid"]:
            pieces.append(f"pid {process['pid']}")
        if process["heartbeat_at"]:
            pieces.append(f"heartbeat {ago(process['age_s']) or process['heartbeat_at']}")
        if process["detail"]:
            pieces.append(process["detail"])
        yield role, ", ".join(pieces), _PROCESS_TONES[process["state"]]


def _radio(radio: Mapping[str, Any], now_s: float) -> Iterator[Pair]:
    state, cause = radio["link_state"] or "unknown", radio["link_cause"]
    tone: Tone = "good" if state == "up" and not cause else "warn"
    yield "link", f"{state}{f' ({cause})' if cause else ''}, {radio['link'] or 'no link'}", tone
    set_up = [radio[key] for key in ("node_id", "preset", "region", "firmware") if radio[key]]
    yield "radio", ", ".join(map(str, set_up)) or None, ""
    yield "channels", _channels(radio["channels"]), ""
    yield "air", _air(radio), "warn" if radio["air"] else ""
    heard = parse_utc(radio["last_heard_at"])
    age = f" ({ago(now_s - heard.timestamp())})" if heard else ""
    yield "last heard", f"{short(radio['last_heard_at']) or 'never'}{age}", ""
    held = f", {radio['held']} of them held" if radio["held"] else ""
    yield "waiting", f"{radio['queued']}{held}", ""


def _channels(listed: object) -> str | None:
    if not isinstance(listed, list):
        return None
    entries = [entry for entry in listed if isinstance(entry, dict)]
    return ", ".join(f"{entry.get('index')} {entry.get('name')}" for entry in entries) or None


def _air(radio: Mapping[str, Any]) -> str | None:
    pieces = []
    for key, name in (("channel_utilization", "channel use"), ("air_util_tx", "of it own")):
        if isinstance(radio[key], (int, float)):
            pieces.append(f"{name} {radio[key]:.1f} %")
    if isinstance(radio["own_airtime_s"], (int, float)):
        pieces.append(f"{radio['own_airtime_s']:.0f} s sent in the last hour")
    if radio["air"]:
        pieces.append(f"texts wait: {radio['air']}")
    return ", ".join(pieces) or None


def _queue(queue: Mapping[str, Any]) -> Iterator[Pair]:
    counts = [f"{queue[key]} {word}" for key, word in _WAITING if queue[key]]
    yield "waiting", f"{queue['waiting']}{': ' if counts else ''}{', '.join(counts)}", ""
    if queue["oldest_age_s"] is not None:
        yield "oldest", f"{short(queue['oldest_at'])} ({ago(queue['oldest_age_s'])})", ""


def _model(model: Mapping[str, Any]) -> Iterator[Pair]:
    state = model["state"] or "unknown"
    words = [str(model[key]) for key in ("reason", "detail") if model[key]]
    tone: Tone = "good" if state == "ready" else "warn"
    yield "state", f"{state}{': ' if words else ''}{', '.join(words)}", tone
    yield "name", model["name"] or None, ""
    yield "tried again", short(model["retry_at"]) or None, ""
    speeds = ((model["eval_tps"], "written"), (model["prompt_tps"], "read"))
    told = [f"{tps:.1f} tokens/s {verb}" for tps, verb in speeds if isinstance(tps, (int, float))]
    yield "speed", ", ".join(told) or None, ""
    if isinstance(model["answer_s"], (int, float)):
        yield "an answer", f"takes {span(model['answer_s'])}", ""
    yield "open questions", model["questions"], ""


def _disk(disk: Mapping[str, Any]) -> Iterator[Pair]:
    if disk["free_mb"] is not None:
        yield "free", f"{disk['free_mb']} MB", ""
    for role in ("bridge", "agent"):
        if disk[role] is not None and disk[role] != "ok":
            yield role, disk[role], "bad"


def _rates(rates: Mapping[str, Any]) -> Iterator[Pair]:
    for kind in ("heard", "answers", "failed"):
        yield kind, f"{rates[f'{kind}_hour']} in an hour, {rates[f'{kind}_day']} in a day", ""
