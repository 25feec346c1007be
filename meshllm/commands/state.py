"""`status`: model, queue, library, radio, each with how old that is."""

from collections.abc import Mapping
from typing import Any, Final

from meshllm.commands.ages import span
from meshllm.commands.base import Command, Context, Queue
from meshllm.commands.words import phrases

STALE_S: Final = 180.0  #: a status file is written once a minute; older ones need their age told
_STATES: Final = {"ready": "ready", "offline": "offline", "unknown": "not asked yet"}


def _status(context: Context) -> str:
    agent, radio = context.mesh.agent(), context.mesh.radio()
    told = [
        _model(agent),
        _queue(context.queue()),
        "library not there yet",
        _link(context, radio),
    ]
    if agent.get("storage") == "low":
        told.append("the disk is full: nothing new is asked")
    return "; ".join(told) + "."


def _model(agent: Mapping[str, Any]) -> str:
    model = agent.get("model")
    state = str(model.get("state", "")) if isinstance(model, dict) else ""
    return f"Model {_STATES.get(state, 'not asked yet')}"


def _queue(queue: Queue) -> str:
    if not queue.waiting:
        return "no question waits"
    many = queue.waiting > 1
    told = f"{queue.waiting} question{'s' if many else ''} wait{'' if many else 's'}"
    if queue.place is not None:
        told += f", yours is number {queue.place}"
    if queue.wait_s is not None:
        whose = "yours" if queue.place is not None else "a new one"
        told += f", about {span(queue.wait_s)} for {whose}"
    return told


def _link(context: Context, radio: Mapping[str, Any]) -> str:
    state = radio.get("link_state")
    if state not in ("up", "down"):
        return "radio link unknown"
    told = f"radio link {state}"
    busy = radio.get("channel_utilization")
    if isinstance(busy, (int, float)):
        told += f", channel use {busy:.0f} %"
    age_s = context.ages.age_s(str(radio.get("heartbeat_at", "")))
    if age_s is None:
        return told
    return told + f" ({span(age_s)} ago)" if age_s > STALE_S or busy is not None else told


COMMANDS: Final = (
    Command(
        "status",
        "status: how busy I am",
        phrases(
            "status|queue|my place|my position in the queue|queue position"
            "|(?:what(?:'s| is)|show(?: me)?)(?: the| your)? (?:status|queue)"
            "|how (?:busy are you|long is the queue|long (?:will|does) it take|long (?:do|must) i"
            " (?:have to )?wait)|are you busy",
            "estado|estás ocupado",
            "wie ist der status|bist du beschäftigt|wie lange (?:noch|dauert es)",
            "статус|стан|ти зайнятий",
        ),
        _status,
    ),
)
