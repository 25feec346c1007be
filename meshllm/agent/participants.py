"""Says what is known of the people in a conversation, for the model. Reads files, writes none.

Everything here was claimed over the air: it goes into the prompt as values of JSON, in the last
message. Of a position only its time is told, since the answer may go to a whole channel.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from meshllm.agent.context import one_line
from meshllm.clock import parse_utc
from meshllm.errors import TransientError
from meshllm.layout import NodeTree
from meshllm.records import Latest, Message, Node
from meshllm.store.table import Table

MAX_OTHERS: Final = 4  #: further people who are named: each costs some 15 tokens
EXTERNAL_POWER: Final = 101  #: what the firmware says instead of a percentage
#: An older value says nothing of now, and costs tokens all the same.
MAX_AGE_S: Final = 24 * 3600.0
SNR_STEP_DB: Final = 3  #: two packets of one node differ by as much
RSSI_STEP_DBM: Final = 10


class Participants:
    """Names and newest facts, out of each radio's nodes.csv and latest.csv."""

    def __init__(self) -> None:
        self._nodes: dict[NodeTree, Table[Node]] = {}
        self._latest: dict[NodeTree, Table[Latest]] = {}

    def describe(
        self, tree: NodeTree, asker: Message, others: Sequence[str], now: datetime
    ) -> dict[str, object]:
        """Return time, sender and other speakers; a file that cannot be read tells nothing."""
        is_channel = asker.thread_type == "channel"
        nodes = {row.node_id: row for row in self._read_nodes(tree)}
        latest = next((r for r in self._read_latest(tree) if r.node_id == asker.sender_id), None)
        label: dict[str, object] = {"id": asker.sender_id[-4:]} if is_channel else {}
        sender = label | names(nodes.get(asker.sender_id)) | state(latest, now)
        named = {one[-4:]: names(nodes.get(one)) for one in others if one != asker.sender_id}
        known = {one: said for one, said in list(named.items())[:MAX_OTHERS] if said}
        details: dict[str, object] = {"time": now.strftime("%Y-%m-%d %H:%M UTC")}
        details |= {"sender": sender} if sender != label else {}
        return details | ({"others": known} if known else {})

    def _read_nodes(self, tree: NodeTree) -> Sequence[Node]:
        table = self._nodes.setdefault(tree, Table(tree.nodes, Node))
        try:
            return table.read().rows
        except TransientError:
            return ()

    def _read_latest(self, tree: NodeTree) -> Sequence[Latest]:
        table = self._latest.setdefault(tree, Table(tree.latest, Latest))
        try:
            return table.read().rows
        except TransientError:
            return ()


def names(node: Node | None) -> dict[str, object]:
    """Return the names that a node claims, each on one line."""
    if node is None:
        return {}
    claimed = {"short_name": one_line(node.short_name), "long_name": one_line(node.long_name)}
    return {key: name for key, name in claimed.items() if name}


def state(latest: Latest | None, now: datetime) -> dict[str, object]:
    """Return battery, signal and time of the position, as far as they are known and fresh.

    In times of day and coarse steps, so that they stay the same text from one question to the
    next: what was said already is not said again.
    """
    if latest is None:
        return {}
    battery, signal, position = (
        _time(at, now) for at in (latest.battery_at, latest.signal_at, latest.position_at)
    )
    said: dict[str, object] = {}
    if latest.battery is not None and battery:
        is_external = latest.battery >= EXTERNAL_POWER
        level = "external power" if is_external else f"{latest.battery} %"
        said["battery"] = f"{level} at {battery}"
    if signal and (measured := _signal(latest)):
        said["signal"] = measured
    if latest.latitude is not None and position:
        said["position"] = f"heard at {position}"
    return said


def _signal(latest: Latest) -> str:
    parts = []
    if latest.snr_db is not None:
        parts.append(f"SNR about {round(latest.snr_db / SNR_STEP_DB) * SNR_STEP_DB} dB")
    if latest.rssi is not None:
        parts.append(f"RSSI about {round(latest.rssi / RSSI_STEP_DBM) * RSSI_STEP_DBM} dBm")
    if latest.hops is not None:
        far = "1 hop" if latest.hops == 1 else f"{latest.hops} hops"
        parts.append(far if latest.hops else "direct")
    return ", ".join(parts)


def _time(cell: str, now: datetime) -> str:
    moment = parse_utc(cell)
    is_fresh = moment is not None and (now - moment).total_seconds() <= MAX_AGE_S
    return moment.strftime("%H:%M") if moment is not None and is_fresh else ""
