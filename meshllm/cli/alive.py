"""`meshllm alive`: whether one of the two programs still writes its heartbeat. Reads files only."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from meshllm import config
from meshllm.app import layout_of
from meshllm.clock import SystemClock, parse_utc
from meshllm.errors import ExitCode
from meshllm.layout import Layout
from meshllm.observe import status

MAX_AGE_S: Final = 180.0  #: heartbeats come every minute; on a card slow to write two come late


@click.command()
@click.argument("role", type=click.Choice(["bridge", "agent"]))
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="Settings file; default: config.yaml beside the programs.",
)
@click.option(
    "--max-age",
    "max_age_s",
    type=click.FloatRange(min=1),
    default=MAX_AGE_S,
    help="Seconds that the heartbeat may be old; default: 180.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.pass_context
def alive(
    ctx: click.Context, role: str, path: Path | None, max_age_s: float, *, as_json: bool
) -> None:
    """Say how old the heartbeat of the bridge or the agent is; exit code 1 when it is too old."""
    chosen = path or config.default_path()
    loaded = config.load(chosen, os.environ, must_exist=path is not None)
    newest = _newest(role, layout_of(loaded.settings))
    age_s = round((SystemClock().utc() - newest).total_seconds()) if newest else None
    # A clock that was set back leaves a heartbeat in the future, until the next one.
    is_alive = age_s is not None and abs(age_s) <= max_age_s
    if as_json:
        click.echo(json.dumps({"role": role, "is_alive": is_alive, "age_s": age_s}))
    else:
        click.echo(f"{role}: {'no heartbeat' if age_s is None else f'heartbeat {age_s} s ago'}")
    if not is_alive:
        ctx.exit(ExitCode.BUG)


def _newest(role: str, files: Layout) -> datetime | None:
    """Time of the newest heartbeat: a bridge lives as long as it says so of one radio."""
    if role == "agent":
        paths = [files.agent_status]
    else:
        paths = [tree.radio_status for tree in files.trees()]
    times = [parse_utc(str(status.read(path).get("heartbeat_at", ""))) for path in paths]
    return max((moment for moment in times if moment), default=None)
