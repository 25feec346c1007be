"""Kill -9 between any two steps: every question on disk still gets exactly one answer.

The steps are held open from outside: a process stands still in front of a lock that the test
holds, in front of a model that does not answer yet, or of a radio that does not read.
"""

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from _pytest.mark.structures import ParameterSet

from meshllm.clock import SystemClock, Waker
from meshllm.records import Message
from meshllm.sim.people import Heard, Person
from meshllm.sim.station import HISTORY_SIZE
from meshllm.testing.ollama_server import End, Reply
from tests.system.conftest import MakeWorld
from tests.system.world import ROLES, World, stays, tries, wait_until

SOAK_QUESTIONS, SOAK_KILLS = 1000, 200
QUIET_S = 0.15  #: real seconds without news after which nothing more is expected
HEARD_EVERY_S = 200.0  #: scaled seconds between two packets of a person while the soak settles
TWO_PARTS = "The well is behind the old school. " * 9


@dataclass(frozen=True)
class Asked:
    """A question, and what has become of it so far."""

    world: World
    person: Person
    packet_id: int
    text: str

    @property
    def replies(self) -> list[Message]:
        return self.world.replies(self.person, self.packet_id)

    def is_tried(self) -> bool:
        return any(tries(row) for row in self.replies)

    def is_with_the_radio(self) -> bool:
        taken = {item.packet.id for item in self.world.radio.sent}
        return any(int(row.message_id) in taken for row in self.replies)

    def is_delivered(self) -> bool:
        return bool(self.replies) and all(
            row.meta.get("delivery") == "delivered" for row in self.replies
        )


@dataclass(frozen=True)
class Scene:
    """One question brought to one step; `ending` lets go of what holds it there."""

    world: World
    person: Person
    ending: ExitStack = field(default_factory=ExitStack)

    def ask(self, text: str) -> Asked:
        return Asked(self.world, self.person, self.person.say(text, to=self.world.radio), text)

    def ask_a_frozen_agent(self, text: str) -> Asked:
        """Bring a question to disk that the agent looks at after `thaw`."""
        self.world.freeze("agent")
        self.ending.callback(self.world.thaw)
        asked = self.ask(text)
        wait_until(lambda: self.world.question(self.person, asked.packet_id), "question on disk")
        return asked

    def lock_thread(self) -> None:
        self.ending.enter_context(self.world.locked(self.world.dm_file(self.person)))


def question_is_on_disk(scene: Scene) -> Asked:
    return scene.ask_a_frozen_agent("step one?")


def model_is_working(scene: Scene) -> Asked:
    answers = scene.world.model.answers
    answers["step two?"] = Reply(end=End.HANG)
    scene.ending.callback(answers.pop, "step two?")
    asked = scene.ask("step two?")
    wait_until(lambda: scene.world.model.calls_about(asked.text), "the model is asked")
    return asked


def page_is_written(scene: Scene) -> Asked:
    scene.ending.enter_context(scene.world.locked(scene.world.files.prompts_table))
    asked = scene.ask("step three?")
    wait_until(lambda: scene.world.pages(asked.packet_id), "the page")
    assert scene.world.prompts(asked.packet_id) == []
    return asked


def prompt_row_is_written(scene: Scene) -> Asked:
    asked = scene.ask_a_frozen_agent("step four?")
    scene.lock_thread()
    scene.world.thaw("agent")
    wait_until(lambda: scene.world.prompts(asked.packet_id), "the row in prompts.csv")
    assert asked.replies == []
    return asked


def reply_is_queued(scene: Scene) -> Asked:
    asked = scene.ask_a_frozen_agent("step five?")
    with scene.world.locked(scene.world.dm_file(scene.person)):
        scene.world.freeze("bridge")  # not while it holds the lock that the agent needs
    scene.world.thaw("agent")
    wait_until(lambda: asked.replies, "the reply is queued")
    assert not asked.is_tried()
    return asked


