"""The units as install.sh writes them, judged by systemd's own readers. Nothing is started."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshllm.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "deploy/systemd/install.sh"
SERVICES = ("meshtastic-llm-bridge.service", "meshtastic-llm-agent.service")
TARGET = "meshtastic-llm.target"
MOST_EXPOSURE = 20  #: tenths; what systemd calls OK ends at 50


def make_program(folder: Path) -> Path:
    """Build a copy of the program with settings of its own, as an operator has it."""
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    for name in ("meshllm", "meshtastic_bridge.py", "ai_agent.py", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "config.yaml").write_text("radios:\n  - link: tcp:192.168.1.20\n")
    return folder


def install(program: Path, *arguments: str, destdir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program / INSTALL), *arguments],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DESTDIR": str(destdir)},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def units(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the units, installed for the owner of the tests."""
    destdir = tmp_path_factory.mktemp("destdir")
    done = install(program, "--user", "meshllm-test", destdir=destdir)
    assert done.returncode == 0, done.stdout + done.stderr
    return destdir / "etc/systemd/system"


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=15, check=False
    )


def test_systemd_takes_every_unit_without_a_word(units: Path) -> None:
    done = analyze("verify", "--man=no", *(str(units / name) for name in (*SERVICES, TARGET)))

    ours = [line for line in done.stderr.splitlines() if "meshtastic-llm" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", SERVICES)
def test_exposure_stays_low(units: Path, name: str) -> None:
    done = analyze(
        "security",
        "--offline=true",
        f"--threshold={MOST_EXPOSURE}",
        "--no-pager",
        str(units / name),
    )

    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_no_placeholder_is_left(units: Path) -> None:
    """@system-service, @privileged and @resources are systemd's."""
    for name in (*SERVICES, TARGET):
        assert re.findall(r"@[A-Z_]+@", (units / name).read_text()) == []


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_restart_would_meet_again_is_not_restarted(units: Path, name: str) -> None:
    never = {ExitCode.USAGE, ExitCode.CONFIG, ExitCode.ALREADY_RUNNING}

    [codes] = values(units / name, "RestartPreventExitStatus")
    assert {int(code) for code in codes.split()} == never
    assert values(units / name, "Restart") == ["on-failure"]
    assert values(units / name, "StartLimitIntervalSec") == ["0"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_writes_its_own_folders_and_no_other(
    units: Path, program: Path, name: str
) -> None:
    assert values(units / name, "ReadWritePaths") == [f"{program}/data {program}/prompts"]
    assert values(units / name, "ProtectSystem") == ["strict"]
    assert values(units / name, "User") == ["meshllm-test"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reports_and_is_watched(units: Path, name: str) -> None:
    assert values(units / name, "Type") == ["notify"]
    assert values(units / name, "WatchdogSec") == ["180"]
    [after] = values(units / name, "After")
    assert "time-set.target" in after.split(), "time-sync never comes off the grid"


def test_only_the_bridge_opens_devices_and_only_serial_ones(units: Path) -> None:
    bridge, agent = (units / name for name in SERVICES)

    assert values(bridge, "DeviceAllow") == ["char-188 rw", "char-166 rw", "char-204 rw"]
    assert values(bridge, "DevicePolicy") == ["closed"]
    assert values(agent, "PrivateDevices") == ["yes"]


def test_the_units_are_removed_and_the_data_stay(
    program: Path, units: Path, tmp_path: Path
) -> None:
    shutil.copytree(units, tmp_path / "etc/systemd/system")
    (program / "data").mkdir(exist_ok=True)

    done = install(program, "--uninstall", destdir=tmp_path)

    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert (program / "data").is_dir()
    assert install(program, "--uninstall", destdir=tmp_path).returncode == ExitCode.CONFIG


def test_a_look_changes_nothing_and_names_every_step(program: Path, tmp_path: Path) -> None:
    done = install(program, "--dry-run", destdir=tmp_path)

    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    steps = [line.removeprefix("would run: ") for line in done.stdout.splitlines()]
    assert any(step.startswith("useradd --system") for step in steps)
    assert "systemctl daemon-reload" in steps
    assert "systemctl restart meshtastic-llm.target" in steps
    assert steps[-1] == "nothing was changed"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--user", "root"), ExitCode.CONFIG, "the services do not need root"),
        (("--user", "a b;c"), ExitCode.CONFIG, "is no user name"),
        (("--user",), ExitCode.USAGE, "needs a value"),
        (("--colour",), ExitCode.USAGE, "no such option"),
        (("--config", "/nowhere/config.yaml"), ExitCode.CONFIG, "no such file"),
    ],
)
def test_what_would_not_work_is_refused_with_a_reason(
    program: Path, tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, reason: str
) -> None:
    done = install(program, *arguments, destdir=tmp_path)

    assert (done.returncode, reason in done.stderr) == (code, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_unit_files_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    """Spaces separate, % expands, and a wrong ReadWritePaths opens another folder."""
    program = make_program(tmp_path / "my %h")

    done = install(program, destdir=tmp_path / "out")

    assert done.returncode == ExitCode.CONFIG
    assert "characters that unit files give a meaning" in done.stderr


def test_a_program_that_was_not_set_up_is_refused(tmp_path: Path) -> None:
    program = make_program(tmp_path / "fresh")
    (program / ".venv").unlink()

    done = install(program, destdir=tmp_path / "out")

    assert (done.returncode, "./run.sh setup" in done.stderr) == (ExitCode.CONFIG, True)


def test_the_script_is_plain_posix_shell() -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("no shellcheck on this machine")

    done = subprocess.run(
        [checker, str(ROOT / INSTALL)], capture_output=True, text=True, timeout=15, check=False
    )

    assert done.returncode == 0, done.stdout


def test_exit_codes_of_the_script_are_those_of_the_programs() -> None:
    text = (ROOT / INSTALL).read_text()

    assert f"USAGE_EXIT={ExitCode.USAGE.value}\nCONFIG_EXIT={ExitCode.CONFIG.value}\n" in text
