"""The node's side of the client protocol: handshake, limits, the queue kept for the client.

Works on messages without their framing; knows no socket. One `PhoneSide` lives as long as the
node's memory, one `Session` as long as a connection.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import structlog

from meshllm.sim import wire
from meshllm.sim.engine import Journal
from meshllm.sim.outcome import Outcome, Result
from meshllm.sim.packets import (
    Disconnect,
    Heartbeat,
    Packet,
    Port,
    QueueStatus,
    RoutingError,
    SendPacket,
    WantConfig,
)
from meshllm.sim.station import SEND_QUEUE_SIZE, SHOULD_RELEASE, Station

log = structlog.get_logger()

CLIENT_QUEUE_SIZE: Final = 32  #: packets kept for the client; a text evicts the oldest
KEPT_QUEUE_STATES: Final = 2  #: only the newest of a burst are ever sent
REMEMBERED_IDS: Final = 20  #: ids per line whose repeat is swallowed
ONLY_CONFIG: Final = 69420
ONLY_NODES: Final = 69421
INTRODUCE_YOURSELF: Final = 1  #: heartbeat nonce that makes the node present itself

#: Shortest time between two packets of a port on one connection.
SPACING_S: Final[dict[int, float]] = {
    Port.TEXT: 2.0,
    Port.POSITION: 10.0,
    Port.WAYPOINT: 10.0,
    Port.ALERT: 10.0,
    Port.TELEMETRY: 10.0,
    Port.TRACEROUTE: 30.0,
}


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A packet that the client wrote, and what became of it at the node.

    `verdict` is accepted, refused, repeated (silently swallowed), too_soon (swallowed with a
    queue state that looks like success) or unreadable. `at` is scaled, `real_at` real seconds.
    """

    packet: Packet
    verdict: str
    res: int
    at: float
    real_at: float


class PhoneSide:
    """What a node keeps for its client, whoever is connected. Lost when the node restarts."""

    def __init__(self, station: Station, *, scale: float, preset: str) -> None:
        """Take over the station's client side."""
        self.station = station
        self.preset = preset
        self.handed: Journal[HandedOver] = Journal()
        self.script: deque[Outcome] = deque()
        self.forced_free: int | None = None
        self.is_silent_about_queue = False
        self.on_news: Callable[[], None] = lambda: None
        self.queue: deque[Packet] = deque()
        self.queue_states: deque[QueueStatus] = deque(maxlen=KEPT_QUEUE_STATES)
        self.notices: deque[bytes] = deque()
        self._muted_ids: set[int] = set()
        self._scale = scale
        station.to_client = self.offer

    def reset(self) -> None:
        """Lose everything kept in memory."""
        self.queue.clear()
        self.queue_states.clear()
        self.notices.clear()

    def offer(self, packet: Packet) -> None:
        """Keep a packet for the client, unless a scripted outcome replaces what the mesh says."""
        if packet.port == Port.ROUTING and packet.request_id in self._muted_ids:
            return
        self.keep(packet)

    def keep(self, packet: Packet) -> None:
        """Keep a packet for the client; overflow costs the oldest, or this one if it is no text."""
        if len(self.queue) >= CLIENT_QUEUE_SIZE:
            if packet.port not in (Port.TEXT, Port.RANGE_TEST):
                log.debug("sim_packet_dropped", node=self.station.num, port=packet.port)
                return
            self.queue.popleft()
        self.queue.append(packet)
        self.on_news()

    def queue_state(self, packet_id: int = 0, res: int = 0) -> QueueStatus:
        """Report the send queue."""
        free = self.station.free if self.forced_free is None else self.forced_free
        return QueueStatus(res, free, SEND_QUEUE_SIZE, packet_id)

    def report(self, packet_id: int, res: int) -> None:
        """Put a queue state up for sending; the third of a burst displaces the first."""
        if not self.is_silent_about_queue:
            self.queue_states.append(self.queue_state(packet_id, res))
        self.on_news()

    def record(self, packet: Packet, verdict: str, res: int = 0) -> None:
        """Write down what became of a packet of the client."""
        at = self.station.air.scheduler.now()
        self.handed.add(HandedOver(packet, verdict, res, at, at / self._scale))

    def take(self, packet: Packet) -> None:
        """Send a packet of the client over the mesh, or do what the script says instead."""
        packet = packet if packet.id else replace(packet, id=self.station.new_id())
        is_scripted = packet.port == Port.TEXT and bool(self.script)
        outcome = self.script.popleft() if is_scripted else Outcome()
        if outcome.results is None:
            self._muted_ids.discard(packet.id)
        else:
            self._muted_ids.add(packet.id)
        if packet.to == self.station.num and packet.port == Port.ADMIN:
            self._set_clock(packet.payload)
        res = self.station.send(packet) if outcome.transmit else 0
        res = res or outcome.res
        is_taken = res in (0, SHOULD_RELEASE)
        self.record(packet, "accepted" if is_taken else "refused", res)
        if outcome.queue_status:
            self.report(packet.id, res)
        for result in outcome.results or ():
            self._answer_later(packet, result)

    def _set_clock(self, payload: bytes) -> None:
        seconds = wire.parse_set_time(payload)
        if seconds:
            set_at = self.station.air.scheduler.now()
            self.station.wall = lambda: (
                seconds + int((self.station.air.scheduler.now() - set_at) / self._scale)
            )

    def _answer_later(self, packet: Packet, result: Result) -> None:
        me = self.station.num
        is_own = result.origin == "implicit"
        request_id = self.station.new_id() if result.origin == "stranger" else packet.id
        answer = Packet(
            sender=me if is_own else packet.to,
            to=me,
            id=self.station.new_id(),
            channel=packet.channel,
            port=Port.ROUTING,
            payload=wire.routing_payload(result.error),
            request_id=request_id,
            rx_time=self.station.wall(),
            rx_snr=0.0 if is_own else 6.0,
            rx_rssi=0 if is_own else -60,
            hop_limit=0 if is_own else 3,
            hop_start=0 if is_own else 3,
            priority=wire.ACK_PRIORITY,
        )
        self.station.air.scheduler.call_later(result.after_s, lambda: self.keep(answer))


