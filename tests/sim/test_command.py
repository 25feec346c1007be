"""`sim` as an operator starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meshllm.sim.client import StreamClient
from meshllm.sim.packets import Packet, Port

Start = Callable[..., "subprocess.Popen[str]"]
PROGRAM = "from meshllm.cli.sim import sim; sim()"


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def run(*arguments: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", PROGRAM, "--port", "0", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "MESHLLM_TIME_SCALE": "50"},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run


def address_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip().partition("tcp:")[2]


def type_in(process: "subprocess.Popen[str]", *lines: str) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()


def test_typed_line_reaches_the_radio_and_the_answer_is_shown(start: Start) -> None:
    process = start("--instant", "--exit-on-eof")

    with StreamClient(address_of(process)) as client:
        client.configure()
        type_in(process, "are you there?")
        question = client.packet(lambda p: p.port == Port.TEXT)
        answer = b"yes \x1b[31m\xe2\x80\xae"
        client.send(Packet(to=question.sender, id=1, payload=answer, want_ack=True, hop_limit=3))
        client.packet(lambda p: p.request_id == 1)
        output, errors = process.communicate(timeout=10)

    assert question.payload == b"are you there?"
    assert output == "Ada Example hears from Base Camp: yes \\x1b[31m\\u202e\n"
    assert (errors, process.returncode) == ("", 0)


def test_said_texts_come_in_order(start: Start) -> None:
    process = start("--instant", "--say", "one", "--say", "two", "--channel", "Hiking")

    with StreamClient(address_of(process)) as client:
        client.configure()
        texts = [client.packet(lambda p: p.port == Port.TEXT).payload for _ in range(2)]

    assert texts == [b"one", b"two"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly(start: Start, number: signal.Signals) -> None:
    process = start("--radios", "2")
    address_of(process)
    address_of(process)

    process.send_signal(number)

    output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "", "")


def test_end_of_input_alone_does_not_end_it(start: Start) -> None:
    process = start()
    address = address_of(process)
    assert process.stdin is not None

    process.stdin.close()
    with StreamClient(address) as client:
        client.configure()

    assert process.poll() is None


def test_one_can_type_as_anybody_and_to_anybody(start: Start) -> None:
    process = start("--instant", "--people", "2")
    address_of(process)

    lines = ["/who", "/as bob", "/to ada hi Ada", "/to Ada Example hi again", "/ch 0 all", "/nope"]
    type_in(process, *lines)
    assert process.stdout is not None
    shown = [process.stdout.readline().strip() for _ in range(7)]
    type_in(process, "/as nobody", "/help", "/quit")
    output, errors = process.communicate(timeout=10)

    assert shown[:4] == [
        "!51e0aa01 Base Camp",
        "!51e0bb01 Ada Example (you)",
        "!51e0bb02 Bob Example",
        "You are Bob Example.",
    ]
    assert sorted(shown[4:]) == [
        "Ada Example hears from Bob Example on channel 0: all",
        "Ada Example hears from Bob Example: hi Ada",
        "Ada Example hears from Bob Example: hi again",
    ]
    assert "/quit" in output
    assert errors.startswith("not understood: /nope")
    assert "nobody is called nobody" in errors
    assert process.returncode == 0


def test_script_file_is_played(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(
        "people: [{name: Eve Example, steps: [{say: from Eve, to: Base Camp}]}]\n"
        "links: [{a: Eve Example, b: Base Camp, delay_s: 0.1}]\n"
    )
    process = start("--instant", "--people", "0", "--loss", "0", "--script", str(script))

    with StreamClient(address_of(process)) as client:
        client.configure()

        assert client.packet(lambda p: p.port == Port.TEXT).payload == b"from Eve"


def test_wrong_script_is_an_operators_error(start: Start, tmp_path: Path) -> None:
    process = start("--script", str(tmp_path / "missing.yaml"))

    output, errors = process.communicate(timeout=10)

    assert (process.returncode, output) == (4, "")
    assert errors.startswith("error: ")
    assert "missing.yaml" in errors


def test_taken_port_is_an_operators_error(start: Start) -> None:
    first = start()
    port = address_of(first).rpartition(":")[2]

    second = start("--port", port)

    _, errors = second.communicate(timeout=10)
    assert second.returncode == 4
    assert f"port {port}" in errors
