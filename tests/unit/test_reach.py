"""What is known of the way to a person."""

from meshllm.bridge.reach import KEPT_PEOPLE, Reach, Reaches
from meshllm.radio.base import Envelope
from meshllm.records import Message, compact_json

ADA = 0xA11CE001


def packet(snr: float | None, *, hops: int | None = 0, sender: int = ADA) -> Envelope:
    start = None if hops is None else 3
    limit = None if hops is None else 3 - hops
    return Envelope(sender, 1, 9, snr_db=snr, hop_start=start, hop_limit=limit)


def reach(*packets: Envelope) -> Reach:
    known = Reaches()
    for one in packets:
        known.note(one)
    return known.of(ADA)


def test_nobody_is_known_at_first() -> None:
    assert Reaches().of(ADA) == Reach()


def test_a_strong_direct_neighbour() -> None:
    found = reach(packet(6.0))

    assert (found.hops, found.is_direct, found.is_strong) == (0, True, True)


def test_a_weak_direct_neighbour_is_not_strong() -> None:
    assert not reach(packet(-12.0)).is_strong


def test_a_relays_signal_says_nothing_of_the_person() -> None:
    found = reach(packet(9.0, hops=2))

    assert found == Reach(hops=2)
    assert not found.is_strong


def test_a_falling_signal_is_somebody_leaving() -> None:
    found = reach(packet(0.0), packet(-1.0), packet(-9.0))

    assert found.is_leaving
    assert not found.is_coming


def test_a_rising_signal_is_somebody_coming() -> None:
    assert reach(packet(-12.0), packet(-4.0)).is_coming


def test_fading_of_a_few_decibels_is_no_movement() -> None:
    found = reach(packet(-5.0), packet(-8.0), packet(-6.0))

    assert not found.is_leaving
    assert not found.is_coming


def test_firmware_that_does_not_tell_the_hops_leaves_them_unknown() -> None:
    assert reach(packet(5.0, hops=None)).hops is None


def test_after_a_restart_the_rows_of_the_thread_tell() -> None:
    meta = {"snr": 7.5, "hop_start": 3, "hop_limit": 3}
    row = Message(
        thread_type="dm",
        thread_key="!a11ce001",
        message_id="7",
        direction="inbound",
        sender_id="!a11ce001",
        timestamp="2026-01-02T03:04:05Z",
        content="hello",
        meta_json=compact_json(meta),
    )

    assert Reaches().of(ADA, [row]) == Reach(hops=0, snr_db=7.5)


def test_a_flood_of_forged_ids_does_not_fill_the_memory() -> None:
    known = Reaches()
    for number in range(KEPT_PEOPLE + 10):
        known.note(packet(1.0, sender=number + 1))

    assert known.of(1) == Reach()
    assert known.of(KEPT_PEOPLE + 5).hops == 0
