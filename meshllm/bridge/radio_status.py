"""The facts of radio.json. Pure; the station writes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from meshllm import layout
from meshllm.bridge import ingest
from meshllm.bridge.address import channel_name, preset_name
from meshllm.bridge.outbox import QueueState
from meshllm.bridge.storage import Storage
from meshllm.clock import utc_text
from meshllm.layout import NodeTree, channel_stem
from meshllm.observe.board import RadioState
from meshllm.radio.base import RadioInfo


def state(
    queue: QueueState,
    air: Mapping[str, float],
    *,
    is_up: bool,
    connects: int,
    unwritten: int,
    scale: float,
) -> RadioState:
    """Say the same in figures, in real seconds and shares, for the metrics."""
    use, sent = air.get("channelUtilization"), air.get("airUtilTx")
    return RadioState(
        is_up=is_up,
        connects=connects,
        waiting=queue.queued - queue.held,
        held=queue.held,
        oldest_s=queue.oldest_s / scale,
        own_airtime_s=queue.own_airtime_s / scale,
        unwritten=unwritten,
        channel_use=None if use is None else use / 100,
        air_transmit=None if sent is None else sent / 100,
    )


@dataclass(frozen=True, slots=True)
class LinkState:
    """How a configured link stands, and why it does not send."""

    name: str
    is_up: bool
    cause: str


def facts(
    tree: NodeTree,
    info: RadioInfo,
    *,
    link: LinkState,
    queue: QueueState,
    air: Mapping[str, float],
    storage: Storage,
    now: datetime,
) -> dict[str, object]:
    """Say what a radio is, how its link stands and what waits for it."""
    names = ingest.channel_names(info)
    return {
        "node_uid": tree.node_uid,
        "node_id": layout.node_id(info.number),
        "short_name": info.short_name,
        "long_name": info.long_name,
        "firmware": info.firmware,
        "region": info.region,
        "preset": preset_name(info.preset) if info.preset else "",
        "channels": [
            {
                "index": c.index,
                "name": channel_name(c, info.preset),
                "file": channel_stem(names[c.index], index=c.index, others=names),
                "role": c.role,
            }
            for c in info.channels
        ],
        "link": link.name,
        "link_state": "up" if link.is_up else "down",
        "link_cause": link.cause,
        "ready": link.is_up and storage.state in ("ok", "low"),
        "queued": queue.queued,
        "held": queue.held,
        "air": queue.air,
        "own_airtime_s": round(queue.own_airtime_s, 1),
        "channel_utilization": air.get("channelUtilization"),
        "air_util_tx": air.get("airUtilTx"),
        "storage": storage.state,
        "disk_free_mb": storage.free_mb,
        "heartbeat_at": utc_text(now),
    }
