"""Opens regular files only: a FIFO would stop the reader for ever, a link leads out of the tree."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from meshllm.errors import NotRegularError

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_CHUNK: Final = 1 << 20
_KINDS: Final = {
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def open_file(path: Path) -> int:
    """Open for reading, never blocking. Raises OSError, or NotRegularError for anything else."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise NotRegularError(f"{path}: cannot read: it is a {kind_of(path)}") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(f"{path}: cannot read: it is a {kind_of(path)}")
    return descriptor


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises as `open_file`."""
    descriptor = open_file(path)
    try:
        pieces = []
        while piece := os.read(descriptor, _CHUNK):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def kind_of(path: Path) -> str:
    """Name what bears a name; "" for a regular file and for nothing."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return ""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "device")