def intent_is_written_and_the_radio_is_deaf(scene: Scene) -> Asked:
    asked = scene.ask_a_frozen_agent("step six?")
    scene.world.radio.half_open()
    scene.world.thaw("agent")
    wait_until(asked.is_tried, "the intent on disk")
    assert not asked.is_with_the_radio()
    return asked


def packet_is_in_the_socket(scene: Scene) -> Asked:
    asked = scene.ask_a_frozen_agent("step seven?")
    scene.world.radio.stall()
    scene.ending.callback(scene.world.radio.resume)
    scene.world.thaw("agent")
    wait_until(asked.is_tried, "the intent on disk")
    return asked


def radio_has_it_and_no_result_is_written(scene: Scene) -> Asked:
    asked = packet_is_in_the_socket(scene)
    scene.lock_thread()
    scene.world.radio.resume()
    wait_until(lambda: scene.person.heard, "the person heard the answer")
    assert [t.get("result") for t in tries(asked.replies[0])] == [None]
    return asked


def first_of_two_parts_is_out(scene: Scene) -> Asked:
    answers = scene.world.model.answers
    answers["step eight?"] = Reply(TWO_PARTS)
    scene.ending.callback(answers.pop, "step eight?")
    asked = scene.ask("step eight?")
    wait_until(lambda: scene.person.heard, "the person heard the first part")
    return asked


def answer_is_delivered(scene: Scene) -> Asked:
    asked = scene.ask("step nine?")
    wait_until(asked.is_delivered, "the answer is delivered")
    return asked


Step = Callable[[Scene], Asked]
AGENT, BRIDGE, BOTH = ("agent",), ("bridge",), ROLES
KILLS: list[tuple[Step, tuple[str, ...]]] = [
    (question_is_on_disk, AGENT),
    (model_is_working, BOTH),
    (page_is_written, AGENT),
    (prompt_row_is_written, BOTH),
    (reply_is_queued, BRIDGE),
    (intent_is_written_and_the_radio_is_deaf, BRIDGE),
    (packet_is_in_the_socket, BRIDGE),
    (radio_has_it_and_no_result_is_written, BRIDGE),
    (radio_has_it_and_no_result_is_written, BOTH),
    (first_of_two_parts_is_out, BRIDGE),
    (answer_is_delivered, BOTH),
]
#: The same steps with the other victims: no new path through the code, so left to the soak.
MORE_KILLS: list[tuple[Step, tuple[str, ...]]] = [
    (question_is_on_disk, BOTH),
    (model_is_working, AGENT),
    (page_is_written, BOTH),
    (prompt_row_is_written, AGENT),
    (reply_is_queued, BOTH),
    (intent_is_written_and_the_radio_is_deaf, BOTH),
    (packet_is_in_the_socket, BOTH),
    (first_of_two_parts_is_out, BOTH),
]


def _case(kill: tuple[Step, tuple[str, ...]], *marks: pytest.MarkDecorator) -> ParameterSet:
    return pytest.param(*kill, marks=marks, id=f"{kill[0].__name__}-{'+'.join(kill[1])}")


@pytest.mark.parametrize(
    ("reach", "victims"),
    [*map(_case, KILLS), *(_case(kill, pytest.mark.slow) for kill in MORE_KILLS)],
)
def test_kill_leaves_exactly_one_answer(
    world: World, reach: Step, victims: tuple[str, ...]
) -> None:
    scene = Scene(world, world.newcomer())

    with scene.ending:
        asked = reach(scene)
        logged_calls = len(world.pages(asked.packet_id))
        calls = world.model.calls_about(asked.text)
        world.kill(*victims)
    world.start(*victims)

    assert_answered_once(asked)
    if logged_calls:
        assert world.model.calls_about(asked.text) == calls


def assert_answered_once(asked: Asked) -> None:
    """Wait for the answer, then for silence, and look at every trace that it left."""
    world, person = asked.world, asked.person
    wait_until(asked.is_delivered, "the answer is delivered")
    rows = asked.replies
    assert stays(lambda: asked.replies == rows, QUIET_S)
    assert [row.meta["part"] for row in rows] == list(range(1, rows[0].meta["parts"] + 1))
    texts = [heard.text for heard in person.heard if heard.is_dm]
    assert texts == [row.content for row in rows]
    assert len([r for r in world.rows(person) if not r.is_outgoing]) == 1
    [logged] = world.prompts(asked.packet_id)
    assert logged.response_message_id == rows[0].message_id
    assert len(world.pages(asked.packet_id)) == 1


