"""Where a queued row goes: node, channel slot, reply id, or why it never can."""

from dataclasses import replace
from typing import Any

import pytest

from meshllm.bridge import address
from meshllm.bridge.address import Destination, destination
from meshllm.radio.base import BROADCAST, Channel, RadioInfo
from meshllm.records import Message, compact_json

ADA = 0xA11CE001
INFO = RadioInfo(
    number=0xAAAA0001,
    preset="LONG_FAST",
    channels=(Channel(0, "", "PRIMARY"), Channel(3, "Hiking", "SECONDARY")),
)


def dm(content: str = "hi", key: str = "!a11ce001", **meta: Any) -> Message:
    return Message("dm", key, "501", "queued", "!aaaa0001", "77", "", content, 0, "",
                   compact_json(meta))  # fmt: skip


def channel(key: str = "Hiking", **meta: Any) -> Message:
    return replace(dm(key=key, **meta), thread_type="channel")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (dm(), Destination(ADA, 0, 77)),
        (dm(channel_index=3), Destination(ADA, 3, 77)),
        (dm(part=1), Destination(ADA, 0, 77)),
        (dm(part=2), Destination(ADA, 0, 0)),
        (dm(channel_index="x"), Destination(ADA, 0, 77)),
        (dm(channel_index=True), Destination(ADA, 0, 77)),
        (dm(channel_index=-1), Destination(ADA, 0, 77)),
        (dm(key="a11ce001"), Destination(ADA, 0, 77)),
        (dm(key="Ada"), "NO_ADDRESS"),
        (dm(key="!ffffffff"), "NO_ADDRESS"),
        (dm(key="!00000000"), "NO_ADDRESS"),
        (dm(""), "EMPTY_TEXT"),
        (dm("x" * 233), Destination(ADA, 0, 77)),
        (dm("ü" * 117), "TOO_LARGE"),
        (channel(), Destination(BROADCAST, 3, 77)),
        (channel(channel_index=3), Destination(BROADCAST, 3, 77)),
        (channel(channel_index=0), Destination(BROADCAST, 3, 77)),
        (channel("LongFast"), Destination(BROADCAST, 0, 77)),
        (channel("Nowhere"), "NO_CHANNEL"),
        (channel("Nowhere", channel_index=3), "NO_CHANNEL"),
        (channel("channel 3", channel_index=3), Destination(BROADCAST, 3, 77)),
        (channel("channel 3", channel_index=0), "NO_CHANNEL"),
        (channel("channel 2", channel_index=2), "NO_CHANNEL"),
        (channel("channel 3"), "NO_CHANNEL"),
    ],
)
def test_a_row_goes_where_its_thread_is(row: Message, expected: Destination | str) -> None:
    assert destination(row, INFO) == expected


@pytest.mark.parametrize(
    ("reply_to", "expected"),
    [
        ("", 0),
        ("77", 77),
        ("77-a1b2c3", 77),
        ("4294967296", 0),
        ("9b2c4f70-uuid", 0),
        ("-3", 0),
        ("٣", 0),
    ],
)
def test_only_a_packet_id_is_replied_to(reply_to: str, expected: int) -> None:
    found = destination(replace(dm(), reply_to_id=reply_to), INFO)

    assert found == Destination(ADA, 0, expected)


def test_of_two_channels_with_one_name_the_row_must_say_which() -> None:
    """They may have different keys: guessing could tell a secret to everybody."""
    twins = replace(INFO, channels=(Channel(1, "Home", ""), Channel(4, "Home", "")))

    assert destination(channel("Home", channel_index=4), twins) == Destination(BROADCAST, 4, 77)
    assert destination(channel("Home"), twins) == "AMBIGUOUS_CHANNEL"


def test_a_radio_that_told_no_channels_is_believed_the_rows_slot() -> None:
    bare = replace(INFO, channels=())

    assert destination(channel(channel_index=2), bare) == Destination(BROADCAST, 2, 77)
    assert destination(channel(), bare) == "NO_CHANNEL"


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("LONG_FAST", "LongFast"),
        ("MEDIUM_SLOW", "MediumSlow"),
        ("VERY_LONG_SLOW", "VLongSlow"),
        ("", "LongFast"),
    ],
)
def test_an_unnamed_channel_has_its_presets_name(preset: str, name: str) -> None:
    assert address.channel_name(Channel(0, "", "PRIMARY"), preset) == name
    assert address.channel_name(Channel(0, "Own", "PRIMARY"), preset) == "Own"
