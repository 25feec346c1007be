import json
import os
import string
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm import config
from meshllm.cli.config import config as config_command
from meshllm.config import Link, Radio, Settings
from meshllm.errors import ExitCode, UserError

TCP_X = Link("tcp", "x", 4403)


@pytest.fixture(autouse=True)
def _plain_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHLLM_TIME_SCALE", raising=False)


def load(
    folder: Path,
    text: str | bytes = "",
    *,
    env: Mapping[str, str] | None = None,
    dotenv: str | bytes | None = None,
) -> config.Loaded:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    if dotenv is not None:
        (folder / ".env").write_bytes(dotenv.encode() if isinstance(dotenv, str) else dotenv)
    return config.load(path, env or {}, must_exist=True)


def problems(
    folder: Path,
    text: str | bytes = "",
    *,
    env: Mapping[str, str] | None = None,
    dotenv: str | bytes | None = None,
) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(folder, text, env=env, dotenv=dotenv)
    return list(caught.value.problems)


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert loaded.settings == Settings().anchored(tmp_path)
    assert loaded.warnings == ()


def test_defaults_are_those_of_the_specification() -> None:
    chosen = Settings()

    assert str(chosen.radios[0].link) == "serial:auto"
    assert (chosen.data_dir, chosen.prompts_dir) == (Path("data"), Path("prompts"))
    assert chosen.nodes_dir == Path("data/nodes")
    assert (chosen.file_mode, chosen.folder_mode, chosen.lock_mode) == (0o440, 0o750, 0o660)
    assert (chosen.send_spacing_seconds, chosen.max_reply_parts) == (2.5, 2)
    assert (chosen.enable_prompt_logs, chosen.timezone, chosen.log_level) == (True, "UTC", "info")


def test_environment_wins_over_dotenv_over_file_over_default(tmp_path: Path) -> None:
    file = "max_nodes: 10\nmax_threads: 20\nlive_rows: 60\n"
    dotenv = "MAX_NODES=11\nMAX_THREADS=21\n"

    chosen = load(tmp_path, file, dotenv=dotenv, env={"MAX_NODES": "12"}).settings

    found = (chosen.max_nodes, chosen.max_threads, chosen.live_rows, chosen.disk_reserve_mb)
    assert found == (12, 21, 60, 50)


def test_environment_of_this_process_is_neither_read_nor_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_NODES", "11")
    before = dict(os.environ)

    chosen = load(tmp_path, dotenv="MAX_THREADS=21\n").settings

    assert (chosen.max_nodes, chosen.max_threads) == (2000, 21)
    assert dict(os.environ) == before


def test_dotenv_is_taken_without_interpolation(tmp_path: Path) -> None:
    dotenv = "export DATA_DIR='/x/${HOME}'  # note\n"

    assert load(tmp_path, dotenv=dotenv).settings.data_dir == Path("/x/${HOME}")


def test_unknown_name_in_dotenv_warns_with_line_and_nearest_name(tmp_path: Path) -> None:
    loaded = load(tmp_path, dotenv="# note\n\nMAX_NODE=3\nWHATEVER_ELSE=1\n")

    assert loaded.warnings == (
        ".env:3: MAX_NODE: is not a setting (did you mean MAX_NODES?)",
        ".env:4: WHATEVER_ELSE: is not a setting",
    )


def test_broken_line_and_bad_value_in_dotenv_are_problems(tmp_path: Path) -> None:
    assert problems(tmp_path, dotenv="MAX_NODES=few\n'x\n") == [
        ".env:1: MAX_NODES: must be a whole number, not 'few'",
        ".env:2: is not a line of the form NAME=value",
    ]


def test_dotenv_that_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, dotenv=b"DATA_DIR=x\nTIMEZONE=\xff\n") == [".env:2: is not UTF-8"]


def test_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    env = {"MAX_NODES": "", "RADIO": "  "}

    chosen = load(tmp_path, "max_nodes: 10\n", env=env, dotenv="LIVE_ROWS=\nMAX_THREADS\n").settings

    assert chosen == Settings(max_nodes=10).anchored(tmp_path)


def test_lists_in_variables_are_separated_by_commas(tmp_path: Path) -> None:
    env = {"CHANNEL_ALLOWLIST": " LongFast, Camp ,", "DM_BLOCKLIST": ","}

    chosen = load(tmp_path, "dm_blocklist: [x]\n", env=env).settings

    assert (chosen.channel_allowlist, chosen.dm_blocklist) == (("LongFast", "Camp"), ())


