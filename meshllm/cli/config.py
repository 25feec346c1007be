"""`meshllm config`: print the settings file, its reference, or what is wrong with yours."""

import json
import os
from pathlib import Path

import click

from meshllm import config as settings_file
from meshllm.errors import ExitCode, UserError


@click.group()
def config() -> None:
    """Print or check the settings."""


@config.command()
def dump() -> None:
    """Write the default config.yaml to stdout."""
    click.echo(settings_file.dump(), nl=False)


@config.command()
def reference() -> None:
    """Write the table of all settings, as Markdown, to stdout."""
    click.echo(settings_file.reference(), nl=False)


@config.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="File to check; default: config.yaml beside the programs.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.pass_context
def check(ctx: click.Context, path: Path | None, *, as_json: bool) -> None:
    """Check the settings as the programs would read them now, environment included.

    Exit code 0 when they can start with them, 4 when they would refuse.
    """
    chosen = path or settings_file.default_path()
    try:
        loaded = settings_file.load(chosen, os.environ, must_exist=path is not None)
    except UserError as error:
        _report(chosen, problems=error.problems, warnings=(), as_json=as_json)
        ctx.exit(ExitCode.CONFIG)
    _report(chosen, problems=(), warnings=loaded.warnings, as_json=as_json)


@config.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="Settings file; default: config.yaml beside the programs.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def folders(path: Path | None, *, as_json: bool) -> None:
    """Write the folders that the programs write to, one a line, none inside another."""
    chosen = path or settings_file.default_path()
    settings = settings_file.load(chosen, os.environ, must_exist=path is not None).settings
    named = {
        "data_dir": settings.data_dir,
        "nodes_dir": settings.nodes_dir,
        "prompts_dir": settings.prompts_dir,
    }
    if as_json:
        click.echo(json.dumps({name: str(folder) for name, folder in named.items()}, indent=2))
        return
    for folder in sorted(set(named.values())):
        if not any(other in folder.parents for other in named.values()):
            click.echo(str(folder))


def _report(
    path: Path, *, problems: tuple[str, ...], warnings: tuple[str, ...], as_json: bool
) -> None:
    if as_json:
        report = {
            "path": str(path),
            "ok": not problems,
            "problems": problems,
            "warnings": warnings,
        }
        click.echo(json.dumps(report, indent=2))
        return
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if not problems:
        click.echo(f"{path}: ok")
