"""Clocks that are wrong by days, and are set while somebody waits for an answer.

Both services run in this process, so that they can be given a clock that is set; the radio and
the model are the simulator and the server of the other system tests.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from meshllm import app
from meshllm.agent.process import build_agent
from meshllm.app import Service
from meshllm.bridge.service import BridgeService
from meshllm.clock import SystemClock, Waker, parse_utc
from meshllm.config import Settings, parse_link
from meshllm.config.settings import Radio as RadioEntry
from meshllm.observe import status
from meshllm.records import Message, Node
from meshllm.sim.mesh import SimMesh
from meshllm.sim.outcome import Outcome
from meshllm.store.table import Table
from meshllm.testing.clock import SettableClock
from tests.system.world import Model, read, stays, wait_until

SCALE = 20.0
DAYS = timedelta(days=9)
NO_TIME = timedelta()


class _Running:
    """A service on a thread of its own, looped as `app` does."""

    def __init__(self, service: Service, clock: SettableClock, waker: Waker) -> None:
        self._service, self._clock, self._waker = service, clock, waker
        self._is_over = False
        service.start()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._is_over:
            self._clock.wait(self._waker, self._service.tick())

    def stop(self) -> None:
        self._is_over = True
        self._waker.wake()
        self._thread.join(5.0)
        self._service.stop()


class House:
    """A mesh, a model and both services under one clock that may be wrong."""

    def __init__(self, folder: Path, events: list[EventDict]) -> None:
        self.events = events
        self.clock = SettableClock(SCALE)
        self.mesh = SimMesh(clock=SystemClock(SCALE), instant_air=True).start()
        self.radio = self.mesh.add_radio()
        self.ada = self.mesh.add_person("Ada Example")
        self.model = Model()
        self.settings = Settings(
            radios=(RadioEntry(link=parse_link(f"tcp:{self.radio.address}")),),
            data_dir=folder / "data",
            prompts_dir=folder / "prompts",
            ollama_base_url=self.model.url,
        )
        self.files = app.layout_of(self.settings)
        self.tree = self.files.tree(self.radio.node_id)
        self._running: list[_Running] = []

    def start(self, off: timedelta = NO_TIME) -> None:
        """Start both services, with a clock that is wrong by so much."""
        self.clock.off = off
        app._prepare(self.files, self.settings)
        for build in (BridgeService, build_agent):
            waker = Waker()
            service = build(self.settings, self.files, clock=self.clock, waker=waker)
            self._running.append(_Running(service, self.clock, waker))
        wait_until(self.is_up, "the bridge is up")

    def is_up(self) -> bool:
        return status.read(self.tree.radio_status).get("link_state") == "up"

    def stop(self) -> None:
        while self._running:
            self._running.pop().stop()

    def close(self) -> None:
        self.stop()
        self.model.close()
        self.mesh.close()

    def ask(self, text: str) -> int:
        return self.ada.say(text, to=self.radio)

    def rows(self) -> tuple[Message, ...]:
        return read(self.tree.dm_thread(self.ada.node_id))

    def row(self, packet_id: int) -> Message | None:
        return next((r for r in self.rows() if r.message_id == str(packet_id)), None)

    def answer(self, packet_id: int) -> Message | None:
        found = [r for r in self.rows() if r.is_outgoing and r.reply_to_id == str(packet_id)]
        assert len(found) <= 1, found
        return found[0] if found else None

    def wait_delivered(self, *packet_ids: int) -> None:
        """Wait until each of these is answered, and check that each was answered once."""
        for packet_id in packet_ids:
            wait_until(lambda i=packet_id: self._is_delivered(i), f"answer to {packet_id}")  # type: ignore[misc]
        heard = [h.reply_id for h in self.ada.heard if h.is_dm]
        assert sorted(heard) == sorted(packet_ids)

    def _is_delivered(self, packet_id: int) -> bool:
        row = self.answer(packet_id)
        return row is not None and row.meta.get("delivery") == "delivered"

    def off_by(self, row: Message | None) -> timedelta:
        """How wrong a row's time is, in whole hours."""
        moment = parse_utc(row.timestamp) if row else None
        assert moment is not None
        hours = (moment - SystemClock().utc()) / timedelta(hours=1)
        return timedelta(hours=round(hours))

    def count(self, event: str) -> int:
        return sum(e["event"] == event for e in self.events)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with capture_logs() as events, ExitStack() as stack:
        made = House(tmp_path, events)
        stack.callback(made.close)
        yield made


