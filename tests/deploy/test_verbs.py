"""The two commands that installing needs: which folders are written, and who is alive."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshllm.cli.main import cli
from meshllm.clock import SystemClock, utc_text
from meshllm.errors import ExitCode

RADIO = "512e0001"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA_DIR", "NODES_BASE_DIR", "PROMPTS_DIR", "RADIO"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "config.yaml"
    path.write_text("radios:\n  - link: tcp:192.168.1.20\n")
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments)
    return result.exit_code, result.stdout


def beat(path: Path, *, age_s: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    at = utc_text(SystemClock().utc() - timedelta(seconds=age_s))
    path.write_text(json.dumps({"heartbeat_at": at}))


def test_folders_are_those_of_the_settings_without_nested_ones(settings: Path) -> None:
    root = settings.parent

    assert run("config", "folders", "--config", str(settings)) == (
        ExitCode.OK,
        f"{root}/data\n{root}/prompts\n",
    )


def test_a_folder_of_its_own_for_the_radios_is_listed(settings: Path) -> None:
    root = settings.parent
    settings.write_text(f"nodes_base_dir: {root}/disk\n")

    _, lines = run("config", "folders", "--config", str(settings))
    _, text = run("config", "folders", "--config", str(settings), "--json")

    assert lines.splitlines() == [f"{root}/data", f"{root}/disk", f"{root}/prompts"]
    assert json.loads(text)["nodes_dir"] == f"{root}/disk"


@pytest.mark.parametrize(
    ("role", "file"), [("agent", "agent.json"), ("bridge", f"nodes/{RADIO}/radio.json")]
)
def test_a_fresh_heartbeat_is_alive_and_an_old_one_is_not(
    settings: Path, role: str, file: str
) -> None:
    path = settings.parent / "data" / file
    ask = ("alive", role, "--config", str(settings))

    assert run(*ask) == (ExitCode.BUG, f"{role}: no heartbeat\n")
    beat(path, age_s=60)
    assert run(*ask)[0] == ExitCode.OK
    beat(path, age_s=400)
    assert run(*ask)[0] == ExitCode.BUG
    assert run(*ask, "--max-age", "500")[0] == ExitCode.OK


def test_a_bridge_lives_as_long_as_one_radio_says_so(settings: Path) -> None:
    nodes = settings.parent / "data/nodes"
    beat(nodes / RADIO / "radio.json", age_s=9000)
    beat(nodes / "a1b2c3d4" / "radio.json", age_s=5)

    code, text = run("alive", "bridge", "--config", str(settings), "--json")

    assert code == ExitCode.OK
    assert json.loads(text)["is_alive"] is True


def test_a_damaged_status_file_is_no_heartbeat(settings: Path) -> None:
    path = settings.parent / "data/agent.json"
    path.parent.mkdir()
    path.write_text('{"heartbeat_at": 7')

    assert run("alive", "agent", "--config", str(settings)) == (
        ExitCode.BUG,
        "agent: no heartbeat\n",
    )
