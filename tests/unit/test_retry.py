"""When a text goes on the air again, and under which id."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.airtime import PRESETS
from meshllm.bridge import retry
from meshllm.bridge.life import Try
from meshllm.bridge.reach import Reach
from meshllm.bridge.retry import Case, Verdict

PERMANENT = [
    "NO_INTERFACE",
    "TOO_LARGE",
    "BAD_REQUEST",
    "NOT_AUTHORIZED",
    "PKI_FAILED",
    "ADMIN_BAD_SESSION_KEY",
    "ADMIN_PUBLIC_KEY_UNAUTHORIZED",
]
REFUSED_FOR_NOW = {
    "DUTY_CYCLE_LIMIT": 300.0,
    "RATE_LIMIT_EXCEEDED": 5.0,
    "QUEUE_FULL": 5.0,
    "TX_DISABLED": 60.0,
}
NO_KEY = ["PKI_UNKNOWN_PUBKEY", "PKI_SEND_FAIL_PUBLIC_KEY", "NO_CHANNEL"]
LOST = ["NO_ROUTE", "GOT_NAK", "TIMEOUT", "MAX_RETRANSMIT", "NO_RESPONSE", "RADIO_ERROR_99"]
ERRORS = [*PERMANENT, *REFUSED_FOR_NOW, *NO_KEY, *LOST]
DIRECT = Reach(hops=0, snr_db=5.0)
FAR = Reach(hops=2)


def history(*results: str | None, first_id: int = 1, same_id: bool = True) -> list[Try]:
    return [Try(first_id + (0 if same_id else n), "at", r) for n, r in enumerate(results)]


def case(past: Sequence[Try], **fields: object) -> Case:
    return replace(Case(history=past), **fields)  # type: ignore[arg-type] # names checked by replace


def after(error: str, past: Sequence[Try], **fields: object) -> Verdict:
    return retry.after_error(case(past, **fields), error, from_self=False)


# -- the first verdict of each error ---------------------------------------------------------


@pytest.mark.parametrize("error", PERMANENT)
def test_what_no_repeat_can_help_fails_at_once(error: str) -> None:
    assert after(error, history(error)) == Verdict("fail", error)


@pytest.mark.parametrize(("error", "wait_s"), REFUSED_FOR_NOW.items())
def test_a_refusal_for_now_waits(error: str, wait_s: float) -> None:
    assert after(error, history(error)) == Verdict("again", error, wait_s)


@pytest.mark.parametrize("error", NO_KEY)
def test_a_missing_key_is_asked_for_and_waited_for(error: str) -> None:
    assert after(error, history(error)) == Verdict("again", error, 60.0, ask_user=True)


@pytest.mark.parametrize("error", LOST)
def test_a_lost_text_goes_again(error: str) -> None:
    assert after(error, history(error)) == Verdict("again", error, retry.FIRST_BACKOFF_S)


def test_no_channel_is_final_from_our_own_radio_alone() -> None:
    own = retry.after_error(case(history("NO_CHANNEL")), "NO_CHANNEL", from_self=True)

    assert own == Verdict("fail", "NO_CHANNEL")


# -- attempts, holding and the end -----------------------------------------------------------


@pytest.mark.parametrize("reach", [DIRECT, FAR])
def test_a_third_attempt_at_once_is_not_made_where_it_would_be_wasted(reach: Reach) -> None:
    """A silent strong neighbour is away; far relays drop what they have seen."""
    actions = [
        after("MAX_RETRANSMIT", history(*["MAX_RETRANSMIT"] * n), reach=reach).action
        for n in (1, 2)
    ]

    assert actions == ["again", "hold"]


def test_one_relay_that_was_heard_has_most_likely_delivered() -> None:
    actions = [
        retry.after_silence(case(history(*["relayed"] * n), reach=Reach(hops=1))).action
        for n in (1, 2, 4)
    ]

    assert actions == ["again", "hold", "unconfirmed"]


@pytest.mark.parametrize("error", ["MAX_RETRANSMIT", *NO_KEY])
def test_after_three_attempts_a_dm_is_held(error: str) -> None:
    actions = [after(error, history(*[error] * n)).action for n in (1, 2, 3)]

    assert actions == ["again", "again", "hold"]
    assert after(error, history(*[error] * 3)).delay_s is None


def test_silence_is_retried_and_then_held() -> None:
    verdicts = [retry.after_silence(case(history(*["handed"] * n))) for n in (1, 2, 3)]

    assert [v.action for v in verdicts] == ["again", "again", "hold"]
    assert {v.reason for v in verdicts} == {"NO_ACK"}


def test_a_relayed_text_without_an_ack_goes_again_too() -> None:
    """The radio stops repeating at an implicit ACK, which is not delivery."""
    assert retry.after_silence(case(history("relayed"))).action == "again"


def test_what_may_not_be_held_ends() -> None:
    past = history(*["MAX_RETRANSMIT"] * 3)

    assert after("MAX_RETRANSMIT", past, may_hold=False) == Verdict("fail", "MAX_RETRANSMIT")
    assert retry.after_silence(case(past, may_hold=False)) == Verdict("unconfirmed", "NO_ACK")


def test_a_relay_that_took_it_makes_a_nak_no_proof_of_failure() -> None:
    past = history("relayed", "MAX_RETRANSMIT", "MAX_RETRANSMIT")

    assert after("MAX_RETRANSMIT", past, may_hold=False).action == "unconfirmed"


def test_a_broadcast_is_never_held() -> None:
    verdict = after("GOT_NAK", history(*["GOT_NAK"] * 3), is_dm=False)

    assert verdict == Verdict("fail", "GOT_NAK")


@pytest.mark.parametrize("error", [*REFUSED_FOR_NOW, *NO_KEY, *LOST])
@pytest.mark.parametrize("reach", [Reach(), DIRECT, FAR])
def test_waits_never_decrease_and_end(error: str, reach: Reach) -> None:
    past: list[Try] = []
    waits: list[float] = []

    for _ in range(100):
        past.append(Try(1, "at", error))
        verdict = after(error, past, reach=reach)
        if verdict.action not in ("again", "hold"):
            break
        if verdict.delay_s is not None:
            waits.append(verdict.delay_s)

    assert verdict.action in ("fail", "unconfirmed")
    assert waits == sorted(waits)
    assert all(0 < wait <= retry.longest_wait_s(error) for wait in waits)


@pytest.mark.parametrize("free", REFUSED_FOR_NOW)
def test_what_never_left_our_radio_costs_no_attempt(free: str) -> None:
    past = history(free, free, free, free, free, "MAX_RETRANSMIT")

    assert after("MAX_RETRANSMIT", past) == after("MAX_RETRANSMIT", past[-1:])


def test_one_who_walks_away_is_tried_sooner_and_one_who_comes_later() -> None:
    past = history("MAX_RETRANSMIT")

    waits = [
        after("MAX_RETRANSMIT", past, reach=Reach(0, -12.0, trend)).delay_s
        for trend in (-8.0, 0.0, 8.0)
    ]

    assert waits == [15.0, 30.0, 45.0]


def test_the_gap_between_releases_doubles_to_an_hour() -> None:
    gaps = [retry.release_gap_s(n) for n in range(2, 12)]

    assert gaps[:3] == [60.0, 120.0, 240.0]
    assert gaps == sorted(gaps)
    assert gaps[-1] == retry.LONGEST_RELEASE_GAP_S


# -- ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "past", "tcp", "expected"),
    [
        (7, [], True, 7),
        (7, [], False, 7),
        (None, [], True, 99),
        (7, history(None, first_id=7), True, 7),
        (7, history(None, first_id=7), False, 7),
        (7, history("MAX_RETRANSMIT", first_id=7), True, 7),
        (7, history("MAX_RETRANSMIT", first_id=7), False, 7),
        (7, history("NO_ACK", None, first_id=8, same_id=False), False, 9),
        (None, history("NO_ACK", first_id=8), True, 8),
        (7, history("RATE_LIMIT_EXCEEDED", first_id=7), True, 7),
        (7, history("RATE_LIMIT_EXCEEDED", first_id=7), False, 99),
        (7, history("handed", "SWALLOWED", first_id=7), False, 99),
    ],
)
def test_the_same_id_wherever_it_can_work(
    own: int | None, past: list[Try], tcp: bool, expected: int
) -> None:
    assert retry.choose_id(own, case(past, is_tcp=tcp), fresh=99) == expected


@pytest.mark.parametrize("error", ["PKI_UNKNOWN_PUBKEY", "NO_CHANNEL"])
@pytest.mark.parametrize("tcp", [True, False])
def test_a_text_that_the_far_radio_could_not_open_gets_a_new_id(error: str, tcp: bool) -> None:
    """It remembers the id and would drop the repeat unread; nobody can have seen the first."""
    past = case(history(error, first_id=7), is_tcp=tcp)

    assert retry.choose_id(7, past, fresh=99) == 99
    assert not retry.is_possible_double(past)


def test_a_new_id_past_relays_that_were_never_heard_repeating() -> None:
    past = history("MAX_RETRANSMIT", first_id=7)

    assert retry.choose_id(7, case(past, reach=FAR), fresh=99) == 99
    assert retry.is_possible_double(case(past, reach=FAR))
    assert retry.choose_id(7, case(past, reach=Reach(hops=1)), fresh=99) == 7
    assert retry.choose_id(7, case(past, reach=DIRECT), fresh=99) == 7
    assert retry.choose_id(7, case(past, reach=FAR, max_new_ids=0), fresh=99) == 7


def test_where_a_relay_took_it_only_an_operator_who_insists_gets_a_new_id() -> None:
    past = case(history("relayed", first_id=7), reach=FAR)

    assert retry.choose_id(7, past, fresh=99) == 7
    assert retry.choose_id(7, replace(past, insists=True), fresh=99) == 99


def test_behind_two_relays_a_repeat_waits_until_they_have_forgotten_the_id() -> None:
    turnover = retry.TURNOVER_PACKETS

    assert not retry.may_release(relays=2, packets_since=turnover - 1)
    assert retry.may_release(relays=2, packets_since=turnover)
    assert all(retry.may_release(relays=n, packets_since=0) for n in (None, 0, 1))


@given(
    st.lists(
        st.sampled_from(["handed", "relayed", "MAX_RETRANSMIT", "NO_ACK", retry.SWALLOWED]),
        min_size=1,
        max_size=15,
    ),
    st.integers(0, 3),
    st.booleans(),
)
def test_new_ids_stay_within_their_number(results: list[str], allowed: int, tcp: bool) -> None:
    """Whatever the radio says, a person can see at most that many copies more."""
    past: list[Try] = []
    for number, result in enumerate(results):
        now = case(past, is_tcp=tcp, max_new_ids=allowed, reach=FAR)
        past.append(Try(retry.choose_id(1, now, fresh=100 + number), "at", result))
        verdict = after(result, past, is_tcp=tcp, max_new_ids=allowed, reach=FAR)
        if verdict.action in ("fail", "unconfirmed"):
            break

    seen = {t.packet_id for t in past if t.result not in (*retry.NEVER_SENT, retry.SWALLOWED)}
    assert len(seen) <= 1 + allowed


def test_a_swallowed_repeat_ends_where_no_new_id_is_allowed() -> None:
    past = history("handed", retry.SWALLOWED)

    verdict = after(retry.SWALLOWED, past, is_tcp=False, max_new_ids=0)

    assert verdict == Verdict("unconfirmed", retry.SWALLOWED)


# -- the radio's own three transmissions -----------------------------------------------------


@pytest.mark.parametrize("preset", [*PRESETS, "", "VERY_LONG_SLOW", "42"])
@pytest.mark.parametrize("size", [0, 20, 200, 233])
def test_silence_counts_only_after_the_radios_own_three_transmissions(
    preset: str, size: int
) -> None:
    """An unknown preset must not stop the bridge: it waits as long as the slowest."""
    limit_s = retry.ack_timeout_s(size, preset)

    assert 44.0 < limit_s < 1200.0
    if preset not in PRESETS:
        assert limit_s == retry.ack_timeout_s(size, retry.SLOWEST_PRESET)


def test_long_fast_waits_as_long_as_was_measured() -> None:
    """On real firmware MAX_RETRANSMIT came after 29.5 s for 200 bytes."""
    assert 30.0 + 29.5 <= retry.ack_timeout_s(200, "LONG_FAST") <= 90.0


def test_a_busy_channel_stretches_the_radios_timers_and_ours() -> None:
    assert retry.ack_timeout_s(200, "LONG_FAST", channel_use_percent=100.0) > (
        retry.ack_timeout_s(200, "LONG_FAST") + 15.0
    )
