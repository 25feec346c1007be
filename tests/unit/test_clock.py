"""Times as cells, ages over clock jumps, and waits that end early."""

import signal
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm import clock
from meshllm.clock import SystemClock, Waker, parse_utc, utc_text
from meshllm.errors import UserError
from meshllm.testing.clock import NOON, ManualClock

LIMIT_S = 5.0


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001
def test_a_time_reads_back_to_the_second(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)

    assert parse_utc(utc_text(aware)) == aware.replace(microsecond=0)


def test_other_zones_are_written_in_utc() -> None:
    moment = datetime(2026, 3, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))

    assert utc_text(moment) == "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    "cell", ["", "2026-03-01", "2026-03-01 12:00:00", "01/03/2026 12:00", "2026-02-30T12:00:00Z"]
)
def test_a_time_that_an_editor_reformatted_is_no_time(cell: str) -> None:
    assert parse_utc(cell) is None
    assert clock.wall_age_s(ManualClock(), cell) is None


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_durations_are_scaled_and_wall_times_are_not(scale: float) -> None:
    now = ManualClock(scale=scale)
    due = clock.utc_in(now, 300.0)
    began = now.monotonic()

    now.advance(300.0)

    assert now.monotonic() - began == 300.0
    assert due == utc_text(now.utc())
    assert clock.wall_age_s(now, utc_text(NOON)) == pytest.approx(300.0)


def test_age_by_uptime_outlives_a_jump_of_the_wall_clock() -> None:
    now = ManualClock()
    written, up_s = utc_text(now.utc()), clock.uptime_s(now)
    now.advance(60.0)
    now.set_utc(NOON - timedelta(days=400))

    assert clock.age_s(now, written, boot=clock.boot_id(), up_s=up_s) == pytest.approx(60.0)
    assert clock.age_s(now, written, boot="another", up_s=up_s) == -400 * 86_400.0
    assert clock.age_s(now, written, boot=clock.boot_id(), up_s="x") == -400 * 86_400.0


def test_a_wake_up_ends_the_wait_of_another_thread() -> None:
    waker = Waker()
    woken: list[bool] = []
    waiting = threading.Thread(
        target=lambda: woken.append(SystemClock().wait(waker, LIMIT_S)), daemon=True
    )
    waiting.start()

    waker.wake()

    waiting.join(LIMIT_S)
    assert woken == [True]


def test_wake_ups_that_piled_up_end_one_wait() -> None:
    waker = Waker()
    waker.wake()
    waker.wake()

    assert waker.wait_real(LIMIT_S)
    assert not waker.wait_real(0.0)


def test_a_signal_handler_may_wake() -> None:
    waker = Waker()
    before = signal.signal(signal.SIGUSR1, lambda *_: waker.wake())
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert waker.wait_real(LIMIT_S)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("text", "scale"), [("", 1.0), (" 50 ", 50.0), ("0.01", 0.01)])
def test_the_time_scale_comes_from_the_environment(
    text: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(clock.TIME_SCALE_VARIABLE, text)

    assert clock.time_scale_from_environment() == scale


@pytest.mark.parametrize("text", ["fast", "0", "-1", "1001", "nan", "inf"])
def test_an_impossible_time_scale_stops_the_start(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(clock.TIME_SCALE_VARIABLE, text)

    with pytest.raises(UserError, match=clock.TIME_SCALE_VARIABLE):
        clock.time_scale_from_environment()


def test_the_systems_monotonic_clock_runs_as_fast_as_its_scale() -> None:
    plain, fast = SystemClock(), SystemClock(100.0)

    assert fast.monotonic() == pytest.approx(plain.monotonic() * 100, rel=1e-3)
