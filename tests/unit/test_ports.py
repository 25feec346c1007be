"""Which serial port a link opens, and what it says when it opens none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshllm.config import Link
from meshllm.errors import LinkDownError
from meshllm.radio.ports import Port, SerialPorts, Wanted, choose

A = Port("/dev/ttyUSB0", 0x10C4, 0xEA60, "0001", "1-1.2")
B = Port("/dev/ttyUSB1", 0x303A, 0x1001, "F4:12:FA", "1-1.3")
GPS = Port("/dev/ttyACM0", 0x1546, 0x01A7, "", "1-1.4", is_likely=False)
UART = Port("/dev/ttyAMA0", is_likely=False)


def at(port: Port, path: str, location: str | None = None) -> Port:
    return replace(port, path=path, location=port.location if location is None else location)


@pytest.mark.parametrize(
    ("wanted", "seen", "path"),
    [
        # A configured path that exists, before and after its device is known.
        (Wanted(A.path, True), [A, B], A.path),
        (Wanted(A.path, True, A), [A, B], A.path),
        (Wanted(UART.path, True, UART), [UART, A], UART.path),
        # Renamed: alone, among others, with another device on the old name.
        (Wanted(A.path, False, A), [at(A, "/dev/ttyUSB1")], "/dev/ttyUSB1"),
        (Wanted(A.path, False, A), [at(A, "/dev/ttyUSB2"), B, GPS], "/dev/ttyUSB2"),
        (Wanted(A.path, True, A), [at(B, A.path), at(A, B.path)], B.path),
        # In another socket, and of two equal devices the one in the same socket.
        (Wanted(A.path, False, A), [at(A, "/dev/ttyUSB1", "1-1.4")], "/dev/ttyUSB1"),
        (
            Wanted(A.path, False, A),
            [at(A, "/dev/ttyUSB1", "1-1.4"), at(A, "/dev/ttyUSB2")],
            "/dev/ttyUSB2",
        ),
        # A device with two ports, moved to another socket: the same one of the two.
        (
            Wanted("/dev/ttyACM1", False, at(A, "/dev/ttyACM1", "1-1.2:1.2")),
            [at(A, "/dev/ttyACM2", "1-1.4:1.0"), at(A, "/dev/ttyACM3", "1-1.4:1.2")],
            "/dev/ttyACM3",
        ),
        # Another radio was put in, and the known one is nowhere: the operator named the path.
        (Wanted(A.path, True, A), [at(B, A.path)], A.path),
        # The renamed device's new name belongs to another link, which will meet it there.
        (Wanted(A.path, True, A, frozenset([B.path])), [at(B, A.path), at(A, B.path)], A.path),
        # By itself: the only likely one, the only free one, the one used before.
        (Wanted(""), [GPS, UART, A], A.path),
        (Wanted("", not_ours=frozenset([A.path])), [A, B], B.path),
        (Wanted("", known=B), [A, B], B.path),
        (Wanted("", known=A), [at(A, "/dev/ttyUSB5"), B], "/dev/ttyUSB5"),
    ],
)
def test_the_port_of_a_link(wanted: Wanted, seen: Sequence[Port], path: str) -> None:
    assert choose(wanted, seen) == path


@pytest.mark.parametrize(
    ("wanted", "seen", "words"),
    [
        (Wanted(A.path), [], "no such device /dev/ttyUSB0; ports seen: none; plug it in"),
        (Wanted(A.path), [B], "no such device .* /dev/ttyUSB1 .USB 303a:1001 serial F4:12:FA."),
        (Wanted(A.path, False, A), [B], "looked for USB 10c4:ea60 serial 0001"),
        (
            Wanted(A.path, False, A, frozenset(["/dev/ttyUSB3"])),
            [at(A, "/dev/ttyUSB3")],
            "/dev/ttyUSB3 .*, taken",
        ),
        (
            Wanted(A.path, False, A),
            [at(A, "/dev/ttyUSB3", "1-2"), at(A, "/dev/ttyUSB4", "1-3")],
            "several devices look like",
        ),
        (Wanted(""), [GPS], "no radio on any serial port"),
        (Wanted(""), [A, B], "several serial radios, name one .*: /dev/ttyUSB0, /dev/ttyUSB1"),
        # Known by its identity: another one is not taken in its place.
        (Wanted("", known=A), [B], "the radio is gone; looked for USB 10c4:ea60 serial 0001"),
    ],
)
def test_no_port_and_why(wanted: Wanted, seen: Sequence[Port], words: str) -> None:
    with pytest.raises(LinkDownError, match=words):
        choose(wanted, seen)


class Machine:
    """Ports that come and go, as names in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, Port] = {}

    def plug(self, name: str, port: Port) -> str:
        path = self.folder / name
        path.touch()
        self.ports[name] = replace(port, path=str(path))
        return str(path)

    def unplug(self, name: str) -> None:
        (self.folder / name).unlink()
        del self.ports[name]

    def look(self) -> list[Port]:
        return list(self.ports.values())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_two_configured_radios_never_take_each_other_s_ports(machine: Machine) -> None:
    paths = [machine.plug("ttyUSB0", A), machine.plug("ttyUSB1", B)]
    first, second = (Link("serial", path) for path in paths)
    ports = SerialPorts(machine.look, [first, second])
    for link in (first, second):
        assert ports.take(link) == link.target
        ports.opened(link)
        ports.release(link)

    machine.unplug("ttyUSB0")
    machine.unplug("ttyUSB1")
    machine.plug("ttyUSB1", A)  # on the name of the other one, which is still away

    with pytest.raises(LinkDownError, match=r"ttyUSB1 .*taken"):
        ports.take(first)
    machine.plug("ttyUSB0", B)
    assert (ports.take(first), ports.take(second)) == (first.target, second.target)


