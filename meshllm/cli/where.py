"""Which data folder a verb looks at, and with which clock. Reads the settings; shows nothing."""

import functools
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from meshllm import config as settings_file
from meshllm.cli import show
from meshllm.clock import Clock, SystemClock
from meshllm.config import Settings
from meshllm.errors import UserError
from meshllm.layout import Layout
from meshllm.reading.book import Book, layout_of, open_book
from meshllm.store.atomic import Modes

Verb = TypeVar("Verb", bound=Callable[..., None])

_PATH: Final = click.Path(path_type=Path)
_CONFIG: Final = click.option(
    "--config",
    "config_path",
    type=_PATH,
    help="Settings file (default: config.yaml beside the programs).",
)
_DATA: Final = click.option(
    "--data", type=_PATH, help="Another data folder, such as a copy from another machine."
)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the verbs take from outside; a test gives its own clock as `obj` of the context."""

    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Place:
    """The folder that was asked for, opened, and what is set for it."""

    book: Book
    settings: Settings
    clock: Clock

    @property
    def layout(self) -> Layout:
        """Paths of the folder."""
        return self.book.layout

    @property
    def modes(self) -> Modes:
        """Permission bits of files that a verb writes."""
        chosen = self.settings
        return Modes(chosen.file_mode, chosen.folder_mode, chosen.lock_mode)

    def check_may_write(self) -> None:
        """Refuse to write as another user: a file that root replaced is closed to the processes.

        Raises UserError that names the user.
        """
        check_owner(self.layout.nodes_dir)

    def tell_problems(self) -> None:
        """Say on stderr what could not be read; what was shown is without it."""
        for problem in self.book.problems:
            click.echo(f"warning: {show.safe(problem)} (doctor --repair mends tables)", err=True)


def check_owner(folder: Path) -> None:
    """Raise UserError that names the user to whom a folder belongs, unless that is this one."""
    try:
        owner = folder.stat().st_uid
    except OSError:
        return  # the write itself will say what is wrong
    if owner != os.geteuid():
        name = _user(owner)
        raise UserError(f"{folder} belongs to {name}", [f"run it as that user: sudo -u {name} …"])


def with_place(verb: Verb) -> Verb:
    """Give a verb `--config` and `--data`, and the folder they lead to as `place`."""

    def run(*args: Any, config_path: Path | None, data: Path | None, **others: Any) -> None:
        tools = click.get_current_context().find_object(Tools) or Tools()
        place = find_place(config_path, data, tools.clock)
        verb(*args, place=place, **others)

    functools.update_wrapper(run, verb)
    for option in (_DATA, _CONFIG):
        option(run)
    return cast("Verb", run)


def find_place(config_path: Path | None, data: Path | None, clock: Clock) -> Place:
    """Open the folder. Raises UserError for settings or a folder that cannot be used.

    A copy named by `--data` needs no settings here: without `--config` the defaults hold.
    """
    if data is not None and config_path is None:
        return Place(open_book(layout_of(data)), Settings(), clock)
    loaded = settings_file.load(
        config_path or settings_file.default_path(),
        os.environ,
        must_exist=config_path is not None,
    )
    chosen = loaded.settings
    layout = Layout(chosen.data_dir, chosen.nodes_dir, chosen.prompts_dir)
    return Place(open_book(layout_of(data) if data is not None else layout), chosen, clock)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