class Session:
    """One line to a client: where its handshake stands and what was sent over it before.

    Over TCP every connection is a line of its own; serial and Bluetooth have one until a restart.
    """

    def __init__(self, phone: PhoneSide) -> None:
        """Start before the handshake."""
        self.is_over = False
        self._phone = phone
        self._station = phone.station
        self._handshake: Iterator[bytes] = iter(())
        self._is_configured = False
        self._owes_heartbeat = False
        self._seen: deque[int] = deque(maxlen=REMEMBERED_IDS)
        self._last_at: dict[int, float] = {}

    def handle(self, message: bytes) -> None:
        """Act on one message of the client; what cannot be read is passed over in silence."""
        try:
            request = wire.parse_request(message)
        except wire.MalformedError as e:
            log.debug("sim_request_unreadable", node=self._station.num, reason=str(e))
            self._phone.record(Packet(payload=message), "unreadable")
            return
        match request:
            case SendPacket(packet):
                self._handle_packet(packet)
            case WantConfig(nonce):
                self._is_configured = False
                self._handshake = self._configure(nonce)
            case Heartbeat(nonce):
                self._owes_heartbeat = True
                if nonce == INTRODUCE_YOURSELF:
                    self._station.broadcast_user()
            case Disconnect():
                self.is_over = True
            case _:
                log.debug("sim_request_ignored", node=self._station.num, kind=request.name)

    def forget_configuration(self) -> None:
        """End the client's session: it has to ask again. The ids it sent stay known.

        So the firmware does on a line that outlives its clients (serial, Bluetooth): its list of
        ids is emptied by a restart alone, the spacing of the ports at every end.
        """
        self.is_over = False
        self._is_configured = False
        self._owes_heartbeat = False
        self._handshake = iter(())
        self._last_at.clear()

    def next_message(self) -> bytes | None:
        """Take the next message for the client off the queues, None when there is none."""
        if self._owes_heartbeat:
            self._owes_heartbeat = False
            return wire.queue_status(self._phone.queue_state())
        message = next(self._handshake, None)
        if message is not None or not self._is_configured:
            return message
        if self._phone.queue_states:
            return wire.queue_status(self._phone.queue_states.popleft())
        if self._phone.notices:
            return self._phone.notices.popleft()
        if self._phone.queue:
            return wire.packet(self._phone.queue.popleft())
        return None

    def _configure(self, nonce: int) -> Iterator[bytes]:
        station = self._station
        others = [node for num, node in station.known.items() if num != station.num]
        own = wire.node_info(station.known[station.num])
        if nonce == ONLY_NODES:
            yield own
        else:
            yield wire.identity(station.num, known_nodes=len(station.known))
            yield wire.screen()
            yield own
            yield wire.metadata()
            yield from wire.channels(station.channels)
            yield from wire.configs(self._phone.preset, station.user.public_key)
            yield from wire.module_configs()
        if nonce != ONLY_CONFIG:
            yield from map(wire.node_info, others)
        if nonce != ONLY_NODES:
            yield from wire.files()
        self._is_configured = True
        yield wire.config_complete(nonce)

    def _handle_packet(self, packet: Packet) -> None:
        if packet.id and packet.id in self._seen:
            self._phone.record(packet, "repeated")
            return
        if packet.id:
            self._seen.append(packet.id)
        if self._is_too_soon(packet.port):
            self._refuse_too_soon(packet)
        elif packet.encrypted is not None:
            self._phone.record(packet, "unreadable")
        else:
            self._phone.take(packet)

    def _is_too_soon(self, port: int) -> bool:
        spacing = SPACING_S.get(port)
        if spacing is None:
            return False
        now = self._station.air.scheduler.now()
        last = self._last_at.get(port)
        if last is not None and now - last < spacing:
            return True
        self._last_at[port] = now
        return False

    def _refuse_too_soon(self, packet: Packet) -> None:
        self._phone.record(packet, "too_soon")
        if packet.port == Port.TEXT:
            # The firmware answers whoever the client named as sender; unnamed, that is node 0.
            self._station.send_routing(RoutingError.RATE_LIMIT_EXCEEDED, packet.sender, packet.id)
        elif packet.port == Port.TRACEROUTE:
            text = "TraceRoute can only be sent once every 30 seconds"
            self._phone.notices.append(wire.notification(text, reply_id=packet.id))
        self._phone.report(packet.id, 0)
