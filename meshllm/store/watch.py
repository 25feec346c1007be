"""Hints that a table may have changed: closed-after-write events, and a slow poll. Reads no file.

Events are hints, files are the truth: one event may stand for many changes, and some editors give
none at all. Callbacks come on the watching thread and on the thread that polls; they only enqueue.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from watchdog.events import FileClosedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

log = structlog.get_logger()

#: Only closing after a write: a rename would be paired for half a second by the watching library.
_EVENTS: Final[list[type[FileSystemEvent]]] = [FileClosedEvent]
_State = tuple[int, int, int]


class FolderWatch:
    """Watches the tables of some folders, not of the folders below them."""

    def __init__(self, on_change: Callable[[Path], None], poll_s: float) -> None:
        """Call `on_change` with a table's path; `poll_s` is the least time between two polls."""
        self._on_change = on_change
        self._poll_s = poll_s
        self._due: float | None = None
        self._folders: dict[Path, _Folder] = {}
        self._observer: BaseObserver | None = None
        self._events_work = True
        self._lock = threading.RLock()

    def watch(self, folder: Path) -> None:
        """Watch a folder, again and again if you like; it may appear later.

        Tables that are there when this returns are the caller's to read; later ones are reported.
        """
        with self._lock:
            if folder in self._folders:
                return
            watched = self._folders[folder] = _Folder(folder, self._on_change)
            self._attach(watched)
            watched.changes()

    def poll(self, now: float) -> None:
        """Look at every table when the poll is due and report what changed since the last look."""
        if self._due is not None and now < self._due:
            return
        self._due = now + self._poll_s
        with self._lock:
            folders = list(self._folders.values())
            for watched in folders:
                self._attach(watched)
        for watched in folders:
            for path in watched.changes():
                self._on_change(path)

    def close(self) -> None:
        """End the watching thread. Callbacks may come until this returns, none later."""
        with self._lock:
            observer, self._observer = self._observer, None
            self._folders.clear()
            self._events_work = False
        if observer is not None:
            observer.stop()
            observer.join()

    def _attach(self, watched: "_Folder") -> None:
        """Start events for a folder that has none: a new one, or one that was made again."""
        if not self._events_work:
            return
        inode = watched.inode_now()
        if inode == watched.inode and self._delivers(watched):
            return
        self._detach(watched)
        if inode is None:
            return
        try:
            watched.handle = self._running_observer().schedule(
                watched, os.fspath(watched.path), event_filter=_EVENTS
            )
            watched.inode = inode
        except FileNotFoundError:
            return
        except OSError as error:
            self._events_work = False
            log.warning(
                "folder_watch_unavailable",
                folder=os.fspath(watched.path),
                reason=error.strerror or str(error),
                poll_s=self._poll_s,
            )

    def _delivers(self, watched: "_Folder") -> bool:
        """Say whether the thread behind a folder still runs; it ends when the folder is deleted."""
        emitters = self._observer.emitters if self._observer else ()
        return watched.handle is None or any(
            e.watch == watched.handle and e.should_keep_running() for e in emitters
        )

    def _detach(self, watched: "_Folder") -> None:
        if watched.handle is not None and self._observer is not None:
            self._observer.unschedule(watched.handle)
        watched.handle = None
        watched.inode = None

    def _running_observer(self) -> BaseObserver:
        if self._observer is None:
            observer = Observer()
            observer.start()
            self._observer = observer
        return self._observer


class _Folder(FileSystemEventHandler):
    """One folder: its tables as last seen, and the events about them."""

    def __init__(self, path: Path, on_change: Callable[[Path], None]) -> None:
        self.path = path
        self.handle: ObservedWatch | None = None
        self.inode: int | None = None
        self._on_change = on_change
        self._states: dict[str, _State] = {}
        self._lock = threading.Lock()

    def inode_now(self) -> int | None:
        """Return the folder's inode number, None while it does not exist."""
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def on_closed(self, event: FileSystemEvent) -> None:
        """Report a table; remember its state so that the poll does not report it again."""
        name = os.path.basename(os.fsdecode(event.src_path))  # noqa: PTH119 - str or bytes
        if not _is_table(name):
            return
        path = self.path / name
        try:
            state = _state(path.stat())
        except OSError:
            return  # gone again; the poll reports that
        with self._lock:
            self._states[name] = state
        self._on_change(path)

    def changes(self) -> list[Path]:
        """Return the tables that are new, gone or different since the last look."""
        found = self._scan()
        with self._lock:
            changed = [name for name, state in found.items() if self._states.get(name) != state]
            changed += [name for name in self._states if name not in found]
            self._states = found
        return [self.path / name for name in changed]

    def _scan(self) -> dict[str, _State]:
        found = {}
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if _is_table(entry.name):
                        found[entry.name] = _state(entry.stat(follow_symlinks=False))
        except OSError:
            return found  # the folder, or a file of it, went away: the next look tells
        return found


def _is_table(name: str) -> bool:
    return name.endswith(".csv") and not name.startswith(".")


def _state(status: os.stat_result) -> _State:
    return (status.st_ino, status.st_mtime_ns, status.st_size)
