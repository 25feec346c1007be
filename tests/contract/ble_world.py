"""The simulated radio over Bluetooth: library and bleak as they are, before a stand-in bluetoothd.

Needs dbus-daemon (Debian: package dbus-daemon) for a private bus. This computer's Bluetooth is
never used: the address of the system bus is set to the private one.
"""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from meshllm.clock import SystemClock
from meshllm.config.links import parse_link
from meshllm.errors import LinkDownError
from meshllm.radio import ble
from meshllm.radio.base import Radio, RadioEvent
from meshllm.radio.device import DeviceRadio
from meshllm.sim import gatt
from meshllm.sim.bluez import BlueZ
from meshllm.testing.dbus import PrivateBus
from tests.contract.worlds import SCALE, Inbox, SimWorld

ADDRESS = "00:00:5E:00:53:AF"
BUS_VARIABLE = "DBUS_SYSTEM_BUS_ADDRESS"
NO_BUS = pytest.mark.skipif(
    not PrivateBus.is_available(), reason="dbus-daemon is not installed: no private bus"
)


def device(target: str, emit: Callable[[RadioEvent], None]) -> DeviceRadio:
    return DeviceRadio(parse_link(f"ble:{target}"), emit, clock=SystemClock(SCALE))


class BleWorld(SimWorld):
    """The simulated radio in reach of a stand-in for bluetoothd, on a bus of its own."""

    kind = "ble"

    def __init__(self, stack: ExitStack, bus: PrivateBus | None = None) -> None:
        self.bus = bus or stack.enter_context(PrivateBus())
        super().__init__(stack)

    def open(self) -> None:
        super().open()
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(BUS_VARIABLE, self.bus.address)
        # The stand-in advertises every 50 ms.
        patch.setattr(ble, "SCAN_S", 0.3)
        self.bluez = BlueZ(self.bus.address, self.mesh.engine)
        self.peripheral = self.admit(gatt.Peripheral(self.node, ADDRESS))
        self.conditions = self.peripheral.conditions
        self.bluez.start()
        self.stack.callback(self.bluez.stop)

    def admit(self, peripheral: gatt.Peripheral) -> gatt.Peripheral:
        self.bluez.add(peripheral)
        return peripheral

    def make(self, emit: Callable[[RadioEvent], None]) -> DeviceRadio:
        return device(ADDRESS, emit)

    def to(self, target: str, inbox: Inbox | None = None) -> Radio:
        """Make a radio for another address or a name; it is closed with the test."""
        made = device(target, (inbox or self.inbox).put)
        self.stack.callback(made.close)
        return made

    def refusal(self, target: str = ADDRESS) -> str:
        """Why it does not connect."""
        with pytest.raises(LinkDownError) as caught:
            self.to(target).connect()
        return str(caught.value)

    def lose(self) -> None:
        self.bluez.lose(self.peripheral)

    def go_mute(self) -> None:
        self.conditions.is_silent = True

    def switch_off(self) -> None:
        self.lose()
        super().switch_off()

    def restart(self) -> None:
        self.bluez.restart(self.peripheral)


BLE = pytest.param(BleWorld, id="library+bluez", marks=NO_BUS)
