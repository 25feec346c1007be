"""The supervisor of one radio: what it does about losses, silence and its own end."""

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from structlog.typing import EventDict

from meshllm.bridge import link as link_module
from meshllm.bridge.link import Down, Heard, Link, LinkEvent, Refreshed, SendFailed, Up, Written
from meshllm.clock import SystemClock
from meshllm.errors import LinkDownError
from meshllm.radio.base import Emit, Envelope, LinkLost, OtherHeard, OutgoingText, QueueStatus
from meshllm.testing.radio import INFO, FakeDevice

LIMIT_S = 5.0
SCALE = 100.0
TEXT = OutgoingText(501, 0xA11CE001, "hi")
PACKET = OtherHeard(Envelope(0xA11CE001, 0, 1), "X")
E = TypeVar("E")


class Inbox:
    """Everything that a link delivered, in order."""

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
        def enough() -> bool:
            return len([e for e in self.events if isinstance(e, kind)]) >= count

        with self._news:
            assert self._news.wait_for(enough, LIMIT_S), self.events
            return [e for e in self.events if isinstance(e, kind)]


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


Start = Callable[..., Link]


@pytest.fixture
def start(inbox: Inbox, device: FakeDevice, events: list[EventDict]) -> Iterator[Start]:
    links: list[Link] = []

    def make(factory: Callable[[Emit], object] | None = None, *, scale: float = SCALE) -> Link:
        link = Link(
            "tcp:radio",
            factory or device.make,  # type: ignore[arg-type]
            inbox.put,
            clock=SystemClock(scale),
        )
        links.append(link)
        link.start()
        return link

    yield make

    if device.connect_gate is not None:
        device.connect_gate.set()
    for link in links:
        link.stop(LIMIT_S)


def up(link: Link, inbox: Inbox, count: int = 1) -> None:
    """Wait for a connection and take it over, as a station does."""
    link.adopt(inbox.wait(Up, count)[-1].session)


def lines(events: list[EventDict], name: str) -> list[EventDict]:
    return [event for event in events if event["event"] == name]


