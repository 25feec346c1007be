"""The root of `python -m meshllm`: noun, then verb. Holds no verb itself."""

import sys

import click

from meshllm import __version__
from meshllm.cli.config import config
from meshllm.cli.demo import demo
from meshllm.cli.prompts import prompts
from meshllm.cli.sim import sim
from meshllm.cli.start import start_check
from meshllm.errors import UserError


@click.group(help="Meshtastic-LLM: an offline librarian for LoRa meshes.")
@click.version_option(__version__, prog_name="meshllm")
def cli() -> None:
    """Group of all verbs."""


for command in (config, demo, prompts, sim, start_check):
    cli.add_command(command)


def entry() -> None:
    """Run the tool; an operator's mistake is one message and an exit code, no traceback."""
    try:
        cli.main(prog_name="python -m meshllm")
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
