"""Real radios through the official library: the only module that drives it. Decides no policy.

What the library does wrong or leaves out is contained here: hidden reconnects, calls that hang,
`sys.exit` in callbacks, weak references to listeners, a queueStatus without a topic.
"""

import io
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from functools import cache
from typing import Any, Final, TypeVar

import structlog
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from meshtastic import serial_interface, tcp_interface, util
from meshtastic.protobuf import channel_pb2, config_pb2, mesh_pb2, portnums_pb2
from pubsub import pub
from serial.tools import list_ports

from meshllm.clock import Clock
from meshllm.config import Link
from meshllm.errors import LinkDownError, RadioBusyError
from meshllm.radio import packets
from meshllm.radio.base import (
    Channel,
    Emit,
    KnownNode,
    LinkKind,
    LinkLost,
    OutgoingText,
    QueueStatus,
    RadioInfo,
)
from meshllm.radio.ports import Port, SerialPorts

log = structlog.get_logger()

TCP_CONNECT_S: Final = 5.0  #: a host that does not answer; the library has no limit of its own
HANDSHAKE_S: Final = 45.0  #: above the library's own hard 30 s, so that it cleans up by itself
SEND_S: Final = 10.0  #: a serial write sleeps 0.1 s; anything near this is a hang
FORGET_S: Final = 15.0  #: 20 serial writes of 0.1 s, with room for a slow Bluetooth link
PROBE_S: Final = 10.0  #: heartbeat to queueStatus; measured well under 1 s on firmware
FIRST_STATUS_S: Final = 1.0  #: for the answer to the heartbeat that the library sends on connecting
CLOSE_S: Final = 3.0  #: after this the old threads are abandoned (they are daemons)
REMEMBERED_IDS: Final = 20  #: ids that the firmware keeps per client (PhoneAPI, 2.7.26 and 2.8)
DEFAULT_HOP_LIMIT: Final = 3  #: firmware default, for radios whose LoRa settings were not told
_POLL_S: Final = 0.05

T = TypeVar("T")


def _within(limit_s: float, what: str, call: Callable[[], T]) -> T:
    """Run a library call that may hang or exit, for at most `limit_s` real seconds.

    Raises LinkDownError for every failure. A call that hangs is abandoned on its daemon thread.
    """
    done = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - SystemExit included: the library calls sys.exit
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name=f"radio {what}", daemon=True).start()
    if not done.wait(limit_s):
        raise LinkDownError(f"{what}: no return within {limit_s:g} s")
    if failures:
        failure = failures[0]
        reason = str(failure) or type(failure).__name__
        raise LinkDownError(f"{what}: {reason}") from failure
    return results[0]


class _Hooks:
    """Mixed into the library's interfaces: reports what they keep to themselves."""

    def __init__(self, emit: Emit, *args: object, **kwargs: object) -> None:
        self.emit = emit
        self.failure: Exception | None = None
        self._is_opening = True
        super().__init__(*args, **kwargs)
        self._is_opening = False

    def _handleQueueStatusFromRadio(self, status: Any) -> None:  # noqa: N802 - the library's name
        super()._handleQueueStatusFromRadio(status)  # type: ignore[misc] # the mixed-in class has it
        self.emit(
            QueueStatus(status.mesh_packet_id, status.res, free=status.free, maxlen=status.maxlen)
        )

    def _disconnected(self) -> None:
        super()._disconnected()  # type: ignore[misc] # the mixed-in class has it
        if self._is_opening:
            # Nobody tells the waiting constructor, which would take its whole 30 s to notice.
            self.failure = ConnectionError("the connection ended during the handshake")
            self.isConnected.set()  # type: ignore[attr-defined] # the mixed-in class has it
        self.emit(LinkLost("the connection ended"))

    def _startConfig(self) -> None:  # noqa: N802 - the library's name
        if self._is_opening:
            super()._startConfig()  # type: ignore[misc] # the mixed-in class has it
        else:
            # The library would read the configuration again and tell nobody. The radio has lost
            # its queue and perhaps has other channels now: a fresh connection settles both.
            self.emit(LinkLost("the radio restarted"))

    def _handleFromRadio(self, frame: bytes) -> None:  # noqa: N802 - the library's name
        try:
            super()._handleFromRadio(frame)  # type: ignore[misc] # the mixed-in class has it
        except DecodeError as error:
            # The library drops the whole packet when an inner payload is malformed and prints
            # a traceback; the frame is worth one event and nothing more.
            log.warning("packet_undecodable", reason=str(error), size=len(frame))
        except OSError as error:
            # The link broke while the library answered a frame; LinkLost follows from its reader.
            log.debug("answer_not_written", reason=str(error))


class _Tcp(_Hooks, tcp_interface.TCPInterface):  # type: ignore[misc] # untyped base
    """TCP without the library's own reconnect, which loses packets and tells nobody."""

    def myConnect(self) -> None:  # noqa: N802 - the library's name
        self.socket = socket.create_connection(
            (self.hostname, self.portNumber), timeout=TCP_CONNECT_S
        )
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _reconnect(self) -> None:
        raise ConnectionError("the radio closed the connection")


