"""What a power cut leaves of a folder: only what was flushed. Observes the calls of `os`.

A model, as pessimistic as POSIX lets a disk be: content counts as of the last flush of its file,
a name as of the last flush of its folder. A change of names that no flush followed may have
reached the disk or not, so a cut has two ends. It does not model torn sectors, and a file written
by anything but `os` is not seen: compare `Disk.live` with the folder to find such a writer.
"""

import os
import threading
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

#: What changes a file or a folder; each is one step of a program.
CHANGES: Final = ("open", "write", "writev", "fchmod", "fsync", "fdatasync", "rename", "replace")
FOLDER_CHANGES: Final = ("mkdir", "unlink", "close", "posix_fallocate")
#: Would change files behind the model's back.
REFUSED: Final = ("pwrite", "ftruncate", "truncate", "link", "sendfile", "copy_file_range")

Names = Literal["lost", "kept"]  #: what a cut does to changes of names that were not flushed
Before = Callable[[str, str], None]  #: gets call and path, before each change


@dataclass(slots=True)
class _Inode:
    content: bytes = b""
    flushed: bytes = b""  #: a name without flushed content shows an empty file


@dataclass(slots=True)
class _Open:
    path: str
    inode: _Inode | None  #: None for a folder
    position: int = 0
    appends: bool = False
    written: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """Folders and files below the root, by relative path."""

    files: Mapping[str, bytes]
    folders: frozenset[str]

    def write(self, root: Path, *, file_mode: int = 0o440) -> None:
        """Create it below an empty or missing folder."""
        for name in sorted({"", *self.folders}):
            (root / name).mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            path = root / name
            path.write_bytes(content)
            path.chmod(file_mode)

    def packed(self) -> dict[str, Any]:
        """Make it fit into JSON; `unpacked` reads it back."""
        files = {name: _packed(content) for name, content in self.files.items()}
        return {"files": files, "folders": sorted(self.folders)}

    @classmethod
    def unpacked(cls, told: Mapping[str, Any]) -> "Tree":
        """Read what another process packed."""
        files = {
            name: zlib.decompress(b64decode(content)) for name, content in told["files"].items()
        }
        return cls(files, frozenset(told["folders"]))


