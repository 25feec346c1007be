"""All commands: finds the one that a text means, and keeps a broken one from costing more."""

from dataclasses import dataclass, replace
from typing import Final

import structlog

from meshllm.commands import nodes, parts, state, talk
from meshllm.commands.base import Answer, Arguments, Command, Context
from meshllm.commands.words import plain
from meshllm.errors import TransientError

log = structlog.get_logger()

BROKEN: Final = "That command failed here. The others still work: help"
MAX_ANSWER_CHARS: Final = 4000  #: what a command may say; the rest of it comes with "more"


@dataclass(frozen=True, slots=True)
class Found:
    """A command, and what it is to be about."""

    command: Command
    arguments: Arguments


class Registry:
    """Commands in the order they were registered; the first that fits is taken."""

    def __init__(self) -> None:
        """Know none."""
        self._commands: dict[str, Command] = {}

    def register(self, command: Command) -> None:
        """Add a command. Raises ValueError for a name that is taken."""
        if command.name in self._commands:
            raise ValueError(f"there is a command {command.name!r} already")
        self._commands[command.name] = command

    @property
    def help_lines(self) -> tuple[str, ...]:
        """One line a command."""
        return tuple(c.help_line for c in self._commands.values() if c.help_line)

    def find(self, text: str, context: Context) -> Found | None:
        """Find the command that a text means; None: it is a question for the model."""
        words = plain(text)
        context = replace(context, help_lines=self.help_lines)
        for command in self._commands.values():
            try:
                arguments = command.match(words)
                if arguments is None:
                    continue
                if command.applies(replace(context, arguments=arguments)):
                    return Found(command, arguments)
            except Exception:
                # A plugin ends here: its own text goes to the model, as if it were not there.
                log.exception(
                    "command_not_matched",
                    command=command.name,
                    consequence="the text is taken for another command's or a question",
                )
        return None

    def answer(self, found: Found, context: Context) -> Answer:
        """Ask a command for its answer. Raises TransientError when a file cannot be read now."""
        told = replace(context, arguments=found.arguments, help_lines=self.help_lines)
        try:
            given = found.command.answer(told)
            answer = given if isinstance(given, Answer) else Answer(given)
            return replace(answer, text=answer.text[:MAX_ANSWER_CHARS])
        except TransientError:
            raise
        except Exception:
            # A plugin ends here: one answer is lost, the asker is told, everything else goes on.
            log.exception(
                "command_failed",
                command=found.command.name,
                consequence="the asker gets an honest line",
            )
            return Answer(BROKEN)


def built_in() -> Registry:
    """Make a registry of the commands that come with the librarian."""
    registry = Registry()
    for family in (talk, nodes, state, parts):
        for command in family.COMMANDS:
            registry.register(command)
    return registry
