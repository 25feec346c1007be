"""The folder that is pushed: what we wrote there, and what of it changes. Touches nothing else.

A list of our files lies in the folder itself. Only what it names is ever replaced or removed:
`.git` and whatever the operator adds are left alone. The list is written before the files, so that
after a kill it names at least all of them, and the next run goes on.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshllm.errors import NotRegularError, UserError
from meshllm.store import atomic, regular

MANIFEST: Final = ".publish-manifest.json"
MODES: Final = atomic.Modes(file=0o644, folder=0o755)  #: for git and a web server, not for us
#: The only names we write; a list that names anything else was not made by us.
_OURS: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.md|prompts\.csv|_config\.yml|00-order\.txt"
    r"|[a-z0-9][a-z0-9_-]*\.html"
    r"|(?:_layouts|_includes|_sass|assets)/(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-][A-Za-z0-9._-]*"
)
_EMPTY: Final = frozenset({".git"})  #: what a folder without a list of ours may hold
_TEMP: Final = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")  #: what a killed write leaves of a name


@dataclass(slots=True)
class Changes:
    """What a run does to the folder: names of files."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0


class Target:
    """One folder. `check` comes first."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        self._listed: frozenset[str] = frozenset()

    @property
    def staging(self) -> Path:
        """Folder beside it where everything is made before anything is changed."""
        return self.folder.with_name(f".{self.folder.name}.publish-staging")

    def check(self, private: Iterable[Path]) -> None:
        """Read the list. Raises UserError for a folder that must not be written.

        `private` are folders with which it may share nothing, in either direction.
        """
        for path in (Path(os.path.realpath(one)) for one in private):
            if self.folder == path or path in self.folder.parents or self.folder in path.parents:
                raise UserError(
                    f"{self.folder}: is {_relation(self.folder, path)} {path}, which is private "
                    "(name a folder apart, such as ../librarian-log)"
                )
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is no folder")
        self._listed = self._read_list()

    def _read_list(self) -> frozenset[str]:
        path = self.folder / MANIFEST
        try:
            files = json.loads(regular.read_bytes(path))["files"]
        except FileNotFoundError:
            self._require_empty()
            return frozenset()
        except (OSError, NotRegularError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: is no list of published files: {error}") from error
        if not isinstance(files, list) or not all(
            isinstance(name, str) and is_ours(name) for name in files
        ):
            raise UserError(f"{path}: names files that publish does not write; nothing was changed")
        return frozenset(files)

    def _require_empty(self) -> None:
        if not self.folder.exists():
            return
        names = {entry.name for entry in self.folder.iterdir()} - _EMPTY
        others = sorted(name for name in names if _temp_of(name) != MANIFEST)
        if others:
            raise UserError(
                f"{self.folder}: holds {others[0]!r} and was not made by publish "
                "(name a new folder, or one with nothing but .git)"
            )

    def is_same(self, name: str, content: bytes) -> bool:
        """Say whether a file stands there as it should. Raises UserError where it cannot be ours.

        A file that we did not write is not replaced, nor is anything reached through a link.
        """
        path = self.folder / name
        self._require_plain_folders(name)
        try:
            found = regular.read_bytes(path)
        except FileNotFoundError:
            return False
        except (OSError, NotRegularError) as error:
            raise UserError(f"{path}: cannot be replaced: {error}") from error
        if name not in self._listed:
            raise UserError(f"{path}: was not written by publish (move it away, then try again)")
        return found == content

    def _require_plain_folders(self, name: str) -> None:
        for parent in list(Path(name).parents)[:-1]:
            path = self.folder / parent
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                raise UserError(f"{path}: is a link or no folder; nothing is written through it")

    def vanished(self, wanted: Iterable[str]) -> list[str]:
        """Return files we wrote that are not wanted any more and still there."""
        gone = sorted(self._listed - set(wanted))
        for name in gone:
            self._require_plain_folders(name)
        return [name for name in gone if os.path.lexists(self.folder / name)]

    def open_staging(self) -> None:
        """Make the staging folder, empty. Raises UserError, StoreWriteError."""
        self.close_staging()
        atomic.make_folders(self.staging, modes=atomic.Modes(folder=0o700))

    def close_staging(self) -> None:
        """Remove the staging folder, also one that a killed run left. Raises UserError."""
        folder = self.staging
        if not os.path.lexists(folder):
            return
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise UserError(f"{folder}: is in the way (move it away, then try again)")
        found = sorted(folder.iterdir())
        for path in found:
            if not path.name.startswith(("staged-", ".staged-")):
                raise UserError(f"{path}: was not written by publish (move it away)")
        for path in found:
            path.unlink()
        folder.rmdir()

    def stage(self, name: str, content: bytes) -> None:
        """Keep the new content of a file until all are made."""
        atomic.replace(self._staged(name), [content], modes=MODES)

    def _staged(self, name: str) -> Path:
        return self.staging / f"staged-{hashlib.sha256(name.encode()).hexdigest()}"

    def apply(self, changes: Changes, wanted: Sequence[str]) -> None:
        """Bring the folder to its new state, file by file: what must go goes first.

        A kill at any step leaves whole files; the next run does the rest. Raises StoreWriteError.
        """
        atomic.make_folders(self.folder, modes=MODES)
        self._sweep({MANIFEST, *self._listed, *wanted})
        self._write_list(sorted(self._listed | set(wanted)))
        for name in changes.removed:
            (self.folder / name).unlink(missing_ok=True)
        for name in changes.written:
            path = self.folder / name
            atomic.make_folders(path.parent, modes=MODES)
            atomic.replace(path, [regular.read_bytes(self._staged(name))], modes=MODES)
        self._write_list(sorted(wanted))

    def _sweep(self, ours: set[str]) -> None:
        """Remove what killed runs left of our files while they wrote them, nothing else."""
        for parent in {Path(name).parent for name in ours}:
            folder = self.folder / parent
            for path in folder.iterdir() if folder.is_dir() else ():
                name = (parent / _temp_of(path.name)).as_posix()
                if name in ours and not path.is_dir():
                    path.unlink()

    def _write_list(self, names: list[str]) -> None:
        text = json.dumps({"made_by": "meshllm prompts publish", "files": names}, indent=1)
        content = f"{text}\n".encode()
        path = self.folder / MANIFEST
        if not path.exists() or regular.read_bytes(path) != content:
            atomic.replace(path, [content], modes=MODES)


def _temp_of(name: str) -> str:
    match = _TEMP.fullmatch(name)
    return match[1] if match else ""


def is_ours(name: str) -> bool:
    """Say whether a name is one that publish writes: relative, below the folder, not hidden."""
    return _OURS.fullmatch(name) is not None


def _relation(one: Path, other: Path) -> str:
    if one == other:
        return "the same as"
    return "inside" if other in one.parents else "above"