@dataclass(slots=True)
class Disk:
    """Names and contents below one root, as programs see them and as they are on the medium."""

    root: str
    _names: dict[str, _Inode] = field(default_factory=dict)
    _folders: set[str] = field(default_factory=set)
    _kept_names: dict[str, _Inode] = field(default_factory=dict)
    _kept_folders: set[str] = field(default_factory=set)
    _open: dict[int, _Open] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> "Disk":
        """Take a folder as it is now, all of it flushed."""
        disk = cls(os.fspath(root.resolve()))
        for path in sorted(root.rglob("*")):
            name = os.fspath(path.relative_to(root))
            if path.is_dir():
                disk._folders.add(name)
            else:
                content = path.read_bytes()
                disk._names[name] = _Inode(content, content)
        disk._kept_names = dict(disk._names)
        disk._kept_folders = set(disk._folders)
        return disk

    def live(self) -> Tree:
        """What programs see while the power is on."""
        files = {name: inode.content for name, inode in self._names.items()}
        return Tree(files, frozenset(self._folders))

    def after_power_cut(self, names: Names) -> Tree:
        """What is there when the power comes back."""
        entries, folders = (
            (self._kept_names, self._kept_folders)
            if names == "lost"
            else (self._names, self._folders)
        )
        reachable = {
            folder for folder in folders if all(p in folders for p in _parents(folder) if p)
        }
        return Tree(
            {
                name: inode.flushed
                for name, inode in entries.items()
                if (parent := os.path.dirname(name)) in reachable or not parent  # noqa: PTH120
            },
            frozenset(reachable),
        )

    def name_of(self, path: str) -> str | None:
        """Relative name of an absolute path; None for one outside."""
        if path == self.root:
            return ""
        return path[len(self.root) + 1 :] if path.startswith(self.root + "/") else None

    def opened(self, descriptor: int, path: str, flags: int) -> None:
        """Note a descriptor, and the file that it may have created or emptied."""
        name = self.name_of(path)
        if name is None:
            self._open.pop(descriptor, None)
            return
        if name == "" or name in self._folders:
            self._open[descriptor] = _Open(name, None)
            return
        inode = self._names.setdefault(name, _Inode())
        if flags & os.O_TRUNC:
            inode.content = b""
        self._open[descriptor] = _Open(name, inode, appends=bool(flags & os.O_APPEND))

    def wrote(self, descriptor: int, data: bytes) -> None:
        """Note bytes that went into a file's cached content."""
        file = self._open.get(descriptor)
        if file is None or file.inode is None:
            return
        old = file.inode.content
        at = len(old) if file.appends else file.position
        file.inode.content = old[:at].ljust(at, b"\0") + data + old[at + len(data) :]
        file.position = at + len(data)
        file.written = True

    def allocated(self, descriptor: int, size: int) -> None:
        """Note that a file was made at least so long."""
        file = self._open.get(descriptor)
        if file is not None and file.inode is not None:
            file.inode.content = file.inode.content.ljust(size, b"\0")

    def flushed(self, descriptor: int) -> None:
        """Note a flush: of a file's content, or of a folder's names."""
        file = self._open.get(descriptor)
        if file is None:
            return
        if file.inode is not None:
            file.inode.flushed = file.inode.content
            return
        is_here = _within(file.path)
        self._kept_names = {n: i for n, i in self._kept_names.items() if not is_here(n)}
        self._kept_names |= {n: i for n, i in self._names.items() if is_here(n)}
        self._kept_folders = {n for n in self._kept_folders if not is_here(n)}
        self._kept_folders |= {n for n in self._folders if is_here(n)}

    def renamed(self, source: str, target: str) -> None:
        """Note a file's new name."""
        old, new = self.name_of(source), self.name_of(target)
        if old is None or new is None or old in self._folders:
            raise NotImplementedError(f"not modelled: {source} renamed to {target}")
        self._names[new] = self._names.pop(old)

    def unlinked(self, path: str) -> None:
        """Note a name that is gone."""
        self._names.pop(self.name_of(path) or "", None)

    def made(self, path: str) -> None:
        """Note a new folder."""
        name = self.name_of(path)
        if name:
            self._folders.add(name)

    def closed(self, descriptor: int) -> None:
        """Note that the number is free."""
        self._open.pop(descriptor, None)

    def path_of(self, descriptor: int) -> str:
        """Path under which a descriptor was opened; '' for one outside."""
        file = self._open.get(descriptor)
        return f"{self.root}/{file.path}".rstrip("/") if file is not None else ""

    def is_written(self, descriptor: int) -> bool:
        """True when something was written through this descriptor."""
        file = self._open.get(descriptor)
        return file is not None and file.written


