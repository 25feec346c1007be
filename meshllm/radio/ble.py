"""Radios over Bluetooth Low Energy, through the official library's BLE interface. Never pairs.

Of that interface the configuration dialogue and the publishing are used. Its connection is not:
it always scans for ten seconds, has no time limit on any call, waits for its own event loop from
within when the link is lost, leaves loop and reader behind when it fails half-way, and loses its
reader to the first error. Imported only when a Bluetooth link is opened, for the time that takes.
"""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar

import structlog
from bleak import BleakAdapter, BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakGATTProtocolError,
    BleakGATTProtocolErrorCode,
)
from meshtastic import ble_interface

from meshllm.radio import packets

log = structlog.get_logger()

ADAPTER_S: Final = 25.0  #: for another radio of this process that is just being connected
SCAN_S: Final = 10.0  #: radios advertise about once a second
CONNECT_S: Final = 15.0  #: bluetoothd itself gives up after 20 to 40 s
CONFIG_S: Final = 60.0  #: some 300 reads for a long list of nodes, each of one or two intervals
STALL_S: Final = 10.0  #: without a single message while the configuration is read
OPEN_S: Final = 120.0  #: above the sum of the limits before, so that they are what ends an attempt
IO_S: Final = 8.0  #: one read or write; the Bluetooth standard ends the link after 30 s
DISCONNECT_S: Final = 6.0  #: bluetoothd waits 2 s before it disconnects
CLOSE_S: Final = 2.5  #: what a close waits for that; the rest happens behind its back
GRACE_S: Final = 2.0  #: for an event loop to end what it was told to give up
EMPTY_READS: Final = 5  #: in a row, until there is nothing more to read
EMPTY_PAUSE_S: Final = 0.1  #: between those; a radio fills its answer in while it is read
POLL_S: Final = 0.5  #: between looks during the configuration, which comes without notice
MAX_SEEN: Final = 8  #: radios named when ours is not there; anybody can advertise any number
GUIDE: Final = "docs/how-to/connect-over-bluetooth.md"

_SERVICE: Final[str] = ble_interface.SERVICE_UUID
_TO_RADIO: Final[str] = ble_interface.TORADIO_UUID
_FROM_RADIO: Final[str] = ble_interface.FROMRADIO_UUID
_NOT_AVAILABLE: Final = {
    BleakBluetoothNotAvailableReason.NO_BLUETOOTH: "this computer has no Bluetooth adapter",
    BleakBluetoothNotAvailableReason.NO_BLE_CENTRAL_ROLE: (
        "the Bluetooth adapter of this computer cannot do Bluetooth Low Energy"
    ),
    BleakBluetoothNotAvailableReason.POWERED_OFF: (
        "the Bluetooth adapter is switched off; run: bluetoothctl power on"
    ),
    BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM: (
        "this user may not use Bluetooth; run: sudo usermod -aG bluetooth $USER"
    ),
}
_NO_SERVICE: Final = (
    "the Bluetooth service is not running; run: sudo apt install bluez && "
    "sudo systemctl start bluetooth"
)
_DBUS: Final = {
    "org.freedesktop.DBus.Error.ServiceUnknown": _NO_SERVICE,
    "org.freedesktop.DBus.Error.NameHasNoOwner": _NO_SERVICE,
    "org.freedesktop.DBus.Error.AccessDenied": (
        "this user may not use Bluetooth; run: sudo usermod -aG bluetooth $USER"
    ),
    "org.bluez.Error.NotReady": "the Bluetooth adapter is switched off; run: bluetoothctl power on",
}
_PAIR: Final = f"the radio is not paired with this computer; pair it once, see {GUIDE}"
_PAIRING_CODES: Final = {
    BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHENTICATION,
    BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHORIZATION,
    BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION,
}

T = TypeVar("T")