def test_what_is_sent_goes_to_the_radio_and_back(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    link = start()
    up(link, inbox)

    link.send(TEXT)

    assert inbox.wait(Written) == [Written(501)]
    assert [h.event for h in inbox.wait(Heard)] == [QueueStatus(501, 0, free=15, maxlen=16)]
    assert device.sent == [TEXT]
    assert inbox.events[0] == Up(INFO, 1)


def test_what_the_radio_kept_is_delivered_before_the_link_is_up(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    device.kept = [PACKET]

    start()

    inbox.wait(Up)
    first = inbox.events[0]
    assert isinstance(first, Heard)
    assert (first.event, first.session) == (PACKET, 1)


def test_after_a_loss_a_fresh_connection_is_made(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    start()
    inbox.wait(Up)

    device.lose("power cut")

    assert [u.session for u in inbox.wait(Up, 2)] == [1, 2]
    assert inbox.wait(Down) == [Down("power cut", link_module.FIRST_BACKOFF_S)]
    assert device.connections == 2


def test_the_pauses_grow_to_a_limit_and_one_outage_is_one_line(
    start: Start, inbox: Inbox, device: FakeDevice, events: list[EventDict]
) -> None:
    device.is_off = True
    start(scale=1000.0)

    pauses = [d.retry_s for d in inbox.wait(Down, 8)]

    assert pauses[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(lines(events, "link_down")) == 1


def test_two_clients_that_evict_each_other_come_back_more_and_more_slowly(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    start(scale=1000.0)

    for number in range(1, 6):
        inbox.wait(Up, number)
        rival = device.make(lambda _event: None)
        rival.connect()
        inbox.wait(Down, number)

    assert [d.retry_s for d in inbox.wait(Down, 5)] == [1, 2, 4, 8, 16]


def test_a_contest_for_the_radio_is_logged_once_until_it_is_over(
    start: Start, inbox: Inbox, device: FakeDevice, events: list[EventDict]
) -> None:
    start(scale=1000.0)

    for number in range(1, 8):
        inbox.wait(Up, number)
        device.make(lambda _event: None).connect()
        inbox.wait(Down, number)

    inbox.wait(Up, 8)
    assert device.wait(lambda d: d.probes >= 4)  # so long does a connection last that is over it
    names = [e["event"] for e in events if e["event"].startswith("link_")]
    assert names == [
        "link_up",
        "link_down",
        "link_up",
        "link_down",
        "link_up",
        "link_contested",
        "link_up",
    ]
    assert "one client at a time" in lines(events, "link_contested")[0]["advice"]


def test_a_fresh_connection_on_request_comes_at_once(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    link = start(scale=1.0)  # the usual pause would be a whole second
    for number in range(1, 4):
        up(link, inbox, number)
        link.refresh("an id goes on the air again")

    inbox.wait(Up, 4)

    assert {d.retry_s for d in inbox.wait(Down, 3)} == {0.0}


def test_a_serial_radio_is_made_to_forget_ids_over_the_same_connection(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    device.kind = "serial"
    link = start()
    up(link, inbox)
    link.send(TEXT)
    link.send(TEXT)
    inbox.wait(Written, 2)
    assert device.swallowed == [TEXT]

    link.refresh("an id goes on the air again")
    inbox.wait(Refreshed)
    link.send(TEXT)
    inbox.wait(Written, 3)

    assert device.sent == [TEXT, TEXT]
    assert (device.connections, inbox.of(Down)) == (1, [])


def test_a_serial_radio_that_does_not_answer_the_refresh_is_connected_afresh(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    device.kind = "serial"
    link = start()
    up(link, inbox)
    device.is_mute = True

    link.refresh("an id goes on the air again")

    assert inbox.wait(Down)[0].cause == "no answer to a heartbeat"
    assert inbox.of(Refreshed) == []


def test_a_node_is_asked_for_its_key(
    start: Start, inbox: Inbox, device: FakeDevice, events: list[EventDict]
) -> None:
    device.keyless = {TEXT.to}
    link = start()
    up(link, inbox)
    link.send(TEXT)
    link.ask_user(TEXT.to)
    link.send(OutgoingText(502, TEXT.to, "hi"))
    inbox.wait(Written, 2)

    assert [t.packet_id for t in device.sent] == [502]
    assert device.asked == [TEXT.to]
    assert lines(events, "user_requested")[0]["node_id"] == "!a11ce001"


def test_a_request_that_the_radio_does_not_take_harms_nothing(
    start: Start, inbox: Inbox, device: FakeDevice, events: list[EventDict]
) -> None:
    link = start()
    up(link, inbox)
    device.free = 0

    link.ask_user(TEXT.to)
    link.send(TEXT)

    assert inbox.wait(SendFailed)[0].busy
    assert device.connections == 1
    assert lines(events, "user_not_requested")[0]["reason"] == "the radio's send queue is full"


def test_a_radio_that_answers_no_heartbeat_is_connected_afresh(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    start(scale=1000.0)
    inbox.wait(Up)
    device.is_mute = True

    down = inbox.wait(Down)

    assert down[0].cause == "no answer to a heartbeat"
    assert device.probes >= 1


def test_a_radio_that_answers_is_left_alone(start: Start, inbox: Inbox, device: FakeDevice) -> None:
    start(scale=1000.0)
    inbox.wait(Up)

    assert device.wait(lambda d: d.probes >= 3)

    assert [e for e in inbox.events if isinstance(e, Down)] == []


def test_a_connect_that_hangs_does_not_hold_the_end(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    device.connect_gate = threading.Event()
    link = start()

    began = SystemClock().monotonic()
    link.stop(0.05)

    assert SystemClock().monotonic() - began < 2.0
    device.connect_gate.set()
    link.stop(LIMIT_S)
    assert inbox.events == []


def test_a_factory_that_raises_is_asked_again(
    start: Start, inbox: Inbox, device: FakeDevice, events: list[EventDict]
) -> None:
    failures = [RuntimeError("no such device"), LinkDownError("busy")]

    def factory(emit: Emit) -> object:
        if failures:
            raise failures.pop(0)
        return device.make(emit)

    start(factory)

    inbox.wait(Up)
    assert [d.cause for d in inbox.wait(Down, 2)] == ["RuntimeError('no such device')", "busy"]
    assert len(lines(events, "link_crashed")) == 1


def test_a_text_meant_for_an_earlier_connection_is_not_sent_on_the_next(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    """The consumer resumes it itself; the radio would swallow the second of two equal ids."""
    link = start()
    up(link, inbox)
    device.lose()
    inbox.wait(Up, 2)
    link.send(TEXT)  # the consumer has not seen the second connection yet

    link.adopt(2)
    link.send(OutgoingText(502, 1, "later"))
    inbox.wait(Written)

    assert [t.packet_id for t in device.sent] == [502]


def test_a_refresh_of_an_earlier_connection_does_not_end_the_next(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    link = start()
    up(link, inbox)
    device.lose()
    inbox.wait(Up, 2)
    link.refresh("stale")

    link.adopt(2)
    link.send(TEXT)
    inbox.wait(Written)

    assert device.connections == 2


def test_the_end_of_an_abandoned_connection_does_not_end_the_new_one(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    emitters: list[Emit] = []

    def factory(emit: Emit) -> object:
        emitters.append(emit)
        return device.make(emit)

    link = start(factory)
    inbox.wait(Up)
    device.lose()
    up(link, inbox, 2)

    emitters[0](LinkLost("late"))
    emitters[0](PACKET)
    link.send(TEXT)
    inbox.wait(Written)

    assert device.connections == 2
    assert [h.session for h in inbox.wait(Heard, 2) if h.event == PACKET] == [1]


def test_a_full_queue_is_told_and_the_link_stays(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    link = start()
    up(link, inbox)
    device.free = 0

    link.send(TEXT)

    assert inbox.wait(SendFailed) == [SendFailed(501, "the radio's send queue is full", busy=True)]
    assert device.connections == 1


def test_a_break_under_a_hand_over_is_told_before_the_loss(
    start: Start, inbox: Inbox, device: FakeDevice
) -> None:
    class Breaking:
        def __init__(self, emit: Emit) -> None:
            self.radio = device.make(emit)
            self.connect = self.radio.connect
            self.close = self.radio.close
            self.probe = self.radio.probe

        def send(self, text: OutgoingText) -> None:
            raise LinkDownError("send: broken pipe")

    link = start(Breaking)
    up(link, inbox)

    link.send(TEXT)

    inbox.wait(Down)
    kinds = [type(e) for e in inbox.events if not isinstance(e, Heard)]
    assert kinds[:3] == [Up, SendFailed, Down]


def test_a_dropped_link_rests_as_long_as_asked(
    start: Start, inbox: Inbox, device: FakeDevice, events: list[EventDict]
) -> None:
    link = start()
    up(link, inbox)

    link.drop("another station's radio", pause_s=30.0)

    assert inbox.wait(Down) == [Down("another station's radio", 30.0)]
    inbox.wait(Up, 2)
    assert lines(events, "link_dropped")[0]["retry_in_s"] == 30.0
