"""Live is what a restart would help; ready is what a person would notice."""

import pytest

from meshllm.observe.board import (
    LIVE_LIMIT_S,
    AgentState,
    Board,
    KeptBoard,
    RadioState,
    Snapshot,
    StorageState,
    Verdict,
    judge,
)
from meshllm.testing.clock import ManualClock

UP, DOWN = RadioState(is_up=True), RadioState(is_up=False)
THERE = AgentState(is_ready=True, may_call=True, why_not="", questions_open=0)
AWAY = AgentState(is_ready=False, may_call=False, why_not="offline unreachable", questions_open=3)
FRESH = {"main": 1.0}
GOOD = Verdict(live=True, ready=True)


@pytest.mark.parametrize(
    ("role", "seen", "verdict"),
    [
        ("bridge", Snapshot(FRESH, {0: UP}), GOOD),
        ("bridge", Snapshot(FRESH, {0: DOWN, 1: UP}), GOOD),
        (
            "bridge",
            Snapshot(FRESH, {0: DOWN}),
            Verdict(live=True, ready=False, reasons=("no radio is linked",)),
        ),
        (
            "bridge",
            Snapshot(FRESH, {0: UP}, storage=StorageState("read_only", 9)),
            Verdict(live=True, ready=False, reasons=("storage is read_only",)),
        ),
        (
            "bridge",
            Snapshot({"main": 1.0, "radio 1": 300.0}, {0: UP, 1: UP}),
            Verdict(live=False, ready=False, reasons=("radio 1: has not turned for 300 s",)),
        ),
        ("agent", Snapshot(FRESH, agent=THERE), GOOD),
        (
            "agent",
            Snapshot(FRESH, agent=AWAY, storage=StorageState("low", 9)),
            Verdict(
                live=True, ready=False, reasons=("model: offline unreachable", "storage is low")
            ),
        ),
        (
            "agent",
            Snapshot(FRESH),
            Verdict(live=True, ready=False, reasons=("the prompt log is not loaded",)),
        ),
    ],
)
def test_verdicts(role: str, seen: Snapshot, verdict: Verdict) -> None:
    assert judge(role, seen) == verdict


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_a_loop_that_stands_still_is_not_live_until_it_turns_again(scale: float) -> None:
    clock = ManualClock(scale=scale)
    board = KeptBoard(clock)
    board.radio(0, lambda: UP)
    board.turned("radio 0")

    clock.advance((LIVE_LIMIT_S - 1) * scale)
    board.turned()
    assert judge("bridge", board.snapshot()).live

    clock.advance(2 * scale)
    assert not judge("bridge", board.snapshot()).live
    board.turned("radio 0")
    assert judge("bridge", board.snapshot()) == GOOD


def test_a_board_that_nobody_reads_asks_for_nothing() -> None:
    def costly() -> RadioState:
        raise AssertionError("asked")

    Board().radio(0, costly)
