"""Checks of the settings, of Python and its packages. Opens no device and no data file."""

import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from meshllm import config
from meshllm.config import Loaded, Settings
from meshllm.doctor.findings import Finding, fail, info, ok, warn
from meshllm.errors import UserError

OLDEST: Final = (3, 11)
NEWEST: Final = (3, 13)
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9_.-]+)\s*(?:>=\s*([0-9.]+))?")
_NUMBER: Final = re.compile(r"\d+")
_SETTINGS: Final = "settings"
_PYTHON: Final = "python"


def read_settings(
    path: Path, environ: Mapping[str, str], *, must_exist: bool
) -> tuple[Loaded | None, list[Finding]]:
    """Load the settings as the programs do; None with every problem as a finding."""
    try:
        loaded = config.load(path, environ, must_exist=must_exist)
    except UserError as error:
        fix = "correct it; every key is in docs/reference/config.md"
        problems = error.problems or (str(error),)
        return None, [fail(_SETTINGS, problem, fix) for problem in problems]
    doubts = [_warning(text) for text in loaded.warnings]
    return loaded, [ok(_SETTINGS, f"{path} is valid"), *doubts, *risks(loaded.settings)]


def _warning(text: str) -> Finding:
    is_missing = "no such file" in text
    fix = "python -m meshllm config dump > config.yaml" if is_missing else "correct or remove it"
    return warn(_SETTINGS, text, fix)


def risks(settings: Settings) -> Iterator[Finding]:
    """Name values that are allowed and that an operator may regret. Pure."""
    modes = {key: getattr(settings, key) for key in ("file_mode", "folder_mode", "lock_mode")}
    for key, mode in modes.items():
        if mode & 0o002:
            text = f"{key} 0{mode:o} lets every user of this machine write"
            yield warn(_SETTINGS, text, f"{key}: 0{mode & ~0o002:o}")
    if settings.channel_use_slow_percent > settings.channel_use_hold_percent:
        text = "channel_use_slow_percent is above channel_use_hold_percent, so it has no effect"
        yield warn(_SETTINGS, text, "set it below")
    if not settings.airtime_budget:
        text = "airtime_budget is off: one person can use all of the shared air"
        yield warn(_SETTINGS, text, "airtime_budget: 360")
    if settings.ollama_model_think == settings.ollama_model_instruct:
        text = "ollama_model_think is the ordinary model: thinking changes nothing"
        yield info(_SETTINGS, text, 'ollama_model_think: ""')
    if not settings.enable_prompt_logs:
        text = "enable_prompt_logs is off: after a crash the model is asked again"
        yield info(_SETTINGS, text)


def python(pyproject: Path) -> Iterator[Finding]:
    """Look at the interpreter and at the packages that `pyproject` wants."""
    here = sys.version_info
    text = f"Python {here.major}.{here.minor}.{here.micro}"
    if not OLDEST <= here[:2] <= NEWEST:
        fix = "PYTHON=python3.12 ./run.sh setup, after removing .venv"
        yield fail(_PYTHON, f"{text} is not supported (3.11 to 3.13 are)", fix)
    else:
        where = "in a virtual environment" if sys.prefix != sys.base_prefix else "of the system"
        yield ok(_PYTHON, f"{text} {where}")
    if os.geteuid() == 0:
        yield warn(
            _PYTHON,
            "running as root: files made now would belong to root",
            "run it as the user of the services",
        )
    yield from packages(wanted_packages(pyproject))


def wanted_packages(pyproject: Path) -> dict[str, str]:
    """Read names and least versions of the run-time packages; {} without the file."""
    try:
        declared = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return {}
    found = (_REQUIREMENT.match(line) for line in declared)
    return {match[1]: match[2] or "" for match in found if match}


def packages(wanted: Mapping[str, str]) -> Iterator[Finding]:
    """Say which packages are missing or too old."""
    fix = "./run.sh setup"
    wrong = 0
    for name, least in sorted(wanted.items()):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield fail(_PYTHON, f"package {name} is missing", fix)
            wrong += 1
            continue
        if _parts(version) < _parts(least):
            yield fail(_PYTHON, f"package {name} {version} is older than {least}", fix)
            wrong += 1
    if wanted and not wrong:
        yield ok(_PYTHON, f"{len(wanted)} packages are there")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _NUMBER.findall(version)[:3])
