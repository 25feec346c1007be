"""`doctor`: every check against real files, sockets and servers, and its screen."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meshllm.config import Settings, parse_link
from meshllm.config.settings import Radio
from meshllm.doctor import basics, checks, clocks, contents, model, prompts, radios, storage, system
from meshllm.doctor.findings import Check, Finding, State, ok
from meshllm.doctor.findings import run as run_checks
from meshllm.doctor.machine import Machine, Process, may
from meshllm.doctor.place import Place, holder
from meshllm.errors import ExitCode
from meshllm.records import PromptRow
from meshllm.site import page as pages
from meshllm.store import locks, reserve
from meshllm.store.locks import ProcessLock
from meshllm.testing.clock import ManualClock
from meshllm.testing.ollama_server import INSTRUCT, FakeModel, OllamaServer
from tests.cli.folder import ADA, Folder, Runner, full, heard

Golden = Callable[[str, str], None]
NOT_WANTED = 4242  #: a user who owns nothing


@pytest.fixture
def place(folder: Folder, tmp_path: Path) -> Place:
    """The full folder, on a machine of its own without processes and devices."""
    proc, dev, sys, etc, run = (tmp_path / name for name in ("proc", "dev", "sys", "etc", "run"))
    machine = Machine(proc, dev, sys, etc, run)
    for root in (machine.proc, machine.dev):
        root.mkdir()
    return Place(Settings(), folder.files, tmp_path / "config.yaml", machine, ManualClock())


def here(place: Place) -> Place:
    """The same files on the machine that runs the tests."""
    return replace(place, machine=Machine())


def states(found: Iterable[Finding]) -> list[tuple[State, str]]:
    return [(finding.state, finding.text) for finding in found]


def only(found: Iterable[Finding], state: State) -> list[Finding]:
    return [finding for finding in found if finding.state == state]


def at(place: Place, **settings: object) -> Place:
    return replace(place, settings=place.settings.model_copy(update=settings))


def process(machine: Machine, pid: int, name: str, opened: Path | None = None) -> None:
    folder = machine.proc / str(pid) / "fd"
    folder.mkdir(parents=True)
    (folder.parent / "comm").write_text(f"{name}\n")
    if opened is not None:
        (folder / "5").symlink_to(opened)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


# Running checks


def test_a_check_that_raises_is_a_finding_and_the_others_go_on() -> None:
    def broken() -> Iterator[Finding]:
        yield ok("disk", "so far")
        raise ZeroDivisionError("oops")

    other = Check("clock", "time", lambda: [ok("clock", "x")])
    found = run_checks([Check("disk", "the disk", broken), other])

    assert states(found) == [
        ("ok", "so far"),
        ("fail", "the check of the disk failed: ZeroDivisionError: oops"),
        ("ok", "x"),
    ]


def test_a_check_that_hangs_is_left_behind() -> None:
    forever = threading.Event()

    def hangs() -> Iterator[Finding]:
        forever.wait()
        yield ok("disk", "never")

    found = run_checks([Check("disk", "the disk", hangs)], limit_s=0.05)
    forever.set()

    [(state, text)] = states(found)
    assert state == "warn"
    assert "did not end" in text


# Settings and Python


def test_every_problem_of_the_settings_is_a_line_and_the_exit_code_says_so(
    run: Runner, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("log_level: loud\nmax_replly_parts: 3\nsend_spacing_seconds: fast\n")

    result = run("doctor", "--config", path)

    assert result.code == ExitCode.CONFIG
    assert "loud" in result.out
    assert "did you mean max_reply_parts" in result.out
    assert "send_spacing_seconds" in result.out
    assert "once the settings are right" in result.out


def test_unknown_names_in_dotenv_and_a_missing_file_are_warnings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OLAMA_BASE_URL=http://x\n")

    loaded, found = basics.read_settings(tmp_path / "config.yaml", {}, must_exist=False)

    assert loaded is not None
    assert any("OLAMA_BASE_URL" in finding.text for finding in only(found, "warn"))
    assert only(found, "fail") == []


def test_values_that_an_operator_regrets_are_named() -> None:
    risky = Settings(file_mode=0o666, airtime_budget=0, channel_use_slow_percent=50)

    told = " ".join(finding.text for finding in basics.risks(risky))

    assert "file_mode 0666" in told
    assert "airtime_budget" in told
    assert "channel_use_slow_percent" in told
    assert list(basics.risks(Settings())) == []


def test_missing_and_old_packages_name_the_set_up(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\ndependencies = ["click>=99.1", "no-such-thing-here>=1", "pyyaml"]'
    )

    found = list(basics.packages(basics.wanted_packages(project)))

    assert [finding.text.split()[1] for finding in found] == ["click", "no-such-thing-here"]
    assert {finding.fix for finding in found} == {"./run.sh setup"}


def test_packages_of_this_checkout_are_there() -> None:
    assert only(basics.python(checks.PYPROJECT), "fail") == []


# Radios


def test_a_missing_port_names_those_that_are_there(place: Place) -> None:
    stable = place.machine.dev / "serial" / "by-id"
    stable.mkdir(parents=True)
    (stable / "usb-Heltec_1-if00").symlink_to(place.machine.dev / "ttyUSB3")

    [found] = radios.serial(parse_link("serial:/dev/ttyUSB9"), place)

    assert found.state == "fail"
    assert "usb-Heltec_1-if00" in found.text
    assert "link: serial:" in found.fix


def test_who_holds_a_port_is_named_with_the_way_to_end_it(place: Place) -> None:
    port = place.machine.dev / "ttyUSB0"
    port.touch()
    process(place.machine, 4711, "ModemManager", opened=port)
    process(place.machine, 4712, "screen", opened=port)
    process(place.machine, 4713, "bash")

    found = only(radios.serial(parse_link("serial:/dev/ttyUSB0"), place), "fail")

    assert [finding.text.split(" has ")[0].split(": ")[1] for finding in found] == [
        "ModemManager (pid 4711)",
        "screen (pid 4712)",
    ]
    assert [finding.fix for finding in found] == [
        "sudo systemctl disable --now ModemManager",
        "end it: kill 4712",
    ]
    assert [finding.state for finding in radios.grabbers(place.machine)] == ["warn"]


def test_a_port_of_a_foreign_group_gives_the_exact_command(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    port.chmod(0o660)
    machine = Machine(uid=NOT_WANTED, groups=frozenset())

    found = radios.permission(parse_link(f"serial:{port}"), port, port.stat(), machine)

    assert found.state == "fail"
    wanted = f"sudo usermod -aG {port.group()} {NOT_WANTED}, then log out and in again"
    assert found.fix == wanted


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "allowed"),
    [
        (0o660, 0, (), True),
        (0o600, 10, (), True),
        (0o060, 10, (), False),
        (0o660, 11, (20,), True),
        (0o640, 11, (20,), False),
        (0o606, 11, (), True),
        (0o660, 11, (), False),
    ],
)
def test_permission_goes_by_owner_then_group_then_others(
    mode: int, uid: int, groups: tuple[int, ...], *, allowed: bool
) -> None:
    status = os.stat_result((stat.S_IFCHR | mode, 1, 1, 1, 10, 20, 0, 0, 0, 0))

    assert may(status, 6, uid=uid, groups=frozenset(groups)) is allowed


def test_a_radio_on_the_network_is_reached_or_not(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        [reached] = radios.tcp(parse_link(f"tcp:127.0.0.1:{server.getsockname()[1]}"), place)
    [refused] = radios.tcp(parse_link(f"tcp:127.0.0.1:{closed_port()}"), place)

    assert reached.state == "ok"
    assert refused.state == "fail"
    assert "ping 127.0.0.1" in refused.fix


def test_a_radio_is_not_touched_while_the_bridge_runs(place: Place) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        ProcessLock(place.files.bridge_lock, "bridge"),
    ):
        server.setblocking(False)
        [found] = radios.tcp(parse_link(f"tcp:127.0.0.1:{server.getsockname()[1]}"), here(place))

        assert found.state == "info"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_bluetooth_needs_its_daemon_its_bus_and_an_adapter(place: Place) -> None:
    link, machine = parse_link("ble:AA:BB:CC:DD:EE:FF"), place.machine

    def told() -> str:
        [found] = radios.bluetooth(link, machine)
        return f"{found.state} {found.text}"

    assert "bluetoothd does not run" in told()
    process(machine, 300, "bluetoothd")
    assert "system bus" in told()
    (machine.run / "dbus").mkdir(parents=True)
    (machine.run / "dbus" / "system_bus_socket").touch()
    assert "no Bluetooth adapter" in told()
    (machine.sys / "class/bluetooth/hci0").mkdir(parents=True)
    assert told().startswith("info")


def test_a_link_that_is_down_is_a_warning_while_the_bridge_runs(
    place: Place, folder: Folder
) -> None:
    folder.radio(link_state="down", link_cause="Connection refused")
    configured = [Radio(link=parse_link("tcp:127.0.0.1:4403"))]

    [stopped] = radios.told(place, configured)
    with ProcessLock(place.files.bridge_lock, "bridge"):
        [down] = radios.told(here(place), configured)

    assert (stopped.state, down.state) == ("info", "warn")
    assert "Connection refused" in down.text
    assert "plugged in" in down.fix


def test_a_radio_without_a_region_fails(place: Place, folder: Folder) -> None:
    folder.radio(region="UNSET")

    [found] = only(radios.told(place, [Radio(link=parse_link("tcp:127.0.0.1:4403"))]), "fail")

    assert "no region" in found.text


# Model


def test_a_model_that_is_there_has_version_and_room(place: Place) -> None:
    (place.machine.proc / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
    with OllamaServer() as server:
        found = list(model.look(at(place, ollama_base_url=server.url)))

    assert {finding.state for finding in found} == {"ok"}
    assert "Ollama" in found[0].text
    assert "6.1 GB are free" in found[1].text


def test_a_missing_model_gives_both_pull_commands_and_what_there_is(place: Place) -> None:
    with OllamaServer(models=[FakeModel("llama3.2:1b")]) as server:
        missing, others, *_ = model.look(at(place, ollama_base_url=server.url))

    assert missing.state == "fail"
    assert f"ollama pull {INSTRUCT}" in missing.fix
    assert f"docker exec ollama ollama pull {INSTRUCT}" in missing.fix
    assert "llama3.2:1b" in others.text


def test_no_server_says_how_to_start_it(place: Place) -> None:
    first, *_ = model.look(at(place, ollama_base_url=f"http://127.0.0.1:{closed_port()}"))

    assert (first.state, "docker start ollama" in first.fix) == ("fail", True)


def test_a_second_address_that_is_down_is_a_warning_while_the_first_works(place: Place) -> None:
    down = f"http://127.0.0.1:{closed_port()}"
    with OllamaServer() as server:
        both = at(place, ollama_base_url=server.url, ollama_base_url_2=down)
        found = list(model.look(both))

    assert only(found, "fail") == []
    assert [finding.text.split(":")[0] for finding in only(found, "warn")] == ["the second address"]


def test_a_missing_thinking_model_is_a_warning(place: Place) -> None:
    with OllamaServer() as server:
        chosen = at(place, ollama_base_url=server.url, ollama_model_think="deep:1b")
        found = list(model.look(chosen))

    fixes = [finding.fix.split(" (")[0] for finding in only(found, "warn")]
    assert fixes == ["ollama pull deep:1b"]


@pytest.mark.parametrize(
    ("total", "free", "loaded", "state"),
    [
        (8000, 7000, False, "ok"),
        (8000, 4000, False, "warn"),
        (4000, 3900, False, "fail"),
        (8000, 100, True, "ok"),
    ],
)
def test_memory_is_compared_with_the_size_of_the_model(
    total: int, free: int, state: str, *, loaded: bool
) -> None:
    figures = {"MemTotal": total, "MemAvailable": free}

    [found] = model.memory("qwen", 4300, figures, is_loaded=loaded)

    assert found.state == state


# Disk, permissions, locks


def test_too_little_space_fails_and_names_the_page(place: Place) -> None:
    [found] = only(storage.disk(at(place, disk_reserve_mb=1_000_000)), "fail")

    assert "nothing is answered" in found.text
    assert found.fix == "docs/how-to/free-a-full-card.md"


def test_the_reserve_is_told_apart_from_something_else(place: Place) -> None:
    path = place.files.reserve(same_disk=True)
    missing = [finding.state for finding in storage.disk(place)]
    path.write_bytes(b"\0" * reserve.SIZE_BYTES)
    whole = [finding.state for finding in storage.disk(place)]
    path.write_bytes(b"mine")
    strange = [finding.state for finding in storage.disk(place)]

    assert (missing[-1], whole[-1], strange[-1]) == ("info", "ok", "warn")


def test_another_user_is_told_the_chown_that_helps(place: Place) -> None:
    place.files.data_dir.chmod(0o750)
    stranger = replace(place, machine=Machine(uid=NOT_WANTED, groups=frozenset()))

    found = only(storage.permissions(stranger), "fail")

    assert found
    roots = f"{place.files.data_dir} {place.files.prompts_dir}"
    assert found[0].fix == f"sudo chown -R {NOT_WANTED}: {roots}"


def test_files_that_anybody_may_write_are_named(place: Place) -> None:
    place.files.agent_status.chmod(0o666)

    found = only(storage.permissions(place), "warn")

    assert any(str(place.files.agent_status) in one.text and "chmod" in one.fix for one in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_left_overs_of_root_give_the_chown_of_the_owner(place: Place) -> None:
    for path in (place.files.data_dir, *place.files.data_dir.rglob("*")):
        os.chown(path, NOT_WANTED, NOT_WANTED)
    os.chown(place.files.agent_status, 0, 0)

    found = next(f for f in storage.permissions(place) if "left by a run" in f.text)

    assert "agent.json" in found.text
    assert found.fix.startswith(f"sudo chown -R {NOT_WANTED}: {place.files.data_dir}")


def test_a_running_process_is_told_from_a_stale_id(place: Place) -> None:
    real = here(place)
    with ProcessLock(place.files.agent_lock, "agent"):
        held = holder(place.files.agent_lock, real.machine)
        running = states(storage.locks(real))
    stale = states(storage.locks(real))

    assert held is not None
    assert held.pid == os.getpid()
    assert ("ok", f"the agent runs (pid {os.getpid()})") in running
    assert any(state == "info" and "still names pid" in text for state, text in stale)


def test_looking_at_the_locks_takes_none(place: Place) -> None:
    with ProcessLock(place.files.bridge_lock, "bridge"):
        list(storage.locks(here(place)))

    assert place.files.bridge_lock.read_text().strip() == str(os.getpid())
    assert not place.files.agent_lock.exists()


def test_a_file_locked_by_a_stranger_is_named_with_its_process(place: Place) -> None:
    path = place.files.tree("aaaa0001").nodes
    with locks.hold(path):
        found = only(storage.locks(here(place)), "warn")

    assert [str(path) in finding.text for finding in found] == [True]
    assert str(os.getpid()) in found[0].fix
    assert only(storage.locks(here(place)), "warn") == []


def test_a_process_that_cannot_be_seen_is_known_by_its_lock(place: Place, folder: Folder) -> None:
    """As from outside its container: no entry in /proc/locks, but a fresh status."""
    folder.agent(heartbeat_at="2026-03-01T11:59:30Z")
    assert not place.agent_runs()

    with ProcessLock(place.files.agent_lock, "agent"):
        assert place.agent() is None
        assert place.agent_runs()

    assert not place.agent_runs()


# Files


def test_whole_files_are_counted(place: Place) -> None:
    [(state, text)] = states(contents.look(place))

    assert state == "ok"
    assert text.endswith("tables are whole")


def test_damage_names_file_line_byte_and_reason(place: Place) -> None:
    path = place.files.tree("aaaa0001").dm_thread(ADA)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"half,a,row\n", *lines[2:], b"\0\0\n"]))

    [found] = only(contents.look(place), "fail")

    offset = len(lines[0] + lines[1])
    assert found.text == (
        f"{path}: 2 damaged places, the first in line 3 (byte {offset}): 3 cells instead of 11"
    )
    assert "--repair" in found.fix


@pytest.mark.timeout(5)
def test_a_fifo_in_the_place_of_a_table_stops_nobody(place: Place) -> None:
    path = place.files.tree("aaaa0001").sightings
    path.unlink()
    os.mkfifo(path)

    [found] = only(contents.look(place), "fail")

    assert "is a fifo, not a file" in found.text


def test_left_overs_empty_tables_and_quarantine_are_told(place: Place) -> None:
    tree = place.files.tree("aaaa0001")
    (tree.dms / ".x.csv.0123abcd.tmp").write_text("x")
    tree.latest.write_bytes(b"")
    tree.quarantine.mkdir()
    (tree.quarantine / "x.20260101T000000Z.abcdef.csv").write_text("old")

    found = list(contents.look(place))

    assert [finding.state for finding in found] == ["warn", "warn", "info"]
    assert "without a header" in found[0].text
    assert "1 half-written" in found[1].text
    assert "x.20260101T000000Z.abcdef.csv" in found[2].text


def test_a_folder_full_of_nonsense_gives_findings_and_no_traceback(tmp_path: Path) -> None:
    folder = full(tmp_path)
    tree = folder.tree
    tree.channels.mkdir(parents=True, exist_ok=True)
    (tree.channels / "folder.csv").mkdir()
    (tree.channels / "link.csv").symlink_to("/etc/passwd")
    (tree.channels / "huge.csv").write_bytes(b'"' * 100_000)
    tree.radio_status.write_bytes(b"\xff{[")
    folder.files.agent_status.write_text("[1,2]")
    folder.files.prompts_table.write_bytes(b"\x00" * 5000)
    (folder.files.prompts_dir / "bad.md").write_text("---\n: [\n---\n")
    os.mkfifo(folder.files.prompts_dir / "pipe.md")
    (folder.files.prompts_dir / "_config.yml").write_text("a: [")
    place = Place(Settings(), folder.files, tmp_path / "c.yaml", Machine(), ManualClock())
    wanted = [check for check in checks.families(place) if check.group not in {"model", "radios"}]

    found = run_checks(wanted, limit_s=15)

    assert not [finding.text for finding in found if "the check of" in finding.text]
    damaged = [finding.text for finding in found if finding.group == "files"]
    assert any("is a folder" in text for text in damaged)
    assert any("is a link" in text for text in damaged)
    assert any("zero bytes" in text or "wrong header" in text for text in damaged)
    assert any("cannot be used" in f.text for f in found if f.group == "prompts")


def test_a_new_installation_has_no_failure_in_its_files(tmp_path: Path) -> None:
    place = Place(Settings(), Folder(tmp_path).files, tmp_path / "c.yaml", Machine(), ManualClock())
    wanted = {"files", "permissions", "locks", "prompts", "system"}

    found = run_checks([check for check in checks.families(place) if check.group in wanted])

    assert only(found, "fail") == []


# Clock


def test_a_clock_before_this_program_cannot_be_right() -> None:
    assert clocks.plausible(datetime(1970, 1, 1, tzinfo=UTC)).state == "fail"
    assert clocks.plausible(datetime(2026, 6, 1, tzinfo=UTC)).state == "ok"


def test_a_row_from_the_future_tells_that_the_clock_is_behind(place: Place, folder: Folder) -> None:
    folder.thread(heard("9", "later", at="2026-03-02T00:00:00Z"))

    [found] = only(clocks.look(place), "warn")

    assert "row 9" in found.text
    assert "timedatectl" in found.fix


@pytest.mark.parametrize(
    ("rx_time", "state"), [(1772362800, "ok"), (1772370000, "warn"), (1000, "info")]
)
def test_the_radios_own_time_is_compared(rx_time: int, state: str) -> None:
    row = heard("9", "x", at="2026-03-01T11:00:00Z", rx_time=rx_time)

    [found] = clocks.radio_time([row])

    assert found.state == state


def test_hardware_and_network_time_are_looked_for(place: Place) -> None:
    machine, now = place.machine, place.clock.utc()
    rtc = machine.sys / "class/rtc/rtc0"
    rtc.mkdir(parents=True)
    (rtc / "since_epoch").write_text(f"{int(now.timestamp()) - 90_000}\n")
    (machine.run / "systemd/timesync").mkdir(parents=True)
    (machine.run / "systemd/timesync/synchronized").touch()

    assert clocks.hardware(machine, now).state == "warn"
    assert clocks.synchronised(machine).state == "ok"


# Prompts and system


def page(prompt_id: str) -> str:
    row = PromptRow(prompt_id, "aaaa0001", "2026-03-01 10:00:20", "m", "dm", ADA, "101")
    return pages.render(pages.Page(row, "ok", (), (pages.Block("user", "x"),), "y", "z"))


def test_rows_and_pages_that_miss_each_other_are_counted(place: Place) -> None:
    for known in place.files.prompts_dir.glob("*.md"):
        known.unlink()
    place.files.prompt_page("abc-1").write_text(page("abc-1"))
    (place.files.prompts_dir / "about.md").write_text("---\nlayout: page\n---\nhello\n")

    lacking, pageless, *_ = states(prompts.look(place))

    assert lacking == ("warn", "1 pages without a row, such as abc-1.md")
    assert pageless[0] == "info"
    assert "rows without a page, such as 0f0e-1" in pageless[1]


def test_a_prompt_log_that_is_off_is_not_searched(place: Place) -> None:
    off = at(place, enable_prompt_logs=False)

    assert [finding.state for finding in prompts.look(off)] == ["info"]


def test_log_folder_and_units_are_told(place: Place) -> None:
    units = place.machine.etc / "systemd" / "system"
    units.mkdir(parents=True)
    (units / "meshllm-bridge.service").touch()
    (units / "meshtasticd.service").touch()

    found = states(system.look(place))

    assert found[0][0] == "ok"
    assert found[1] == ("info", "systemd units: meshllm-bridge.service")


# The command


def test_json_has_every_finding_and_the_code_tells_trouble(run: Runner, tmp_path: Path) -> None:
    folder = full(tmp_path)
    config = tmp_path / "config.yaml"
    with socket.create_server(("127.0.0.1", 0)) as radio, OllamaServer() as server:
        config.write_text(
            f"radios:\n  - link: tcp:127.0.0.1:{radio.getsockname()[1]}\n"
            f"ollama_base_url: {server.url}\n"
        )
        well = run("doctor", "--json", "--config", config)
        folder.tree.nodes.write_bytes(b"no table\n")
        ill = run("doctor", "--json", "--config", config)

    assert (well.code, ill.code) == (ExitCode.OK, ExitCode.FOUND_TROUBLE), well.out
    facts = ill.json
    assert isinstance(facts, dict)
    [failed] = [one for one in facts["findings"] if one["state"] == "fail"]
    assert (failed["group"], "wrong header" in failed["text"]) == ("files", True)
    assert set(failed) == {"group", "state", "text", "fix"}


def test_screen_groups_lines_and_shows_fixes(run: Runner, golden: Golden, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text('log_level: "\\e[31mloud"\nfolder_mode: 99\n')

    out = run("doctor", "--config", path).out

    shown = out[: out.index("python\n")]  # what comes then depends on the machine
    golden("cli/doctor-settings.txt", shown.replace(str(tmp_path), "DIR"))


def test_dry_run_alone_is_a_wrong_command_line(run: Runner) -> None:
    assert run("doctor", "--dry-run").code == ExitCode.USAGE


def test_processes_are_written_for_people() -> None:
    assert str(Process(7, "bash")) == "bash (pid 7)"
    assert str(Process(7, "")) == "a process (pid 7)"