def test_text_that_dies_with_the_bridge_before_its_commit_is_all_that_is_lost(
    world: World,
) -> None:
    ada = world.newcomer()
    world.freeze("bridge")
    lost = ada.say("the one that is lost", to=world.radio)
    assert ada.wait_delivery(lost, 5) is not None

    world.kill("bridge")
    wait_until(lambda: not world.radio.is_connected, "the radio has noticed")
    asked = Asked(world, ada, ada.say("and the next one?", to=world.radio), "and the next one?")
    world.start("bridge")

    assert_answered_once(asked)
    assert world.question(ada, lost) is None


def test_kills_at_random_moments_leave_one_answer_each(world: World) -> None:
    random_source = random.Random(20)
    waker, clock = Waker(), SystemClock()
    people = [world.newcomer() for _ in range(3)]
    asked: list[Asked] = []
    for turn in range(6):
        person = people[turn % 3]
        text = f"random question {turn}?"
        asked.append(Asked(world, person, person.say(text, to=world.radio), text))

        kill_at = clock.monotonic() + random_source.uniform(0, 0.25)
        victims = random_source.choice([AGENT, BRIDGE, BOTH])
        while (left_s := kill_at - clock.monotonic()) > 0:
            waker.wait_real(left_s)
        world.kill(*victims)
        world.start(*victims)

    assert_all_answered_once(asked)


def assert_all_answered_once(asked: list[Asked]) -> None:
    """Every question that reached the disk: one reply, seen once; the last of a burst."""
    recorded = [a for a in asked if a.world.question(a.person, a.packet_id)]
    latest = {a.person.num: a for a in recorded}
    for one in latest.values():
        wait_until(one.is_delivered, f"answer to {one.text}")
    for one in recorded:
        if one.replies:  # a kill may have cost the ACK: the repeat comes half a minute later
            wait_until(one.is_delivered, f"answer to {one.text}", 60.0)
        assert len(one.replies) <= 1
        assert one.replies or latest[one.person.num] is not one
        contents = [row.content for row in one.replies if row.meta.get("delivery") == "delivered"]
        texts = [heard.text for heard in one.person.heard if heard.reply_id == one.packet_id]
        assert texts == contents
        assert len(one.world.prompts(one.packet_id)) == len(one.replies)


