"""Parse the radio library's packet dictionaries into events. Pure; trusts no field to be there."""

from collections.abc import Mapping
from typing import Final

from meshllm.radio.base import (
    Envelope,
    OtherHeard,
    PacketEvent,
    PositionHeard,
    RoutingHeard,
    TelemetryHeard,
    TextHeard,
    UndecodableHeard,
    UserHeard,
)

MAX_NAME_CHARS: Final = 64  #: longest node name kept; the protocol allows 39 bytes
_MAX_ID: Final = 0xFFFFFFFF  #: node numbers, packet ids and times are 32 bits wide
_SNR_RANGE_DB: Final = (-64.0, 64.0)
_RSSI_RANGE_DBM: Final = (-200, 20)
_METRIC_GROUPS: Final = (
    "deviceMetrics",
    "environmentMetrics",
    "airQualityMetrics",
    "powerMetrics",
    "localStats",
)


def parse(packet: Mapping[str, object]) -> PacketEvent | None:
    """Turn one packet into an event; None when not even a sender can be read."""
    envelope = _envelope(packet)
    if envelope is None:
        return None
    decoded = packet.get("decoded")
    if not isinstance(decoded, Mapping):
        return UndecodableHeard(envelope)
    port = str(decoded.get("portnum", "UNKNOWN_APP"))
    reader = _READERS.get(port)
    event = reader(envelope, decoded) if reader else None
    return event or OtherHeard(envelope, port)


def _envelope(packet: Mapping[str, object]) -> Envelope | None:
    sender = _bounded(_whole(packet.get("from")), 1, _MAX_ID)
    if sender is None:
        return None
    snr = _number(packet.get("rxSnr"))
    rssi = _whole(packet.get("rxRssi"))
    if rssi is not None and "rxSnr" not in packet:
        snr = 0.0  # the library leaves out a value of exactly zero
    return Envelope(
        sender=sender,
        to=_bounded(_whole(packet.get("to")), 0, _MAX_ID) or 0,
        packet_id=_bounded(_whole(packet.get("id")), 0, _MAX_ID) or 0,
        channel_index=_bounded(_whole(packet.get("channel")), 0, 255) or 0,
        snr_db=snr if snr is not None and _SNR_RANGE_DB[0] <= snr <= _SNR_RANGE_DB[1] else None,
        rssi=_bounded(rssi, *_RSSI_RANGE_DBM),
        hop_start=_bounded(_whole(packet.get("hopStart")), 0, 7),
        hop_limit=_bounded(_whole(packet.get("hopLimit")), 0, 7),
        via_mqtt=packet.get("viaMqtt") is True,
        pki=packet.get("pkiEncrypted") is True,
        rx_time=_bounded(_whole(packet.get("rxTime")), 1, _MAX_ID),
    )


def _text(envelope: Envelope, decoded: Mapping[str, object]) -> PacketEvent:
    payload = decoded.get("payload")
    raw = payload if isinstance(payload, bytes) else _bytes(decoded.get("text"))
    try:
        text, broken = raw.decode(), None
    except UnicodeDecodeError:
        text, broken = raw.decode(errors="replace"), raw
    return TextHeard(
        envelope,
        text,
        reply_id=_bounded(_whole(decoded.get("replyId")), 0, _MAX_ID) or 0,
        emoji=_bounded(_whole(decoded.get("emoji")), 0, _MAX_ID) or 0,
        raw=broken,
    )


def _position(envelope: Envelope, decoded: Mapping[str, object]) -> PacketEvent | None:
    position = decoded.get("position")
    if not isinstance(position, Mapping):
        return None
    latitude, longitude = _number(position.get("latitude")), _number(position.get("longitude"))
    valid = (
        latitude is not None
        and longitude is not None
        and -90 <= latitude <= 90
        and -180 <= longitude <= 180
    )
    return PositionHeard(
        envelope,
        latitude=latitude if valid else None,
        longitude=longitude if valid else None,
        altitude_m=_bounded(_whole(position.get("altitude")), -500, 60_000),
        precision_bits=_bounded(_whole(position.get("precisionBits")), 0, 32),
    )


def _telemetry(envelope: Envelope, decoded: Mapping[str, object]) -> PacketEvent | None:
    telemetry = decoded.get("telemetry")
    if not isinstance(telemetry, Mapping):
        return None
    groups: dict[str, dict[str, float]] = {}
    for group in _METRIC_GROUPS:
        metrics = telemetry.get(group)
        if isinstance(metrics, Mapping):
            values = {str(name): _number(value) for name, value in metrics.items()}
            groups[group] = {name: value for name, value in values.items() if value is not None}
    return TelemetryHeard(envelope, groups)


def _user(envelope: Envelope, decoded: Mapping[str, object]) -> PacketEvent | None:
    user = decoded.get("user")
    if not isinstance(user, Mapping):
        return None
    return UserHeard(envelope, name(user.get("shortName")), name(user.get("longName")))


def _routing(envelope: Envelope, decoded: Mapping[str, object]) -> PacketEvent | None:
    request_id = _bounded(_whole(decoded.get("requestId")), 1, _MAX_ID)
    if request_id is None:
        return None
    routing = decoded.get("routing")
    body = routing if isinstance(routing, Mapping) else {}
    if "routeRequest" in body or "routeReply" in body:
        return None
    return RoutingHeard(envelope, request_id, str(body.get("errorReason", "NONE")))


_READERS: Final = {
    "TEXT_MESSAGE_APP": _text,
    "POSITION_APP": _position,
    "TELEMETRY_APP": _telemetry,
    "NODEINFO_APP": _user,
    "ROUTING_APP": _routing,
}


def name(value: object) -> str:
    """Cut a claimed name to a bearable length; '' for anything that is no text."""
    return value[:MAX_NAME_CHARS] if isinstance(value, str) else ""


def _bytes(value: object) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else b""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e12 else None  # also drops NaN and the infinities


def _bounded(value: int | None, low: int, high: int) -> int | None:
    return value if value is not None and low <= value <= high else None
