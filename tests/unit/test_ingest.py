"""From heard packets to rows: times, threads, and what is worth a sighting."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.bridge import ingest
from meshllm.clock import boot_id
from meshllm.radio.base import (
    BROADCAST,
    Channel,
    Envelope,
    PositionHeard,
    RadioInfo,
    TelemetryHeard,
    TextHeard,
)
from meshllm.records import Latest, Message, Sighting

ARRIVED = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ARRIVED_CELL = "2026-03-01T12:00:00Z"
ADA = 0xA11CE001
INFO = RadioInfo(
    number=0xAAAA0001,
    preset="LONG_FAST",
    channels=(Channel(0, "", "PRIMARY"), Channel(2, "Hiking", "SECONDARY")),
)


def envelope(**fields: Any) -> Envelope:
    return replace(Envelope(sender=ADA, to=INFO.number, packet_id=77), **fields)


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


@pytest.mark.parametrize(
    ("rx_time", "kept", "expected"),
    [
        (unix(ARRIVED - timedelta(hours=5)), True, "2026-03-01T07:00:00Z"),
        (unix(ARRIVED - timedelta(hours=5)), False, ARRIVED_CELL),
        (unix(ARRIVED - timedelta(hours=49)), True, ARRIVED_CELL),
        (unix(ARRIVED + timedelta(seconds=59)), True, "2026-03-01T12:00:59Z"),
        (unix(ARRIVED + timedelta(minutes=5)), True, ARRIVED_CELL),
        (1, True, ARRIVED_CELL),
        (0xFFFFFFFF, True, ARRIVED_CELL),
        (None, True, ARRIVED_CELL),
    ],
)
def test_only_a_plausible_radio_time_dates_a_packet_that_the_radio_kept(
    rx_time: int | None, kept: bool, expected: str
) -> None:
    assert ingest.received_at(envelope(rx_time=rx_time), ARRIVED, kept=kept) == expected


@pytest.mark.parametrize(
    ("minutes_ago", "expected"),
    [(5, "2026-03-01T11:55:00Z"), (9, "2026-03-01T11:51:00Z"), (12, ARRIVED_CELL)],
)
def test_a_radio_kept_nothing_for_longer_than_it_was_alone(minutes_ago: int, expected: str) -> None:
    heard = envelope(rx_time=unix(ARRIVED - timedelta(minutes=minutes_ago)))

    found = ingest.received_at(heard, ARRIVED, kept=True, longest=timedelta(minutes=8))

    assert found == expected


def row_of(heard: TextHeard, info: RadioInfo = INFO) -> Message:
    return ingest.message_row(heard, info, at=ARRIVED_CELL, up_s=12.5, message_id="77")


def test_a_dm_becomes_a_row_of_its_senders_thread() -> None:
    heard = TextHeard(
        envelope(snr_db=0.0, rssi=-70, hop_start=3, hop_limit=3, pki=True), "hi", reply_id=9
    )

    row = row_of(heard)

    assert replace(row, meta_json="") == Message(
        thread_type="dm",
        thread_key="!a11ce001",
        message_id="77",
        direction="inbound",
        sender_id="!a11ce001",
        reply_to_id="9",
        timestamp=ARRIVED_CELL,
        content="hi",
    )
    assert row.meta == {
        "channel_index": 0,
        "snr": 0.0,
        "rssi": -70,
        "hop_start": 3,
        "hop_limit": 3,
        "pki": True,
        "reply_id": 9,
        "boot": boot_id(),
        "up_s": 12.5,
    }


def test_a_reaction_and_broken_bytes_are_marked() -> None:
    meta = row_of(TextHeard(envelope(), "\ufffd", emoji=1, raw=b"\xff")).meta

    assert (meta["emoji"], meta["raw_base64"]) == (1, "/w==")


@pytest.mark.parametrize(("index", "thread"), [(0, "LongFast"), (2, "Hiking"), (5, "channel 5")])
def test_a_channel_text_goes_to_its_channels_thread(index: int, thread: str) -> None:
    row = row_of(TextHeard(envelope(to=BROADCAST, channel_index=index), "hi"))

    assert (row.thread_type, row.thread_key) == ("channel", thread)
    assert row.meta["channel_index"] == index


@pytest.mark.parametrize(
    ("sender", "to", "expected"),
    [
        (ADA, INFO.number, True),
        (ADA, BROADCAST, True),
        (ADA, 0xB0B00001, False),
        (ADA, 0, False),
        (INFO.number, BROADCAST, False),
        (INFO.number, INFO.number, False),
    ],
)
def test_only_what_is_addressed_to_us_is_ours(sender: int, to: int, expected: bool) -> None:
    assert ingest.is_for_us(TextHeard(envelope(sender=sender, to=to), "x"), INFO) is expected


def telemetry(**groups: dict[str, float]) -> dict[str, float]:
    return ingest.telemetry_facts(TelemetryHeard(envelope(), groups))


def test_telemetry_is_flattened_without_what_changes_by_itself() -> None:
    facts = telemetry(
        deviceMetrics={"batteryLevel": 87.0, "voltage": 4.1234, "uptimeSeconds": 9, "airUtilTx": 1},
        environmentMetrics={"temperature": -3.4, "relativeHumidity": 40.0},
        localStats={"numPacketsTx": 3},
    )

    assert facts == {
        "battery": 87,
        "voltage": 4.123,
        "temperature": -3.4,
        "relative_humidity": 40.0,
    }


def test_external_power_is_one_level() -> None:
    assert telemetry(deviceMetrics={"batteryLevel": 255.0}) == {"battery": 101}


LATEST = Latest("!a11ce001", snr_db=6.0, rssi=-70, hops=1, latitude=52.0, longitude=13.5)
FACTS = {"battery": 80.0, "temperature": 20.0, "voltage": 4.1}


def sighting(
    latest: Latest = LATEST, facts: dict[str, float] = FACTS, altitude_m: int | None = 40
) -> Sighting:
    return ingest.sighting(latest, facts, altitude_m=altitude_m, at=ARRIVED_CELL)


def test_a_sighting_holds_everything_and_its_hash_only_what_matters() -> None:
    row = sighting()

    assert replace(row, telemetry_json="", sighting_hash="") == Sighting(
        "!a11ce001", 52.0, 13.5, -70, observed_at=ARRIVED_CELL
    )
    assert json.loads(row.telemetry_json) == {**FACTS, "altitude": 40, "snr": 6.0, "hops": 1}
    assert row.sighting_hash == ingest.sighting_hash(row)
    assert ingest.facts_of(row) == FACTS


@given(
    snr=st.floats(-30, 20),
    rssi=st.integers(-140, 0),
    hops=st.integers(0, 7),
    metres=st.floats(-4, 4),
    battery=st.integers(78, 82),
    voltage=st.floats(3, 4.3),
    altitude=st.integers(0, 9000),
)
def test_noise_is_no_new_sighting(
    snr: float,
    rssi: int,
    hops: int,
    metres: float,
    battery: int,
    voltage: float,
    altitude: int,
) -> None:
    latest = replace(LATEST, snr_db=snr, rssi=rssi, hops=hops, latitude=52.0 + metres / 111_320)
    facts = {**FACTS, "battery": float(battery), "voltage": voltage}

    assert sighting(latest, facts, altitude).sighting_hash == sighting().sighting_hash


@pytest.mark.parametrize(
    ("latest", "facts"),
    [
        (replace(LATEST, latitude=52.0 + 12 / 111_320), FACTS),
        (replace(LATEST, longitude=13.5001), FACTS),
        (replace(LATEST, latitude=None, longitude=None), FACTS),
        (replace(LATEST, node_id="!b0b00001"), FACTS),
        (LATEST, {**FACTS, "battery": 75.0}),
        (LATEST, {**FACTS, "temperature": 22.0}),
        (LATEST, {}),
    ],
)
def test_what_means_something_to_a_person_is_a_new_sighting(
    latest: Latest, facts: dict[str, float]
) -> None:
    assert sighting(latest, facts).sighting_hash != sighting().sighting_hash


@pytest.mark.parametrize("cell", ["", "[]", "{", '{"battery":"x","snr":3}', '"x"'])
def test_a_sighting_edited_by_hand_has_no_facts(cell: str) -> None:
    row = replace(sighting(), telemetry_json=cell)

    assert ingest.facts_of(row) == {}


def test_a_position_without_both_coordinates_is_no_place() -> None:
    assert ingest.place(PositionHeard(envelope(), 52.0, None)) is None
    assert ingest.place(PositionHeard(envelope(), 0.0, 0.0)) == (0.0, 0.0)


def test_two_texts_under_one_id_have_different_digests() -> None:
    assert len({ingest.text_digest(t) for t in ("a", "b", "", "\ud800")}) == 4
