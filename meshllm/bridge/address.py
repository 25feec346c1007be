"""Where an outgoing row goes: node number, channel slot and on-air reply id. Pure."""

from dataclasses import dataclass
from typing import Final

from meshllm.layout import DEFAULT_CHANNEL, node_number
from meshllm.radio.base import BROADCAST, Channel, RadioInfo
from meshllm.records import Message

MAX_PAYLOAD_BYTES: Final = 233  #: Data.payload of the protocol; the radio itself may refuse less

_PRESET_NAMES: Final = {"VERY_LONG_SLOW": "VLongSlow"}  #: the others are their enum in camel case


@dataclass(frozen=True, slots=True)
class Destination:
    """A resolved address."""

    to: int
    channel_index: int
    reply_id: int


def channel_name(channel: Channel, preset: str) -> str:
    """Display name of a channel: an unnamed one has its preset's name."""
    return channel.name or preset_name(preset)


def preset_name(preset: str) -> str:
    """Write LONG_FAST as the apps do, LongFast."""
    if not preset:
        return DEFAULT_CHANNEL
    return _PRESET_NAMES.get(preset) or "".join(word.capitalize() for word in preset.split("_"))


def placeholder(index: int) -> str:
    """Name the thread of a slot that the radio did not tell of."""
    return f"channel {index}"


def destination(row: Message, info: RadioInfo) -> Destination | str:
    """Resolve a row's address, or name the reason why it can never be sent."""
    if not row.content:
        return "EMPTY_TEXT"
    if len(row.content.encode("utf-8", "replace")) > MAX_PAYLOAD_BYTES:
        return "TOO_LARGE"
    if row.thread_type == "dm":
        to = node_number(row.thread_key)
        if to is None or to in (0, BROADCAST):
            return "NO_ADDRESS"
        return Destination(to, _index(row) or 0, _reply_id(row))
    index = _channel_index(row, info)
    return index if isinstance(index, str) else Destination(BROADCAST, index, _reply_id(row))


def _index(row: Message) -> int | None:
    index = row.meta.get("channel_index")
    is_slot = isinstance(index, int) and not isinstance(index, bool) and 0 <= index <= 255
    return index if is_slot else None


def _channel_index(row: Message, info: RadioInfo) -> int | str:
    """The slot holding this thread's channel now: an operator may have moved it since.

    Channels of one name may have different keys, so a row that does not say which is not sent.
    """
    slots = [c.index for c in info.channels if channel_name(c, info.preset) == row.thread_key]
    wanted = _index(row)
    if wanted in slots:
        return wanted
    if len(slots) > 1:
        return "AMBIGUOUS_CHANNEL"
    if slots:
        return slots[0]
    if wanted is not None and row.thread_key == placeholder(wanted):
        # The question came before the radio told the slot's name: only the number is known of it.
        return wanted if any(c.index == wanted for c in info.channels) else "NO_CHANNEL"
    return "NO_CHANNEL" if info.channels or wanted is None else wanted


def _reply_id(row: Message) -> int:
    """Only the first part points back; our suffix for a reused id is not part of the packet id."""
    if row.meta.get("part", 1) != 1:
        return 0
    digits = row.reply_to_id.split("-", 1)[0]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        return 0
    number = int(digits)
    return number if number <= 0xFFFFFFFF else 0