def hold_answers(house: House) -> Callable[[], None]:
    """Let the model wait with its answers until the returned function is called."""
    gate = threading.Event()

    def answer() -> str:
        gate.wait(10)
        return "At last."

    house.model.answers["slow"] = answer
    return gate.set


@pytest.mark.parametrize("off", [-DAYS, DAYS], ids=["behind", "ahead"])
def test_a_clock_that_is_set_while_somebody_waits_costs_nothing(
    house: House, off: timedelta
) -> None:
    house.start(off)
    before = house.ask("asked before")
    house.wait_delivered(before)
    release = hold_answers(house)
    during = house.ask("slow")
    wait_until(lambda: house.model.calls_about("slow"), "the model is asked")

    house.clock.off = NO_TIME
    release()
    house.wait_delivered(before, during)
    after = house.ask("asked after")
    house.wait_delivered(before, during, after)

    assert [house.off_by(house.row(i)) for i in (before, during)] == [off, off]
    assert [house.off_by(house.answer(i)) for i in (during, after)] == [NO_TIME, NO_TIME]
    assert house.off_by(house.row(after)) == NO_TIME
    assert house.count("question_skipped") == 0


@pytest.mark.parametrize(
    ("off", "is_restarted"),
    [(-DAYS, False), (DAYS, False), (-DAYS, True)],
    ids=["behind", "ahead", "behind, restarted"],  # ahead, restarted: after five minutes at most
)
def test_an_answer_that_was_put_off_goes_out_though_the_clock_was_set(
    house: House, off: timedelta, is_restarted: bool
) -> None:
    house.radio.script_next(Outcome.nak("RATE_LIMIT_EXCEEDED"))
    house.start(off)
    question = house.ask("when will it come?")
    wait_until(lambda: (r := house.answer(question)) and r.meta.get("due_at"), "put off")
    # Noted by now: set in the very moment of the write, the clock costs the longest pause.
    assert stays(house.is_up, 0.1)
    if is_restarted:
        house.stop()

    house.clock.off = NO_TIME
    if is_restarted:
        house.start()

    house.wait_delivered(question)


def test_a_question_of_the_wrong_time_is_answered_after_a_restart_with_the_right_one(
    house: House,
) -> None:
    """No clock chip: the question came in before the time was set, and power did not fail."""
    house.start(-DAYS)
    release = hold_answers(house)
    question = house.ask("slow")
    wait_until(lambda: house.row(question), "question on disk")
    house.stop()
    release()

    house.start()

    house.wait_delivered(question)


@pytest.mark.parametrize(
    "radio_off_s", [-(10**8), 10**8, -7200], ids=["years behind", "years ahead", "two hours behind"]
)
def test_texts_kept_by_a_radio_whose_clock_is_wrong_have_the_time_of_connecting(
    house: House, radio_off_s: int
) -> None:
    house.start()
    house.wait_delivered(first := house.ask("asked before"))
    house.mesh.engine.call(
        lambda: setattr(
            house.radio.station,
            "wall",
            lambda: int(SystemClock().utc().timestamp()) + radio_off_s,
        )
    )
    house.radio.stall()
    house.radio.disconnect()
    kept = house.ask("kept for you")
    assert house.ada.wait_delivery(kept, 5)
    house.radio.resume()
    house.wait_delivered(first, kept)

    assert house.off_by(house.row(kept)) == NO_TIME


def test_a_node_heard_while_the_clock_was_ahead_is_last_seen_now(house: House) -> None:
    house.start(DAYS)
    house.wait_delivered(first := house.ask("in the future"))
    house.stop()

    house.start()
    house.wait_delivered(first, house.ask("in the present"))
    house.stop()

    nodes = Table(house.tree.nodes, Node).read().rows
    seen = {row.node_id: row.last_seen_at for row in nodes}[house.ada.node_id]
    moment = parse_utc(seen)
    assert moment is not None
    assert abs(moment - SystemClock().utc()) < timedelta(minutes=1)
