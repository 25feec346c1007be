"""What is different on a serial line: ids outlive connections, ports get other names."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshllm.clock import SystemClock
from meshllm.config.links import Link
from meshllm.errors import LinkDownError
from meshllm.radio import device as device_module
from meshllm.radio.base import LinkLost, Radio, TextHeard
from meshllm.radio.device import DeviceRadio
from meshllm.radio.ports import Port, SerialPorts
from meshllm.sim import wire
from meshllm.sim.framing import WAKE, frame
from meshllm.sim.packets import WantConfig
from tests.contract.worlds import (
    FAKE_SERIAL,
    LIMIT_S,
    SCALE,
    SERIAL,
    FakeSerialWorld,
    Inbox,
    SerialWorld,
    text,
)

BOTH = pytest.mark.parametrize("world", [FAKE_SERIAL, SERIAL], indirect=True)
Serial = FakeSerialWorld | SerialWorld


@pytest.fixture
def line() -> Iterator[SerialWorld]:
    with ExitStack() as stack:
        yield SerialWorld(stack)


def taken(radio: Radio, inbox: Inbox, packet_id: int) -> bool:
    """Hand a text over and say whether the radio answered it."""
    before = len(inbox.statuses(packet_id))
    radio.send(text(packet_id))
    radio.probe()  # its answer comes after whatever the text would bring
    return len(inbox.statuses(packet_id)) > before


@BOTH
def test_an_id_is_swallowed_over_connections_until_the_radio_is_made_to_forget(
    world: Serial,
) -> None:
    radio = world.connected()
    assert taken(radio, world.inbox, 501)
    assert not taken(radio, world.inbox, 501)
    radio.close()

    again = Inbox()
    radio = world.connected(again)
    assert not taken(radio, again, 501)
    assert world.on_air() == ["hi"]

    radio.forget_ids()
    world.rest()
    assert taken(radio, again, 501)
    assert world.on_air() == ["hi", "hi"]


@BOTH
def test_a_restart_is_a_loss_and_empties_the_list_of_ids(world: Serial) -> None:
    radio = world.connected()
    assert taken(radio, world.inbox, 501)

    world.restart()

    assert world.inbox.wait(LinkLost).cause == "the radio restarted"
    with pytest.raises(LinkDownError):
        radio.send(text(502))
    radio.close()
    again = Inbox()
    assert taken(world.connected(again), again, 501)


def test_a_radio_that_does_not_forget_swallows_the_repeat_without_a_word() -> None:
    """What the caller sees if decision 34 is wrong: no QueueStatus, so it takes a new id."""
    with ExitStack() as stack:
        world = FakeSerialWorld(stack)
        world.device.ignores_filler = True
        radio = world.connected()
        assert taken(radio, world.inbox, 501)

        radio.forget_ids()

        assert not taken(radio, world.inbox, 501)
        assert taken(radio, world.inbox, 502)


def test_what_came_while_the_cable_was_out_is_heard_at_once(line: SerialWorld) -> None:
    radio = line.connected()
    line.node.unplug()
    assert line.inbox.wait(LinkLost)
    radio.close()
    packet_id = line.ada.say("anyone?", to=line.node)
    assert line.ada.wait_delivery(packet_id, LIMIT_S)
    line.node.plug()

    again = Inbox()
    line.connected(again)

    assert again.wait(TextHeard).text == "anyone?"


def test_a_cable_pulled_during_a_send_is_a_failed_send(
    line: SerialWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look at the link and the library's write, where the port is still open."""
    radio = line.connected()
    assert isinstance(radio, DeviceRadio)
    monkeypatch.setattr(radio, "_wait_for_room", lambda _interface: line.node.unplug())

    with pytest.raises(LinkDownError):
        radio.send(text(501))

    assert line.inbox.wait(LinkLost)
    assert line.on_air() == []


@pytest.mark.slow
def test_a_silent_but_open_line_fails_its_heartbeat_and_a_later_connection_works(
    line: SerialWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "PROBE_S", 2.0)
    radio = line.connected()
    line.go_mute()
    with pytest.raises(LinkDownError, match="no answer"):
        radio.probe()
    radio.close()

    line.node.resume()

    line.connected(Inbox()).probe()


@pytest.mark.slow
def test_a_port_that_another_program_holds_is_refused(line: SerialWorld) -> None:
    line.connected()

    with pytest.raises(LinkDownError, match="lock"):
        line.radio().connect()


@pytest.mark.slow
def test_a_radio_is_found_again_under_another_name(line: SerialWorld) -> None:
    radio = line.connected()
    line.node.unplug()
    assert line.inbox.wait(LinkLost)
    radio.close()
    with pytest.raises(LinkDownError, match="looked for USB 10c4:ea60 serial 0001; ports seen"):
        line.radio().connect()

    line.hold_number()
    line.node.plug(line.folder / "ttyUSB1")

    with capture_logs() as logs:
        for _ in range(2):
            radio = line.radio(Inbox())
            assert radio.connect().number == line.number
            radio.close()
    now = os.path.realpath(line.folder / "ttyUSB1")
    assert [(e["event"], e["now"]) for e in logs if e["event"] == "port_renamed"] == [
        ("port_renamed", now)
    ]


def test_a_line_without_a_reader_keeps_the_radio_going(line: SerialWorld) -> None:
    """A client that died without a word: the line fills up, and the next client starts clean."""
    dead = os.open(line.name, os.O_RDWR | os.O_NOCTTY)
    os.write(dead, WAKE + frame(wire.request_bytes(WantConfig(1))))
    for number in range(40):
        packet_id = line.ada.say(f"text {number} ".ljust(200, "x"), to=line.node)
        assert line.ada.wait_delivery(packet_id, LIMIT_S)
    os.close(dead)

    line.connected()
    line.say("and now?")

    assert line.inbox.wait(TextHeard, lambda heard: heard.text == "and now?")


def test_a_connection_that_failed_gives_its_port_back(tmp_path: Path) -> None:
    path = tmp_path / "ttyUSB0"
    path.touch()  # not a terminal
    ports = SerialPorts(lambda: [Port(str(path), 0x10C4, 0xEA60, "0001")])
    radio = DeviceRadio(Link("serial", "auto"), Inbox().put, clock=SystemClock(SCALE), ports=ports)
    other = Link("serial", "/dev/no-such-port")

    with pytest.raises(LinkDownError):
        radio.connect()
    with pytest.raises(LinkDownError, match="taken"):
        ports.take(other)
    radio.close()

    with pytest.raises(LinkDownError, match=r"serial 0001\);"):
        ports.take(other)


def test_a_name_that_is_taken_is_not_replaced(line: SerialWorld, tmp_path: Path) -> None:
    taken_name = tmp_path / "ttyUSB7"
    taken_name.touch()
    line.node.unplug()

    with pytest.raises(FileExistsError):
        line.node.plug(taken_name)
