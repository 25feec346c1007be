"""Slots that a radio left out: named as before, else by their number, never by a taken name."""

from dataclasses import replace
from typing import Any

import pytest

from meshllm.bridge import channels
from meshllm.radio.base import BROADCAST, Channel, Envelope, RadioInfo

INFO = RadioInfo(1, preset="LONG_FAST", channels=(Channel(0, "", "PRIMARY"),))
FULL = replace(INFO, channels=(*INFO.channels, Channel(2, "Hiking", "SECONDARY")))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({2: "Hiking"}, Channel(2, "Hiking", "UNTOLD")),
        ({}, Channel(2, "channel 2", "UNTOLD")),
        ({2: "LongFast"}, Channel(2, "channel 2", "UNTOLD")),
    ],
)
def test_a_slot_is_named_as_before_unless_the_name_is_taken(
    known: dict[int, str], expected: Channel
) -> None:
    found = channels.with_slot(INFO, 2, known)

    assert found.channels == (*INFO.channels, expected)


def test_the_first_slot_of_a_radio_that_told_none_has_the_presets_name() -> None:
    found = channels.with_slot(replace(INFO, channels=()), 0, {})

    assert found.channels == (Channel(0, "LongFast", "UNTOLD"),)


@pytest.mark.parametrize(
    ("to", "index", "expected"),
    [(BROADCAST, 2, True), (BROADCAST, 0, False), (1, 2, False), (BROADCAST, 8, False)],
)
def test_only_a_channel_text_on_a_real_slot_asks_for_its_name(
    to: int, index: int, expected: bool
) -> None:
    assert channels.is_untold(Envelope(7, to, 1, channel_index=index), INFO) is expected


def test_a_slot_with_another_name_is_told() -> None:
    known = {0: "LongFast", 2: "channel 2", 5: "Gone"}

    assert channels.renamed(FULL, known) == [channels.Renamed(2, "channel 2", "Hiking")]


@pytest.mark.parametrize(
    "entries",
    [None, 3, ["x"], [{"index": "2", "name": "a"}], [{"index": 9, "name": "a"}], [{"index": 1}]],
)
def test_a_status_file_that_somebody_changed_names_nothing(entries: Any) -> None:
    assert channels.names_of({"channels": entries}) == {}


def test_names_are_read_back_from_the_status_file() -> None:
    entries = [{"index": 0, "name": "LongFast"}, {"index": 2, "name": "Hiking"}]

    assert channels.names_of({"channels": entries}) == {0: "LongFast", 2: "Hiking"}
