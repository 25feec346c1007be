"""Writes a file too large for memory, whole or not at all. For files of one writer: no lock."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from meshllm.errors import StoreWriteError

FILE_MODE: Final = 0o640  #: less what the umask takes: the file is its maker's own


class Target(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""


@contextmanager
def replacing(path: Path) -> Iterator[Target]:
    """Replace a file by what is written meanwhile, durably, once the block ends without an error.

    An error or a kill leaves the old file; a kill also leaves a hidden temporary one. Raises
    StoreWriteError for what the file system refuses.
    """
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "wb") as target:
            yield target
            target.flush()
            os.fsync(descriptor)
        temp.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        _remove(temp)
        raise StoreWriteError(f"{path}: cannot write: {error.strerror or error}") from error
    except BaseException:
        _remove(temp)
        raise


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temp: Path) -> None:
    with suppress(OSError):
        temp.unlink()
