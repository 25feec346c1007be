"""People with radios somewhere on the mesh: they say things and keep what they heard.

A person's radio is an ordinary station, so it remembers, acknowledges and repeats like one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from meshllm.sim import wire
from meshllm.sim.engine import Engine, Journal
from meshllm.sim.packets import BROADCAST, DEFAULT_HOPS, Packet, Port, RoutingError
from meshllm.sim.station import Station


class Addressee(Protocol):
    """Anything with a node number: a radio or another person."""

    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A text as it reached a person. `at` is scaled, `real_at` real monotonic seconds."""

    text: str | None  #: None when the payload is no UTF-8
    payload: bytes
    sender: int
    sender_name: str
    to: int
    packet_id: int
    reply_id: int
    emoji: int
    channel: int
    pki: bool
    hops: int
    at: float
    real_at: float

    @property
    def is_dm(self) -> bool:
        """Say whether it was meant for this person alone."""
        return self.to != BROADCAST


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the mesh told a person's radio about something they sent."""

    packet_id: int
    error: RoutingError
    reported_by: int


class Person:
    """Somebody with a radio. All methods may be called from any thread."""

    def __init__(self, name: str, station: Station, engine: Engine, *, scale: float) -> None:
        """Attach to a station, whose client this person is from now on."""
        self.name = name
        self.station = station
        self.num = station.num
        self.inbox: Journal[Heard] = Journal()
        self.packets: Journal[Packet] = Journal()  #: everything the radio told its owner
        self.deliveries: Journal[Delivery] = Journal()
        self.on_heard: list[Callable[[Heard], None]] = []  #: called on the engine's thread
        self._engine = engine
        self._scale = scale
        station.to_client = self._receive

    @property
    def node_id(self) -> str:
        """The `!xxxxxxxx` form of the number."""
        return self.station.user.node_id

    @property
    def heard(self) -> tuple[Heard, ...]:
        """Every text heard so far, in order."""
        return self.inbox.items()

    def wait_for(
        self, wanted: Callable[[Heard], bool] | str, timeout_s: float, *, skip: int = 0
    ) -> Heard | None:
        """Return the first text that fits, None after that many real seconds.

        `wanted` is a predicate or a regular expression; `skip` leaves out what was heard earlier.
        """
        if isinstance(wanted, str):
            pattern = re.compile(wanted)
            return self.inbox.wait_for(
                lambda heard: bool(pattern.search(heard.text or "")), timeout_s, skip=skip
            )
        return self.inbox.wait_for(wanted, timeout_s, skip=skip)

    def wait_delivery(self, packet_id: int, timeout_s: float) -> Delivery | None:
        """Return the first ACK or NAK of a packet, None after that many real seconds."""
        return self.deliveries.wait_for(lambda item: item.packet_id == packet_id, timeout_s)

    def say(
        self,
        text: str | bytes,
        *,
        to: Addressee | int | None = None,
        channel: int = 0,
        reply_to: Heard | int = 0,
        want_ack: bool | None = None,
        packet_id: int = 0,
        emoji: int = 0,
    ) -> int:
        """Send a text to one node, or without `to` on a channel; returns the packet id.

        Bytes go out as they are, valid UTF-8 or not. Want_ack is on for one node only, unless set.
        """
        number = BROADCAST if to is None else to if isinstance(to, int) else to.num
        packet = Packet(
            to=number,
            id=packet_id,
            channel=channel,
            payload=text.encode() if isinstance(text, str) else text,
            want_ack=(number != BROADCAST) if want_ack is None else want_ack,
            reply_id=reply_to if isinstance(reply_to, int) else reply_to.packet_id,
            emoji=emoji,
            hop_limit=DEFAULT_HOPS,
        )
        return self.send(packet)

    def send(self, packet: Packet) -> int:
        """Send any packet from this person's radio; id 0 gets one. Returns the id."""
        return self._engine.call(lambda: self._send(packet))

    def _send(self, packet: Packet) -> int:
        packet = packet if packet.id else replace(packet, id=self.station.new_id())
        self.station.send(packet)
        return packet.id

    def forge(self, packet: Packet) -> None:
        """Send a packet under another node's number, `packet.sender`, with the channel's key."""
        self._engine.call(lambda: self.station.forge(packet))

    def send_position(
        self,
        latitude: float,
        longitude: float,
        *,
        altitude: int = 0,
        channel: int = 0,
        every_s: float = 0.0,
    ) -> None:
        """Broadcast where this person is, once or again and again."""
        payload = wire.position_payload(latitude, longitude, altitude=altitude)
        self._broadcast(Port.POSITION, payload, channel, every_s)

    def send_telemetry(
        self,
        *,
        battery: int | None = None,
        voltage: float | None = None,
        temperature: float | None = None,
        humidity: float | None = None,
        channel: int = 0,
        every_s: float = 0.0,
    ) -> None:
        """Broadcast device or sensor values, once or again and again."""
        payload = wire.telemetry_payload(
            battery=battery, voltage=voltage, temperature=temperature, humidity=humidity
        )
        self._broadcast(Port.TELEMETRY, payload, channel, every_s)

    def send_user(self, *, every_s: float = 0.0) -> None:
        """Broadcast name and public key, once or again and again."""
        self._broadcast(Port.NODEINFO, wire.user_payload(self.station.user), 0, every_s)

    def _broadcast(self, port: Port, payload: bytes, channel: int, every_s: float) -> None:
        packet = Packet(port=port, payload=payload, channel=channel, hop_limit=DEFAULT_HOPS)

        def send() -> None:
            self._send(packet)
            if every_s > 0:
                self._engine.call_later(every_s, send)

        self._engine.call(send)

    def switch_off(self) -> None:
        """Turn the radio off: it hears and repeats nothing, and forgets what it heard."""
        self._engine.call(lambda: self._power(on=False))

    def switch_on(self) -> None:
        """Turn the radio on again."""
        self._engine.call(lambda: self._power(on=True))

    def reboot(self) -> None:
        """Restart the radio: it forgets which packets it has seen."""
        self._engine.call(lambda: self._power(on=True))

    def _power(self, *, on: bool) -> None:
        self.station.reboot()
        self.station.is_on = on

    def forget_key(self, num: int) -> None:
        """Lose a node's public key."""
        self._engine.call(lambda: self.station.forget_key(num))

    def wipe(self) -> None:
        """Reset the radio to factory state: a new key, and nobody known."""
        key = bytes(reversed(self.station.user.public_key))
        self._engine.call(lambda: self.station.wipe(key))

    def _receive(self, packet: Packet) -> None:
        self.packets.add(packet)
        if packet.encrypted is not None:
            return
        if packet.port == Port.ROUTING:
            error = wire.parse_routing(packet.payload)
            if error is not None:
                self.deliveries.add(Delivery(packet.request_id, error, packet.sender))
        elif packet.port == Port.TEXT:
            heard = self._heard(packet)
            self.inbox.add(heard)
            for listener in tuple(self.on_heard):
                listener(heard)

    def _heard(self, packet: Packet) -> Heard:
        entry = self.station.known.get(packet.sender)
        user = entry.user if entry is not None else None
        now = self._engine.now()
        return Heard(
            text=packet.text,
            payload=packet.payload,
            sender=packet.sender,
            sender_name=user.long_name if user is not None else f"!{packet.sender:08x}",
            to=packet.to,
            packet_id=packet.id,
            reply_id=packet.reply_id,
            emoji=packet.emoji,
            channel=packet.channel,
            pki=packet.pki,
            hops=packet.hop_start - packet.hop_limit,
            at=now,
            real_at=now / self._scale,
        )
