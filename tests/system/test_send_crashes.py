"""What goes on the air when the bridge, or the power, dies before any single step of a send.

A run kills a real bridge before one step, by the step's number, and starts another on what is left;
the simulated radio and the person go on meanwhile. The steps are every change of a thread file and
every text written to the radio. The everyday runs take every step of the simplest send and some
of the others; the slow ones take all.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from meshllm.sim.outcome import Outcome
from tests.system.crash_runs import (
    FIRST_ID,
    Beside,
    Death,
    Driver,
    Fate,
    Run,
    Scenario,
    complaints,
    perform,
    running_driver,
)

AT_ONCE = 8  #: runs beside each other; most of a run is waiting
FAST = 80.0  #: for sends with the long waits of a repeat in them
ONE = Scenario("one part")
TWO = Scenario("two parts", texts=("(1/2) Boil it.", "(2/2) For a minute."))
CHANNEL = Scenario("channel answer", is_dm=False)
LOST_ON_AIR = Scenario("MAX_RETRANSMIT", script=(Outcome.nak("MAX_RETRANSMIT"),), scale=FAST)
SEEN_AND_REFUSED = Scenario(
    "MAX_RETRANSMIT for a text that was seen", script=(Outcome.delivered_but_nak(),), scale=FAST
)
SILENT = Scenario("silent loss", script=(Outcome.lost(),), scale=FAST)
SEEN_IN_SILENCE = Scenario("seen, and every ACK lost", script=(Outcome.acks(),), scale=FAST)
LOST_ON_CHANNEL = Scenario("channel, lost by the radio", is_dm=False, script=(Outcome.lost(),))
SERIAL = Scenario("one part over a cable", is_serial=True)
SENDS = (ONE, TWO, CHANNEL, LOST_ON_AIR, SEEN_AND_REFUSED, SILENT, SEEN_IN_SILENCE)
#: Everyday: which steps are taken; different ones of equal commits.
STRIDES = {ONE.name: 1, TWO.name: 7, CHANNEL.name: 3, SEEN_AND_REFUSED.name: 7}
EVERYDAY = [s for s in SENDS if s.name in STRIDES]
#: Steps around which a power cut leaves something else than a kill, and the hand-over.
TELLING = {("fsync", "folder"), ("close", "temp"), ("radio", "text")}
BOTH: Sequence[Death] = ("lost", "kept")

PerformAll = Callable[[Scenario, Sequence[Fate]], list[Run]]
by_name = pytest.mark.parametrize("scenario", SENDS, ids=lambda scenario: scenario.name)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with running_driver() as running:
        yield running


@pytest.fixture
def perform_all(driver: Driver, tmp_path: Path) -> PerformAll:
    """Perform runs beside each other; first fate first."""
    numbers = count()

    def perform_all(scenario: Scenario, fates: Sequence[Fate]) -> list[Run]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(
                pool.map(
                    lambda f: perform(driver, tmp_path / str(next(numbers)), scenario, f), fates
                )
            )

    return perform_all


@pytest.fixture
def steps_of(perform_all: PerformAll) -> Callable[[Scenario], list[tuple[str, str]]]:
    """Count the steps of a send that nothing disturbs."""

    def steps_of(scenario: Scenario) -> list[tuple[str, str]]:
        (run,) = perform_all(scenario, [Fate()])
        assert complaints(run) == [], run
        return [(call, what) for call, what in run.steps]

    return steps_of


StepsOf = Callable[[Scenario], list[tuple[str, str]]]


def assert_clean(runs: Sequence[Run], *, most_seen: int = 1) -> None:
    found = {str(run): said for run in runs if (said := complaints(run, most_seen=most_seen))}
    report = "\n".join(f"{run}\n  -> {'; '.join(said)}" for run, said in found.items())
    assert not found, f"{len(found)} of {len(runs)} runs:\n{report}"


def fates(steps: range, *, deaths: Sequence[Death] = ("kill",), beside: Beside = "") -> list[Fate]:
    return [Fate(step, death, beside) for step in steps for death in deaths]


# A kill


@pytest.mark.parametrize("scenario", EVERYDAY, ids=lambda scenario: scenario.name)
def test_a_bridge_killed_before_a_step_leaves_one_answer_under_one_id(
    perform_all: PerformAll, steps_of: StepsOf, scenario: Scenario
) -> None:
    steps = steps_of(scenario)
    stride = STRIDES[scenario.name]

    assert len(steps) > 20
    assert steps.count(("radio", "text")) >= len(scenario.texts)
    assert_clean(perform_all(scenario, fates(range(stride // 2, len(steps), stride))))


@by_name
@pytest.mark.parametrize("beside", ["", "radio"])
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_step_of_every_send_may_be_the_last_before_a_kill(
    perform_all: PerformAll, steps_of: StepsOf, scenario: Scenario, beside: Beside
) -> None:
    runs = perform_all(scenario, fates(range(len(steps_of(scenario))), beside=beside))

    assert_clean(runs)


# A power cut


@pytest.mark.parametrize("scenario", [ONE, CHANNEL], ids=lambda scenario: scenario.name)
def test_a_power_cut_around_a_flush_leaves_one_answer_under_one_id(
    perform_all: PerformAll, steps_of: StepsOf, scenario: Scenario
) -> None:
    steps = [number for number, step in enumerate(steps_of(scenario)) if step in TELLING]

    runs = perform_all(scenario, [Fate(step, death) for step in steps for death in BOTH])

    assert_clean(runs)
    # The two ends of a cut differ: names that were not flushed are lost, or kept.
    assert any(
        lost.rows_at_death != kept.rows_at_death
        for lost, kept in zip(runs[::2], runs[1::2], strict=True)
    )


@by_name
@pytest.mark.parametrize("beside", ["", "radio"])
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_step_of_every_send_may_be_the_last_before_a_power_cut(
    perform_all: PerformAll, steps_of: StepsOf, scenario: Scenario, beside: Beside
) -> None:
    steps = range(len(steps_of(scenario)))

    assert_clean(perform_all(scenario, fates(steps, deaths=BOTH, beside=beside)))


def test_a_radio_that_loses_its_power_too_sends_the_answer_once(
    perform_all: PerformAll, steps_of: StepsOf
) -> None:
    """The radio's queue and its memory of ids are gone; the person's radio remembers."""
    steps = range(3, len(steps_of(ONE)), 8)

    assert_clean(perform_all(ONE, fates(steps, deaths=["lost"], beside="radio")))


# A serial radio


def test_a_serial_radio_that_stays_silent_on_the_repeat_has_had_the_text(
    perform_all: PerformAll, steps_of: StepsOf
) -> None:
    """Its memory of ids outlives the bridge, and the ACK went to nobody."""
    steps = steps_of(SERIAL)
    over = steps.index(("radio", "text"))
    settled = over + steps[over:].index(("fsync", "folder"))

    before, *after = perform_all(SERIAL, fates(range(over, settled, 2)))

    assert complaints(before) == [], before
    for run in after:
        assert complaints(run) == [f"{FIRST_ID} ended as unconfirmed"], run
        assert run.handed_before == [FIRST_ID]


# What the promises leave out


def test_only_a_person_whose_radio_restarted_meanwhile_sees_an_answer_twice(
    perform_all: PerformAll, steps_of: StepsOf
) -> None:
    steps = steps_of(ONE)
    over = steps.index(("radio", "text"))

    runs = perform_all(ONE, fates(range(over - 3, len(steps), 4), beside="person"))

    assert_clean(runs, most_seen=2)
    twice = [run for run in runs if run.sees == [2]]
    assert twice
    assert all(run.handed_before == [FIRST_ID] for run in twice)
    assert {frozenset(*run.ids) for run in runs} == {frozenset({FIRST_ID})}


def test_a_channel_text_that_dies_with_the_radio_after_its_hand_over_is_not_repeated(
    perform_all: PerformAll, steps_of: StepsOf
) -> None:
    """Nobody acknowledges a broadcast: once `handed` is on disk, it is final and says no more."""
    steps = steps_of(CHANNEL)
    after = range(len(steps) - 1, steps.index(("radio", "text")), -3)

    runs = perform_all(LOST_ON_CHANNEL, fates(after, beside="radio"))

    for run in runs:
        was_settled = run.rows_at_death[1].meta.get("delivery") == "handed"
        assert run.sees == ([0] if was_settled else [1]), run
        assert run.rows[1].meta["delivery"] == "handed", run
    assert {run.sees[0] for run in runs} == {0, 1}


# Controls: the same runs must find what is wrong on purpose


def test_a_bridge_that_draws_an_id_per_hand_over_is_caught(
    perform_all: PerformAll, steps_of: StepsOf
) -> None:
    over = steps_of(ONE).index(("radio", "text"))

    runs = perform_all(ONE, [Fate(over + n, control="own ids") for n in range(1, 8, 3)])

    for run in runs:
        assert any(said.startswith("seen more than once") for said in complaints(run)), run


def test_a_bridge_that_settles_before_it_sends_is_caught(
    perform_all: PerformAll, steps_of: StepsOf
) -> None:
    # Its first steps are those of the intent and the result; the hand-over comes after them.
    steps = steps_of(CHANNEL)
    settling = range(steps.index(("radio", "text")), len(steps))

    runs = perform_all(CHANNEL, [Fate(step, control="hasty") for step in settling])

    assert any("never seen: [0]" in complaints(run) for run in runs), runs


def test_a_disk_that_flushes_nothing_is_caught(perform_all: PerformAll, steps_of: StepsOf) -> None:
    over = steps_of(ONE).index(("radio", "text"))

    lost, kept = perform_all(ONE, [Fate(over + 1, death, control="lying disk") for death in BOTH])

    assert any(said.startswith("on the air before it was on disk") for said in complaints(lost))
    assert any(said.startswith("rows lost or doubled") for said in complaints(kept))