class Recorder:
    """Stands before the calls of `os` and keeps a `Disk` up to date. Safe from any thread.

    One lock serialises all of them, so `before` may stop the process: nothing moves meanwhile.
    """

    def __init__(self, root: Path, before: Before | None = None, *, is_lying: bool = False) -> None:
        """Take the folder as it is. A lying disk flushes nothing: the control."""
        self.disk = Disk.of(root)
        self.lock = threading.RLock()
        self._before = before or (lambda _call, _path: None)
        self._is_lying = is_lying
        self._originals: dict[str, Any] = {}

    def install(self) -> None:
        """Begin to observe."""
        for name in (*CHANGES, *FOLDER_CHANGES):
            self._wrap(name, getattr(self, f"_{name}", self._plain))
        for name in REFUSED:
            if hasattr(os, name):
                self._wrap(name, self._refuse)

    def uninstall(self) -> None:
        """Let the calls go straight to the system again."""
        for name, original in self._originals.items():
            setattr(os, name, original)
        self._originals.clear()

    def _wrap(self, name: str, observe: Callable[..., Any]) -> None:
        original = self._originals[name] = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                return observe(name, original, *args, **kwargs)

        setattr(os, name, call)

    def _change(self, call: str, path: str) -> None:
        if path and self.disk.name_of(path) is not None:
            self._before(call, path)

    def _open(self, call: str, real: Callable[..., int], path: Any, *args: Any, **kw: Any) -> int:
        where = self._absolute(path, kw.get("dir_fd"))
        flags = int(args[0] if args else kw.get("flags", 0))
        if flags & (os.O_CREAT | os.O_TRUNC):
            self._change(call, where)
        descriptor = real(path, *args, **kw)
        self.disk.opened(descriptor, where, flags)
        return descriptor

    def _write(self, call: str, real: Callable[..., int], descriptor: int, data: Any) -> int:
        self._change(call, self.disk.path_of(descriptor))
        count = real(descriptor, data)
        self.disk.wrote(descriptor, bytes(memoryview(data).cast("B")[:count]))
        return count

    def _writev(self, call: str, real: Callable[..., int], descriptor: int, pieces: Any) -> int:
        self._change(call, self.disk.path_of(descriptor))
        count = real(descriptor, pieces)
        self.disk.wrote(descriptor, b"".join(map(bytes, pieces))[:count])
        return count

    def _posix_fallocate(
        self, call: str, real: Callable[..., None], descriptor: int, offset: int, size: int
    ) -> None:
        self._change(call, self.disk.path_of(descriptor))
        real(descriptor, offset, size)
        self.disk.allocated(descriptor, offset + size)

    def _plain(self, call: str, real: Callable[..., Any], descriptor: Any, *args: Any) -> Any:
        if isinstance(descriptor, int):
            self._change(call, self.disk.path_of(descriptor))
        return real(descriptor, *args)

    def _fsync(self, call: str, real: Callable[..., None], descriptor: int) -> None:
        if not self.disk.path_of(descriptor):  # opened before we began
            with suppress(OSError):
                self.disk.opened(descriptor, _path_behind(descriptor), 0)
        self._change(call, self.disk.path_of(descriptor))
        real(descriptor)
        if not self._is_lying:
            self.disk.flushed(descriptor)

    _fdatasync = _fsync

    def _rename(
        self,
        call: str,
        real: Callable[..., None],
        source: Any,
        target: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        old, new = self._absolute(source, src_dir_fd), self._absolute(target, dst_dir_fd)
        self._change(call, new)
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if self.disk.name_of(old) is not None or self.disk.name_of(new) is not None:
            self.disk.renamed(old, new)

    _replace = _rename

    def _mkdir(
        self, call: str, real: Callable[..., None], path: Any, *mode: int, **kw: Any
    ) -> None:
        where = self._absolute(path, kw.get("dir_fd"))
        self._change(call, where)
        real(path, *mode, **kw)
        self.disk.made(where)

    def _unlink(self, call: str, real: Callable[..., None], path: Any, **kw: Any) -> None:
        where = self._absolute(path, kw.get("dir_fd"))
        self._change(call, where)
        real(path, **kw)
        self.disk.unlinked(where)

    def _close(self, call: str, real: Callable[..., None], descriptor: int) -> None:
        if self.disk.is_written(descriptor):
            self._change(call, self.disk.path_of(descriptor))
        self.disk.closed(descriptor)
        real(descriptor)

    def _refuse(self, call: str, real: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        paths = [
            self.disk.path_of(a) if isinstance(a, int) else self._absolute(a, None)
            for a in args[:2]
            if isinstance(a, (int, str, os.PathLike))
        ]
        if any(path and self.disk.name_of(path) is not None for path in paths):
            raise NotImplementedError(f"not modelled: {call} {paths}")
        return real(*args, **kw)

    def _absolute(self, path: Any, folder: int | None) -> str:
        name = os.fsdecode(path)
        if folder is not None and not name.startswith("/"):
            name = f"{_path_behind(folder)}/{name}"
        parent, last = os.path.split(name)
        return f"{os.path.realpath(parent)}/{last}"


@contextmanager
def recording(
    root: Path, before: Before | None = None, *, is_lying: bool = False
) -> Iterator[Disk]:
    """Observe this process's changes below a folder for a while."""
    recorder = Recorder(root, before, is_lying=is_lying)
    recorder.install()
    try:
        yield recorder.disk
    finally:
        recorder.uninstall()


@cache
def _packed(content: bytes) -> str:
    # Compressed: a reserve on the disk is megabytes of zeros.
    return b64encode(zlib.compress(content, 1)).decode()


def _path_behind(descriptor: int) -> str:
    return os.fspath(Path(f"/proc/self/fd/{descriptor}").readlink())


def _within(folder: str) -> Callable[[str], bool]:
    return lambda name: os.path.dirname(name) == folder  # noqa: PTH120 - names, no paths


def _parents(name: str) -> Iterator[str]:
    while name:
        name = os.path.dirname(name)  # noqa: PTH120 - names, no paths
        yield name
