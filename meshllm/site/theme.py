"""Reads the theme of the web site: fixed kinds of files, never a link, nothing the agent writes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from meshllm.errors import NotRegularError, UserError
from meshllm.site.target import is_ours
from meshllm.store import regular

CONFIG: Final = "_config.yml"
_ROOT_FILES: Final = frozenset({CONFIG, "00-order.txt"})
_FOLDERS: Final = ("_layouts", "_includes", "_sass", "assets")
#: No tables, logs or JSON: those of a prompts folder hold private things.
_KINDS: Final = frozenset(
    {".html", ".css", ".scss", ".js", ".svg", ".png", ".ico", ".xml", ".woff2", ".webp"}
)


def read(folder: Path) -> dict[str, bytes]:
    """Return the files of a theme by name. Raises UserError when there is none."""
    theme = {}
    for name in sorted(_names(folder)):
        try:
            theme[name] = regular.read_bytes(folder / name)
        except (OSError, NotRegularError) as error:
            raise UserError(f"{folder / name}: the theme cannot be read: {error}") from error
    if CONFIG not in theme:
        raise UserError(f"{folder / CONFIG}: missing, so there is no theme to publish")
    return theme


def _names(folder: Path) -> Iterator[str]:
    """Yield names below the folder; links are left out, wherever they lead."""
    try:
        with os.scandir(folder) as entries:
            found = [e.name for e in entries if e.is_file(follow_symlinks=False)]
    except OSError as error:
        raise UserError(f"{folder}: the theme cannot be read: {error.strerror}") from error
    yield from (n for n in found if n in _ROOT_FILES or (n.endswith(".html") and is_ours(n)))
    for name in _FOLDERS:
        if (folder / name).is_symlink():
            continue
        for at, _, files in os.walk(folder / name):  # follows no links to folders
            plain = (Path(at) / one for one in files if not (Path(at) / one).is_symlink())
            below = (path.relative_to(folder).as_posix() for path in plain)
            yield from (n for n in below if Path(n).suffix in _KINDS and is_ours(n))
