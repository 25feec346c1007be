"""When a text goes on the air again, and under which id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.airtime import PRESETS
from meshllm.bridge import retry
from meshllm.bridge.life import Try
from meshllm.bridge.retry import Verdict

ERRORS = [
    "NO_ROUTE",
    "GOT_NAK",
    "TIMEOUT",
    "NO_INTERFACE",
    "MAX_RETRANSMIT",
    "NO_CHANNEL",
    "TOO_LARGE",
    "NO_RESPONSE",
    "DUTY_CYCLE_LIMIT",
    "BAD_REQUEST",
    "NOT_AUTHORIZED",
    "PKI_FAILED",
    "PKI_UNKNOWN_PUBKEY",
    "ADMIN_BAD_SESSION_KEY",
    "ADMIN_PUBLIC_KEY_UNAUTHORIZED",
    "RATE_LIMIT_EXCEEDED",
    "PKI_SEND_FAIL_PUBLIC_KEY",
    "QUEUE_FULL",
    "TX_DISABLED",
    "RADIO_ERROR_99",
]
PERMANENT = {
    "NO_INTERFACE",
    "TOO_LARGE",
    "BAD_REQUEST",
    "NOT_AUTHORIZED",
    "PKI_FAILED",
    "ADMIN_BAD_SESSION_KEY",
    "ADMIN_PUBLIC_KEY_UNAUTHORIZED",
}
WAITS = {
    "DUTY_CYCLE_LIMIT": 300.0,
    "RATE_LIMIT_EXCEEDED": 5.0,
    "QUEUE_FULL": 5.0,
    "PKI_UNKNOWN_PUBKEY": 60.0,
    "PKI_SEND_FAIL_PUBLIC_KEY": 60.0,
}


def history(*results: str | None, first_id: int = 1, same_id: bool = True) -> list[Try]:
    return [Try(first_id + (0 if same_id else n), "at", r) for n, r in enumerate(results)]


def after(error: str, past: list[Try], *, tcp: bool = True, new_ids: int = 1) -> Verdict:
    return retry.after_error(error, from_self=False, history=past, is_tcp=tcp, max_new_ids=new_ids)


@pytest.mark.parametrize("error", ERRORS)
def test_each_error_has_its_first_verdict(error: str) -> None:
    expected = (
        Verdict("fail", error)
        if error in PERMANENT
        else Verdict("again", error, WAITS.get(error, 30.0))
    )

    assert after(error, history(error)) == expected


def test_no_channel_is_final_from_our_own_radio_alone() -> None:
    past = history("NO_CHANNEL")

    own = retry.after_error("NO_CHANNEL", from_self=True, history=past, is_tcp=True, max_new_ids=1)

    assert own == Verdict("fail", "NO_CHANNEL")
    assert after("NO_CHANNEL", past).action == "again"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("tcp", [True, False])
def test_waits_never_decrease_and_end(error: str, tcp: bool) -> None:
    past: list[Try] = []
    waits = []

    for number in range(100):
        past.append(Try(1 if tcp else number + 1, "at", error))
        verdict = after(error, past, tcp=tcp)
        if verdict.action != "again":
            break
        waits.append(verdict.delay_s)

    assert waits == sorted(waits)
    assert all(0 < wait <= retry.LONGEST_WAIT_S for wait in waits)
    assert len(waits) < retry.MAX_ANY_TRIES


@pytest.mark.parametrize("free", ["RATE_LIMIT_EXCEEDED", "DUTY_CYCLE_LIMIT", "QUEUE_FULL"])
def test_what_never_left_our_radio_costs_no_attempt(free: str) -> None:
    past = history(free, free, free, free, free, "MAX_RETRANSMIT")

    assert after("MAX_RETRANSMIT", past) == Verdict("again", "MAX_RETRANSMIT", 30.0)


def test_the_third_real_attempt_is_the_last() -> None:
    error = "MAX_RETRANSMIT"

    verdicts = [after(error, history(*[error] * n)) for n in (1, 2, 3)]

    assert verdicts == [
        Verdict("again", error, 30.0),
        Verdict("again", error, 60.0),
        Verdict("fail", error),
    ]


@pytest.mark.parametrize("allowed", [0, 1, 2, 3])
def test_new_ids_on_serial_stay_within_their_number(allowed: int) -> None:
    past = [Try(1, "at", "NO_ACK")]
    next_id = 1

    for _ in range(20):
        verdict = retry.after_silence(
            relayed=False, history=past, is_tcp=False, max_new_ids=allowed
        )
        if verdict.action != "again":
            break
        next_id += 1
        chosen = retry.choose_id(1, past, is_tcp=False, fresh=next_id)
        past.append(Try(chosen, "at", "NO_ACK"))

    assert verdict == Verdict("unconfirmed", "NO_ACK")
    assert len({t.packet_id for t in past}) - 1 == min(allowed, retry.MAX_ATTEMPTS - 1)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([None, "handed", "NO_ACK", *ERRORS])),
        min_size=1,
        max_size=15,
    ),
    st.sampled_from(ERRORS),
    st.integers(0, 3),
)
def test_another_new_id_is_never_granted_beyond_the_limit(
    tries: list[tuple[int, str | None]], error: str, allowed: int
) -> None:
    past = [Try(i, "at", r) for i, r in tries]
    on_air = {t.packet_id for t in past if t.result not in retry.NEVER_SENT}

    verdicts = [
        after(error, past, tcp=False, new_ids=allowed),
        retry.after_silence(relayed=False, history=past, is_tcp=False, max_new_ids=allowed),
    ]

    for verdict in verdicts:
        if verdict.action == "again" and verdict.reason not in retry.NEVER_SENT:
            assert len(on_air) <= allowed


def test_ids_that_never_went_on_the_air_do_not_count_as_doubles() -> None:
    past = history("RATE_LIMIT_EXCEEDED", "QUEUE_FULL", "MAX_RETRANSMIT", same_id=False)

    assert after("MAX_RETRANSMIT", past, tcp=False).action == "again"


def test_relayed_and_then_silent_is_not_sent_again() -> None:
    for tcp in (True, False):
        verdict = retry.after_silence(
            relayed=True, history=history("handed"), is_tcp=tcp, max_new_ids=3
        )
        assert verdict == Verdict("unconfirmed", "NO_ACK")


@pytest.mark.parametrize(
    ("own", "past", "tcp", "expected"),
    [
        (7, [], True, 7),
        (7, [], False, 7),
        (None, [], True, 99),
        (7, history(None, first_id=7), True, 7),
        (7, history(None, first_id=7), False, 7),
        (7, history("MAX_RETRANSMIT", first_id=7), True, 7),
        (7, history("MAX_RETRANSMIT", first_id=7), False, 99),
        (7, history("NO_ACK", None, first_id=8, same_id=False), False, 9),
        (None, history("NO_ACK", first_id=8), True, 8),
    ],
)
def test_the_same_id_as_long_as_the_radio_takes_it(
    own: int | None, past: list[Try], tcp: bool, expected: int
) -> None:
    assert retry.choose_id(own, past, is_tcp=tcp, fresh=99) == expected


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
