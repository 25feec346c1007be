"""What the tests of the operator's tool get."""

from pathlib import Path

import pytest

from tests.cli.folder import Folder, Runner, full


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return full(tmp_path)
