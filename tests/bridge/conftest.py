"""Fixtures of the bridge's tests; the world itself is in `world`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from meshllm.layout import Layout, NodeTree
from tests.bridge.world import OutboxWorld


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def world(tmp_path: Path, events: list[EventDict]) -> OutboxWorld:
    return OutboxWorld(tmp_path)


@pytest.fixture
def serial_world(tmp_path: Path, events: list[EventDict]) -> OutboxWorld:
    return OutboxWorld(tmp_path, kind="serial")


@pytest.fixture
def tree(tmp_path: Path) -> NodeTree:
    found = Layout(tmp_path / "data", tmp_path / "data/nodes", tmp_path / "p").tree("aaaa0001")
    for folder in found.folders():
        folder.mkdir(parents=True)
    return found