@pytest.mark.parametrize("name", ["RADIO", "RADIOS"])
def test_radio_variable_replaces_the_list(tmp_path: Path, name: str) -> None:
    file = "radios:\n  - link: serial:/dev/ttyUSB0\n    alias: hill\n"

    chosen = load(tmp_path, file, env={name: "tcp:127.0.0.1, tcp:[::1]:4404"}).settings

    assert [str(radio.link) for radio in chosen.radios] == ["tcp:127.0.0.1:4403", "tcp:[::1]:4404"]
    assert [radio.alias for radio in chosen.radios] == ["", ""]


def test_radio_in_the_environment_wins_over_radios_in_dotenv(tmp_path: Path) -> None:
    chosen = load(tmp_path, env={"RADIO": "tcp:a"}, dotenv="RADIOS=tcp:b\n").settings

    assert [radio.link.target for radio in chosen.radios] == ["a"]


def test_both_radio_variables_are_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, env={"RADIO": "tcp:a", "RADIOS": "tcp:b"}) == [
        "environment: RADIO: says the same as RADIOS; keep one"
    ]


def test_problem_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    assert problems(tmp_path, env={"RADIO": "udp:x", "MAX_REPLY_PARTS": "10"}) == [
        (
            "environment: RADIO: 'udp:x' is not a link; write serial:auto, serial:/dev/ttyUSB0, "
            "tcp:HOST[:PORT] or ble:ADDRESS"
        ),
        "environment: MAX_REPLY_PARTS: must be from 1 to 9, not 10",
    ]


def test_every_problem_of_every_source_is_listed_at_once(tmp_path: Path) -> None:
    file = """\
data_dri: x
MAX_NODES: 3
max_message_chars: 500
max_reply_parts: "2"
max_reply_parts: 3
log_level: warning
enable_prompt_logs: maybe
radios:
  - link: serial:auto
    alais: x
  - alias: 007
file_mode: 0289
lock_mode: 0010
send_spacing_seconds: fast
channel_allowlist: LongFast
max_threads: [1]
"""
    found = problems(
        tmp_path, file, dotenv="LIVE_ROWS=1\n", env={"TIMEZONE": "x/y", "MAX_NODES": "1.5"}
    )

    assert found == [
        "config.yaml:1: data_dri: is not a setting (did you mean data_dir?)",
        "config.yaml:2: MAX_NODES: is not a setting (did you mean max_nodes?)",
        "config.yaml:3: max_message_chars: must be from 20 to 220, not 500",
        'config.yaml:4: max_reply_parts: must be a whole number, not "2" in quotes',
        "config.yaml:5: max_reply_parts: was already set in line 4",
        (
            "config.yaml:6: log_level: must be one of debug, info, warn, error, not 'warning' "
            "(did you mean warn?)"
        ),
        "config.yaml:7: enable_prompt_logs: must be true or false, not 'maybe'",
        "config.yaml:10: radios.alais: is not a setting (did you mean alias?)",
        "config.yaml:11: radios.link: is missing",
        "config.yaml:12: file_mode: must be an octal mode such as 0440, not '0289'",
        "config.yaml:13: lock_mode: must be from 0600 to 0777, not 010",
        "config.yaml:14: send_spacing_seconds: must be a number, not 'fast'",
        "config.yaml:15: channel_allowlist: must be a list, such as [one, two], not 'LongFast'",
        "config.yaml:16: max_threads: must be a whole number, not a list",
        ".env:1: LIVE_ROWS: must be from 50 to 10000, not 1",
        "environment: TIMEZONE: 'x/y' is not a time zone such as Europe/Berlin",
        "environment: MAX_NODES: must be a whole number, not '1.5'",
    ]


def test_bad_value_in_the_file_is_refused_even_when_a_variable_replaces_it(tmp_path: Path) -> None:
    found = problems(tmp_path, "max_nodes: few\n", env={"MAX_NODES": "20"})

    assert found == ["config.yaml:1: max_nodes: must be a whole number, not 'few'"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a\n", "config.yaml:1: must hold lines of the form `key: value`"),
        ("data_dir\n", "config.yaml:1: must hold lines of the form `key: value`"),
        ("live_rows: 50\ndata_dir: [a\n", "config.yaml:3: is not valid YAML: "),
        ("live_rows: 50\n\tdata_dir: a\n", "config.yaml:2: is not valid YAML: "),
        ("---\na: b\n---\n", "config.yaml:3: is not valid YAML: "),
        ("data_dir: *x\n", "config.yaml:1: is not valid YAML: found undefined alias"),
        ("live_rows: 50\ndata_dir: a\x07b\n", "config.yaml:2: holds a control character"),
        (b"live_rows: 50\ndata_dir: \xff\n", "config.yaml:2: is not UTF-8"),
        ("[" * 5000, "config.yaml: is nested too deeply"),
        ("#" * 1_000_001, "config.yaml: is larger than 1000000 bytes"),
        ("radio: tcp:x\n", "config.yaml:1: radio: is not a setting (did you mean radios?)"),
        ("? [a]\n: b\n", "config.yaml:1: ?: is not a setting"),
        ("<<: {live_rows: 50}\n", "config.yaml:1: <<: is not a setting"),
        ('"a\\nb": 1\n', "config.yaml:1: 'a\\nb': is not a setting"),
    ],
)
def test_file_of_the_wrong_form_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    (found,) = problems(tmp_path, text)

    assert found.startswith(problem)


