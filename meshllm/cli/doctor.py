"""`meshllm doctor`: says what is wrong, each line with its fix; `--repair` mends what it can."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from meshllm import config as settings_file
from meshllm.app import layout_of
from meshllm.cli import show
from meshllm.doctor.findings import GROUPS, Finding, State
from meshllm.doctor.place import Place
from meshllm.doctor.repair import Outcome, Step, repair
from meshllm.errors import ExitCode
from meshllm.observe import log as logging_setup

_TONES: Final[dict[State, show.Tone]] = {"ok": "good", "warn": "warn", "fail": "bad", "info": ""}
_STEP_TONES: Final[dict[Outcome, show.Tone]] = {
    "done": "good",
    "would": "",
    "refused": "warn",
    "failed": "bad",
}


@click.command()
@click.option(
    "--repair", "is_repair", is_flag=True, help="Mend what can be mended, asking nothing."
)
@click.option(
    "--dry-run", "is_dry", is_flag=True, help="With --repair: only say what would be done."
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object to stdout.")
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="Settings file (default: config.yaml beside the programs).",
)
@click.pass_context
def doctor(
    ctx: click.Context, path: Path | None, *, is_repair: bool, is_dry: bool, as_json: bool
) -> None:
    """Look at settings, radios, model, disk and files; say what to do about each.

    Exit code 0 when nothing fails (warnings do not count), 6 when something does, 4 when the
    settings cannot be read.
    """
    if is_dry and not is_repair:
        raise click.UsageError("--dry-run goes with --repair")
    logging_setup.configure("error", role="doctor")
    if is_repair:
        ctx.exit(_repair(path, is_dry=is_dry, as_json=as_json))
    from meshllm.doctor import checks  # noqa: PLC0415  imports every client there is

    found = checks.diagnose(_chosen(path), os.environ, must_exist=path is not None)
    if as_json:
        show.emit_json({"findings": [asdict(finding) for finding in found]})
    else:
        _print(found)
    ctx.exit(_code(found))


def _chosen(path: Path | None) -> Path:
    return path or settings_file.default_path()


def _code(found: Sequence[Finding]) -> ExitCode:
    failed = {finding.group for finding in found if finding.state == "fail"}
    if "settings" in failed:
        return ExitCode.CONFIG
    return ExitCode.FOUND_TROUBLE if failed else ExitCode.OK


def _print(found: Sequence[Finding]) -> None:
    for group in GROUPS:
        members = [finding for finding in found if finding.group == group]
        if members:
            show.say(group, "head")
        for finding in members:
            show.say(f"  {finding.state:<4}  {finding.text}", _TONES[finding.state])
            if finding.fix:
                show.say(f"        > {finding.fix}")
    counts = Counter(finding.state for finding in found)
    show.say(f"{counts['fail']} fail, {counts['warn']} warn, {counts['ok']} ok")


def _repair(path: Path | None, *, is_dry: bool, as_json: bool) -> ExitCode:
    loaded = settings_file.load(_chosen(path), os.environ, must_exist=path is not None)
    settings = loaded.settings
    steps = repair(Place(settings, layout_of(settings), loaded.path), is_dry=is_dry)
    if as_json:
        listed = [{**asdict(step), "path": str(step.path)} for step in steps]
        show.emit_json({"dry_run": is_dry, "steps": listed})
    else:
        _print_steps(steps)
    is_bad = any(step.outcome in {"refused", "failed"} for step in steps)
    return ExitCode.FOUND_TROUBLE if is_bad else ExitCode.OK


def _print_steps(steps: Sequence[Step]) -> None:
    for step in steps:
        show.say(f"{step.outcome:<7}  {step.path}: {step.text}", _STEP_TONES[step.outcome])
    if not steps:
        show.say("nothing to repair")