def test_a_port_in_use_is_free_again_after_its_release(machine: Machine) -> None:
    path = machine.plug("ttyUSB0", A)
    ports = SerialPorts(machine.look)
    first, second = Link("serial", "auto"), Link("serial", "/dev/no-such-port")
    ports.take(first)
    ports.opened(first)

    with pytest.raises(LinkDownError, match=r"ttyUSB0 .*taken"):
        ports.take(second)

    ports.release(first)
    with pytest.raises(LinkDownError, match=r"ttyUSB0 [^,]*; plug"):
        ports.take(second)
    assert ports.take(first) == path


def test_a_link_of_its_own_choice_takes_no_configured_port(machine: Machine) -> None:
    path = machine.plug("ttyUSB0", A)
    named, auto = Link("serial", path), Link("serial", "auto")
    ports = SerialPorts(machine.look, [named, auto])

    with pytest.raises(LinkDownError, match="no radio on any serial port"):
        ports.take(auto)

    other = machine.plug("ttyUSB1", B)
    assert ports.take(auto) == other


def test_a_link_of_its_own_choice_stays_with_its_radio(machine: Machine) -> None:
    auto = Link("serial", "auto")
    ports = SerialPorts(machine.look, [auto])
    machine.plug("ttyUSB0", A)
    ports.take(auto)
    ports.opened(auto)
    ports.release(auto)
    machine.unplug("ttyUSB0")
    machine.plug("ttyUSB1", B)
    with pytest.raises(LinkDownError, match="the radio is gone"):
        ports.take(auto)

    path = machine.plug("ttyUSB2", A)

    with capture_logs() as logs:
        assert [ports.take(auto) for _ in range(3)] == [path] * 3
    assert [e["device"] for e in logs] == ["USB 10c4:ea60 serial 0001"]


def test_a_port_where_no_radio_answered_is_not_remembered(machine: Machine) -> None:
    auto = Link("serial", "auto")
    ports = SerialPorts(machine.look, [auto])
    machine.plug("ttyUSB0", A)
    ports.take(auto)
    ports.release(auto)
    machine.unplug("ttyUSB0")

    path = machine.plug("ttyUSB1", B)

    assert ports.take(auto) == path


def test_a_name_by_id_is_opened_under_that_name(machine: Machine, tmp_path: Path) -> None:
    path = machine.plug("ttyUSB0", A)
    name = tmp_path / "usb-Silicon_Labs_CP2102-if00"
    name.symlink_to(path)
    link = Link("serial", str(name))

    assert SerialPorts(machine.look, [link]).take(link) == str(name)