def test_text_of_a_file_that_is_half_yaml_does_not_hide_problems_elsewhere(tmp_path: Path) -> None:
    found = problems(tmp_path, "a: [\n", env={"LIVE_ROWS": "1"})

    assert found[1:] == ["environment: LIVE_ROWS: must be from 50 to 10000, not 1"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("data_dir: no", "must be text, not no; put it in quotes if that is the text"),
        ("data_dir: 5", "must be text, not 5; put it in quotes if that is the text"),
        ('data_dir: ""', "must be the name of a folder, not an empty value"),
        ('data_dir: "a\\0b"', "'a\\x00b' holds a control character or is not UTF-8"),
        ("data_dir: [a]", "must be the name of a folder, not a list"),
        ("ollama_model_instruct: ''", "must name a model"),
        ("ollama_model_think: off", "must be text, not off; put it in quotes if that is the text"),
        (
            "ollama_base_url: localhost:11434",
            "'localhost:11434' is not an address such as http://localhost:11434",
        ),
        (
            "ollama_base_url: http://x:99999",
            "'http://x:99999' is not an address such as http://localhost:11434",
        ),
        (
            "timezone: europe/berlim",
            "'europe/berlim' is not a time zone (did you mean Europe/Berlin?)",
        ),
        ("timezone: ../../etc/passwd", "'../../etc/passwd' is not a time zone"),
        ("airtime_budget: inf", "must be a number, not inf"),
        ("airtime_budget: nan", "must be a number, not nan"),
        ("live_rows: 0x100", "must be a whole number, not '0x100'"),
        ("live_rows: true", "must be a whole number, not 'true'"),
        ("live_rows: {a: b}", "must be a whole number, not a mapping"),
        ('enable_prompt_logs: "true"', 'must be true or false, not "true" in quotes'),
        ("file_mode: 288", "must be an octal mode such as 0440, not '288'"),
        ("file_mode: 0040", "must be from 0400 to 0777, not 040"),
        ("file_mode: !x 0440", "must be an octal mode such as 0440, not '!x'"),
        ("radios: serial:auto", "must be a list, such as [one, two], not 'serial:auto'"),
        ("radios: []", "must have at least one entry"),
        ("radios: [tcp:x]", "must be a mapping, such as `link: serial:auto`, not tcp:x"),
        ("dm_allowlist: [no]", "must be text, not no; put it in quotes if that is the text"),
        ("dm_allowlist: [' ']", "a name must have from 1 to 100 characters"),
        ("dm_allowlist: [[a]]", "must be text, not a list"),
        ("dm_allowlist: &a [*a]", "must be text, not a list"),
    ],
)
def test_wrong_value_is_explained(tmp_path: Path, line: str, problem: str) -> None:
    (found,) = problems(tmp_path, f"{line}\n")

    assert found.startswith(f"config.yaml:1: {line.partition(':')[0]}: {problem}")


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("file_mode: 0440", "file_mode", 0o440),
        ("file_mode: 440", "file_mode", 0o440),
        ("file_mode: 0o440", "file_mode", 0o440),
        ('file_mode: "0440"', "file_mode", 0o440),
        ("max_nodes: 010", "max_nodes", 10),
        ("enable_prompt_logs: off", "enable_prompt_logs", False),
        ("enable_prompt_logs: Yes", "enable_prompt_logs", True),
        ("send_spacing_seconds: 3", "send_spacing_seconds", 3.0),
        ("max_nodes:", "max_nodes", 2000),
        ("max_nodes: null", "max_nodes", 2000),
        ("max_nodes: ~", "max_nodes", 2000),
        ("radios: null", "radios", Settings().radios),
        ("log_level: WARN", "log_level", "warn"),
        ("timezone: Europe/Berlin", "timezone", "Europe/Berlin"),
        ("dm_allowlist: [00000012, 1e5, !!str 7]", "dm_allowlist", ("00000012", "1e5", "7")),
        ('channel_allowlist: ["no", "a,b", "#é 🏕"]', "channel_allowlist", ("no", "a,b", "#é 🏕")),
        ("radios: [{link: tcp:x, alias: 007}]", "radios", (Radio(link=TCP_X, alias="007"),)),
        ("ollama_base_url: http://[::1]:80/", "ollama_base_url", "http://[::1]:80"),
    ],
)  # fmt: skip
def test_yaml_value_is_taken_as_written(tmp_path: Path, line: str, key: str, value: object) -> None:
    loaded = load(tmp_path, f"{line}\n")

    assert getattr(loaded.settings, key) == value
    assert loaded.warnings == ()


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbfmax_nodes: 10\r\n").settings.max_nodes == 10


