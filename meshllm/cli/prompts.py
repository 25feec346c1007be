"""The group `meshllm prompts`: holds its verbs, does nothing itself."""

import click

from meshllm.cli.prompt_list import prompt_list, prompt_show
from meshllm.cli.publish import publish


@click.group()
def prompts() -> None:
    """Look at the log of model calls, or publish it."""


for command in (prompt_list, prompt_show, publish):
    prompts.add_command(command)
