"""Channel slots that a radio has and did not tell of, or tells of by another name. Pure.

A radio that is asked while it boots may leave slots out, and one whose channels are changed from
a phone tells us nothing until we connect anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from meshllm.bridge import ingest
from meshllm.radio.base import BROADCAST, Channel, Envelope, RadioInfo

SLOTS: Final = 8  #: of every radio; a higher number is a hash or nonsense
UNTOLD: Final = "UNTOLD"  #: role of a slot that the radio uses and did not tell of


@dataclass(frozen=True, slots=True)
class Renamed:
    """A slot that has another name than before."""

    index: int
    was: str
    now: str


def names_of(status: Mapping[str, object]) -> dict[int, str]:
    """Read the names that a tree's radio.json tells, by slot; {} for anything unreadable."""
    found = status.get("channels")
    names = {}
    for entry in found if isinstance(found, list) else ():
        index = entry.get("index") if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(index, int) and 0 <= index < SLOTS and isinstance(name, str) and name:
            names[index] = name
    return names


def is_untold(envelope: Envelope, info: RadioInfo) -> bool:
    """Say whether a channel text came on a slot that the radio did not tell of."""
    index = envelope.channel_index
    is_told = any(channel.index == index for channel in info.channels)
    return envelope.to == BROADCAST and index < SLOTS and not is_told


def with_slot(info: RadioInfo, index: int, known: Mapping[int, str]) -> RadioInfo:
    """Add a slot that must be there, by the name it had, else by its number.

    A name that another slot has now is not given twice: the channel may have been moved.
    """
    taken = set(ingest.channel_names(info).values())
    name = known.get(index, "")
    if not name or name in taken:
        name = ingest.thread_channel(index, info)
    channel = Channel(index, name, UNTOLD)
    return replace(info, channels=tuple(sorted((*info.channels, channel), key=lambda c: c.index)))


def renamed(info: RadioInfo, known: Mapping[int, str]) -> list[Renamed]:
    """Compare what the radio tells with the names its slots had."""
    now = ingest.channel_names(info)
    both = sorted(now.keys() & known.keys())
    return [Renamed(i, known[i], now[i]) for i in both if known[i] != now[i]]