def test_relative_folders_are_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/lib")
    file = "data_dir: ./d\nprompts_dir: ~/p\n"

    chosen = load(tmp_path, file, env={"NODES_BASE_DIR": "n"}).settings

    found = (chosen.data_dir, chosen.prompts_dir, chosen.nodes_dir)
    assert found == (tmp_path / "d", Path("/home/lib/p"), tmp_path / "n")


def test_missing_default_file_warns_and_missing_named_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    loaded = config.load(path, {})
    with pytest.raises(UserError) as caught:
        config.load(path, {}, must_exist=True)

    assert loaded.settings == Settings().anchored(tmp_path)
    assert loaded.warnings == (f"{path}: no such file; the defaults are used",)
    assert caught.value.problems == (f"{path}: no such file",)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as folder:
        config.load(tmp_path, {})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError) as pipe:
        config.load(tmp_path / "pipe", {})

    assert folder.value.problems == (f"{tmp_path.name}: cannot be read: not a regular file",)
    assert pipe.value.problems == ("pipe: cannot be read: not a regular file",)


def test_radios_that_meet_are_refused(tmp_path: Path) -> None:
    file = """\
radios:
  - {link: tcp:Host, alias: Hill Top}
  - {link: tcp:host:4403, alias: hill_top}
node_uid_strategy: config
dm_allowlist: [Anna]
dm_blocklist: [anna]
"""
    assert problems(tmp_path, file) == [
        "config.yaml:3: radios.link: tcp:host:4403 is listed twice",
        "config.yaml:3: radios.alias: 'hill_top' names the same folder as another radio's alias",
        "config.yaml:6: dm_blocklist: 'anna' is in dm_allowlist as well",
    ]


def test_config_strategy_needs_an_alias_for_every_radio(tmp_path: Path) -> None:
    file = "node_uid_strategy: config\nradios:\n  - {link: tcp:a, alias: a}\n  - link: tcp:b\n"

    assert problems(tmp_path, file) == [
        (
            "config.yaml:4: radios: alias is missing; "
            "node_uid_strategy config needs one for every radio"
        )
    ]


def test_bad_radio_does_not_bring_problems_that_follow_from_it(tmp_path: Path) -> None:
    file = "node_uid_strategy: config\nradios: [{link: x}]\n"

    assert len(problems(tmp_path, file)) == 1


def test_fast_sending_warns(tmp_path: Path) -> None:
    assert load(tmp_path, env={"SEND_SPACING_SECONDS": "0"}).warnings == (
        (
            "environment: SEND_SPACING_SECONDS: "
            "below 2 the firmware drops texts that follow each other"
        ),
    )


@pytest.mark.parametrize("link", ["serial:auto", "ble:AA:BB:CC:DD:EE:FF"])
def test_faster_time_is_refused_with_a_real_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.setenv("MESHLLM_TIME_SCALE", "20")

    assert problems(tmp_path, env={"RADIO": link}) == [
        f"environment: MESHLLM_TIME_SCALE: only 1 is possible with {link}"
    ]
    assert load(tmp_path, env={"RADIO": "tcp:x"}).warnings == ()


def test_time_scale_that_is_no_number_is_listed_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHLLM_TIME_SCALE", "fast")

    assert problems(tmp_path, "live_rows: 1\n") == [
        "config.yaml:1: live_rows: must be from 50 to 10000, not 1",
        "environment: MESHLLM_TIME_SCALE=fast: must be a number from 0.01 to 1000",
    ]