@dataclass
class Soak:
    """Twenty people who talk for minutes to processes that are killed all the time."""

    world: World
    people: list[Person]
    asked: list[Asked] = field(default_factory=list)
    busy: dict[int, tuple[Asked, float]] = field(default_factory=dict)

    def talk(self, now: float, limit: int) -> None:
        """Let everybody ask who has heard an answer, or has waited too long for one."""
        for person in self.people:
            if len(self.asked) >= limit:
                return
            waiting = self.busy.get(person.num)
            if waiting and now < waiting[1] and not self.is_heard(waiting[0]):
                continue
            text = f"question {len(self.asked)} of the soak?"
            packet_id = person.say(text, to=self.world.radio)
            asked = Asked(self.world, person, packet_id, text)
            self.asked.append(asked)
            self.busy[person.num] = (asked, now + 20.0)

    def is_heard(self, asked: Asked) -> bool:
        return any(heard.reply_id == asked.packet_id for heard in asked.person.heard)

    def is_settled(self) -> bool:
        rows = [row for person in self.people for row in self.world.rows(person)]
        return not any(
            row.direction == "queued" or row.meta.get("delivery") in {"handed", "relayed"}
            for row in rows
            if row.is_outgoing
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_soak_of_many_kills_on_a_lossy_mesh(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    random_source = random.Random(2)
    limits = {"AIRTIME_BUDGET": "0", "MAX_ANSWERS_PER_HOUR": "0"}  # nobody asks so much
    world = make_world(seed=2, settings=limits)
    people = [world.newcomer(f"Person {n}") for n in range(20)]
    for person in people:
        world.mesh.link(world.radio, person, loss=0.1)
    soak = Soak(world, people)
    waker, clock = Waker(), SystemClock()
    world.start()
    kills = 0
    started = clock.monotonic()

    while kills < SOAK_KILLS or len(soak.asked) < SOAK_QUESTIONS:
        limit = SOAK_QUESTIONS * (kills + 1) // SOAK_KILLS
        next_kill = clock.monotonic() + random_source.uniform(0.05, 1.6)
        while clock.monotonic() < next_kill:
            soak.talk(clock.monotonic(), limit)
            waker.wait_real(0.02)
        if kills < SOAK_KILLS:
            victims = random_source.choice([AGENT, BRIDGE, BOTH])
            world.kill(*victims)
            world.start(*victims)
            kills += 1
    talked_s = clock.monotonic() - started
    for person in people:
        # What is held for somebody goes out when they are heard.
        person.send_user(every_s=HEARD_EVERY_S)
    wait_until(soak.is_settled, "every row is final", 240)

    figures = _figures(soak)
    with capsys.disabled():
        print(f"\nsoak: {kills} kills in {talked_s:.0f} s, " + _rendered(figures))  # noqa: T201
    assert figures["answered twice"] == 0
    assert figures["open on disk"] == 0
    assert figures["heard twice"] == 0
    assert figures["delivered and not heard"] == 0
    assert figures["logged twice"] == 0


def _rendered(figures: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in figures.items())


def _packets_between(world: World, found: list[Heard]) -> int:
    """Count the packets on the air between two copies: a radio remembers only so many."""
    start, end = found[0].at, found[-1].at
    on_air = world.mesh.air.log.items()
    return len({(p.packet.sender, p.packet.id) for p in on_air if start < p.at < end})


def _figures(soak: Soak) -> dict[str, int]:
    world = soak.world
    latest: dict[int, Asked] = {}
    recorded: list[Asked] = []
    for asked in soak.asked:
        if world.question(asked.person, asked.packet_id):
            recorded.append(asked)
            if asked.replies:
                latest[asked.person.num] = asked
    position = {a.packet_id: n for n, a in enumerate(recorded)}
    acknowledged = {
        d.packet_id
        for person in soak.people
        for d in person.deliveries.items()
        if d.error == 0 and d.reported_by == world.radio.num
    }
    replies = {a.packet_id: a.replies for a in recorded}
    heard = {a.packet_id: world.answers_heard(a.person, a.packet_id) for a in recorded}
    times_heard = {packet_id: len(found) for packet_id, found in heard.items()}
    again = [found for found in heard.values() if len(found) > 1]
    forgotten = sum(_packets_between(world, found) >= HISTORY_SIZE for found in again)
    states = [row.meta.get("delivery") or "failed" for rows in replies.values() for row in rows]
    closed_to = {num: position[a.packet_id] for num, a in latest.items()}
    on_disk = {a.packet_id for a in recorded}
    return {
        "asked": len(soak.asked),
        "on disk": len(recorded),
        "acknowledged by our radio and never on disk": sum(
            a.packet_id in acknowledged and a.packet_id not in on_disk for a in soak.asked
        ),
        "answered": sum(bool(rows) for rows in replies.values()),
        "delivered": states.count("delivered"),
        "unconfirmed": states.count("unconfirmed"),
        "failed": states.count("failed"),
        "answered twice": sum(len(rows) > 1 for rows in replies.values()),
        "open on disk": sum(
            not replies[a.packet_id] and position[a.packet_id] > closed_to.get(a.person.num, -1)
            for a in recorded
        ),
        "heard again by a radio that had forgotten": forgotten,
        "heard twice": len(again) - forgotten,
        "delivered and not heard": sum(
            row.meta.get("delivery") == "delivered" and not times_heard[packet_id]
            for packet_id, rows in replies.items()
            for row in rows
        ),
        "logged twice": sum(len(world.prompts(a.packet_id)) > 1 for a in recorded),
    }
