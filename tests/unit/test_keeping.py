"""Which archived batches go: oldest first, within limits, whatever the clock does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.keeping import (
    Batch,
    Calendar,
    Limits,
    candidates,
    days_in,
    last_month,
    leaving,
    month_in,
    month_of,
)

NOW = datetime(2026, 6, 15, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = [f"2026-{n:02}" for n in range(1, 7)]


def month(text: str) -> int:
    found = last_month(text)
    assert found is not None
    return found


def calendar(*recorded: str, now: datetime = NOW) -> Calendar:
    months = [month(period) for period in recorded or YEAR]
    return Calendar.of(months, now=now, young_from=now - 2 * DAY)


def batch(period: str, name: str = "a", **figures: int) -> Batch:
    return Batch(name, period, **figures)


BATCHES = [batch(period, count=10, size_bytes=1000) for period in YEAR]


def gone(batches: list[Batch], limits: Limits, at: Calendar | None = None) -> list[tuple[str, str]]:
    found = leaving(batches, limits, at or calendar())
    return [(one.batch.period, one.reason) for one in found]


def test_without_limits_nothing_goes() -> None:
    assert not Limits().are_set
    assert gone(BATCHES, Limits()) == []


def test_a_month_goes_when_the_whole_months_after_it_reach_the_limit() -> None:
    assert gone(BATCHES, Limits(days=31 + 30 + 31)) == [("2026-01", "age"), ("2026-02", "age")]
    assert gone(BATCHES, Limits(days=31 + 30 + 31 + 1)) == [("2026-01", "age")]


def test_at_least_the_wanted_number_of_calls_stays() -> None:
    assert gone(BATCHES, Limits(count=41)) == [("2026-01", "count")]
    assert gone(BATCHES, Limits(count=40)) == [("2026-01", "count"), ("2026-02", "count")]


def test_the_oldest_go_until_the_size_is_kept() -> None:
    assert gone(BATCHES, Limits(size_bytes=6000)) == []
    assert gone(BATCHES, Limits(size_bytes=4500)) == [("2026-01", "size"), ("2026-02", "size")]


def test_what_must_stay_counts_against_the_limits() -> None:
    rest = Batch("live", "", count=100, size_bytes=9000)

    found = leaving(BATCHES, Limits(size_bytes=13_500), calendar(), rest=rest)

    assert [one.batch.period for one in found] == ["2026-01", "2026-02"]


def test_this_month_and_what_is_younger_than_two_days_stay_whatever_the_limits() -> None:
    tiny = Limits(days=1, count=1, size_bytes=1)
    early = datetime(2026, 6, 2, tzinfo=UTC)

    assert [period for period, _ in gone(BATCHES, tiny)] == YEAR[:5]
    assert [period for period, _ in gone(BATCHES, tiny, calendar(now=early))] == YEAR[:4]


def test_a_year_goes_when_its_last_month_may() -> None:
    recorded = ("2025-11", "2025-12", *YEAR)
    batches = [batch("2025"), batch("2026")]

    assert gone(batches, Limits(days=151), calendar(*recorded)) == [("2025", "age")]
    assert gone(batches, Limits(days=152), calendar(*recorded)) == []


def test_files_without_a_date_stay() -> None:
    odd = [batch("undated", size_bytes=9), batch("2026-13", size_bytes=9)]

    assert gone(odd, Limits(days=1, size_bytes=1)) == []


def test_a_clock_that_jumps_by_years_makes_nothing_old() -> None:
    jumped = calendar(*YEAR[:4], "2040-05", now=datetime(2040, 5, 3, tzinfo=UTC))
    later = calendar(*YEAR[:4], "2040-05", "2040-06", now=datetime(2040, 6, 9, tzinfo=UTC))

    for at in (jumped, later):
        assert at.age_days(month("2026-04")) == at.age_days(month("2026-03")) == 0
        assert at.age_days(month("2026-01")) == 28 + 31
        assert gone(BATCHES[:4], Limits(days=60), at) == []


def test_a_clock_that_is_behind_lets_nothing_go() -> None:
    behind = calendar(now=datetime(2020, 1, 1, tzinfo=UTC))

    assert gone(BATCHES, Limits(days=1, count=1, size_bytes=1), behind) == []


def test_parts_go_in_their_order() -> None:
    parts = [batch("2026-01", name, part=n) for n, name in ((2, "x"), (1, "x"), (1, "w"))]

    found = [(b.name, b.part) for b in candidates(parts, calendar())]
    assert found == [("w", 1), ("x", 1), ("x", 2)]


@pytest.mark.parametrize(
    ("period", "cell"), [("2026-02", "2026-02-28T23:59:59Z"), ("2025", "2025-12-01T00:00:00Z")]
)
def test_months_of_names_and_of_times_are_the_same(period: str, cell: str) -> None:
    assert last_month(period) == month_in(cell)
    assert month_in("yesterday") is None


def test_a_month_has_its_days() -> None:
    assert [days_in(month(p)) for p in ("2024-02", "2026-02", "2026-12")] == [29, 28, 31]


PERIODS = st.builds(
    lambda y, m: f"{y}-{m:02}" if m else str(y), st.integers(2023, 2027), st.integers(0, 12)
)
FIGURES = st.integers(0, 99)
BATCH_SETS = st.lists(
    st.builds(Batch, st.sampled_from("ab"), PERIODS, st.just(1), FIGURES, FIGURES),
    unique_by=lambda b: (b.name, b.period),
    max_size=12,
)
LIMITS = st.builds(Limits, st.integers(0, 900), st.integers(0, 600), st.integers(0, 600))


@given(BATCH_SETS, LIMITS, st.sets(PERIODS), st.integers(1, 500), st.integers(0, 2))
def test_a_stricter_limit_never_keeps_what_a_laxer_one_lets_go(
    batches: list[Batch], limits: Limits, recorded: set[str], by: int, which: int
) -> None:
    at = calendar(*recorded)
    name = ("days", "count", "size_bytes")[which]
    old = getattr(limits, name)
    tighter = replace(limits, **{name: max(1, old - by) if old else by})

    lax = [one.batch for one in leaving(batches, limits, at)]
    tight = [one.batch for one in leaving(batches, tighter, at)]

    assert tight[: len(lax)] == lax


@given(BATCH_SETS, LIMITS, st.sets(PERIODS))
def test_no_limit_takes_more_than_it_must(
    batches: list[Batch], limits: Limits, recorded: set[str]
) -> None:
    at = calendar(*recorded)
    found = leaving(batches, limits, at)
    left = [b for b in batches if b not in [one.batch for one in found]]

    assert all((last_month(one.batch.period) or 0) < at.open_from for one in found)
    reasons = {one.reason for one in found}
    if reasons == {"count"}:
        assert sum(b.count for b in left) >= limits.count
    if reasons == {"size"}:
        last = found[-1].batch
        assert sum(b.size_bytes for b in (*left, last)) > limits.size_bytes


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(70, 9000)), max_size=4),
    st.integers(1, 200),
)
def test_no_jump_of_more_than_two_months_makes_anything_older_than_it_is(
    stretches: list[tuple[int, int]], last: int
) -> None:
    """A radio hears something every day; between stretches the clock jumps forward."""
    wall = datetime(2020, 3, 17, tzinfo=UTC)
    days: list[datetime] = []
    for length, jump in stretches:
        days += [wall + n * DAY for n in range(length)]
        wall += (length + jump) * DAY
    days += [wall + n * DAY for n in range(last)]
    at = Calendar.of([month_of(d) for d in days], now=days[-1], young_from=days[-1] - 2 * DAY)

    for n, day in enumerate(days):
        assert at.age_days(month_of(day)) <= len(days) - 1 - n
