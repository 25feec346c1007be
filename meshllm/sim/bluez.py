"""A stand-in for bluetoothd on a private D-Bus, in front of simulated radios. Never the real bus.

Answers what a BLE central needs of `org.bluez`, under the names and with the errors of BlueZ 5.66
and its documentation, and refuses the rest as D-Bus does. One adapter, hci0.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from dbus_fast import Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

from meshllm.sim.engine import Engine
from meshllm.sim.gatt import (
    CHARACTERISTICS,
    INSUFFICIENT_AUTHENTICATION,
    INVALID_LENGTH,
    READ_NOT_PERMITTED,
    SERVICE,
    WRITE_NOT_PERMITTED,
    AttError,
    Peripheral,
)

ADAPTER: Final = "/org/bluez/hci0"
ADVERTISING_S: Final = 0.05  #: real seconds between two advertisements in a scan
_BUS: Final = "org.freedesktop.DBus"
_ADAPTER_1: Final = "org.bluez.Adapter1"
_DEVICE_1: Final = "org.bluez.Device1"
_SERVICE_1: Final = "org.bluez.GattService1"
_CHARACTERISTIC_1: Final = "org.bluez.GattCharacteristic1"
_OBJECTS: Final = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"

#: How BlueZ names codes of the attribute protocol.
_ATT_ERRORS: Final = {
    READ_NOT_PERMITTED: ("org.bluez.Error.NotPermitted", "Read not permitted"),
    WRITE_NOT_PERMITTED: ("org.bluez.Error.NotPermitted", "Write not permitted"),
    INSUFFICIENT_AUTHENTICATION: ("org.bluez.Error.NotPermitted", "Not paired"),
    INVALID_LENGTH: ("org.bluez.Error.InvalidArguments", "Invalid Length"),
}

Interfaces = dict[str, dict[str, Variant]]


class RefusedError(Exception):
    """Answered with a D-Bus error."""

    def __init__(self, name: str, text: str = "") -> None:
        """Keep the error's name and text."""
        super().__init__(name, text)
        self.name, self.text = name, text


class _Waiting(Exception):  # noqa: N818 - no error: the answer comes later or never
    pass


class _Device:
    """One radio as BlueZ knows it."""

    def __init__(self, peripheral: Peripheral) -> None:
        self.peripheral = peripheral
        self.path = f"{ADAPTER}/dev_{peripheral.address.replace(':', '_')}"
        self.is_known = peripheral.conditions.is_paired
        self.is_resolved = False
        self.connecting: list[Message] = []
        self.notified: dict[str, set[str]] = {}  #: characteristic path to bus names
        self.characteristics = {
            f"{self.path}/service0010/char{0x11 + 2 * at:04x}": uuid
            for at, uuid in enumerate(CHARACTERISTICS)
        }

    def properties(self) -> dict[str, Variant]:
        peripheral = self.peripheral
        return {
            "Adapter": Variant("o", ADAPTER),
            "Address": Variant("s", peripheral.address),
            "AddressType": Variant("s", "random"),
            "Alias": Variant("s", peripheral.name),
            "Name": Variant("s", peripheral.name),
            "UUIDs": Variant("as", [SERVICE]),
            "Paired": Variant("b", peripheral.conditions.is_paired),
            "Bonded": Variant("b", peripheral.conditions.is_paired),
            "Trusted": Variant("b", False),
            "Blocked": Variant("b", False),
            "Connected": Variant("b", peripheral.is_connected),
            "ServicesResolved": Variant("b", self.is_resolved),
            "RSSI": Variant("n", -60),
        }

    def services(self) -> Iterator[tuple[str, Interfaces]]:
        service = f"{self.path}/service0010"
        about = {
            "UUID": Variant("s", SERVICE),
            "Device": Variant("o", self.path),
            "Primary": Variant("b", True),
            "Includes": Variant("ao", []),
        }
        yield service, {_SERVICE_1: about}
        for path, uuid in self.characteristics.items():
            about = {
                "UUID": Variant("s", uuid),
                "Service": Variant("o", service),
                "Flags": Variant("as", list(CHARACTERISTICS[uuid])),
                "Value": Variant("ay", b""),
                "MTU": Variant("q", 517),
            }
            yield path, {_CHARACTERISTIC_1: about}


