"""What the contract cases run on: the fake, the library on a simulated mesh, real firmware."""

import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from meshllm.clock import SystemClock
from meshllm.config.links import Link, parse_link
from meshllm.radio.base import (
    BROADCAST,
    Envelope,
    LinkKind,
    OutgoingText,
    QueueStatus,
    Radio,
    RadioEvent,
    RoutingHeard,
    TextHeard,
)
from meshllm.radio.device import DeviceRadio
from meshllm.radio.ports import Port, SerialPorts
from meshllm.sim.mesh import SimMesh
from meshllm.sim.outcome import Outcome
from meshllm.sim.packets import Port as Application
from meshllm.testing.radio import INFO, FakeDevice
from tests.contract import firmware

LIMIT_S = 5.0
SCALE = 20.0
ADA = 0x51E0BB01
E = TypeVar("E")


class Inbox:
    """Everything that a radio reported."""

    def __init__(self) -> None:
        self.events: list[RadioEvent] = []
        self._news = threading.Condition()

    def put(self, event: RadioEvent) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait(self, kind: type[E], fits: Callable[[Any], bool] = lambda _: True) -> E:
        def found() -> E | None:
            return next((e for e in self.events if isinstance(e, kind) and fits(e)), None)

        with self._news:
            event = self._news.wait_for(found, LIMIT_S)
        assert event is not None, self.events
        return event

    def of(self, kind: type[E]) -> list[E]:
        return [e for e in self.events if isinstance(e, kind)]

    def statuses(self, packet_id: int) -> list[int]:
        return [
            e.result for e in self.events if isinstance(e, QueueStatus) and e.packet_id == packet_id
        ]


class World(ABC):
    """One radio and one person, Ada, made of whatever the case is about."""

    kind: LinkKind = "tcp"

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.number = 0
        self.inbox = Inbox()
        self.open()

    def radio(self, inbox: Inbox | None = None) -> Radio:
        """Make a radio that is closed with the test."""
        radio = self.make((inbox or self.inbox).put)
        self.stack.callback(radio.close)
        return radio

    def connected(self, inbox: Inbox | None = None) -> Radio:
        radio = self.radio(inbox)
        self.number = radio.connect().number
        return radio

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def make(self, emit: Callable[[RadioEvent], None]) -> Radio: ...

    @abstractmethod
    def say(self, text: str) -> None: ...

    @abstractmethod
    def script(self, *who: str) -> None:
        """Ada's or a relay's ACKs for the next text."""

    def acknowledge(self) -> None:
        """Bring those ACKs where they do not come by themselves."""
        return

    @abstractmethod
    def on_air(self) -> list[str]: ...

    @abstractmethod
    def lose(self) -> None: ...

    @abstractmethod
    def go_mute(self) -> None: ...

    @abstractmethod
    def fill_queue(self) -> None: ...

    @abstractmethod
    def switch_off(self) -> None: ...

    @abstractmethod
    def lose_key(self) -> None:
        """Let the radio lose Ada's public key."""

    @abstractmethod
    def need_ids(self) -> None:
        """Skip where ids are not remembered."""

    def rest(self) -> None:
        """Wait as long as the radio wants between two texts."""
        return


class FakeWorld(World):
    def open(self) -> None:
        self.device = FakeDevice(kind=self.kind)
        self.origins: tuple[str, ...] = ()

    def make(self, emit: Callable[[RadioEvent], None]) -> Radio:
        return self.device.make(emit)

    def say(self, text: str) -> None:
        self.device.emit(TextHeard(Envelope(ADA, INFO.number, 7), text))

    def script(self, *who: str) -> None:
        self.origins = who

    def acknowledge(self) -> None:
        for origin in self.origins:
            sender = INFO.number if origin == "implicit" else ADA
            request_id = self.device.sent[-1].packet_id
            self.device.emit(RoutingHeard(Envelope(sender, INFO.number, 8), request_id, "NONE"))

    def on_air(self) -> list[str]:
        return [text.text for text in self.device.sent]

    def lose(self) -> None:
        self.device.lose()

    def go_mute(self) -> None:
        self.device.is_mute = True

    def fill_queue(self) -> None:
        self.device.free = 0

    def switch_off(self) -> None:
        self.device.is_off = True

    def lose_key(self) -> None:
        self.device.keyless.add(ADA)

    def need_ids(self) -> None:
        return

    def restart(self) -> None:
        self.device.restart()


class FakeSerialWorld(FakeWorld):
    kind = "serial"


