"""The radio library's packet dictionaries: real shapes, and anything else."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm.radio import packets
from meshllm.radio.base import (
    BROADCAST,
    Envelope,
    OtherHeard,
    PositionHeard,
    RoutingHeard,
    TelemetryHeard,
    TextHeard,
    UndecodableHeard,
    UserHeard,
)

OWN = 0xAAAA0001
ADA = 0xA11CE001


def packet(port: str = "TEXT_MESSAGE_APP", **fields: Any) -> dict[str, Any]:
    """A DM as the library hands it over, with what one test changes; None leaves a field out."""
    decoded = {"portnum": port, **fields.pop("decoded", {})}
    whole = {
        "from": ADA,
        "to": OWN,
        "id": 77,
        "rxTime": 1_772_366_400,
        "rxSnr": 6.25,
        "rxRssi": -70,
        "hopLimit": 3,
        "hopStart": 3,
        "fromId": None,
        "toId": "!aaaa0001",
        "decoded": decoded,
        "raw": object(),
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not None}


def text(payload: bytes = b"hello", **fields: Any) -> dict[str, Any]:
    decoded = {"payload": payload, **fields.pop("decoded", {})}
    return packet(decoded=decoded, **fields)


HEARD = Envelope(
    sender=ADA,
    to=OWN,
    packet_id=77,
    snr_db=6.25,
    rssi=-70,
    hop_start=3,
    hop_limit=3,
    rx_time=1_772_366_400,
)


def envelope_of(raw: dict[str, Any]) -> Envelope:
    event = packets.parse(raw)
    assert event is not None
    return event.envelope


def test_a_direct_message() -> None:
    assert packets.parse(text("grüß dich".encode())) == TextHeard(HEARD, "grüß dich")


def test_a_channel_message() -> None:
    envelope = envelope_of(text(to=BROADCAST, toId="^all", channel=2))

    assert (envelope.to, envelope.channel_index) == (BROADCAST, 2)


def test_a_message_with_a_proven_sender() -> None:
    assert envelope_of(text(pkiEncrypted=True, publicKey="c2VjcmV0")).pki is True
    assert envelope_of(text(pkiEncrypted="yes")).pki is False


def test_a_reply_and_a_reaction() -> None:
    event = packets.parse(text("👍".encode(), decoded={"replyId": 4_000_000_000, "emoji": 1}))

    assert event == TextHeard(HEARD, "👍", reply_id=4_000_000_000, emoji=1)


def test_text_that_is_not_utf8_keeps_its_bytes() -> None:
    assert packets.parse(text(b"a\xffb")) == TextHeard(HEARD, "a\ufffdb", raw=b"a\xffb")


def test_an_empty_text_is_a_text() -> None:
    assert packets.parse(text(b"")) == TextHeard(HEARD, "")


def test_a_packet_that_could_not_be_decrypted() -> None:
    raw = {**packet(), "encrypted": "AAAA"}
    del raw["decoded"]

    assert packets.parse(raw) == UndecodableHeard(HEARD)


def test_a_position() -> None:
    position = {
        "latitudeI": 520000000,
        "latitude": 52.0,
        "longitude": 13.5,
        "altitude": 40,
        "precisionBits": 13,
    }

    event = packets.parse(packet("POSITION_APP", decoded={"position": position}))

    assert event == PositionHeard(HEARD, 52.0, 13.5, altitude_m=40, precision_bits=13)


@pytest.mark.parametrize(
    "position",
    [
        {},
        {"latitude": 52.0},
        {"latitude": 91.0, "longitude": 0.0},
        {"latitude": 52.0, "longitude": -181},
        {"latitude": math.nan, "longitude": 1.0},
        {"latitude": "52", "longitude": 13.0},
        {"latitude": 10**400, "longitude": 13.0},
        {"latitude": True, "longitude": 13.0},
    ],
)
def test_an_impossible_position_is_none(position: dict[str, Any]) -> None:
    event = packets.parse(packet("POSITION_APP", decoded={"position": position}))

    assert event == PositionHeard(HEARD, None, None)


def test_telemetry_keeps_plain_numbers_alone() -> None:
    telemetry = {
        "time": 1,
        "deviceMetrics": {"batteryLevel": 101, "voltage": 4.1, "odd": math.inf, "x": "y"},
        "environmentMetrics": {"temperature": -3.5, "huge": 10**400},
        "localStats": [1],
    }

    event = packets.parse(packet("TELEMETRY_APP", decoded={"telemetry": telemetry}))

    assert event == TelemetryHeard(
        HEARD,
        {
            "deviceMetrics": {"batteryLevel": 101.0, "voltage": 4.1},
            "environmentMetrics": {"temperature": -3.5},
        },
    )


def test_names_are_cut_and_may_be_missing() -> None:
    user = {"id": "!a11ce001", "longName": "A" * 500, "hwModel": "TBEAM"}

    event = packets.parse(packet("NODEINFO_APP", decoded={"user": user}))

    assert event == UserHeard(HEARD, "", "A" * packets.MAX_NAME_CHARS)


def test_an_ack_and_a_nak() -> None:
    ack = packet("ROUTING_APP", decoded={"requestId": 5, "routing": {"errorReason": "NONE"}})
    nak = packet("ROUTING_APP", decoded={"requestId": 5, "routing": {"errorReason": "NO_CHANNEL"}})

    assert packets.parse(ack) == RoutingHeard(HEARD, 5, "NONE")
    assert packets.parse(nak) == RoutingHeard(HEARD, 5, "NO_CHANNEL")


def test_an_ack_without_a_body_is_an_ack() -> None:
    raw = packet("ROUTING_APP", decoded={"requestId": 5, "routing": {}})

    assert packets.parse(raw) == RoutingHeard(HEARD, 5, "NONE")


@pytest.mark.parametrize(
    "decoded",
    [
        {"routing": {"errorReason": "NONE"}},
        {"requestId": 0, "routing": {}},
        {"requestId": 5, "routing": {"routeRequest": {}}},
        {"requestId": 5, "routing": {"routeReply": {}}},
        {"requestId": "5", "routing": {}},
        {"requestId": 2**32 + 5, "routing": {}},
    ],
)
def test_routing_that_answers_no_text_is_no_ack(decoded: dict[str, Any]) -> None:
    event = packets.parse(packet("ROUTING_APP", decoded=decoded))

    assert event == OtherHeard(HEARD, "ROUTING_APP")


@pytest.mark.parametrize("port", ["WAYPOINT_APP", "PRIVATE_APP", 300, None])
def test_other_kinds_still_show_that_the_node_lives(port: Any) -> None:
    raw = packet()
    raw["decoded"]["portnum"] = port

    assert packets.parse(raw) == OtherHeard(HEARD, str(port))


@pytest.mark.parametrize("sender", [None, 0, -1, 2**32, 2**64, "1", 1.0, True])
def test_a_packet_without_a_possible_sender_is_nothing(sender: object) -> None:
    assert packets.parse({**text(), "from": sender}) is None


def test_a_signal_to_noise_ratio_of_exactly_zero_is_left_out_by_the_library() -> None:
    assert envelope_of(text(rxSnr=None)).snr_db == 0.0
    assert envelope_of(text(rxSnr=None, rxRssi=None)).snr_db is None
    assert not envelope_of(text(rxSnr=None, rxRssi=None)).has_signal


@pytest.mark.parametrize(
    ("fields", "hops"),
    [
        ({}, 0),
        ({"hopLimit": None}, 3),
        ({"hopStart": None}, None),
        ({"hopStart": 2, "hopLimit": 5}, None),
        ({"hopStart": 99}, None),
        ({"hopLimit": -1}, 3),
    ],
)
def test_hops_are_told_only_where_the_sender_told_its_start(
    fields: dict[str, Any], hops: int | None
) -> None:
    assert envelope_of(text(**fields)).hops == hops


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rxSnr", math.nan),
        ("rxSnr", 1e300),
        ("rxSnr", 10**400),
        ("rxSnr", "6"),
        ("rxRssi", 10**30),
        ("rxRssi", -1000),
        ("rxTime", -5),
        ("rxTime", 10**20),
        ("rxTime", "now"),
        ("hopStart", []),
        ("channel", -1),
        ("channel", 10**9),
        ("id", -7),
        ("id", 2**40),
        ("to", None),
        ("to", -1),
    ],
)
def test_an_absurd_field_is_as_if_it_were_missing(field: str, value: object) -> None:
    missing = text()
    missing.pop(field, None)

    event = packets.parse({**text(), field: value})

    assert event is not None
    absent = packets.parse(missing)
    assert absent is not None
    if field == "rxSnr":
        assert event.envelope.snr_db is None
    else:
        assert event == absent


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**310),
    st.floats(),
    st.text(max_size=8),
    st.characters(categories=["Cs"]),
    st.binary(max_size=8),
)
_NAMES = st.sampled_from(
    [
        "from", "to", "id", "rxTime", "rxSnr", "rxRssi", "hopLimit", "hopStart", "channel",
        "decoded", "payload", "text", "replyId", "emoji", "position", "latitude", "longitude",
        "altitude", "telemetry", "deviceMetrics", "batteryLevel", "user", "longName", "routing",
        "requestId", "errorReason", "portnum",
    ]
)  # fmt: skip
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=6)
    ),
    max_leaves=12,
)
_PORTS = st.sampled_from(
    ["TEXT_MESSAGE_APP", "POSITION_APP", "TELEMETRY_APP", "NODEINFO_APP", "ROUTING_APP"]
)


@settings(max_examples=300)
@given(st.dictionaries(_NAMES, _ANYTHING), _PORTS, st.dictionaries(_NAMES, _ANYTHING))
def test_no_dictionary_makes_the_parser_raise(
    outer: dict[str, Any], port: str, inner: dict[str, Any]
) -> None:
    packets.parse(outer)

    event = packets.parse({**outer, "from": ADA, "decoded": {**inner, "portnum": port}})

    assert event is not None
    envelope = event.envelope
    assert envelope.sender == ADA
    assert 0 <= envelope.packet_id < 2**32
    assert envelope.rx_time is None or 0 < envelope.rx_time < 2**32
    if isinstance(event, TextHeard):
        event.text.encode()
