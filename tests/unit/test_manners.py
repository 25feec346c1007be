"""How much of the air one radio takes, and when."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.bridge.manners import BUSY_LIMIT_S, FRESH_S, HOUR_S, Manners, Pace

ADA = "!a11ce001"
BOB = "!b0b00001"


def manners(*, region: str = "US", **fields: float) -> Manners:
    made = Manners(Pace(**fields))
    made.radio(region, "LONG_FAST")
    return made


def measured(made: Manners, now: float, use: float, own: float | None = None) -> None:
    made.measured(now, channel_use=use, own_use=own)


def send(made: Manners, at: float, *, whom: str = ADA, size: int = 200) -> float:
    airtime = made.airtime_s(size, is_dm=True)
    made.note(at, airtime, whom, mark=at)
    return airtime


def test_airtime_is_what_the_air_knows() -> None:
    """200 bytes as an encrypted DM on LongFast: 1,993 ms computed from the formula of the chip."""
    assert manners().airtime_s(200, is_dm=True) == pytest.approx(1.993, abs=0.005)


def test_two_texts_are_at_least_the_spacing_apart() -> None:
    made = manners()
    send(made, 100.0, size=10)

    assert made.wait_s(100.0) == pytest.approx(2.5)
    assert made.wait_s(102.5) == 0.0


def test_without_spacing_quiet_air_asks_for_no_rest() -> None:
    made = manners(spacing_s=0.0)
    send(made, 100.0)
    assert made.wait_s(100.0) == 0.0

    measured(made, 100.0, 12.5)

    assert made.wait_s(100.0) == pytest.approx(4.5 * 1.993, abs=0.05)


def test_a_slow_preset_rests_as_long_as_it_sent() -> None:
    made = manners()
    made.radio("US", "LONG_SLOW")
    airtime = send(made, 0.0)

    assert airtime > 12.0
    assert made.wait_s(0.0) == pytest.approx(airtime)


def test_the_gap_grows_with_the_channel_use() -> None:
    gaps = []
    for use in (0, 5, 12, 20, 25, 39):
        made = manners()
        send(made, 0.0)
        measured(made, 0.0, use)
        gaps.append(made.wait_s(0.0))

    assert gaps == sorted(gaps)
    assert gaps[0] == pytest.approx(2.5)
    assert gaps[4] == pytest.approx(9 * 1.993, abs=0.05)


def test_nothing_goes_out_at_forty_percent_until_it_is_quieter() -> None:
    made = manners()
    measured(made, 0.0, 41.0)

    assert made.hold_reason(1.0) == "CHANNEL_BUSY"
    assert made.wait_s(1.0) == pytest.approx(BUSY_LIMIT_S - 1.0)
    measured(made, 60.0, 30.0)
    assert made.hold_reason(60.0) == ""
    assert made.wait_s(60.0) == 0.0


def test_air_that_is_always_busy_does_not_silence_the_librarian() -> None:
    """After five minutes a text goes out, and then rests nineteen times as long as it took."""
    made = manners()
    for minute in range(10):
        measured(made, 60.0 * minute, 55.0)
    now = 540.0

    assert made.hold_reason(now) == ""
    airtime = send(made, now)
    assert made.wait_s(now) == pytest.approx(19 * airtime)


def test_a_figure_that_is_old_means_nothing() -> None:
    made = manners()
    measured(made, 0.0, 45.0)

    assert made.channel_use(FRESH_S + 1) == 0.0
    assert made.hold_reason(FRESH_S + 1) == ""


def test_dms_come_first_when_the_air_is_short() -> None:
    made = manners()
    measured(made, 0.0, 24.9)
    assert not made.is_short(0.0)

    measured(made, 1.0, 25.0)

    assert made.is_short(1.0)


@pytest.mark.parametrize(("region", "limit"), [("EU_868", 10.0), ("EU_866", 2.5)])
def test_the_regions_duty_cycle_holds_everything(region: str, limit: float) -> None:
    made = manners(region=region)
    now = 0.0
    while made.hold_reason(now) == "":
        now += 1.0
        send(made, now)

    used = 100 * made.own_airtime_s(now) / HOUR_S
    assert 0.9 * limit <= used < 0.9 * limit + 0.1
    assert made.hold_reason(now) == "DUTY_CYCLE"
    assert made.wait_s(now) >= 60.0
    assert made.hold_reason(now + HOUR_S + 1) == ""


def test_what_the_radio_sends_for_others_counts_against_the_duty_cycle() -> None:
    made = manners(region="EU_868")
    measured(made, 0.0, 5.0, own=9.5)

    assert made.hold_reason(0.0) == "DUTY_CYCLE"


def test_a_region_without_a_limit_has_none() -> None:
    made = manners(region="US")
    for second in range(1000):
        send(made, float(second))

    assert made.hold_reason(1000.0) == ""


def test_one_person_cannot_use_up_the_air_of_another() -> None:
    made = manners(budget_s=10.0)
    for second in range(5):
        send(made, float(second))

    assert made.budget_wait_s(10.0, 2.0, ADA) == pytest.approx(HOUR_S - 10.0)
    assert made.budget_wait_s(10.0, 2.0, BOB) == 0.0


def test_a_text_longer_than_the_whole_budget_is_not_stuck_for_ever() -> None:
    made = manners(budget_s=1.0)
    assert made.budget_wait_s(0.0, 2.0, ADA) == 0.0

    send(made, 0.0)

    assert made.budget_wait_s(1.0, 2.0, ADA) == pytest.approx(HOUR_S - 1.0)


def test_without_a_budget_nothing_waits_for_one() -> None:
    made = manners()
    for second in range(5000):
        made.note(float(second), 2.0, ADA, mark=second)

    assert made.budget_wait_s(5000.0, 2.0, ADA) == 0.0


def test_a_try_read_again_from_its_row_counts_once() -> None:
    made = manners(budget_s=10.0)
    for _ in range(9):
        made.note(5.0, 2.0, ADA, mark=(7, 0))

    assert made.own_airtime_s(6.0) == pytest.approx(2.0)


def test_what_an_earlier_run_sent_is_put_in_its_place() -> None:
    made = manners()
    send(made, 100.0)
    send(made, 40.0)

    assert made.wait_s(100.0) == pytest.approx(2.5)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 400.0), st.integers(1, 200), st.sampled_from([ADA, BOB])),
        max_size=60,
    ),
    st.floats(5.0, 60.0),
)
def test_no_hour_ever_holds_more_than_the_budget(
    wishes: list[tuple[float, int, str]], budget_s: float
) -> None:
    made = manners(budget_s=budget_s)
    sent: list[tuple[float, float, str]] = []
    now = 0.0
    for pause, size, whom in wishes:
        now += pause
        airtime = made.airtime_s(size, is_dm=True)
        now += max(made.wait_s(now), made.budget_wait_s(now, airtime, whom))
        while made.budget_wait_s(now, airtime, whom) > 0:
            now += made.budget_wait_s(now, airtime, whom)
        made.note(now, airtime, whom, mark=len(sent))
        sent.append((now, airtime, whom))

    for whom in (ADA, BOB):
        mine = [(at, airtime) for at, airtime, other in sent if other == whom]
        for end, _ in mine:
            window = [airtime for at, airtime in mine if end - HOUR_S + 1e-6 < at <= end]
            assert sum(window) <= budget_s + 1e-6
    times = [at for at, _, _ in sent]
    assert all(later - earlier >= 2.5 - 1e-6 for earlier, later in itertools.pairwise(times))
