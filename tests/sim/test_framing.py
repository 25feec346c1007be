import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.sim.framing import MAX_MESSAGE_BYTES, START, WAKE, Deframer, frame

messages = st.lists(st.binary(max_size=MAX_MESSAGE_BYTES), max_size=5)
quiet_noise = st.binary(max_size=60).map(lambda noise: noise.replace(START[:1], b"."))


def feed_in_pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    deframer = Deframer()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = (stream[a:b] for a, b in itertools.pairwise(edges))
    return [message for piece in pieces for message in deframer.feed(piece)]


@given(messages, st.lists(st.integers(min_value=0), max_size=8))
def test_messages_survive_any_cutting_of_the_stream(sent: list[bytes], cuts: list[int]) -> None:
    assert feed_in_pieces(b"".join(map(frame, sent)), cuts) == sent


@given(messages, quiet_noise, st.lists(st.integers(min_value=0), max_size=8))
def test_noise_between_frames_costs_nothing(
    sent: list[bytes], noise: bytes, cuts: list[int]
) -> None:
    stream = b"".join(noise + frame(message) for message in sent)

    assert feed_in_pieces(stream, cuts) == sent


@given(st.binary(max_size=1200), st.binary(max_size=MAX_MESSAGE_BYTES))
def test_any_noise_is_overcome_within_one_longest_frame(noise: bytes, message: bytes) -> None:
    """Noise can look like a header and swallow what follows, but no more than it announced."""
    padding = b"\0" * (MAX_MESSAGE_BYTES + 4)

    assert Deframer().feed(noise + padding + frame(message))[-1] == message


@given(st.integers(min_value=MAX_MESSAGE_BYTES + 1, max_value=0xFFFF))
def test_an_impossible_length_is_skipped(length: int) -> None:
    stream = START + length.to_bytes(2, "big") + frame(b"next")

    assert Deframer().feed(stream) == [b"next"]


@given(st.binary(max_size=MAX_MESSAGE_BYTES), st.integers(min_value=0))
def test_a_frame_cut_off_before_its_end_gives_nothing(message: bytes, at: int) -> None:
    whole = frame(message)

    assert Deframer().feed(whole[: at % len(whole)]) == []


def test_wake_bytes_are_skipped_and_counted() -> None:
    deframer = Deframer()

    assert deframer.feed(WAKE + frame(b"hello")) == [b"hello"]
    assert deframer.skipped_bytes == len(WAKE)


def test_a_frame_may_be_empty() -> None:
    assert Deframer().feed(frame(b"") + frame(b"x")) == [b"", b"x"]


def test_a_message_too_long_for_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="513 bytes"):
        frame(bytes(MAX_MESSAGE_BYTES + 1))
