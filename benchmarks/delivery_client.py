"""A client of our simulated radio without a socket: its sessions, and the simple ways to send.

The bytes are those of the real protocol, so the radio's limits hold: 20 remembered ids a
connection, one text in two seconds, packets kept while nobody is connected.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.delivery_mesh import OURS, PERSON, Line
from benchmarks.delivery_scenario import Answer, Scenario
from meshllm.sim import wire
from meshllm.sim.packets import Packet, Port, QueueStatus, RoutingError, SendPacket, WantConfig
from meshllm.sim.phone import Session

if TYPE_CHECKING:
    from collections.abc import Callable

_NONCE: Final = 4711


class Client:
    """One client of the radio, connected or not."""

    def __init__(self, line: Line, scenario: Scenario, *, seed: int) -> None:
        self.time = line.time
        self.on_packet: Callable[[Packet], None] = lambda _packet: None
        self.on_queue_status: Callable[[QueueStatus], None] = lambda _status: None
        self.on_up: Callable[[], None] = lambda: None
        self.up_at = 0.0
        self.connections = 0
        self._line = line
        self._step_s = scenario.number("link", "step_s")
        self._reconnect_s = scenario.span("link", "reconnect_s")
        self._rng = random.Random(f"link/{seed}")  # noqa: S311 - no secret
        self._session: Session | None = None
        self._is_reading = False
        line.phone.on_news = self._read_soon

    def connect(self) -> None:
        """Open a connection and read the configuration; `on_up` follows."""
        self.connections += 1
        self._session = Session(self._line.phone)
        self._session.handle(wire.request_bytes(WantConfig(_NONCE)))
        self._read_soon()

    def reconnect(self) -> None:
        """Drop the connection; the next one takes its time. The radio keeps packets meanwhile."""
        self._session = None
        self.time.call_later(self._rng.uniform(*self._reconnect_s), self.connect)

    def send(self, packet: Packet) -> None:
        """Write one packet to the radio; without a connection it is lost."""
        if self._session is not None:
            self._session.handle(wire.request_bytes(SendPacket(packet)))
            self._read_soon()

    def text(self, packet_id: int, text: str, *, reply_id: int) -> Packet:
        """Build a DM to the person as every client does."""
        return Packet(
            sender=OURS,
            to=PERSON,
            id=packet_id,
            payload=text.encode(),
            want_ack=True,
            reply_id=reply_id,
            hop_limit=self._line.hop_limit,
        )

    def _read_soon(self) -> None:
        if self._session is not None and not self._is_reading:
            self._is_reading = True
            self.time.call_later(self._step_s, self._read)

    def _read(self) -> None:
        self._is_reading = False
        session = self._session
        while session is not None and session is self._session:
            message = session.next_message()
            if message is None:
                return
            kind, value = wire.parse_from_radio(message)
            if kind == "packet":
                self.on_packet(value)
            elif kind == "queueStatus":
                self.on_queue_status(value)
            elif kind == "config_complete_id":
                self.up_at = self.time.now()
                self.on_up()


@dataclass(slots=True)
class Outcome:
    """What a sender made of one text."""

    text: str
    ids: list[int] = field(default_factory=list)
    final_at: float | None = None  #: last change of state
    state: str = "queued"
    is_final: bool = False


@dataclass(slots=True)
class _Job:
    outcome: Outcome
    reply_id: int
    is_due: bool = True


class Simple:
    """Policies (a) and (b): each text goes out `tries` times, each time under a new id.

    After `wait_s` without an explicit ACK the next try is due, or the text is final. (a) also
    ends with the radio's NAK.
    """

    def __init__(self, line: Line, scenario: Scenario, *, seed: int, tries: int) -> None:
        self.outcomes: list[Outcome] = []
        self.time = line.time
        self._client = Client(line, scenario, seed=seed)
        self._client.on_packet = self._heard
        self._tries = tries
        self._wait_s = scenario.number("baseline", "final_s" if tries == 1 else "wait_s")
        self._spacing_s = scenario.number("baseline", "spacing_s")
        self._rng = random.Random(f"ids/{seed}")  # noqa: S311 - no secret
        self._jobs: dict[int, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._free_at = 0.0
        self._client.connect()

    def question(self, answer: Answer) -> None:
        """Take note of a question: nothing to do here."""

    def queue(self, answer: Answer) -> None:
        """Send all parts of an answer, one after the other."""
        for text in answer.parts:
            outcome = Outcome(text)
            self.outcomes.append(outcome)
            self._queue.append(_Job(outcome, answer.number + 1))
        self._pump()

    def _pump(self) -> None:
        wait_s = self._free_at - self.time.now()
        if not self._queue:
            return
        if wait_s > 1e-6:
            self.time.call_later(wait_s, self._pump)
            return
        job = self._queue.popleft()
        if not job.outcome.is_final:
            self._try(job)
        self._pump()

    def _try(self, job: _Job) -> None:
        packet_id = self._rng.randrange(1, 2**32)
        outcome = job.outcome
        outcome.ids.append(packet_id)
        self._jobs[packet_id] = job
        self._free_at = self.time.now() + self._spacing_s
        self._client.send(self._client.text(packet_id, outcome.text, reply_id=job.reply_id))
        self._change(outcome, "handed")
        self.time.call_later(self._wait_s, lambda: self._overdue(job, len(outcome.ids)))

    def _overdue(self, job: _Job, tries: int) -> None:
        outcome = job.outcome
        if outcome.is_final or len(outcome.ids) != tries:
            return
        if tries < self._tries:
            self._queue.append(job)
            self._pump()
        else:
            outcome.is_final = True
            self._change(outcome, "unconfirmed")

    def _heard(self, packet: Packet) -> None:
        job = self._jobs.get(packet.request_id) if packet.port == Port.ROUTING else None
        if job is None or job.outcome.state == "delivered":
            return
        error = wire.parse_routing(packet.payload)
        if error is RoutingError.NONE and packet.sender == PERSON:
            job.outcome.is_final = True
            self._change(job.outcome, "delivered")
        elif error is not RoutingError.NONE and self._tries == 1:
            job.outcome.is_final = True
            self._change(job.outcome, "failed")

    def _change(self, outcome: Outcome, state: str) -> None:
        outcome.state = state
        outcome.final_at = self.time.now()
