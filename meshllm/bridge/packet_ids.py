"""Which row a packet id belongs to, and which ids the radio may swallow. In memory only."""

from collections import OrderedDict
from pathlib import Path
from typing import Final

from meshllm.bridge import life
from meshllm.bridge.work import Key
from meshllm.records import Message

REMEMBERED_IDS: Final = 4000  #: packet ids kept for late ACKs after a row is final


class PacketIds:
    """Ids of one radio's texts."""

    def __init__(self) -> None:
        """Know none."""
        self._places: OrderedDict[int, tuple[Path, Key]] = OrderedDict()
        self._used: set[int] = set()
        self._has_forgotten = False

    def remember(self, path: Path, row: Message) -> None:
        """Note all ids of a row, so that an ACK of any of them finds it."""
        for past in life.tries(row):
            self._put(past.packet_id, path, row.key)
        own = life.own_packet_id(row)
        if own is not None and own not in self._places:  # one that was sent under it comes first
            self._put(own, path, row.key)

    def place(self, packet_id: int) -> tuple[Path, Key] | None:
        """Return the row that this id was drawn for."""
        return self._places.get(packet_id)

    def own(self, path: Path, row: Message) -> int | None:
        """The id a row asks for, unless another row has it: it is part of the cipher's nonce."""
        own = life.own_packet_id(row)
        if own is None or own in self._used:
            return None
        return own if self._places.get(own) in (None, (path, row.key)) else None

    def used(self, packet_id: int, path: Path, key: Key) -> None:
        """This id goes to the radio now, which takes no notice of a second time."""
        self._used.add(packet_id)
        self._put(packet_id, path, key)

    def unused(self, packet_id: int) -> None:
        """This id did not reach the radio after all."""
        self._used.discard(packet_id)

    def is_used(self, packet_id: int) -> bool:
        """True for an id that the radio would swallow."""
        return packet_id in self._used

    def is_forgotten(self, packet_id: int) -> bool:
        """True when the radio was made to forget this id and has not been given it since."""
        return self._has_forgotten and packet_id not in self._used

    def forget_used(self) -> None:
        """The radio takes every id again."""
        self._used.clear()
        self._has_forgotten = True

    def _put(self, packet_id: int, path: Path, key: Key) -> None:
        self._places[packet_id] = (path, key)
        self._places.move_to_end(packet_id)
        while len(self._places) > REMEMBERED_IDS:
            self._places.popitem(last=False)
