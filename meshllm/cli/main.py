"""The root of `python -m meshllm`: noun, then verb. Holds no verb itself."""

import io
import sys

import click

from meshllm import __version__
from meshllm.cli import show
from meshllm.cli.alive import alive
from meshllm.cli.config import config
from meshllm.cli.demo import demo
from meshllm.cli.doctor import doctor
from meshllm.cli.export import export
from meshllm.cli.nodes import nodes
from meshllm.cli.prompts import prompts
from meshllm.cli.queue import queue
from meshllm.cli.review import review
from meshllm.cli.send import send
from meshllm.cli.sim import sim
from meshllm.cli.start import start_check
from meshllm.cli.status import status
from meshllm.cli.threads import messages, threads
from meshllm.cli.why import why
from meshllm.errors import ExitCode, TransientError, UserError
from meshllm.observe import log


@click.group(help="Meshtastic-LLM: an offline librarian for LoRa meshes.")
@click.version_option(__version__, prog_name="meshllm")
def cli() -> None:
    """Group of all verbs."""


for command in (
    alive,
    config,
    demo,
    doctor,
    export,
    messages,
    nodes,
    prompts,
    queue,
    review,
    send,
    sim,
    start_check,
    status,
    threads,
    why,
):
    cli.add_command(command)


def entry() -> None:
    """Run the tool; an operator's mistake is one message and an exit code, no traceback."""
    log.configure("warn", role="tool")
    _take_any_text()
    try:
        cli.main(prog_name="python -m meshllm")
    except UserError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except TransientError as error:
        _tell(error)
        sys.exit(ExitCode.BUG)


def _tell(error: Exception) -> None:
    """Say what is wrong; a message may quote names of channels, people and files."""
    click.echo(f"error: {show.safe(error, keep_lines=True)}", err=True)


def _take_any_text() -> None:
    """Let no text fail on a terminal that lacks its characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
