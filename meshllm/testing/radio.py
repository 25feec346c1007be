"""A radio in memory that refuses what a real one refuses. One object serves many connections."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from meshllm.errors import LinkDownError, RadioBusyError
from meshllm.radio.base import (
    Channel,
    Emit,
    Envelope,
    LinkKind,
    LinkLost,
    OutgoingText,
    QueueStatus,
    RadioEvent,
    RadioInfo,
    RoutingHeard,
    UserHeard,
)

MAX_QUEUE: Final = 16  #: texts that the firmware takes before its queue is full
REMEMBERED_IDS: Final = 20  #: ids whose repeat the firmware swallows
KEY_MISSING: Final = 39  #: result of a direct message whose addressee has no known key
REQUEST_ID: Final = 0x0E0D0001  #: of every request for a node info
LIMIT_S: Final = 5.0  #: real seconds that a waiting test gets
OWN_NUMBER: Final = 0xAAAA0001

INFO: Final = RadioInfo(
    number=OWN_NUMBER,
    short_name="BASE",
    long_name="Base Camp",
    firmware="2.7.26",
    region="US",
    preset="LONG_FAST",
    channels=(Channel(0, "", "PRIMARY"), Channel(1, "Hiking", "SECONDARY")),
)


@dataclass
class FakeDevice:
    """The radio itself: what it remembers over its connections. `make` is a RadioFactory."""

    info: RadioInfo = INFO
    kind: LinkKind = "tcp"
    connect_errors: list[Exception] = field(default_factory=list)  #: one per connect, first first
    results: list[int | None] = field(default_factory=list)  #: per text; None: no queueStatus
    kept: list[RadioEvent] = field(default_factory=list)  #: delivered while the next one connects
    is_off: bool = False
    is_mute: bool = False  #: half-open: takes writes, answers nothing
    free: int = MAX_QUEUE
    connect_gate: threading.Event | None = None  #: connects hang until it is set
    sent: list[OutgoingText] = field(default_factory=list)  #: what went on the air
    swallowed: list[OutgoingText] = field(default_factory=list)  #: repeats on one connection
    keyless: set[int] = field(default_factory=set)  #: nodes whose public key it lacks
    ignores_filler: bool = False  #: packets to itself do not push ids out of its list
    asked: list[int] = field(default_factory=list)  #: nodes that were asked for their node info
    is_alone: bool = False  #: nobody answers such a request
    connections: int = 0
    probes: int = 0

    def __post_init__(self) -> None:
        """Begin without a connection."""
        self._news = threading.Condition()
        self._current: FakeRadio | None = None
        self._ids: deque[int] = deque(maxlen=REMEMBERED_IDS)

    def make(self, emit: Emit) -> "FakeRadio":
        """Prepare one connection."""
        return FakeRadio(self, emit)

    @property
    def current(self) -> "FakeRadio | None":
        """The connection that holds the link."""
        return self._current

    def emit(self, event: RadioEvent) -> None:
        """Let the current connection report something. Fails when there is none."""
        radio = self._current
        if radio is None:
            raise AssertionError("no connection to report on")
        radio.emit(event)

    def lose(self, cause: str = "the connection ended") -> None:
        """End the current connection, as a loss of power or network does."""
        radio, self._current = self._current, None
        if radio is None:
            raise AssertionError("no connection to lose")
        radio.is_up = False
        radio.emit(LinkLost(cause))

    def wait(self, claim: Callable[["FakeDevice"], bool]) -> bool:
        """Wait until a claim about this radio holds, for a limited time."""
        with self._news:
            return self._news.wait_for(lambda: claim(self), LIMIT_S)

    # -- what a connection does ----------------------------------------------------------------

    def open(self, radio: "FakeRadio") -> RadioInfo:
        """Take over the link, as a new TCP client does."""
        if self.connect_gate is not None:
            self.connect_gate.wait()
        if self.connect_errors:
            raise self.connect_errors.pop(0)
        if self.is_off:
            raise LinkDownError("connect: connection refused")
        evicted, self._current = self._current, radio
        if evicted is not None:
            evicted.is_up = False
            evicted.emit(LinkLost("another client took the link"))
        if self.kind == "tcp":
            self._ids.clear()
        radio.is_up = True
        with self._news:
            self.connections += 1
            self._news.notify_all()
        kept, self.kept = self.kept, []
        for event in kept:
            radio.emit(event)
        return self.info

    def take(self, radio: "FakeRadio", text: OutgoingText) -> None:
        """Take a text as the firmware does: a repeated id vanishes without a word."""
        if self.free <= 0:
            raise RadioBusyError("the radio's send queue is full")
        if self.is_mute:
            return
        if text.packet_id in self._ids:
            with self._news:
                self.swallowed.append(text)
                self._news.notify_all()
            return
        self._ids.append(text.packet_id)
        if text.to in self.keyless:
            self._refuse(radio, text.packet_id)
            return
        result = self.results.pop(0) if self.results else 0
        with self._news:
            if not result:
                self.sent.append(text)
            self._news.notify_all()
        if result is not None:
            radio.emit(QueueStatus(text.packet_id, result, free=self.free - 1, maxlen=MAX_QUEUE))

    def _refuse(self, radio: "FakeRadio", packet_id: int) -> None:
        own = self.info.number
        radio.emit(QueueStatus(packet_id, KEY_MISSING, free=self.free, maxlen=MAX_QUEUE))
        radio.emit(RoutingHeard(Envelope(own, own, 8), packet_id, "PKI_SEND_FAIL_PUBLIC_KEY"))

    def ask(self, radio: "FakeRadio", number: int) -> None:
        """Ask a node for its node info; its answer brings the key."""
        if self.free <= 0:
            raise RadioBusyError("the radio's send queue is full")
        with self._news:
            self.asked.append(number)
            self._news.notify_all()
        if self.is_mute:
            return
        radio.emit(QueueStatus(REQUEST_ID, 0, free=self.free - 1, maxlen=MAX_QUEUE))
        if self.is_alone:
            return
        self.keyless.discard(number)
        radio.emit(UserHeard(Envelope(number, self.info.number, 9), "N", f"Node {number:08x}"))

    def push_out(self, radio: "FakeRadio") -> None:
        """Take as many packets to itself as it remembers ids."""
        if not (self.is_mute or self.ignores_filler):
            self._ids.clear()
        self.answer(radio)

    def restart(self) -> None:
        """Lose what is in memory, and with it the connection."""
        self._ids.clear()
        self.kept.clear()
        self.lose("the radio restarted")

    def answer(self, radio: "FakeRadio") -> None:
        """Answer a heartbeat."""
        with self._news:
            self.probes += 1
            self._news.notify_all()
        if self.is_mute:
            raise LinkDownError("no answer to a heartbeat")
        radio.emit(QueueStatus(0, 0, free=self.free, maxlen=MAX_QUEUE))

    def forget(self, radio: "FakeRadio") -> None:
        """Note that a connection was closed from our side."""
        if self._current is radio:
            self._current = None


class FakeRadio:
    """One connection to a FakeDevice (see radio.base.Radio)."""

    def __init__(self, device: FakeDevice, emit: Emit) -> None:
        """Prepare a connection."""
        self.kind = device.kind
        self.is_up = False
        self._device = device
        self._emit = emit
        self._is_closed = False

    def emit(self, event: RadioEvent) -> None:
        """Report; an end that we asked for is no loss."""
        if not (self._is_closed and isinstance(event, LinkLost)):
            self._emit(event)

    def connect(self) -> RadioInfo:
        """Connect once."""
        if self.is_up or self._is_closed:
            raise AssertionError("a radio object lives for one connection")
        return self._device.open(self)

    def send(self, text: OutgoingText) -> None:
        """Hand one text over."""
        self._live()
        self._device.take(self, text)

    def request_user(self, number: int) -> None:
        """Ask a node for its node info."""
        self._live()
        self._device.ask(self, number)

    def forget_ids(self) -> None:
        """Make the device take known ids again."""
        self._live()
        self._device.push_out(self)

    def probe(self) -> None:
        """Ask for a sign of life."""
        self._live()
        self._device.answer(self)

    def close(self) -> None:
        """Drop the connection."""
        self._is_closed = True
        self.is_up = False
        self._device.forget(self)

    def _live(self) -> None:
        if not self.is_up:
            raise LinkDownError("not connected")
