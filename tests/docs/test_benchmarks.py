import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import delivery_page
from benchmarks.report import PAGE, Part, figure, for_page, percentile, replace_block
from meshllm.testing.ollama_server import OllamaServer

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "machine",
    "commit",
    "roundtrip",
    "window",
    "idle",
    "history",
    "prompt",
    "answers",
    "crowd",
)


def _run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--folder", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "left-over files"
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("commit", "--rounds", "2"), r"flushes called per row .* 2 +≤ 2 +met"),
        (("idle", "--threads", "2", "--window", "0.1"), r"first DM answered.* s"),
        pytest.param(
            ("window", "--rounds", "2"),
            r"callback to flushed row, p99 .* ms",
            marks=[pytest.mark.slow, pytest.mark.timeout(60)],  # two starts, one beside busy cores
        ),
        (("history", "--rounds", "2", "--messages", "9000"), r"one thread, median .* ≤ 1.2 times"),
        (("crowd",), r"30 s a call: people .* 0 +≤ 0 +met\n30 s a call: ahead .* 1 +≤ 1 +met"),
        (("answers",), r"parts, mean .* ≤ 1.6 +met\n[\s\S]*sentence where one fits +0 +≤ 0 +met"),
        (("prompt",), r"same as the turn before, median .* % +≥ 75 % +met[\s\S]*No real server"),
    ],
    ids=["commit", "idle", "window", "history", "crowd", "answers", "prompt"],
)
def test_a_part_of_the_benchmarks_runs(
    tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    assert re.search(line, _run(tmp_path, *arguments))


@pytest.mark.slow  # five starts of both processes, two of them beside busy cores
@pytest.mark.timeout(60)
def test_round_trips_are_timed_and_every_flush_is_counted(tmp_path: Path) -> None:
    out = _run(tmp_path, "roundtrip", "--rounds", "2")

    assert "one thread, every core busy, p99" in out
    flushes = re.search(r"flushes per answer, both processes +([\d.]+)", out)
    assert flushes is not None, out
    assert float(flushes[1]) >= 10, "five commits lie before the reply, each with two flushes"


def test_prompts_are_timed_on_a_server_and_a_fake_is_called_one(tmp_path: Path) -> None:
    with OllamaServer() as server:
        out = _run(tmp_path, "prompt", "--ollama", server.url)

    assert re.search(r"prompt evaluation at turn 5, .* of no meaning", out)
    assert "no real server was measured" in out
    chats = [body["messages"] for body in server.chats]
    fifth = [turns for turns in chats if isinstance(turns, list) and len(turns) == 10]
    assert sorted("Data: " in turns[0]["content"] for turns in fifth) == [False] * 3 + [True] * 3


def test_the_page_has_a_block_for_every_part() -> None:
    page = PAGE.read_text(encoding="utf-8")

    for name in PARTS:
        page = replace_block(page, name, f"[{name}]\n")

    assert re.findall(r"^\[(\w+)\]$", page, re.MULTILINE) == list(PARTS)


def test_a_missed_aim_is_said() -> None:
    part = Part("x", "X", (figure("a", 6.0, "ms", at_most=5), figure("b", 5.0, "ms", at_most=5)))

    assert for_page(part) == (
        "### X\n\n| what | figure | aim | verdict |\n| --- | --- | --- | --- |\n"
        "| a | 6 ms | ≤ 5 ms | missed |\n| b | 5 ms | ≤ 5 ms | met |\n"
    )


def test_p99_of_few_values_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([float(n) for n in range(1, 101)], 0.5) == 50.0


def test_the_page_of_delivery_has_a_block_for_every_table() -> None:
    page = delivery_page.PAGE.read_text(encoding="utf-8")
    names = (
        "delivery-aims",
        "delivery-means",
        "delivery-insist",
        "cost-air",
        "cost-files",
        "delivery-cells",
    )

    for name in names:
        page = replace_block(page, name, f"[{name}]\n")

    assert re.findall(r"^\[([\w-]+)\]$", page, re.MULTILINE) == list(names)


def test_the_plot_is_where_the_page_shows_it() -> None:
    page = delivery_page.PAGE.read_text(encoding="utf-8")

    assert f"]({delivery_page.PLOT.name})" in page
    assert ET.parse(delivery_page.PLOT).getroot().tag.endswith("svg")


@pytest.mark.timeout(60)
def test_the_cost_of_an_answer_is_counted(tmp_path: Path) -> None:
    out = _run(tmp_path, "cost", "--rounds", "1", "--cases", "1", "--scale", "15")

    assert "| 60 bytes to a neighbour | all | 6.0 |" in out
    assert re.search(r"meshtastic_bridge.py \| 4.0 \| 8.0 \| .* \| thread file 4.0 \|", out), out
