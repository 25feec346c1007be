"""The group `meshllm prompts`: holds its verbs, does nothing itself."""

import click

from meshllm.cli.publish import publish


@click.group()
def prompts() -> None:
    """Look at the log of model calls, or publish it."""


prompts.add_command(publish)
