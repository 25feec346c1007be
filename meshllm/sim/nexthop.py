"""One node's memory of who repeats for whom, by which it names the next hop. Sends nothing.

As firmware since 2.6 (NextHopRouter, PacketHistory): an ACK that comes back by a node that repeated
the question after us shows a way that works in both directions. Nodes are known by the last byte of
their number, as on the air.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from meshllm.sim.packets import BROADCAST, Packet

Key = tuple[int, int]


@dataclass(slots=True)
class _Trail:
    """Who sent one packet on: we, with how many hops left, and those who repeated it after us."""

    hop_limit: int
    relayers: set[int] = field(default_factory=set)
    was_asked: bool = False


class NextHops:
    """Next hops by addressee. Does nothing unless `is_on`."""

    def __init__(self, num: int, *, is_on: bool, size: int) -> None:
        """Know of nobody; remember the trails of the newest `size` packets."""
        self._me = num & 0xFF
        self._is_on = is_on
        self._size = size
        self._next: dict[int, int] = {}
        self._trails: OrderedDict[Key, _Trail] = OrderedDict()

    def clear(self) -> None:
        """Lose everything, as at a restart."""
        self._next.clear()
        self._trails.clear()

    def towards(self, to: int) -> int:
        """Name the next hop on the way to a node, 0 for everybody."""
        return 0 if to == BROADCAST else self._next.get(to, 0)

    def forget(self, to: int) -> None:
        """Take a way for broken: the last repeat goes to everybody."""
        self._next.pop(to, None)

    def sent(self, packet: Packet, *, was_asked: bool = False) -> None:
        """Note that this node sends a packet, its own or another's."""
        if not self._is_on:
            return
        key = (packet.sender, packet.id)
        trail = self._trails.get(key) or _Trail(packet.hop_limit)
        trail.hop_limit = packet.hop_limit
        trail.was_asked |= was_asked
        trail.relayers.add(self._me)
        self._trails[key] = trail
        self._trails.move_to_end(key)
        if len(self._trails) > self._size:
            self._trails.popitem(last=False)

    def heard_again(self, packet: Packet) -> None:
        """Note who repeats what this node sent: only those who took it from this node count."""
        trail = self._trails.get((packet.sender, packet.id))
        if trail is not None and trail.hop_limit - 1 <= packet.hop_limit <= trail.hop_limit:
            trail.relayers.add(packet.relay_node)

    def was_asked(self, key: Key) -> bool:
        """Say whether this node was named as the next hop of a packet."""
        trail = self._trails.get(key)
        return trail is not None and trail.was_asked

    def learn(self, answer: Packet) -> None:
        """Learn from an ACK the next hop towards the node that it comes from."""
        trail = self._trails.get((answer.to, answer.request_id))
        if trail is None or not answer.request_id:
            return
        is_direct = answer.hop_start == answer.hop_limit and trail.relayers == {self._me}
        if is_direct or answer.relay_node in trail.relayers:
            self._next[answer.sender] = answer.relay_node
