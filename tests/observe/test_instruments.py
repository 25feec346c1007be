"""What watches a process, by its settings; a missing part costs the others nothing."""

import http.client
import socket
import sys
from pathlib import Path

import pytest
import structlog

from meshllm.clock import SystemClock
from meshllm.config import Settings
from meshllm.layout import Layout
from meshllm.observe.board import Board, KeptBoard
from meshllm.observe.instruments import Instruments, prepare
from meshllm.store import atomic


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def make(folder: Path, **settings: object) -> Instruments:
    files = Layout(folder / "data", folder / "data/nodes", folder / "prompts")
    return prepare("bridge", Settings(**settings), files, clock=SystemClock())  # type: ignore[arg-type]


def status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_nothing_is_kept_counted_or_opened_unless_it_is_asked_for(tmp_path: Path) -> None:
    made = make(tmp_path, log_files=0)

    with made.running():
        assert type(made.board) is Board
        assert (made.file, made.server, made.exporter) == (None, None, None)
        assert atomic._observers == []
    assert list(tmp_path.iterdir()) == []


def test_the_agents_port_opens_nothing_in_the_bridge(tmp_path: Path) -> None:
    assert make(tmp_path, agent_metrics_port=9).server is None


def test_commits_are_observed_while_it_runs_and_no_longer(tmp_path: Path) -> None:
    made = make(tmp_path, log_files=0, bridge_metrics_port=free_port())
    assert made.exporter is not None

    with made.running():
        atomic.write_text(tmp_path / "a.json", "1")
    atomic.write_text(tmp_path / "a.json", "2")

    assert b"meshllm_commit_seconds_count 1.0" in made.exporter.render()


def test_without_the_library_health_is_served_and_one_event_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "meshllm.observe.exporter", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    port = free_port()
    made = make(tmp_path, bridge_metrics_port=port)

    with made.running():
        assert isinstance(made.board, KeptBoard)
        assert (status(port, "/livez"), status(port, "/metrics")) == (200, 501)
        structlog.get_logger().info("bridge_started", radios=0)

    told = capsys.readouterr().err
    assert told.count("metrics_unavailable") == 1
    assert "pip install prometheus_client" in told
    lines = (tmp_path / "data/logs/bridge.jsonl").read_text()
    assert "metrics_unavailable" in lines
    assert "bridge_started" in lines
