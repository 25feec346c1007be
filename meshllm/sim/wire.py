"""Protobuf messages of the StreamAPI to and from plain values: the simulator's only protobuf user.

Holds no behaviour of a node. The radio library's messages are untyped here (no stubs), so each is
turned into a dataclass, or built from one, inside a single function.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from google.protobuf.message import DecodeError
from meshtastic.protobuf import (
    admin_pb2,
    channel_pb2,
    config_pb2,
    device_ui_pb2,
    mesh_pb2,
    module_config_pb2,
    telemetry_pb2,
)

from meshllm.sim.packets import (
    ChannelSpec,
    Disconnect,
    Heartbeat,
    KnownNode,
    Packet,
    QueueStatus,
    Request,
    RoutingError,
    SendPacket,
    Unhandled,
    User,
    WantConfig,
)

FIRMWARE: Final = "2.7.26.sim"
MAX_CHANNELS: Final = 8
MAX_PAYLOAD_BYTES: Final = 234  #: 233 by the definition, one more by the decoder's padding
HARDWARE_PORTDUINO: Final = 37
REGION_US: Final = 1
ACK_PRIORITY: Final = 120


class MalformedError(ValueError):
    """Bytes that are no message of the expected kind."""


def parse_request(message: bytes) -> Request:
    """Read one client message. Raises MalformedError for what a real node cannot read either."""
    to_radio = mesh_pb2.ToRadio()
    try:
        to_radio.ParseFromString(message)
    except DecodeError as e:
        raise MalformedError("not a ToRadio message") from e
    kind = to_radio.WhichOneof("payload_variant")
    if kind == "packet":
        return SendPacket(_packet_from(to_radio.packet))
    if kind == "want_config_id":
        return WantConfig(int(to_radio.want_config_id))
    if kind == "heartbeat":
        return Heartbeat(int(to_radio.heartbeat.nonce))
    if kind == "disconnect":
        return Disconnect()
    return Unhandled(str(kind or "nothing"))


def _packet_from(message: Any) -> Packet:
    data = message.decoded
    if len(data.payload) > MAX_PAYLOAD_BYTES:
        raise MalformedError(f"payload of {len(data.payload)} bytes")
    return Packet(
        sender=int(getattr(message, "from")),
        to=int(message.to),
        id=int(message.id),
        channel=int(message.channel),
        port=int(data.portnum),
        payload=bytes(data.payload),
        encrypted=bytes(message.encrypted) if message.HasField("encrypted") else None,
        want_ack=bool(message.want_ack),
        want_response=bool(data.want_response),
        request_id=int(data.request_id),
        reply_id=int(data.reply_id),
        emoji=int(data.emoji),
        bitfield=int(data.bitfield) if data.HasField("bitfield") else None,
        hop_limit=int(message.hop_limit),
        hop_start=int(message.hop_start),
        pki=bool(message.pki_encrypted),
        public_key=bytes(message.public_key),
        priority=int(message.priority),
        rx_time=int(message.rx_time),
        rx_snr=float(message.rx_snr),
        rx_rssi=int(message.rx_rssi),
        via_mqtt=bool(message.via_mqtt),
        relay_node=int(message.relay_node),
    )


def _packet_to(packet: Packet) -> Any:
    message = mesh_pb2.MeshPacket(
        to=packet.to,
        id=packet.id,
        channel=packet.channel,
        want_ack=packet.want_ack,
        hop_limit=packet.hop_limit,
        hop_start=packet.hop_start,
        pki_encrypted=packet.pki,
        public_key=packet.public_key,
        priority=packet.priority,
        rx_time=packet.rx_time,
        rx_snr=packet.rx_snr,
        rx_rssi=packet.rx_rssi,
        via_mqtt=packet.via_mqtt,
        relay_node=packet.relay_node,
    )
    setattr(message, "from", packet.sender)
    if packet.encrypted is not None:
        message.encrypted = packet.encrypted
    else:
        message.decoded.CopyFrom(_data(packet))
    return message


def _data(packet: Packet) -> Any:
    data = mesh_pb2.Data(
        portnum=packet.port,
        payload=packet.payload,
        want_response=packet.want_response,
        request_id=packet.request_id,
        reply_id=packet.reply_id,
        emoji=packet.emoji,
    )
    if packet.bitfield is not None:
        data.bitfield = packet.bitfield
    return data


def data_size(packet: Packet) -> int:
    """Bytes of the encoded inner message, as they count for the radio frame."""
    return int(_data(packet).ByteSize())


def request_bytes(request: Request) -> bytes:
    """Build a client message: what tests and tools write to a node."""
    message = mesh_pb2.ToRadio()
    match request:
        case SendPacket(packet):
            message.packet.CopyFrom(_packet_to(packet))
        case WantConfig(nonce):
            message.want_config_id = nonce
        case Heartbeat(nonce):
            message.heartbeat.nonce = nonce
            message.heartbeat.SetInParent()
        case Disconnect():
            message.disconnect = True
        case Unhandled():
            message.xmodemPacket.SetInParent()
    return bytes(message.SerializeToString())


def _from_radio(**fields: Any) -> bytes:
    return bytes(mesh_pb2.FromRadio(**fields).SerializeToString())


def packet(value: Packet) -> bytes:
    """Tell the client of a packet."""
    return _from_radio(packet=_packet_to(value))


def queue_status(status: QueueStatus) -> bytes:
    """Tell the client how its packet fared at the send queue."""
    return _from_radio(
        queueStatus=mesh_pb2.QueueStatus(
            res=status.res,
            free=status.free,
            maxlen=status.maxlen,
            mesh_packet_id=status.packet_id,
        )
    )


def rebooted() -> bytes:
    """Tell the client that the node restarted and must be asked for its config again."""
    return _from_radio(rebooted=True)


def notification(message: str, *, reply_id: int = 0) -> bytes:
    """Show the client a line for a person."""
    return _from_radio(
        clientNotification=mesh_pb2.ClientNotification(
            message=message, reply_id=reply_id, level="WARNING"
        )
    )


def config_complete(nonce: int) -> bytes:
    """End the handshake."""
    return _from_radio(config_complete_id=nonce)


def identity(num: int, *, known_nodes: int) -> bytes:
    """Open the handshake: who the node is."""
    return _from_radio(
        my_info=mesh_pb2.MyNodeInfo(
            my_node_num=num,
            reboot_count=1,
            min_app_version=30200,
            nodedb_count=known_nodes,
            device_id=num.to_bytes(16, "big"),
            pio_env="sim",
        )
    )


def screen() -> bytes:
    """Settings of the node's own screen, second in the handshake."""
    return _from_radio(deviceuiConfig=device_ui_pb2.DeviceUIConfig(version=1))


