import pytest

from meshllm import airtime

TIMES_MS = [
    ("SHORT_TURBO", (24, 53, 90), (28, 57, 94)),
    ("SHORT_FAST", (48, 107, 181), (55, 114, 189)),
    ("SHORT_SLOW", (85, 188, 321), (101, 203, 336)),
    ("MEDIUM_TURBO", (80, 172, 285), (95, 183, 300)),
    ("MEDIUM_FAST", (160, 345, 570), (191, 365, 601)),
    ("MEDIUM_SLOW", (300, 628, 1037), (341, 669, 1099)),
    ("LONG_TURBO", (378, 869, 1459), (443, 935, 1525)),
    ("LONG_FAST", (559, 1174, 1911), (641, 1255, 1993)),
    ("LONG_MODERATE", (1774, 4133, 7016), (2036, 4395, 7410)),
    ("LONG_SLOW", (3285, 7479, 12722), (3809, 8004, 13246)),
    ("LITE_FAST", (321, None, 1140), (382, None, 1201)),
    ("LITE_SLOW", (600, None, 2075), (682, None, 2198)),
    ("NARROW_FAST", (218, None, 857), (254, None, 893)),
    ("NARROW_SLOW", (386, None, 1517), (460, None, 1590)),
    ("TINY_FAST", (765, None, 2898), (888, None, 3022)),
    ("TINY_SLOW", (1941, None, 7848), (2334, None, 8242)),
]
ACK_MS = [("SHORT_TURBO", 19), ("MEDIUM_SLOW", 239), ("LONG_FAST", 477), ("LONG_SLOW", 2499)]
TIMERS_S = [
    ("SHORT_FAST", 5.0, 5.3),
    ("SHORT_SLOW", 5.2, 5.7),
    ("MEDIUM_FAST", 5.5, 6.3),
    ("MEDIUM_SLOW", 6.1, 7.5),
    ("LONG_TURBO", 6.2, 8.4),
    ("LONG_FAST", 7.2, 9.9),
    ("LONG_MODERATE", 10.5, 21.0),
    ("LONG_SLOW", 15.5, 35.0),
]


@pytest.mark.parametrize(("preset", "channel_ms", "pki_ms"), TIMES_MS)
def test_airtime_of_a_text_is_what_the_formula_gives(
    preset: str,
    channel_ms: tuple[int | None, ...],
    pki_ms: tuple[int | None, ...],
) -> None:
    for is_pki, expected in ((False, channel_ms), (True, pki_ms)):
        for size, wanted in zip((20, 100, 200), expected, strict=True):
            if wanted is not None:
                computed = airtime.airtime_s(size, preset, pki=is_pki) * 1000
                assert computed == pytest.approx(wanted, abs=1)


@pytest.mark.parametrize(("preset", "wanted_ms"), ACK_MS)
def test_airtime_of_an_ack_is_what_the_formula_gives(preset: str, wanted_ms: int) -> None:
    encoded = airtime.data_bytes(2) + 5
    computed = airtime.frame_airtime_s(airtime.frame_bytes(encoded), preset) * 1000

    assert computed == pytest.approx(wanted_ms, abs=1)


@pytest.mark.parametrize(("preset", "short_s", "long_s"), TIMERS_S)
def test_retransmission_timer_of_an_idle_channel(
    preset: str, short_s: float, long_s: float
) -> None:
    timers = [airtime.retransmit_timer_s(size, preset) for size in (20, 200)]

    assert timers == [pytest.approx(short_s, rel=0.04), pytest.approx(long_s, rel=0.04)]


def test_retransmission_timer_grows_with_the_use_of_the_channel() -> None:
    timers = [
        airtime.retransmit_timer_s(200, "LONG_FAST", channel_utilisation=use)
        for use in (0.0, 0.25, 0.5, 1.0)
    ]

    assert timers == sorted(timers)
    assert timers[-1] == pytest.approx(17, abs=0.5)


@pytest.mark.parametrize(
    ("reply", "emoji", "pki", "limit"),
    [
        (False, False, False, 232),
        (True, False, False, 227),
        (True, True, False, 222),
        (False, False, True, 220),
        (True, False, True, 215),
        (True, True, True, 210),
    ],
)
def test_longest_text_just_fits_a_frame(reply: bool, emoji: bool, pki: bool, limit: int) -> None:
    sizes = [
        airtime.frame_bytes(airtime.data_bytes(size, reply=reply, emoji=emoji), pki=pki)
        for size in (limit, limit + 1)
    ]

    assert sizes == [airtime.MAX_FRAME_BYTES, airtime.MAX_FRAME_BYTES + 1]


def test_ports_above_127_cost_a_byte_more() -> None:
    assert airtime.data_bytes(10, port=256) == airtime.data_bytes(10) + 1


@pytest.mark.parametrize("use", [-1.0, 2.0])
def test_absurd_channel_use_is_taken_as_the_nearest_possible(use: float) -> None:
    assert airtime.contention_window(use) in (airtime.CONTENTION_MIN, airtime.CONTENTION_MAX)