class _Serial(_Hooks, serial_interface.SerialInterface):  # type: ignore[misc] # untyped base
    """Serial as the library has it; it does not reconnect by itself."""


def _on_receive(packet: Mapping[str, object], interface: object) -> None:
    """Pass every packet to the radio it came from. Runs on the library's publishing thread."""
    if not isinstance(interface, _Hooks):
        return
    event = packets.parse(packet)
    if event is None:
        log.warning("packet_malformed", reason="no sender", to=packet.get("to"))
        return
    interface.emit(event)


@cache
def _ble() -> tuple[Any, float]:
    """Interface class for Bluetooth and its limit. Importing bleak costs those who have none."""
    from meshllm.radio import ble  # noqa: PLC0415

    class _Ble(_Hooks, ble.BleInterface):
        """Bluetooth with a connection of our own below the library."""

    return _Ble, ble.OPEN_S


@cache
def _subscribe() -> None:
    """Listen once per process, before the first connect: a radio delivers what it kept at once."""
    pub.subscribe(_on_receive, "meshtastic.receive")


def serial_ports() -> list[str]:
    """Ports that may be a radio: the library's list of known USB vendors."""
    with redirect_stdout(io.StringIO()):
        return [str(port) for port in util.findPorts(True)]


def look_for_ports() -> list[Port]:
    """List every serial port with the device behind it."""
    likely = set(serial_ports())
    return [
        Port(
            info.device,
            info.vid,
            info.pid,
            info.serial_number or "",
            info.location or "",
            is_likely=info.device in likely,
        )
        for info in list_ports.comports()
    ]


class DeviceRadio:
    """One connection through the official library (see radio.base.Radio)."""

    def __init__(
        self, link: Link, emit: Emit, *, clock: Clock, ports: SerialPorts | None = None
    ) -> None:
        """Prepare a connection; nothing is opened before `connect`.

        `ports` remembers over connections which device a serial link had, for all links together.
        """
        self.kind: LinkKind = link.kind
        self._ports = ports or SerialPorts(look_for_ports)
        self._link = link
        self._emit = emit
        self._clock = clock
        self._interface: Any = None
        self._closing = False
        self._statuses = threading.Condition()
        self._status_count = 0

    def connect(self) -> RadioInfo:
        """Connect, read the configuration. Raises LinkDownError, after at most 45 s (BLE: 120)."""
        _subscribe()
        limit_s = _ble()[1] if self.kind == "ble" else HANDSHAKE_S
        self._interface = _within(limit_s, "connect", self._open)
        with self._statuses:
            # The library's first heartbeat is answered at once. Coming later, that answer would
            # pass for one to a probe, and a full queue would not be known before the first send.
            self._statuses.wait_for(
                lambda: self._status_count > 0, timeout=FIRST_STATUS_S / self._clock.scale
            )
        if self.kind == "serial":
            self._ports.opened(self._link)
        try:
            return _describe(self._interface)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LinkDownError(f"connect: unusable configuration ({error!r})") from error

    def send(self, text: OutgoingText) -> None:
        """Hand one text over. Raises RadioBusyError when the radio's queue stays full."""
        interface = self._live()
        self._wait_for_room(interface)
        packet = _packet_from(interface, text.packet_id)
        packet.channel = text.channel_index
        packet.decoded.portnum = portnums_pb2.PortNum.TEXT_MESSAGE_APP
        packet.decoded.payload = text.text.encode("utf-8", "replace")
        if text.reply_id:
            packet.decoded.reply_id = text.reply_id
        self._hand_over("send", packet, text.to, want_ack=text.want_ack)

    def request_user(self, number: int) -> None:
        """Ask a node for its node info. Raises RadioBusyError when the radio's queue is full."""
        interface = self._live()
        user = _own_user(interface)
        self._wait_for_room(interface)
        packet = _packet_from(interface, _random_id())
        packet.decoded.portnum = portnums_pb2.PortNum.NODEINFO_APP
        packet.decoded.payload = user
        packet.decoded.want_response = True
        self._hand_over("request", packet, number)

    def forget_ids(self) -> None:
        """Push every id out of the radio's list by packets to itself, which stay off the air.

        Raises LinkDownError when the radio does not answer afterwards.
        """
        interface = self._live()
        number = interface.myInfo.my_node_num

        def fill() -> None:
            for _ in range(REMEMBERED_IDS):
                request = mesh_pb2.ToRadio()
                request.packet.CopyFrom(_packet_from(interface, _random_id()))
                request.packet.to = number
                request.packet.decoded.portnum = portnums_pb2.PortNum.PRIVATE_APP
                # Past the library's queue, which waits for room in the radio's: these need none.
                interface._sendToRadioImpl(request)

        _within(FORGET_S, "forget ids", fill)
        self.probe()

    def probe(self) -> None:
        """Send a heartbeat and wait for the queueStatus that answers it."""
        interface = self._live()
        with self._statuses:
            before = self._status_count
        _within(SEND_S, "heartbeat", interface.sendHeartbeat)
        with self._statuses:
            answered = self._statuses.wait_for(
                lambda: self._status_count > before, timeout=PROBE_S / self._clock.scale
            )
        if not answered:
            raise LinkDownError(f"no answer to a heartbeat within {PROBE_S:g} s")

    def close(self) -> None:
        """Close on a helper thread, releasing a send that waits for room in the radio's queue."""
        self._closing = True
        interface, self._interface = self._interface, None
        if interface is not None:
            interface.queue.clear()
            interface.queueStatus = None
            with suppress(LinkDownError):
                _within(CLOSE_S, "close", interface.close)
        if self.kind == "serial":
            self._ports.release(self._link)

    def _open(self) -> Any:
        timeout_s = int(HANDSHAKE_S)
        if self._link.kind == "tcp":
            return _Tcp(
                self._report, self._link.target, portNumber=self._link.port, timeout=timeout_s
            )
        if self._link.kind == "serial":
            return _Serial(self._report, devPath=self._ports.take(self._link), timeout=timeout_s)
        interface_class, _ = _ble()
        return interface_class(self._report, self._link.target)

    def _hand_over(self, what: str, packet: Any, to: int, *, want_ack: bool = False) -> None:
        interface = self._live()
        hop_limit = interface.localNode.localConfig.lora.hop_limit or DEFAULT_HOP_LIMIT
        _within(
            SEND_S,
            what,
            lambda: interface._sendPacket(packet, to, wantAck=want_ack, hopLimit=hop_limit),
        )

    def _report(self, event: object) -> None:
        if isinstance(event, LinkLost) and self._closing:
            return
        if isinstance(event, QueueStatus):
            with self._statuses:
                self._status_count += 1
                self._statuses.notify_all()
        self._emit(event)  # type: ignore[arg-type] # only our own events get here

    def _live(self) -> Any:
        interface = self._interface
        if interface is None or not interface.isConnected.is_set():
            raise LinkDownError("not connected")
        return interface

    def _wait_for_room(self, interface: Any) -> None:
        """The library would wait for ever on a full queue; a heartbeat asks for a fresh count."""
        status = interface.queueStatus
        if status is not None and status.free <= 0:
            self.probe()
            if interface.queueStatus.free <= 0:
                raise RadioBusyError("the radio's send queue is full")