@pytest.mark.parametrize(
    ("text", "link", "written"),
    [
        ("serial:auto", Link("serial", "auto"), "serial:auto"),
        ("SERIAL:Auto", Link("serial", "auto"), "serial:auto"),
        ("serial:/dev/ttyUSB0", Link("serial", "/dev/ttyUSB0"), "serial:/dev/ttyUSB0"),
        ("tcp:pi.local", Link("tcp", "pi.local", 4403), "tcp:pi.local:4403"),
        ("tcp:10.0.0.2:99", Link("tcp", "10.0.0.2", 99), "tcp:10.0.0.2:99"),
        ("tcp:[fe80::1%eth0]", Link("tcp", "fe80::1%eth0", 4403), "tcp:[fe80::1%eth0]:4403"),
        ("ble:AA:BB:CC:DD:EE:FF", Link("ble", "AA:BB:CC:DD:EE:FF"), "ble:AA:BB:CC:DD:EE:FF"),
    ],
)
def test_link_is_read_and_written(text: str, link: Link, written: str) -> None:
    assert config.parse_link(text) == link
    assert str(link) == written
    assert config.parse_link(written) == link


@pytest.mark.parametrize(
    "text",
    ["", "auto", "/dev/ttyUSB0", "serial:", "serial:ttyUSB0", "serial:/dev/", "tcp:", "tcp://host",
     "tcp:::1", "tcp:[x]", "tcp:[::1", "tcp:a:0", "tcp:a:65536", "tcp:a:b", "tcp:a b", "ble:",
     "ble: "],
)  # fmt: skip
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|must be|not a host|not an IPv6"):
        config.parse_link(text)


printable = st.characters(exclude_categories=["Cc", "Cs"])
names = st.text(printable, min_size=1, max_size=30).map(str.strip).filter(bool)
folders = st.text(printable, min_size=1, max_size=30).map(lambda tail: Path("/x") / tail)
radios = st.lists(
    st.builds(
        Radio,
        link=st.builds(
            Link,
            st.just("tcp"),
            st.text(string.ascii_lowercase, min_size=1, max_size=5),
            st.integers(1, 65535),
        ),
        alias=st.just(""),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda radio: radio.link,
).map(tuple)
valid_settings = st.builds(
    Settings,
    radios=radios,
    data_dir=folders,
    nodes_base_dir=st.none() | folders,
    enable_prompt_logs=st.booleans(),
    log_level=st.sampled_from(["debug", "info", "warn", "error"]),
    ollama_model_instruct=names,
    ollama_model_think=st.just("") | names,
    prompts_dir=folders,
    reply_cooldown_seconds=st.floats(0, 86_400),
    send_spacing_seconds=st.floats(0, 600) | st.just(1e-5),
    max_nodes=st.integers(10, 100_000),
    channel_allowlist=st.lists(names, max_size=4).map(tuple),
    dm_blocklist=st.lists(names, max_size=4).map(tuple),
    file_mode=st.integers(0o400, 0o777),
    timezone=st.sampled_from(["UTC", "Europe/Berlin"]),
)


@settings(deadline=None)
@given(chosen=valid_settings)
def test_dump_then_load_is_identity(
    tmp_path_factory: pytest.TempPathFactory, chosen: Settings
) -> None:
    folder = tmp_path_factory.getbasetemp() / "dump"
    folder.mkdir(exist_ok=True)

    assert load(folder, config.dump(chosen)).settings == chosen


@settings(deadline=None)
@given(text=st.text(max_size=60) | st.binary(max_size=60))
def test_any_file_loads_or_is_refused_with_problems(
    tmp_path_factory: pytest.TempPathFactory, text: str | bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text

    found: tuple[str, ...] = ()
    try:
        load(folder, raw, dotenv=raw, env={"DATA_DIR": raw.decode("latin-1")})
    except UserError as error:
        found = error.problems or ("none told",)
    assert "none told" not in found
    assert all(problem.isprintable() for problem in found)


def test_dump_and_reference_commands_write_the_documents() -> None:
    dumped = CliRunner().invoke(config_command, ["dump"])
    table = CliRunner().invoke(config_command, ["reference"])

    assert (dumped.exit_code, dumped.stdout) == (0, config.dump())
    assert (table.exit_code, table.stdout) == (0, config.reference())


def test_check_command_tells_good_from_bad(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("max_nodes: 20\n")
    bad.write_text("max_nodes: 2\n")

    fine = CliRunner().invoke(config_command, ["check", "--config", str(good)])
    wrong = CliRunner().invoke(config_command, ["check", "--config", str(bad)])
    as_json = CliRunner().invoke(config_command, ["check", "--json", "--config", str(bad)])

    problem = "bad.yaml:1: max_nodes: must be from 10 to 100000, not 2"
    assert (fine.exit_code, fine.stdout) == (0, f"{good}: ok\n")
    assert (wrong.exit_code, wrong.stdout, wrong.stderr) == (4, "", f"error: {problem}\n")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (
        4,
        {"path": str(bad), "ok": False, "problems": [problem], "warnings": []},
    )