class BlueZ:
    """Owns `org.bluez` on a private bus. Public methods may be called from any thread."""

    def __init__(self, bus_address: str, engine: Engine) -> None:
        """Prepare a daemon without radios; nothing is answered before `start`."""
        self.has_adapter = True
        self.is_powered = True
        self.is_frozen = False  #: takes calls and never answers
        self.disconnect_s = 0.0  #: real seconds that a disconnect takes; the real daemon needs 2
        self.subscribe_s = 0.0  #: real seconds that a subscription takes
        self.bus_address = bus_address
        self._engine = engine
        self._devices: dict[str, _Device] = {}
        self._scanning: set[str] = set()
        self._bus: MessageBus | None = None
        self._calls: dict[tuple[str, str], Callable[[Message], list[Any] | None]] = {
            (_ADAPTER_1, "SetDiscoveryFilter"): self._set_filter,
            (_ADAPTER_1, "StartDiscovery"): self._start_discovery,
            (_ADAPTER_1, "StopDiscovery"): self._stop_discovery,
            (_DEVICE_1, "Connect"): self._connect,
            (_DEVICE_1, "Disconnect"): self._disconnect,
            (_CHARACTERISTIC_1, "ReadValue"): self._read,
            (_CHARACTERISTIC_1, "WriteValue"): self._write,
            (_CHARACTERISTIC_1, "StartNotify"): self._start_notify,
            (_CHARACTERISTIC_1, "StopNotify"): self._stop_notify,
        }

    # For tests

    def start(self) -> None:
        """Take the name on the bus."""
        asyncio.run_coroutine_threadsafe(self._start(), self._engine.loop).result()

    def stop(self) -> None:
        """Leave the bus without a word, as a crash does."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._engine.loop).result()

    def add(self, peripheral: Peripheral) -> None:
        """Let the daemon's adapter hear of a radio."""
        self._engine.call(lambda: self._add(peripheral))

    def lose(self, peripheral: Peripheral) -> None:
        """End the link from the radio's side, or because it went out of reach."""
        self._engine.call(lambda: self._end(self._device(peripheral)))

    def restart(self, peripheral: Peripheral) -> None:
        """Restart the radio: the link ends and it forgets everything in memory."""

        def restart() -> None:
            self._end(self._device(peripheral))
            peripheral.restart()

        self._engine.call(restart)

    @property
    def scanning(self) -> frozenset[str]:
        """Bus names that have a scan running."""
        return self._engine.call(lambda: frozenset(self._scanning))

    def clients(self) -> int:
        """Count everybody on the bus but the bus itself and this daemon."""
        return asyncio.run_coroutine_threadsafe(self._clients(), self._engine.loop).result()

    # On the engine's thread

    async def _start(self) -> None:
        bus = MessageBus(bus_address=self.bus_address)
        await bus.connect()
        bus.add_message_handler(self._handle)
        rule = f"type='signal',sender='{_BUS}',member='NameOwnerChanged'"
        await bus.call(_to_bus("AddMatch", "s", [rule]))
        await bus.request_name("org.bluez")
        self._bus = bus

    async def _stop(self) -> None:
        bus, self._bus = self._bus, None
        self._scanning.clear()
        if bus is not None:
            bus.disconnect()
            with suppress(EOFError, OSError):  # the bus itself may be gone
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call] # as dbus-fast has it

    async def _clients(self) -> int:
        assert self._bus is not None
        reply = await self._bus.call(_to_bus("ListNames"))
        assert reply is not None
        names = {name for name in reply.body[0] if name.startswith(":")}
        return len(names - {self._bus.unique_name})

    def _add(self, peripheral: Peripheral) -> None:
        device = _Device(peripheral)
        self._devices[device.path] = device
        peripheral.on_notify = lambda uuid, value: self._notify(device, uuid, value)

    def _device(self, peripheral: Peripheral) -> _Device:
        return next(d for d in self._devices.values() if d.peripheral is peripheral)

    def _handle(self, message: Message) -> Message | bool | None:
        if message.message_type is MessageType.SIGNAL:
            if message.member == "NameOwnerChanged" and not message.body[2]:
                self._forget(message.body[0])
            return None
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        reply = None if self.is_frozen else self._reply(message)
        is_wanted = not message.flags & MessageFlag.NO_REPLY_EXPECTED
        return reply if reply is not None and is_wanted else True

    def _reply(self, message: Message) -> Message | None:
        try:
            body = self._answer(message)
        except _Waiting:
            return None
        except RefusedError as error:
            return Message.new_error(message, error.name, error.text)
        return Message.new_method_return(message, *(body or ()))

    def _answer(self, message: Message) -> list[Any] | None:
        if (message.interface, message.member) == (_OBJECTS, "GetManagedObjects"):
            return ["a{oa{sa{sv}}}", [dict(self._objects())]]
        found = dict(self._objects()).get(message.path or "")
        if found is None:
            raise RefusedError(f"{_BUS}.Error.UnknownObject", f"no object {message.path}")
        call = self._calls.get((message.interface or "", message.member or ""))
        if call is None or message.interface not in found:
            raise RefusedError(f"{_BUS}.Error.UnknownMethod", f"no method {message.member}")
        return call(message)

    def _objects(self) -> Iterator[tuple[str, Interfaces]]:
        if not self.has_adapter:
            return
        yield (
            ADAPTER,
            {
                _ADAPTER_1: {
                    "Address": Variant("s", "00:00:5E:00:53:01"),
                    "Powered": Variant("b", self.is_powered),
                    "Roles": Variant("as", ["central", "peripheral"]),
                    "Discovering": Variant("b", bool(self._scanning)),
                }
            },
        )
        for device in self._devices.values():
            if device.is_known:
                yield device.path, {_DEVICE_1: device.properties()}
            if device.is_resolved:
                yield from device.services()

    def _forget(self, client: str) -> None:
        self._scanning.discard(client)
        for device in self._devices.values():
            for path in list(device.notified):
                self._unsubscribe(device, path, client)

    # Scanning

    def _set_filter(self, message: Message) -> None:
        transport = message.body[0].get("Transport")
        if transport is not None and transport.value not in ("auto", "bredr", "le"):
            raise RefusedError("org.bluez.Error.InvalidArguments", "Invalid arguments in call")

    def _start_discovery(self, message: Message) -> None:
        self._need_power()
        if message.sender in self._scanning:
            raise RefusedError("org.bluez.Error.InProgress", "Operation already in progress")
        self._scanning.add(message.sender or "")
        self._engine.loop.call_later(ADVERTISING_S, self._advertise)

    def _stop_discovery(self, message: Message) -> None:
        self._need_power()
        if message.sender not in self._scanning:
            raise RefusedError("org.bluez.Error.Failed", "No discovery started")
        self._scanning.discard(message.sender)

    def _need_power(self) -> None:
        if not self.is_powered:
            raise RefusedError("org.bluez.Error.NotReady", "Resource Not Ready")

    def _advertise(self) -> None:
        if not self._scanning or self._bus is None:
            return
        for device in self._devices.values():
            if not device.peripheral.is_advertising:
                continue
            if device.is_known:
                self._changed(device.path, _DEVICE_1, {"RSSI": Variant("n", -60)})
            else:
                device.is_known = True
                self._added(device.path, {_DEVICE_1: device.properties()})
        self._engine.loop.call_later(ADVERTISING_S, self._advertise)

    # Connections

    def _connect(self, message: Message) -> None:
        device = self._devices[message.path or ""]
        self._need_power()
        if device.peripheral.is_connected:
            raise RefusedError("org.bluez.Error.AlreadyConnected", "Already Connected")
        if not device.peripheral.connect():
            device.connecting.append(message)  # the controller listens for it until told to stop
            raise _Waiting
        self._changed(device.path, _DEVICE_1, {"Connected": Variant("b", True)})
        if not device.is_resolved:
            device.is_resolved = True
            for path, interfaces in device.services():
                self._added(path, interfaces)
        self._changed(device.path, _DEVICE_1, {"ServicesResolved": Variant("b", True)})

    def _disconnect(self, message: Message) -> None:
        device = self._devices[message.path or ""]
        waiting, device.connecting = device.connecting, []
        for call in waiting:
            name, text = "org.bluez.Error.Failed", "le-connection-abort-by-local"
            self._send(Message.new_error(call, name, text))
        if not device.peripheral.is_connected:
            if waiting:
                return
            raise RefusedError("org.bluez.Error.NotConnected", "Not Connected")

        def finish() -> None:
            self._end(device)
            self._send(Message.new_method_return(message))

        self._engine.loop.call_later(self.disconnect_s, finish)
        raise _Waiting

    def _end(self, device: _Device) -> None:
        if not device.peripheral.is_connected:
            return
        device.peripheral.disconnect()
        device.notified.clear()
        gone = {"ServicesResolved": Variant("b", False), "Connected": Variant("b", False)}
        device.is_resolved = device.is_resolved and device.peripheral.conditions.is_paired
        self._changed(device.path, _DEVICE_1, gone)
        if not device.is_resolved:  # the services of an unpaired device are not remembered
            for path, interfaces in device.services():
                self._send(_signal("/", _OBJECTS, "InterfacesRemoved", "oas", path, [*interfaces]))

    # Attributes

    def _read(self, message: Message) -> list[Any]:
        device, uuid = self._connected(message)
        return ["ay", [_att(lambda: device.peripheral.read(uuid))]]

    def _write(self, message: Message) -> None:
        device, uuid = self._connected(message)
        value, options = bytes(message.body[0]), message.body[1]
        if "type" in options and options["type"].value == "command":
            raise RefusedError("org.bluez.Error.NotSupported", "Operation is not supported")
        _att(lambda: device.peripheral.write(uuid, value))

    def _start_notify(self, message: Message) -> None:
        device, uuid = self._connected(message)
        if "notify" not in CHARACTERISTICS[uuid]:
            raise RefusedError("org.bluez.Error.NotSupported", "Operation is not supported")
        clients = device.notified.setdefault(message.path or "", set())
        if message.sender in clients:
            raise RefusedError("org.bluez.Error.Failed", "Already notifying")

        def subscribe() -> None:
            _att(lambda: device.peripheral.subscribe(uuid))
            clients.add(message.sender or "")

        if not self.subscribe_s:
            subscribe()
            return

        def finish() -> None:
            subscribe()
            self._send(Message.new_method_return(message))

        self._engine.loop.call_later(self.subscribe_s, finish)
        raise _Waiting

    def _stop_notify(self, message: Message) -> None:
        device, _ = self._connected(message)
        if message.sender not in device.notified.get(message.path or "", ()):
            raise RefusedError("org.bluez.Error.Failed", "No notify session started")
        self._unsubscribe(device, message.path or "", message.sender or "")

    def _unsubscribe(self, device: _Device, path: str, client: str) -> None:
        clients = device.notified.get(path, set())
        if client in clients:
            clients.discard(client)
            if not clients:
                device.peripheral.unsubscribe(device.characteristics[path])

    def _connected(self, message: Message) -> tuple[_Device, str]:
        path = message.path or ""
        device = next(d for d in self._devices.values() if path in d.characteristics)
        if not device.peripheral.is_connected:
            raise RefusedError("org.bluez.Error.Failed", "Not connected")
        return device, device.characteristics[path]

    def _notify(self, device: _Device, uuid: str, value: bytes) -> None:
        path = next(path for path, has in device.characteristics.items() if has == uuid)
        if device.notified.get(path):
            self._changed(path, _CHARACTERISTIC_1, {"Value": Variant("ay", value)})

    # Signals

    def _added(self, path: str, interfaces: Interfaces) -> None:
        self._send(_signal("/", _OBJECTS, "InterfacesAdded", "oa{sa{sv}}", path, interfaces))

    def _changed(self, path: str, interface: str, values: dict[str, Variant]) -> None:
        member, signature = "PropertiesChanged", "sa{sv}as"
        self._send(_signal(path, _PROPERTIES, member, signature, interface, values, []))

    def _send(self, message: Message) -> None:
        if self._bus is not None and self._bus.connected:
            self._bus.send(message)


def _to_bus(member: str, signature: str = "", body: list[Any] | None = None) -> Message:
    return Message(
        destination=_BUS,
        path="/org/freedesktop/DBus",
        interface=_BUS,
        member=member,
        signature=signature,
        body=body or [],
    )


def _signal(path: str, interface: str, member: str, signature: str, *body: Any) -> Message:
    return Message.new_signal(path, interface, member, signature, list(body))


def _att(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except AttError as error:
        name, text = _ATT_ERRORS[error.code]
        raise RefusedError(name, text) from error