def _random_id() -> int:
    return secrets.randbelow(2**32 - 1) + 1


def _packet_from(interface: Any, packet_id: int) -> Any:
    packet = mesh_pb2.MeshPacket(id=packet_id)
    # Own number as sender: without it the firmware addresses its rate-limit NAK to node 0.
    setattr(packet, "from", interface.myInfo.my_node_num)
    return packet


def _own_user(interface: Any) -> bytes:
    """Our own node info as the radio told it at connect. An incomplete one would rename us."""
    number = int(interface.myInfo.my_node_num)
    told = (interface.nodesByNum or {}).get(number, {}).get("user")
    user = mesh_pb2.User()
    try:
        json_format.ParseDict(told or {}, user, ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise RadioBusyError(f"our own node info is unusable: {error}") from error
    if not user.id or not user.long_name:
        raise RadioBusyError("the radio has not told our own node info")
    return bytes(user.SerializeToString())


def _describe(interface: Any) -> RadioInfo:
    config = interface.localNode.localConfig.lora
    number = int(interface.myInfo.my_node_num)
    user = (interface.nodesByNum or {}).get(number, {}).get("user", {})
    metadata = getattr(interface, "metadata", None)
    presets = config_pb2.Config.LoRaConfig.ModemPreset
    regions = config_pb2.Config.LoRaConfig.RegionCode
    return RadioInfo(
        number=number,
        short_name=packets.name(user.get("shortName")),
        long_name=packets.name(user.get("longName")),
        firmware=packets.name(getattr(metadata, "firmware_version", "")),
        region=_enum_name(regions, config.region),
        preset="" if _is_custom_modem(config) else _enum_name(presets, config.modem_preset),
        hop_limit=config.hop_limit or DEFAULT_HOP_LIMIT,
        channels=tuple(_channels(interface)),
        nodes=tuple(_nodes(interface)),
    )


def _is_custom_modem(config: Any) -> bool:
    """Tell settings of one's own from a radio that told none: those have a bandwidth."""
    return not config.use_preset and bool(config.bandwidth or config.spread_factor)


def _enum_name(enum: Any, value: int) -> str:
    try:
        return str(enum.Name(value))
    except ValueError:
        return str(value)


def _channels(interface: Any) -> list[Channel]:
    roles = channel_pb2.Channel.Role
    return [
        Channel(index=c.index, name=c.settings.name, role=_enum_name(roles, c.role))
        for c in interface.localNode.channels or ()
        if c.role != roles.DISABLED
    ]


def _nodes(interface: Any) -> list[KnownNode]:
    known = []
    for number, node in list((interface.nodesByNum or {}).items()):
        user = node.get("user") or {}
        heard = node.get("lastHeard")
        known.append(
            KnownNode(
                number=int(number),
                short_name=packets.name(user.get("shortName")),
                long_name=packets.name(user.get("longName")),
                last_heard=heard if isinstance(heard, int) else None,
            )
        )
    return known
