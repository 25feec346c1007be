"""The supervisor of one radio with the real library on simulated radios."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from structlog.typing import EventDict

from meshllm.bridge.link import Down, Heard, Link, LinkEvent, Refreshed, Up
from meshllm.clock import SystemClock
from meshllm.config import Link as Address
from meshllm.config import parse_link
from meshllm.radio.base import TextHeard
from meshllm.radio.device import DeviceRadio
from meshllm.radio.ports import Port, SerialPorts
from meshllm.sim.mesh import SimMesh

LIMIT_S = 8.0
SCALE = 50.0
E = TypeVar("E")


class Inbox:
    """Everything that a link delivered."""

    def __init__(self) -> None:
        self.events: list[LinkEvent] = []
        self._news = threading.Condition()

    def put(self, event: LinkEvent) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def of(self, kind: type[E]) -> list[E]:
        return [e for e in self.events if isinstance(e, kind)]

    def wait(self, kind: type[E], count: int = 1) -> list[E]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.of(kind)) >= count, LIMIT_S), self.events
            return self.of(kind)

    def wait_text(self, words: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: words in self.texts(), LIMIT_S), self.events

    def texts(self) -> list[str]:
        heard = [h.event for h in self.of(Heard)]
        return [e.text for e in heard if isinstance(e, TextHeard)]


class World:
    """One simulated radio and the links that tests start to it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        mesh = SimMesh(clock=SystemClock(SCALE), instant_air=True)
        self.node = mesh.add_radio()
        self.ada = mesh.add_person()
        stack.enter_context(mesh)

    def link(self, address: Address, ports: SerialPorts | None = None) -> tuple[Link, Inbox]:
        inbox = Inbox()
        clock = SystemClock(SCALE)
        # The library's pauses on a serial line do not run faster.
        radio_clock = SystemClock() if address.kind == "serial" else clock
        link = Link(
            str(address),
            lambda emit: DeviceRadio(address, emit, clock=radio_clock, ports=ports),
            inbox.put,
            clock=clock,
        )
        self._stack.callback(link.stop, LIMIT_S)
        link.start()
        return link, inbox

    def say(self, words: str) -> None:
        assert self.ada.wait_delivery(self.ada.say(words, to=self.node), LIMIT_S)


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def told(events: list[EventDict], name: str) -> list[EventDict]:
    return [event for event in events if event["event"] == name]


def test_two_clients_of_one_radio_come_back_ever_more_slowly_and_say_so_once(
    world: World, events: list[EventDict]
) -> None:
    address = parse_link(f"tcp:{world.node.address}")
    inboxes = [world.link(address)[1] for _ in range(2)]

    for inbox in inboxes:
        inbox.wait(Down, 6)

    for inbox in inboxes:
        assert [d.retry_s for d in inbox.of(Down)][:6] == [1, 2, 4, 8, 16, 30]
    # One of the two may be put out before it has read the configuration; that is another cause.
    assert 1 <= len(told(events, "link_contested")) <= 2
    causes = {event["reason"] for event in told(events, "link_down")}
    assert causes <= {
        "the connection ended",
        "connect: the connection ended during the handshake",
    }


def test_a_serial_radio_that_comes_back_under_another_name_is_taken_up_with_what_it_kept(
    world: World, events: list[EventDict]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = world.node.serve_serial(Path(folder, "ttyUSB0"))
        address = Address("serial", str(name))

        def look() -> list[Port]:
            found = [os.path.realpath(port) for port in Path(folder).iterdir()]
            return [Port(path, 0x10C4, 0xEA60, "0001") for path in found]

        link, inbox = world.link(address, SerialPorts(look, [address]))
        inbox.wait(Up)

        world.node.unplug()
        inbox.wait(Down)
        world.say("while you were out")
        world.node.plug(Path(folder, "ttyUSB1"))

        link.adopt(inbox.wait(Up, 2)[-1].session)
        inbox.wait_text("while you were out")
        world.node.reboot(keep_link=True)
        inbox.wait(Up, 3)
        assert "the radio restarted" in [d.cause for d in inbox.of(Down)]
        link.stop(LIMIT_S)
    assert inbox.of(Refreshed) == []


def test_a_radio_that_says_nothing_over_an_open_connection_is_connected_afresh(
    world: World, events: list[EventDict]
) -> None:
    _, inbox = world.link(parse_link(f"tcp:{world.node.address}"))
    inbox.wait(Up)
    world.node.half_open()

    inbox.wait(Up, 2)

    assert inbox.of(Down)[0].cause == "no answer to a heartbeat within 10 s"
    world.say("back again?")
    inbox.wait_text("back again?")
    assert len(told(events, "link_down")) == 1