class SimWorld(World):
    def open(self) -> None:
        mesh = self.mesh = SimMesh(clock=SystemClock(SCALE), instant_air=True)
        self.node = mesh.add_radio("Base Camp", channels=("", "Hiking"))
        self.ada = mesh.add_person("Ada Example", num=ADA, channels=("", "Hiking"))
        self.stack.enter_context(mesh)

    def make(self, emit: Callable[[RadioEvent], None]) -> Radio:
        link = parse_link(f"tcp:{self.node.address}")
        return DeviceRadio(link, emit, clock=SystemClock(SCALE))

    def say(self, text: str) -> None:
        self.ada.say(text, to=self.node)

    def script(self, *who: Any) -> None:
        self.node.script_next(Outcome.acks(*who))

    def on_air(self) -> list[str]:
        texts = [
            handed.packet for handed in self.node.sent if handed.packet.port == Application.TEXT
        ]
        return [packet.payload.decode() for packet in texts]

    def lose(self) -> None:
        self.node.disconnect()

    def go_mute(self) -> None:
        self.node.half_open()

    def fill_queue(self) -> None:
        self.node.set_free(0)

    def switch_off(self) -> None:
        self.node.switch_off()

    def lose_key(self) -> None:
        self.node.forget_key(ADA)

    def need_ids(self) -> None:
        return

    def rest(self) -> None:
        rested = threading.Event()
        self.mesh.engine.call(lambda: self.mesh.engine.call_later(2.5, rested.set))
        assert rested.wait(LIMIT_S)


class SerialWorld(SimWorld):
    """The same simulated radio on a pseudo terminal. Its port may change its name."""

    kind = "serial"

    def open(self) -> None:
        super().open()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.name = self.node.serve_serial(self.folder / "ttyUSB0")
        self.link = Link("serial", str(self.name))
        self.ports = SerialPorts(self.look, [self.link])

    def look(self) -> list[Port]:
        """Every name in the folder is the same device, as its USB serial number tells."""
        names = sorted(os.path.realpath(name) for name in self.folder.iterdir())
        return [Port(name, 0x10C4, 0xEA60, "0001") for name in names]

    def hold_number(self) -> None:
        """Keep the next terminal from getting the number of the one that just went."""
        for end in os.openpty():
            self.stack.callback(os.close, end)

    def make(self, emit: Callable[[RadioEvent], None]) -> Radio:
        # In real time, as on every serial line: the library's own pauses do not run faster.
        return DeviceRadio(self.link, emit, clock=SystemClock(), ports=self.ports)

    def lose(self) -> None:
        self.node.unplug()

    def restart(self) -> None:
        self.node.reboot(keep_link=True)


class FirmwareWorld(World):
    """A node of the real firmware. It has no Ada: what needs her is left to the others."""

    def __init__(self, stack: ExitStack, link: Link) -> None:
        self.link = link
        super().__init__(stack)

    def open(self) -> None:
        return

    def make(self, emit: Callable[[RadioEvent], None]) -> Radio:
        return DeviceRadio(self.link, emit, clock=SystemClock())

    def say(self, text: str) -> None:
        pytest.skip("needs a second node")

    def script(self, *who: str) -> None:
        pytest.skip("needs a second node")

    def on_air(self) -> list[str]:
        pytest.skip("the firmware does not tell")

    def lose(self) -> None:
        """A newer client puts the older one out."""
        self.connected(Inbox())

    def go_mute(self) -> None:
        pytest.skip("the firmware cannot be told to")

    def fill_queue(self) -> None:
        pytest.skip("the firmware cannot be told to")

    def switch_off(self) -> None:
        pytest.skip("the firmware cannot be told to")

    def lose_key(self) -> None:
        pytest.skip("needs a second node")

    def need_ids(self) -> None:
        pytest.skip("in simulator mode the firmware keeps no list of ids")


NO_FIRMWARE = pytest.mark.skipif(
    firmware.VARIABLE not in os.environ, reason="MESHTASTICD is not set: no real firmware at hand"
)
FAKE = pytest.param(FakeWorld, id="fake")
FAKE_SERIAL = pytest.param(FakeSerialWorld, id="fake serial")
TCP = pytest.param(SimWorld, id="library+sim")
SERIAL = pytest.param(SerialWorld, id="library+pty")
#: A serial connection costs a second of the library's own pauses; these cases are for the long run.
SLOW_SERIAL = pytest.param(SerialWorld, id="library+pty", marks=pytest.mark.slow)
FIRMWARE = pytest.param(
    FirmwareWorld,
    id="firmware",
    marks=[pytest.mark.firmware, pytest.mark.timeout(150), NO_FIRMWARE],
)


def text(packet_id: int, content: str = "hi", *, to: int = ADA, **fields: Any) -> OutgoingText:
    return OutgoingText(packet_id, to, content, **{"want_ack": to != BROADCAST, **fields})
