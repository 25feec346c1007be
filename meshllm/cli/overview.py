"""What `status` shows, as facts: processes, radios, queues, model, disk, rates. Shows nothing."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from meshllm.cli.where import Place
from meshllm.clock import parse_utc, utc_text
from meshllm.layout import Layout, NodeTree
from meshllm.observe import status
from meshllm.reading import logs, processes
from meshllm.reading.book import Book
from meshllm.reading.states import UNFINISHED, state_of
from meshllm.records import Message
from meshllm.store.space import BYTES_PER_MB

MAX_TROUBLES: Final = 5
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
_RADIO_KEYS: Final = (
    "node_id",
    "short_name",
    "long_name",
    "firmware",
    "region",
    "preset",
    "channels",
    "link",
    "link_state",
    "link_cause",
    "air",
    "own_airtime_s",
    "channel_utilization",
    "air_util_tx",
    "storage",
    "heartbeat_at",
)


def overview(place: Place) -> dict[str, Any]:
    """Gather everything at this moment. The keys stay; see docs/reference/cli.md."""
    book, layout = place.book, place.layout
    now = place.clock.utc()
    trees = book.trees()
    live = {tree: _live_rows(book, tree) for tree in trees}
    radios = [radio_facts(book, tree, live[tree]) for tree in trees]
    agent = book.agent()
    every = [row for rows in live.values() for row in rows]
    return {
        "at": utc_text(now),
        "data_dir": str(layout.data_dir),
        "processes": {
            "bridge": asdict(_bridge(layout, radios, now.timestamp())),
            "agent": {
                **asdict(_agent(layout, agent, now.timestamp())),
                "started_at": agent.get("started_at", ""),
            },
        },
        "radios": radios,
        "queue": queue_facts(every, now.timestamp()),
        "model": _model(agent),
        "disk": _disk(layout, agent, radios),
        "rates": rate_facts(every, hour=utc_text(now - HOUR), day=utc_text(now - DAY)),
        "errors": [asdict(event) for event in _troubles(layout)],
        "problems": [str(problem) for problem in book.problems],
    }


def radio_facts(book: Book, tree: NodeTree, rows: Iterable[Message]) -> dict[str, Any]:
    """What radio.json says of a radio, when it last heard a text, and what waits for it."""
    said = book.radio(tree)
    listed = list(rows)
    newest = max((row.timestamp for row in listed if not row.is_outgoing), default="")
    latest = max((row.signal_at for row in book.latest(tree).values()), default="")
    states = Counter(state_of(row) for row in listed)
    return {
        "node_uid": tree.node_uid,
        **{key: said.get(key) for key in _RADIO_KEYS},
        "last_heard_at": max(newest, latest),
        "queued": sum(states[state] for state in UNFINISHED),
        "held": states["held"],
    }


def queue_facts(rows: Iterable[Message], now_s: float) -> dict[str, Any]:
    """Count what waits, by state, and say how old the oldest is."""
    waiting = [row for row in rows if row.direction == "queued"]
    states = Counter(state_of(row) for row in waiting)
    oldest = min((row.timestamp for row in waiting if parse_utc(row.timestamp)), default="")
    moment = parse_utc(oldest)
    return {
        "waiting": len(waiting),
        **{state: states[state] for state in ("queued", "trying", "retry", "held")},
        "oldest_at": oldest,
        "oldest_age_s": None if moment is None else now_s - moment.timestamp(),
    }


def rate_facts(rows: Iterable[Message], *, hour: str, day: str) -> dict[str, Any]:
    """Count texts heard, answers queued and texts given up since two moments.

    An answer counts once however many parts it has. Rows younger than 48 hours are all live.
    """
    counts: Counter[str] = Counter()
    for row in rows:
        kind = _counted(row)
        if kind and row.timestamp >= day:
            counts[f"{kind}_day"] += 1
            counts[f"{kind}_hour"] += row.timestamp >= hour
    kinds = ("heard", "answers", "failed")
    return {
        f"{kind}_{span}": counts[f"{kind}_{span}"] for kind in kinds for span in ("hour", "day")
    }


def _counted(row: Message) -> str:
    if not row.is_outgoing:
        return "heard"
    if state_of(row) == "failed":
        return "failed"
    is_answer = row.reply_to_id and row.meta.get("part", 1) == 1
    return "answers" if is_answer else ""


def _live_rows(book: Book, tree: NodeTree) -> list[Message]:
    return [row for thread in book.threads(tree) for row in book.live(thread)]


def _bridge(
    layout: Layout, radios: Collection[Mapping[str, Any]], now_s: float
) -> processes.Process:
    newest = max((_text(radio, "heartbeat_at") for radio in radios), default="")
    last = (radio for radio in radios if _text(radio, "heartbeat_at") == newest)
    last_words = {_text(radio, "link_cause") for radio in last}
    return processes.look_at(
        layout.bridge_lock,
        heartbeat_at=newest,
        now_s=now_s,
        said_goodbye=last_words == {status.STOPPED},
    )


def _agent(layout: Layout, agent: Mapping[str, Any], now_s: float) -> processes.Process:
    return processes.look_at(
        layout.agent_lock,
        heartbeat_at=_text(agent, "heartbeat_at"),
        now_s=now_s,
        said_goodbye=agent.get("running") is False,
    )


def _model(agent: Mapping[str, Any]) -> dict[str, Any]:
    model, rates = _object(agent, "model"), _object(agent, "rates")
    return {
        **{key: model.get(key) for key in ("state", "reason", "detail", "name", "retry_at")},
        "servers": model.get("servers", []),
        "prompt_tps": rates.get("prompt_tps"),
        "eval_tps": rates.get("eval_tps"),
        "answer_s": agent.get("answer_s"),
        "questions": agent.get("queue"),
    }


def _disk(
    layout: Layout, agent: Mapping[str, Any], radios: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "free_mb": _free_mb(layout.data_dir),
        "bridge": next((radio["storage"] for radio in radios if radio["storage"]), None),
        "agent": agent.get("storage"),
    }


def _free_mb(folder: Path) -> int | None:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize // BYTES_PER_MB


def _troubles(layout: Layout) -> list[logs.Event]:
    files = [layout.log_file(role) for role in ("bridge", "agent")]
    return logs.last_troubles(files, limit=MAX_TROUBLES)


def _object(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, dict) else {}


def _text(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    return value if isinstance(value, str) else ""
