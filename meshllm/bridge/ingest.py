"""From what a radio reports to the rows that keep it. Pure: no files, no state."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from meshllm import layout
from meshllm.bridge.address import channel_name, placeholder, preset_name
from meshllm.clock import boot_id, utc_text
from meshllm.radio.base import (
    BROADCAST,
    Envelope,
    PositionHeard,
    RadioInfo,
    TelemetryHeard,
    TextHeard,
)
from meshllm.records import Latest, Message, Sighting, compact_json

KEPT_MAX_AGE: Final = timedelta(hours=48)  #: older radio times are not believed
CLOCK_SLACK: Final = timedelta(seconds=60)  #: a radio's clock may run ahead by this much

#: Steps below which a change means nothing to a person: no new sighting for it.
_STEPS: Final[Mapping[str, float]] = {
    "battery": 5,
    "temperature": 1,
    "relative_humidity": 5,
    "barometric_pressure": 1,
}
_SKIPPED_METRICS: Final = frozenset(
    {"uptimeSeconds", "channelUtilization", "airUtilTx", "time", "batteryLevel"}
)
_NOISE: Final = frozenset(
    {"snr", "hops", "voltage", "altitude"}
)  #: kept in the row, not in its hash
_EXTERNAL_POWER: Final = 101  #: batteryLevel above 100 means a charger


def held_for(
    envelope: Envelope, arrived: datetime, *, kept: bool, longest: timedelta = KEPT_MAX_AGE
) -> timedelta:
    """How long the radio held a packet that it `kept`, by its own clock; zero when that is absurd.

    `longest` is how long we were away: a radio time before that comes from a wrong clock.
    """
    if kept and envelope.rx_time:
        moment = datetime.fromtimestamp(min(envelope.rx_time, 0xFFFFFFFF), UTC)
        if -CLOCK_SLACK <= arrived - moment <= min(longest + CLOCK_SLACK, KEPT_MAX_AGE):
            return arrived - moment
    return timedelta()


def received_at(
    envelope: Envelope, arrived: datetime, *, kept: bool, longest: timedelta = KEPT_MAX_AGE
) -> str:
    """Timestamp of a packet: our receive time; the radio's, when plausible, for one it kept."""
    return utc_text(arrived - held_for(envelope, arrived, kept=kept, longest=longest))


def message_row(
    heard: TextHeard, info: RadioInfo, *, at: str, up_s: float, message_id: str
) -> Message:
    """Build the inbound row of a text; who it is for decides the thread."""
    envelope = heard.envelope
    sender = layout.node_id(envelope.sender)
    is_channel = envelope.to == BROADCAST
    return Message(
        thread_type="channel" if is_channel else "dm",
        thread_key=thread_channel(envelope.channel_index, info) if is_channel else sender,
        message_id=message_id,
        direction="inbound",
        sender_id=sender,
        reply_to_id=str(heard.reply_id) if heard.reply_id else "",
        timestamp=at,
        content=heard.text,
        meta_json=compact_json(_inbound_meta(heard, up_s)),
    )


def _inbound_meta(heard: TextHeard, up_s: float) -> dict[str, object]:
    envelope = heard.envelope
    facts: dict[str, object] = {
        "channel_index": envelope.channel_index,
        "snr": envelope.snr_db,
        "rssi": envelope.rssi,
        "hop_start": envelope.hop_start,
        "hop_limit": envelope.hop_limit,
        "via_mqtt": envelope.via_mqtt or None,
        "pki": envelope.pki or None,
        "reply_id": heard.reply_id or None,
        "emoji": heard.emoji or None,
        "rx_time": envelope.rx_time,
        "boot": boot_id() or None,
        "up_s": up_s,
        "raw_base64": base64.b64encode(heard.raw).decode() if heard.raw is not None else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def thread_channel(index: int, info: RadioInfo) -> str:
    """Name of the channel in this slot; a slot the radio did not tell of is named by its number."""
    for channel in info.channels:
        if channel.index == index:
            return channel_name(channel, info.preset)
    if index == 0 and not info.channels:
        return preset_name(info.preset)  # no channel was told: the first is the primary one
    return placeholder(index)


def channel_names(info: RadioInfo) -> dict[int, str]:
    """Display names of all channels, by slot."""
    return {c.index: channel_name(c, info.preset) for c in info.channels}


def text_digest(text: str) -> str:
    """Six hex digits that tell two texts under one id apart."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:6]


def telemetry_facts(heard: TelemetryHeard) -> dict[str, float]:
    """Flatten telemetry to our names, without what changes by itself (uptime, air use)."""
    facts: dict[str, float] = {}
    device = heard.groups.get("deviceMetrics", {})
    if "batteryLevel" in device:
        facts["battery"] = min(round(device["batteryLevel"]), _EXTERNAL_POWER)
    for group, metrics in heard.groups.items():
        if group != "localStats":
            facts |= {
                _snake(name): round(metrics[name], 3) for name in metrics.keys() - _SKIPPED_METRICS
            }
    return dict(sorted(facts.items()))


def facts_of(row: Sighting) -> dict[str, float]:
    """Read a stored sighting's facts back, so that a restart does not look like a change."""
    try:
        extras = json.loads(row.telemetry_json or "{}")
    except ValueError:
        return {}
    facts = extras.items() if isinstance(extras, dict) else ()
    return {
        name: value
        for name, value in facts
        if isinstance(value, (int, float)) and name not in {"snr", "hops", "altitude"}
    }


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def sighting(
    latest: Latest, facts: Mapping[str, float], *, altitude_m: int | None, at: str
) -> Sighting:
    """Build a sighting of a node from its newest position, signal and sensor values."""
    extras: dict[str, object] = dict(facts)
    if altitude_m is not None:
        extras["altitude"] = altitude_m
    signal = {"snr": latest.snr_db, "hops": latest.hops}
    extras |= {name: value for name, value in signal.items() if value is not None}
    row = Sighting(
        node_id=latest.node_id,
        latitude=latest.latitude,
        longitude=latest.longitude,
        rssi=latest.rssi,
        telemetry_json=compact_json(extras),
        observed_at=at,
    )
    return replace(row, sighting_hash=sighting_hash(row))


def sighting_hash(row: Sighting) -> str:
    """Hash what means something to a person: place to about 10 m, battery in 5 % steps, sensors.

    Signal strength is left out: it changes with every packet. 1e-4 degrees are 11 m of latitude.
    """
    extras = json.loads(row.telemetry_json or "{}")
    meaning = {
        "node": row.node_id,
        "place": [_degrees(row.latitude), _degrees(row.longitude)],
        "facts": {
            name: round(value / _STEPS.get(name, 1)) if isinstance(value, (int, float)) else value
            for name, value in sorted(extras.items())
            if name not in _NOISE
        },
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def _degrees(value: float | None) -> int | None:
    return None if value is None else round(value * 10_000)


def is_for_us(heard: TextHeard, info: RadioInfo) -> bool:
    """Broadcasts and texts addressed to this radio; never our own."""
    to, sender = heard.envelope.to, heard.envelope.sender
    return sender != info.number and to in (BROADCAST, info.number)


def place(heard: PositionHeard) -> tuple[float, float] | None:
    """Degrees, or None when the packet held no position."""
    if heard.latitude is None or heard.longitude is None:
        return None
    return heard.latitude, heard.longitude
