"""A mesh node's router: encryption, memory of what was heard, ACKs, repeats and relaying.

The same for a radio with a bridge behind it and for the radio of a person. Knows neither sockets
nor the client's protocol.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from meshllm import airtime
from meshllm.sim import wire
from meshllm.sim.air import Air, Frame, PkiSeal
from meshllm.sim.nexthop import Key, NextHops
from meshllm.sim.packets import (
    BROADCAST,
    CHANNEL_ONLY_PORTS,
    DEFAULT_HOPS,
    MAX_HOPS,
    ChannelSpec,
    KnownNode,
    Packet,
    Port,
    RoutingError,
    User,
)

HISTORY_SIZE: Final = 200  #: (sender, id) pairs a node remembers; the oldest use goes first
SEND_QUEUE_SIZE: Final = 16
QUEUE_FULL: Final = 32
RELAY_REPEATS: Final = 1  #: of a relay that was named as the next hop and names one itself
SHOULD_RELEASE: Final = 35  #: result for a packet to the node itself, which is not sent
RSSI_AT_ZERO_SNR: Final = -110


@dataclass(slots=True)
class _Queued:
    frame: Frame
    ready_at: float


@dataclass(slots=True)
class _Pending:
    frame: Frame
    channel: int
    due_at: float
    repeats_left: int = airtime.TRANSMISSIONS - 1


class Station:
    """One node of the mesh. Used on the engine's thread only."""

    def __init__(
        self,
        air: Air,
        user: User,
        channels: tuple[ChannelSpec, ...],
        *,
        seed: int,
        wall: Callable[[], int] = lambda: 0,
    ) -> None:
        """Join the air. `wall` gives Unix seconds, 0 for a node without a clock."""
        self.air = air
        self.num = user.num
        self.user = user
        self.channels = channels
        self.wall = wall
        self.is_on = True
        self.relays = True  #: False: as the firmware's role CLIENT_MUTE, it repeats for nobody
        self.to_client: Callable[[Packet], None] = lambda _packet: None
        self.known: dict[int, KnownNode] = {self.num: KnownNode(num=self.num, user=user)}
        self._rng = random.Random(f"{seed}/station/{self.num:08x}")  # noqa: S311 - no secret
        self._history: OrderedDict[Key, None] = OrderedDict()
        self._hops = NextHops(self.num, is_on=air.next_hops, size=HISTORY_SIZE)
        self._pending: dict[Key, _Pending] = {}
        self._queue: list[_Queued] = []
        self._is_sending = False
        self._epoch = 0
        air.join(self)

    @property
    def free(self) -> int:
        """Places left in the send queue."""
        return max(0, SEND_QUEUE_SIZE - len(self._queue))

    def new_id(self) -> int:
        """Draw a packet id."""
        return self._rng.randrange(1, 2**32)

    def reboot(self) -> None:
        """Forget everything that lives in memory; the list of nodes is on flash and stays."""
        self._epoch += 1
        self._history.clear()
        self._hops.clear()
        self._pending.clear()
        self._queue.clear()
        self._is_sending = False

    def learn(self, user: User) -> None:
        """Put a node into the list; a key once known is not replaced by another."""
        old = self.known.get(user.num) or KnownNode(num=user.num)
        if old.user is not None and old.user.public_key:
            user = replace(user, public_key=old.user.public_key)
        self.known[user.num] = replace(old, user=user)

    def forget_key(self, num: int) -> None:
        """Lose a node's public key, as after stopping too early to save it."""
        entry = self.known.get(num)
        if entry is not None and entry.user is not None:
            self.known[num] = replace(entry, user=replace(entry.user, public_key=b""))

    def forget(self, num: int) -> None:
        """Lose a node altogether."""
        self.known.pop(num, None)

    def wipe(self, public_key: bytes) -> None:
        """Lose the list of nodes and start over with a new key."""
        self.user = replace(self.user, public_key=public_key)
        self.known = {self.num: KnownNode(num=self.num, user=self.user)}
        self.reboot()

    def key_of(self, num: int) -> bytes:
        """Public key of a node, empty when not known."""
        entry = self.known.get(num)
        return entry.user.public_key if entry is not None and entry.user is not None else b""

    # Sending

    def send(self, packet: Packet) -> int:
        """Send a packet of the node's own client; 0, or the number the queue state reports.

        A refusal is also told to the client as a NAK from the node itself.
        """
        if packet.to == self.num:
            if packet.want_ack:
                self._tell_own_client(RoutingError.NONE, packet.id, packet.channel)
            return SHOULD_RELEASE
        packet = self._ready(packet)
        refusal, frame = self._encode(packet)
        if frame is None:
            self._tell_own_client(refusal, packet.id, packet.channel)
            return int(refusal)
        self._remember(frame.key)
        self._hops.sent(packet)
        if packet.want_ack:
            self._expect_ack(frame, packet.channel)
        elif packet.next_hop and packet.hop_limit:
            self._expect_ack(frame, packet.channel, repeats=RELAY_REPEATS)
        if len(self._queue) >= SEND_QUEUE_SIZE:
            return QUEUE_FULL
        self._delay_pending(frame, besides=frame.key)
        self._enqueue(frame, self.air.backoff_s(self._rng, self.num))
        return 0

    def forge(self, packet: Packet) -> None:
        """Send a packet under the number it carries, as anyone with the channel key can."""
        seal = self.air.seal(self.channels[packet.channel])
        frame = _frame(replace(self._ready(packet), sender=packet.sender), seal)
        self._remember(frame.key)
        self._enqueue(frame, self.air.backoff_s(self._rng, self.num))

    def broadcast_user(
        self, to: int = BROADCAST, *, want_response: bool = False, request_id: int = 0
    ) -> None:
        """Present this node on the primary channel, or answer the request of that id."""
        self.send(
            Packet(
                to=to,
                id=self.new_id(),
                port=Port.NODEINFO,
                payload=wire.user_payload(self.user),
                hop_limit=DEFAULT_HOPS,
                want_response=want_response,
                request_id=request_id,
            )
        )

    def send_routing(
        self,
        error: RoutingError,
        to: int,
        request_id: int,
        *,
        channel: int = 0,
        hop_limit: int = DEFAULT_HOPS,
        want_ack: bool = False,
    ) -> None:
        """Tell a node, or the own client, what became of a packet."""
        if to == self.num:
            self._tell_own_client(error, request_id, channel)
            return
        answer = Packet(
            to=to,
            id=self.new_id(),
            channel=channel,
            port=Port.ROUTING,
            payload=wire.routing_payload(error),
            request_id=request_id,
            hop_limit=hop_limit,
            want_ack=want_ack,
            priority=wire.ACK_PRIORITY,
        )
        self.send(answer)

    def _ready(self, packet: Packet) -> Packet:
        hops = min(packet.hop_limit, MAX_HOPS)
        if packet.want_ack and not hops and packet.port != Port.ROUTING:
            hops = DEFAULT_HOPS
        bitfield = 0 if packet.bitfield is None else packet.bitfield
        return replace(
            packet,
            sender=self.num,
            hop_limit=hops,
            hop_start=hops,
            bitfield=bitfield,
            relay_node=self.num & 0xFF,
            next_hop=self._hops.towards(packet.to),
        )

    def _encode(self, packet: Packet) -> tuple[RoutingError, Frame | None]:
        if packet.channel >= len(self.channels):
            return RoutingError.NO_CHANNEL, None
        seal: ChannelSpec | PkiSeal = self.air.seal(self.channels[packet.channel])
        is_private = packet.to != BROADCAST and packet.port not in CHANNEL_ONLY_PORTS
        if is_private and self.user.public_key and (packet.pki or packet.channel == 0):
            key = self.key_of(packet.to)
            if not key:
                return RoutingError.PKI_SEND_FAIL_PUBLIC_KEY, None
            if packet.pki and packet.public_key not in (b"", key):
                return RoutingError.PKI_FAILED, None
            seal = PkiSeal(self.user.public_key, key)
        frame = _frame(packet, seal)
        if frame.size_bytes > airtime.MAX_FRAME_BYTES:
            return RoutingError.TOO_LARGE, None
        return RoutingError.NONE, frame

    def _expect_ack(
        self, frame: Frame, channel: int, *, repeats: int = airtime.TRANSMISSIONS - 1
    ) -> None:
        wait = self.air.retransmit_s(frame.size_bytes, self.num)
        pending = _Pending(frame, channel, self.air.scheduler.now() + wait, repeats)
        self._pending[frame.key] = pending
        self._later(wait, lambda: self._repeat(pending))

    def _repeat(self, pending: _Pending) -> None:
        key = pending.frame.key
        if self._pending.get(key) is not pending:
            return
        early_s = pending.due_at - self.air.scheduler.now()
        if early_s > 0:
            self._later(early_s, lambda: self._repeat(pending))
        elif pending.repeats_left == 0:
            del self._pending[key]
            if key[0] == self.num:
                self._tell_own_client(RoutingError.MAX_RETRANSMIT, key[1], pending.channel)
        else:
            if pending.repeats_left == 1:
                self._give_up_way(pending)
            pending.repeats_left -= 1
            wait = self.air.retransmit_s(pending.frame.size_bytes, self.num)
            pending.due_at = self.air.scheduler.now() + wait
            self._enqueue(pending.frame, self.air.backoff_s(self._rng, self.num))
            self._later(wait, lambda: self._repeat(pending))

    def _give_up_way(self, pending: _Pending) -> None:
        packet = pending.frame.packet
        self._hops.forget(packet.to)
        pending.frame = replace(pending.frame, packet=replace(packet, next_hop=0))

    def _delay_pending(self, frame: Frame, *, besides: Key | None = None) -> None:
        # While anything is on the air no ACK can be heard, so the firmware waits longer.
        duration = self.air.frame_airtime_s(frame.size_bytes)
        for key, pending in self._pending.items():
            if key != besides:
                pending.due_at += duration

    def _stop_repeating(self, key: Key) -> bool:
        if self._pending.pop(key, None) is None:
            return False
        self._unqueue(key)
        return True

    def _enqueue(self, frame: Frame, delay_s: float) -> None:
        self._queue.append(_Queued(frame, self.air.scheduler.now() + delay_s))
        self._later(delay_s, self._pump)

    def _unqueue(self, key: tuple[int, int]) -> None:
        self._queue = [queued for queued in self._queue if queued.frame.key != key]

    def _pump(self) -> None:
        now = self.air.scheduler.now()
        ready = [queued for queued in self._queue if queued.ready_at <= now + 1e-6]
        if self._is_sending or not ready or not self.is_on:
            return
        busy_s = self.air.busy_until(self.num) - now
        if busy_s > 0:
            self._later(busy_s + self.air.backoff_s(self._rng, self.num), self._pump)
            return
        first = min(ready, key=lambda queued: queued.ready_at)
        self._queue.remove(first)
        self._is_sending = True
        self._later(self.air.transmit(self.num, first.frame), self._sent)

    def _sent(self) -> None:
        self._is_sending = False
        self._pump()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        epoch = self._epoch

        def run() -> None:
            if epoch == self._epoch:
                action()

        self.air.scheduler.call_later(delay_s, run)

    # Hearing

    def hear(self, frame: Frame, snr_db: float) -> None:
        """Take in a frame that has arrived completely."""
        if not self.is_on:
            return
        packet = frame.packet
        if packet.sender == self.num:
            self._hear_own(packet)
            return
        self._delay_pending(frame)
        if packet.id and frame.key in self._history:
            self._hear_again(frame, snr_db)
            return
        self._remember(frame.key)
        decoded = self._decode(frame, snr_db)
        if decoded is not None and decoded.request_id:
            self._hops.learn(packet)
        if packet.to == self.num:
            self._answer(packet, decoded)
        else:
            self._relay(frame, snr_db)
        if decoded is not None:
            self._note(decoded)
        if packet.to in (self.num, BROADCAST):
            self.to_client(decoded or self._undecoded(frame, snr_db))

    def _hear_own(self, packet: Packet) -> None:
        self._hops.heard_again(packet)
        pending = self._pending.get((self.num, packet.id))
        if pending is not None:
            self._stop_repeating(pending.frame.key)
            self._tell_own_client(RoutingError.NONE, packet.id, pending.channel)

    def _hear_again(self, frame: Frame, snr_db: float) -> None:
        packet = frame.packet
        self._remember(frame.key)
        self._hops.heard_again(packet)
        self._stop_repeating(frame.key)
        if packet.hop_start != packet.hop_limit:
            if not self._hops.was_asked(frame.key):
                self._unqueue(frame.key)
        elif packet.to != self.num:
            if all(queued.frame.key != frame.key for queued in self._queue):
                self._relay(frame, snr_db)
        elif packet.want_ack:
            self.send_routing(RoutingError.NONE, packet.sender, packet.id, hop_limit=0)

    def _decode(self, frame: Frame, snr_db: float) -> Packet | None:
        packet = self._received(frame, snr_db)
        if isinstance(frame.seal, PkiSeal):
            opens = PkiSeal(self.key_of(packet.sender), self.user.public_key)
            if packet.to != self.num or frame.seal != opens:
                return None
            return replace(packet, pki=True, public_key=frame.seal.sender_key)
        seals = [self.air.seal(channel) for channel in self.channels]
        return replace(packet, channel=seals.index(frame.seal)) if frame.seal in seals else None

    def _received(self, frame: Frame, snr_db: float) -> Packet:
        return replace(
            frame.packet,
            rx_time=self.wall(),
            rx_snr=snr_db,
            rx_rssi=round(RSSI_AT_ZERO_SNR + snr_db),
        )

    def _undecoded(self, frame: Frame, snr_db: float) -> Packet:
        channel = 0
        if isinstance(frame.seal, ChannelSpec):
            channel = (sum(frame.seal.name.encode()) + sum(frame.seal.psk)) % 256 or 1
        cipher = random.Random(frame.packet.id).randbytes(wire.data_size(frame.packet))  # noqa: S311 - fake
        return replace(
            self._received(frame, snr_db),
            encrypted=cipher,
            channel=channel,
            port=0,
            payload=b"",
            request_id=0,
            reply_id=0,
            emoji=0,
            bitfield=None,
        )

    def _answer(self, packet: Packet, decoded: Packet | None) -> None:
        if packet.want_ack:
            error = RoutingError.NONE
            if decoded is None:
                is_stranger = not self.key_of(packet.sender)
                error = RoutingError.PKI_UNKNOWN_PUBKEY if is_stranger else RoutingError.NO_CHANNEL
            is_text = decoded is not None and decoded.port == Port.TEXT
            channel = decoded.channel if decoded is not None else 0
            self.send_routing(error, packet.sender, packet.id, channel=channel, want_ack=is_text)
        if decoded is None:
            return
        if decoded.request_id:
            self._stop_repeating((self.num, decoded.request_id))
        if decoded.port == Port.ROUTING:
            if wire.parse_routing(decoded.payload) is RoutingError.PKI_UNKNOWN_PUBKEY:
                self.broadcast_user(packet.sender)
        elif decoded.port == Port.NODEINFO and decoded.want_response:
            self.broadcast_user(packet.sender, request_id=packet.id)

    def _relay(self, frame: Frame, snr_db: float) -> None:
        packet = frame.packet
        if not self.relays:
            return
        if packet.request_id and isinstance(frame.seal, ChannelSpec):
            # The addressee has answered, so its question needs no further repeating.
            self._unqueue((packet.to, packet.request_id))
            self._stop_repeating((packet.to, packet.request_id))
        was_asked = packet.next_hop == self.num & 0xFF
        if packet.next_hop and not was_asked:
            return
        if packet.id and packet.hop_limit and len(self._queue) < SEND_QUEUE_SIZE:
            onward = replace(
                packet,
                hop_limit=packet.hop_limit - 1,
                relay_node=self.num & 0xFF,
                next_hop=self._hops.towards(packet.to) if was_asked else 0,
            )
            self._hops.sent(onward, was_asked=was_asked)
            copy = replace(frame, packet=onward)
            if onward.next_hop and (onward.hop_limit or onward.want_ack):
                self._expect_ack(copy, 0, repeats=RELAY_REPEATS)
            self._enqueue(copy, self.air.relay_delay_s(self._rng, snr_db))

    def _note(self, packet: Packet) -> None:
        if packet.port == Port.NODEINFO:
            user = wire.parse_user(packet.sender, packet.payload)
            if user is not None:
                self.learn(user)
        entry = self.known.get(packet.sender) or KnownNode(num=packet.sender)
        entry = replace(
            entry,
            snr=packet.rx_snr,
            last_heard=packet.rx_time or entry.last_heard,
            hops_away=packet.hop_start - packet.hop_limit,
        )
        if packet.port == Port.POSITION:
            place = wire.parse_position(packet.payload)
            if place is not None:
                latitude, longitude, altitude = place
                entry = replace(entry, latitude=latitude, longitude=longitude, altitude=altitude)
        elif packet.port == Port.TELEMETRY:
            entry = replace(entry, battery=wire.parse_battery(packet.payload) or entry.battery)
        self.known[packet.sender] = entry

    def _remember(self, key: tuple[int, int]) -> None:
        self._history[key] = None
        self._history.move_to_end(key)
        if len(self._history) > HISTORY_SIZE:
            self._history.popitem(last=False)

    def _tell_own_client(self, error: RoutingError, request_id: int, channel: int) -> None:
        self.to_client(
            Packet(
                sender=self.num,
                to=self.num,
                id=self.new_id(),
                channel=channel,
                port=Port.ROUTING,
                payload=wire.routing_payload(error),
                request_id=request_id,
                rx_time=self.wall(),
                priority=wire.ACK_PRIORITY,
            )
        )


def _frame(packet: Packet, seal: ChannelSpec | PkiSeal) -> Frame:
    size = airtime.frame_bytes(wire.data_size(packet), pki=isinstance(seal, PkiSeal))
    want_ack = packet.want_ack and packet.to != BROADCAST
    return Frame(
        replace(packet, pki=False, public_key=b"", channel=0, want_ack=want_ack), seal, size
    )