def metadata() -> bytes:
    """Firmware version and hardware."""
    return _from_radio(
        metadata=mesh_pb2.DeviceMetadata(
            firmware_version=FIRMWARE,
            device_state_version=24,
            hw_model=HARDWARE_PORTDUINO,
            hasPKC=True,
        )
    )


def node_info(node: KnownNode) -> bytes:
    """One entry of the node list."""
    info = mesh_pb2.NodeInfo(num=node.num, snr=node.snr, last_heard=node.last_heard)
    if node.user is not None:
        info.user.CopyFrom(_user(node.user))
    if node.hops_away is not None:
        info.hops_away = node.hops_away
    if node.latitude is not None and node.longitude is not None:
        info.position.CopyFrom(_position(node.latitude, node.longitude, node.altitude or 0, 0))
    if node.battery is not None:
        info.device_metrics.battery_level = node.battery
    return _from_radio(node_info=info)


def channels(specs: Sequence[ChannelSpec]) -> Iterator[bytes]:
    """All eight channel places, the unused ones disabled."""
    for index in range(MAX_CHANNELS):
        message = channel_pb2.Channel(index=index)
        if index < len(specs):
            message.settings.name = specs[index].name
            message.settings.psk = specs[index].psk
            roles = channel_pb2.Channel.Role
            message.role = roles.SECONDARY if index else roles.PRIMARY
        yield _from_radio(channel=message)


def configs(preset: str, public_key: bytes) -> Iterator[bytes]:
    """Every section of the node's own settings, in the order of their numbers."""
    for field in config_pb2.Config.DESCRIPTOR.fields:
        message = config_pb2.Config()
        section = getattr(message, field.name)
        section.SetInParent()
        if field.name == "lora":
            section.use_preset = True
            section.modem_preset = _modem_preset(preset)
            section.region = REGION_US
            section.hop_limit = 3
            section.tx_enabled = True
        elif field.name == "security":
            section.public_key = public_key
        yield _from_radio(config=message)


def _modem_preset(preset: str) -> int:
    known = config_pb2.Config.LoRaConfig.ModemPreset
    return int(known.Value(preset)) if preset in known.keys() else 0  # noqa: SIM118 (not a dict)


def module_configs() -> Iterator[bytes]:
    """Every section of the module settings, in the order of their numbers."""
    for field in module_config_pb2.ModuleConfig.DESCRIPTOR.fields:
        message = module_config_pb2.ModuleConfig()
        getattr(message, field.name).SetInParent()
        yield _from_radio(moduleConfig=message)


