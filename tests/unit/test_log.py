"""A log that cannot be written must not stop what it tells of."""

import io
import json
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from meshllm.observe import log as logging_setup


class BrokenPipe(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def _default_logging_afterwards() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_an_event_is_one_json_object_a_line_in_a_pipe() -> None:
    stream = io.StringIO()
    logging_setup.configure("info", role="bridge", stream=stream)

    structlog.get_logger().info("message_received", thread="a\nb", sender="\x1b[31m")

    line = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert (line["event"], line["role"], line["thread"]) == ("message_received", "bridge", "a\nb")
    assert "\x1b" not in stream.getvalue()


def test_a_reader_that_went_away_or_a_full_disk_stops_nothing() -> None:
    logging_setup.configure("info", role="bridge", stream=BrokenPipe())

    structlog.get_logger().error("send_given_up", reason="TOO_LARGE")
    structlog.get_logger().error("station_crashed", exc_info=RuntimeError("seen"))


def test_names_of_strangers_do_not_drive_the_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logging_setup.configure("info", role="bridge", stream=stream)

    structlog.get_logger().info("message_received", thread="\x1b]0;owned\x07\x1b[2J")

    assert "\x1b]0;" not in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()


def test_events_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    logging_setup.configure("warn", role="agent", stream=stream)

    structlog.get_logger().info("question_asked")

    assert stream.getvalue() == ""


def test_what_a_library_prints_becomes_events_and_stdout_stays_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    logging_setup.configure("debug", role="bridge", stream=stream)

    with logging_setup.contained():
        print("Warning: half", "a line", end="")  # noqa: T201 - as libraries do
        print(" and the rest\n\nanother")  # noqa: T201

    assert capsys.readouterr().out == ""
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["text"]) for line in lines] == [
        ("text_printed", "Warning: half a line and the rest"),
        ("text_printed", "another"),
    ]


def test_a_thread_that_dies_is_one_event_with_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    logging_setup.configure("info", role="bridge", stream=stream)

    def die() -> None:
        raise ValueError("a bug of a library")

    before = threading.excepthook
    with logging_setup.contained():
        for target in (die, sys.exit):
            thread = threading.Thread(target=target, name="reader")
            thread.start()
            thread.join()

    (line,) = (json.loads(text) for text in stream.getvalue().splitlines())
    assert (line["event"], line["thread"]) == ("thread_died", "reader")
    assert "a bug of a library" in line["exception"]
    assert capsys.readouterr().err == ""
    assert threading.excepthook is before
