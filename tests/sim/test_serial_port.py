"""A simulated radio on a pseudo terminal, spoken to byte by byte."""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meshllm.sim import wire
from meshllm.sim.framing import WAKE, Deframer, frame
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.packets import Disconnect, Heartbeat, Packet, Request, SendPacket, WantConfig

LIMIT_S = 5.0
MakeMesh = Callable[..., SimMesh]


class Terminal:
    """A program that has the port open."""

    def __init__(self, name: Path) -> None:
        self._line = os.open(name, os.O_RDWR | os.O_NOCTTY)
        self._deframer = Deframer()
        self._messages: list[tuple[str, Any]] = []

    def ask(self, *requests: Request) -> None:
        os.write(self._line, b"".join(frame(wire.request_bytes(r)) for r in requests))

    def read_until(self, kind: str) -> list[str]:
        """Kinds of the messages up to the first of that kind."""
        kinds: list[str] = []
        while kind not in kinds:
            while not self._messages:
                ready, _, _ = select.select([self._line], [], [], LIMIT_S)
                assert ready, f"silence after {kinds}"
                chunk = os.read(self._line, 4096)
                self._messages.extend(map(wire.parse_from_radio, self._deframer.feed(chunk)))
            kinds.append(self._messages.pop(0)[0])
        return kinds

    def configure(self) -> None:
        os.write(self._line, WAKE)
        self.ask(WantConfig(7))
        self.read_until("config_complete_id")

    def close(self) -> None:
        os.close(self._line)


@pytest.fixture
def radio(make_mesh: MakeMesh, tmp_path: Path) -> SimRadio:
    radio = make_mesh().add_radio()
    radio.serve_serial(tmp_path / "ttyUSB0")
    return radio


@pytest.fixture
def dial(tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    with ExitStack() as stack:

        def connect(name: str) -> Terminal:
            terminal = Terminal(tmp_path / name)
            stack.callback(terminal.close)
            terminal.configure()
            return terminal

        yield connect


Dial = Callable[[str], Terminal]


def broadcast(packet_id: int) -> SendPacket:
    return SendPacket(Packet(id=packet_id, payload=b"hi"))


def test_a_goodbye_ends_the_session_and_leaves_line_and_ids(radio: SimRadio, dial: Dial) -> None:
    line = dial("ttyUSB0")
    line.ask(broadcast(1))
    line.read_until("queueStatus")

    line.ask(Disconnect())
    line.configure()
    line.ask(broadcast(1), broadcast(2))
    line.read_until("queueStatus")

    assert [item.verdict for item in radio.received] == ["accepted", "repeated", "accepted"]


def test_a_port_that_goes_away_with_a_restart_comes_back_under_its_name(
    radio: SimRadio, dial: Dial, tmp_path: Path
) -> None:
    line = dial("ttyUSB0")
    line.ask(broadcast(1))
    line.read_until("queueStatus")

    radio.reboot(down_s=3600.0)
    assert list(tmp_path.iterdir()) == []
    radio.switch_on()

    again = dial("ttyUSB0")
    again.ask(broadcast(1))
    again.read_until("queueStatus")
    assert [item.verdict for item in radio.received] == ["accepted", "accepted"]


def test_without_power_there_is_no_port_whatever_is_plugged(
    radio: SimRadio, dial: Dial, tmp_path: Path
) -> None:
    radio.switch_off()
    radio.plug(tmp_path / "ttyUSB1")
    assert list(tmp_path.iterdir()) == []

    radio.switch_on()

    dial("ttyUSB1").ask(Heartbeat())


def test_no_name_is_left_when_the_mesh_ends(make_mesh: MakeMesh, tmp_path: Path) -> None:
    mesh = make_mesh()
    mesh.add_radio().serve_serial(tmp_path / "ttyUSB0")

    mesh.close()

    assert list(tmp_path.iterdir()) == []