def files() -> Iterator[bytes]:
    """The list of files on the node."""
    for name, size in (("/prefs/config.proto", 163), ("/prefs/nodes.proto", 2048)):
        yield _from_radio(fileInfo=mesh_pb2.FileInfo(file_name=name, size_bytes=size))


def _user(user: User) -> Any:
    return mesh_pb2.User(
        id=user.node_id,
        long_name=user.long_name,
        short_name=user.short_name,
        macaddr=user.num.to_bytes(6, "big"),
        hw_model=HARDWARE_PORTDUINO,
        public_key=user.public_key,
    )


def user_payload(user: User) -> bytes:
    """Payload of the node info application."""
    return bytes(_user(user).SerializeToString())


def parse_user(num: int, payload: bytes) -> User | None:
    """Read a node info payload; None when it is not one."""
    message = mesh_pb2.User()
    try:
        message.ParseFromString(payload)
    except DecodeError:
        return None
    return User(num, message.long_name, message.short_name, bytes(message.public_key))


def _position(latitude: float, longitude: float, altitude: int, at: int) -> Any:
    return mesh_pb2.Position(
        latitude_i=round(latitude * 1e7),
        longitude_i=round(longitude * 1e7),
        altitude=altitude,
        time=at,
        precision_bits=32,
    )


def position_payload(
    latitude: float, longitude: float, *, altitude: int = 0, at: datetime | None = None
) -> bytes:
    """Payload of the position application."""
    stamp = int(at.timestamp()) if at else 0
    return bytes(_position(latitude, longitude, altitude, stamp).SerializeToString())


def parse_position(payload: bytes) -> tuple[float, float, int] | None:
    """Read latitude, longitude and altitude; None when there is none."""
    message = mesh_pb2.Position()
    try:
        message.ParseFromString(payload)
    except DecodeError:
        return None
    if not (message.HasField("latitude_i") and message.HasField("longitude_i")):
        return None
    return message.latitude_i / 1e7, message.longitude_i / 1e7, int(message.altitude)


def telemetry_payload(
    *,
    battery: int | None = None,
    voltage: float | None = None,
    temperature: float | None = None,
    humidity: float | None = None,
    channel_utilisation: float | None = None,
    own_airtime: float | None = None,
    at: datetime | None = None,
) -> bytes:
    """Payload of the telemetry application: device values, or sensor values when one is given.

    Channel utilisation and own airtime are percentages.
    """
    message = telemetry_pb2.Telemetry(time=int(at.timestamp()) if at else 0)
    values = (
        ("device_metrics", "battery_level", battery),
        ("device_metrics", "voltage", voltage),
        ("device_metrics", "channel_utilization", channel_utilisation),
        ("device_metrics", "air_util_tx", own_airtime),
        ("environment_metrics", "temperature", temperature),
        ("environment_metrics", "relative_humidity", humidity),
    )
    for section, name, value in values:
        if value is not None:
            setattr(getattr(message, section), name, value)
    return bytes(message.SerializeToString())


def parse_battery(payload: bytes) -> int | None:
    """Read the battery level out of a telemetry payload; None when it has none."""
    message = telemetry_pb2.Telemetry()
    try:
        message.ParseFromString(payload)
    except DecodeError:
        return None
    metrics = message.device_metrics
    return int(metrics.battery_level) if metrics.HasField("battery_level") else None


def parse_set_time(payload: bytes) -> int:
    """Read the Unix time that a client sets, 0 for every other admin message."""
    message = admin_pb2.AdminMessage()
    try:
        message.ParseFromString(payload)
    except DecodeError:
        return 0
    return int(message.set_time_only)


def routing_payload(error: RoutingError) -> bytes:
    """Payload of an ACK or a NAK."""
    return bytes(mesh_pb2.Routing(error_reason=int(error)).SerializeToString())


def parse_routing(payload: bytes) -> RoutingError | None:
    """Read an ACK or a NAK; None for other routing messages and for numbers without a name."""
    message = mesh_pb2.Routing()
    try:
        message.ParseFromString(payload)
        return RoutingError(int(message.error_reason))
    except (DecodeError, ValueError):
        return None


def parse_from_radio(message: bytes) -> tuple[str, Any]:
    """Read a node's message as (kind, value): packets and queue states as values, the rest raw."""
    from_radio = mesh_pb2.FromRadio()
    try:
        from_radio.ParseFromString(message)
    except DecodeError as e:
        raise MalformedError("not a FromRadio message") from e
    kind = str(from_radio.WhichOneof("payload_variant") or "")
    if kind == "packet":
        return kind, _packet_from(from_radio.packet)
    if kind == "queueStatus":
        status = from_radio.queueStatus
        return kind, QueueStatus(status.res, status.free, status.maxlen, status.mesh_packet_id)
    return kind, getattr(from_radio, kind) if kind else None