#: Two connects at once disturb each other's scan, and bleak keeps state across event loops.
_adapter: Final = threading.Lock()
#: Threads of closed connections whose link is not down yet; meanwhile it cannot be used again.
_ending: Final[set[threading.Thread]] = set()


def explain(error: BaseException) -> str:
    """Say what went wrong in Bluetooth, and the next step where there is one. Pure."""
    if isinstance(error, BleakBluetoothNotAvailableError):
        return _NOT_AVAILABLE.get(error.reason) or str(error.args[0])
    if isinstance(error, BleakDBusError):
        return _explain_dbus(error)
    if isinstance(error, BleakGATTProtocolError) and error.code in _PAIRING_CODES:
        return _PAIR
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"there is no D-Bus on this computer ({error}); {_NO_SERVICE}"
    if isinstance(error, EOFError):
        return "the Bluetooth service hung up"
    return str(error) or type(error).__name__


def _explain_dbus(error: BleakDBusError) -> str:
    details = str(error.dbus_error_details or "")
    if "Not paired" in details or "Authentication" in error.dbus_error:
        return _PAIR
    known = _DBUS.get(error.dbus_error)
    return known or ": ".join(part for part in (error.dbus_error, details) if part)


class Connection:
    """Blocking calls into one bleak connection on a thread and an event loop of its own.

    Every call returns or raises ConnectionError within its limit. A loop for each connection costs
    a thread; in return nothing that bleak remembers of a bluetoothd that crashed, or of a call that
    hangs in it, outlives the connection.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        """Start the thread. `on_lost` is called on it and must not wait for anything.

        Raises ConnectionError when the process is out of file descriptors.
        """
        self.is_paired: bool | None = None
        self._on_lost = on_lost
        self._gate = threading.Lock()
        self._is_closing = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._client: BleakClient | None = None
        self._failure: OSError | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="radio ble", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise ConnectionError(f"Bluetooth: no event loop ({self._failure})")
        _live.add(self)
        _end_with_the_process()

    def open(self, target: str) -> None:
        """Find the radio by address or name and connect to it."""
        if not _adapter.acquire(timeout=ADAPTER_S):
            raise ConnectionError("the Bluetooth adapter is busy with another radio")
        try:
            for thread in tuple(_ending):
                thread.join(DISCONNECT_S + GRACE_S)
            self._do("connecting", SCAN_S + CONNECT_S + GRACE_S, lambda: self._open(target))
        finally:
            _adapter.release()

    def has_characteristic(self, uuid: str) -> bool:
        """Say whether the radio offers this characteristic."""
        client = self._client
        return client is not None and client.services.get_characteristic(uuid) is not None

    def start_notify(self, uuid: str, handler: Callable[..., Any]) -> None:
        """Subscribe; the handler runs on the connection's thread."""
        self._do("subscribing", IO_S, lambda: self._live().start_notify(uuid, handler))

    def read(self) -> bytes:
        """Take the radio's next message, empty when there is none."""
        return bytes(self._do("reading", IO_S, lambda: self._live().read_gatt_char(_FROM_RADIO)))

    def write(self, message: bytes) -> None:
        """Give the radio one message; the radio has confirmed it when this returns."""
        self._do(
            "writing", IO_S, lambda: self._live().write_gatt_char(_TO_RADIO, message, response=True)
        )

    def disconnect(self) -> None:
        """End the connection, its loop and its thread, waiting at most CLOSE_S. Harmless twice."""
        with self._gate:
            is_first, self._is_closing = not self._is_closing, True
            if is_first:
                _ending.add(self._thread)
                self._loop.call_soon_threadsafe(self._over.set)
        _live.discard(self)
        atexit.unregister(self.disconnect)  # the library registers it after each configuration
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)

    def _live(self) -> BleakClient:
        if self._client is None:
            raise ConnectionError("not connected")
        return self._client

    def _do(self, what: str, limit_s: float, call: Callable[[], Awaitable[T]]) -> T:
        with self._gate:
            if self._is_closing:
                raise ConnectionError("the connection is closed")
            future = asyncio.run_coroutine_threadsafe(self._task(limit_s, call), self._loop)
        try:
            return future.result(limit_s + GRACE_S)
        except CancelledError:
            raise ConnectionError(f"{what}: the connection was closed") from None
        except TimeoutError:
            future.cancel()
            raise ConnectionError(
                f"{what}: no answer over Bluetooth within {limit_s:g} s"
            ) from None
        except Exception as error:
            # bleak and the D-Bus library below it raise whatever their depths do: OSError,
            # EOFError, AssertionError, KeyError. Each means that this connection is of no use.
            raise ConnectionError(explain(error)) from error

    async def _task(self, limit_s: float, call: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(limit_s):
                return await call()
        finally:
            self._tasks.discard(task)

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.get_loop()  # makes it, or fails before there is anything to await
                runner.run(self._serve())
        except OSError as error:  # out of file descriptors
            self._failure = error
        finally:
            self._ready.set()
            _ending.discard(threading.current_thread())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._ready.set()
        await self._over.wait()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        if self._client is not None:
            # Whatever fails here, the next connect finds the device as it is.
            with suppress(Exception):
                async with asyncio.timeout(DISCONNECT_S):
                    await self._client.disconnect()

    async def _open(self, target: str) -> None:
        device = await _find(target)
        self.is_paired = _is_paired(device)
        self._client = BleakClient(
            device, disconnected_callback=lambda _: self._on_lost(), timeout=CONNECT_S
        )
        try:
            await self._client.connect()
        except TimeoutError:
            raise ConnectionError(
                f"{target} is in reach, but no connection came about within {CONNECT_S:g} s"
            ) from None
        if not self.has_characteristic(_FROM_RADIO):
            raise ConnectionError(f"{target} is no Meshtastic radio: it lacks the service for it")


_live: Final[set[Connection]] = set()


@cache
def _end_with_the_process() -> None:
    """Register once: BlueZ keeps a link whose program has ended, and nobody else gets the radio."""

    def disconnect_all() -> None:
        for connection in tuple(_live):
            connection.disconnect()

    atexit.register(disconnect_all)


async def _find(target: str) -> BLEDevice:
    """Look for the radio among those connected already, left so by a kill, then in the air."""
    adapter = await BleakAdapter.get()
    for device in await adapter.get_connected_devices([_SERVICE]):
        if _is_named(target, device.address, device.name):
            return device
    loop = asyncio.get_running_loop()
    found: asyncio.Future[BLEDevice] = loop.create_future()
    seen: dict[str, str] = {}

    def on_seen(device: BLEDevice, advertisement: AdvertisementData) -> None:
        name = device.name or advertisement.local_name or ""
        if len(seen) < MAX_SEEN:
            seen[device.address] = packets.name(name)
        if _is_named(target, device.address, name) and not found.done():
            found.set_result(device)

    async with BleakScanner(on_seen, service_uuids=[_SERVICE]):
        await asyncio.wait({found}, timeout=SCAN_S)
    if found.done():
        return found.result()
    others = ", ".join(f"{name} {address}" for address, name in seen.items()) or "none"
    raise ConnectionError(
        f"no radio {target} in reach within {SCAN_S:g} s (radios seen: {others}). A radio that is"
        f" connected to a phone cannot be seen; see {GUIDE}"
    )


def _is_named(target: str, address: str, name: str | None) -> bool:
    wanted = target.casefold()
    return wanted.replace("-", ":") == address.casefold() or wanted == (name or "").casefold()


def _is_paired(device: BLEDevice) -> bool | None:
    details = device.details if isinstance(device.details, dict) else {}
    paired = (details.get("props") or {}).get("Paired")
    return paired if isinstance(paired, bool) else None


class BleInterface(ble_interface.BLEInterface):  # type: ignore[misc] # untyped base
    """The library's interface on a `Connection`. Reports one loss, and leaves nothing behind."""

    client: Connection | None

    def __init__(self, target: str) -> None:
        """Connect and read the configuration. Raises ConnectionError, having cleaned up."""
        self._news = threading.Event()
        self._end = threading.Lock()
        self._is_lost = False
        self._frames = 0
        self._cause = ""
        self._connection: Connection | None = None
        try:
            super().__init__(target, timeout=int(CONFIG_S))
        except BaseException as error:
            raise self._failed(error) from error
        self._news.set()  # for what came between the last read and the subscription

    def _failed(self, error: BaseException) -> ConnectionError:
        connection, reason = self._connection, self._cause or explain(error)
        self._is_lost = True  # a connection that never was is not reported as lost
        self.close()
        if connection is not None and connection.is_paired is False and _PAIR not in reason:
            reason += f" (it is not paired with this computer; if it asks for a PIN, see {GUIDE})"
        return ConnectionError(reason)

    def connect(self, address: str | None = None) -> Connection:
        """Open a connection of our own kind; the library's constructor calls this."""
        connection = Connection(self._lose)
        try:
            connection.open(address or "")
        except BaseException:
            connection.disconnect()
            raise
        self._connection = connection
        return connection

    def from_num_handler(self, *_: object) -> None:
        """Note that the radio has something to read. Runs on the connection's thread."""
        self._news.set()

    def close(self) -> None:
        """End everything within CLOSE_S and a second for the reader. Harmless twice."""
        self._want_receive = False
        self._news.set()
        self.client, self._connection, connection = None, None, self._connection
        if connection is not None:
            connection.disconnect()
        self._lose()
        reader = getattr(self, "_receiveThread", None)
        if reader is not None and reader is not threading.current_thread():
            reader.join(1.0)

    def _lose(self) -> None:
        with self._end:
            is_first, self._is_lost = not self._is_lost, True
        self._want_receive = False
        self._news.set()
        if is_first:
            self._disconnected()

    def _startHeartbeat(self) -> None:  # noqa: N802 - the library's name
        # One, for the queue status. The library's timer keeps a process alive that forgot to
        # cancel it, and the bridge probes more often than every five minutes.
        self.sendHeartbeat()

    def _waitConnected(self, timeout: float = CONFIG_S) -> None:  # noqa: N802 - the library's name
        for _ in range(max(1, round(timeout / STALL_S))):
            before = self._frames
            if self.isConnected.wait(min(timeout, STALL_S)):
                break
            if self._frames == before:
                raise ConnectionError(f"the radio sent nothing for {STALL_S:g} s")
        super()._waitConnected(0)

    def _sendToRadioImpl(self, toRadio: Any) -> None:  # noqa: N802, N803 - the library's names
        connection = self._connection
        if connection is None:
            raise ConnectionError("not connected")
        connection.write(toRadio.SerializeToString())
        self._news.set()

    def _receiveFromRadioImpl(self) -> None:  # noqa: N802 - the library's name
        limit_s = None  # a radio has nothing to say before it was asked
        try:
            while self._want_receive:
                self._news.wait(limit_s)
                self._news.clear()
                self._drain()
                limit_s = None if self.isConnected.is_set() else POLL_S
        except ConnectionError as error:
            self._cause = str(error)
            log.debug("ble_read_failed", reason=str(error))
        except Exception:
            log.exception("ble_reader_crashed", consequence="connecting again")
        finally:
            self._lose()

    def _drain(self) -> None:
        connection = self._connection
        empty = 0
        while connection is not None and self._want_receive and empty < EMPTY_READS:
            frame = connection.read()
            if frame:
                empty = 0
                self._frames += 1
                self._handleFromRadio(frame)
                continue
            empty += 1
            if self._news.wait(EMPTY_PAUSE_S):
                self._news.clear()
                empty = 0
