"""Stands a stable, keyed name in for each node. Knows no texts; reads and makes the key's file.

Node ids have 32 bits, so a plain hash of one is found by trying them all: without the key nobody
can tell which node a pseudonym means. The key never leaves the data folder.
"""

import hmac
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from meshllm.errors import UserError
from meshllm.store import atomic, regular

KEY_BYTES: Final = 32
KEY_MODE: Final = 0o600  #: a key that others can read names everybody
_LETTERS: Final = "bcdfghjkmnpqrstvwxz23456789"  #: without vowels no word comes about by chance
_LENGTH: Final = 6  #: of 2000 nodes no two share one, but for one time in two hundred
_KEY: Final = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}\n?")


class Pseudonyms:
    """Makes names; the same key and node give the same one for ever."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def node(self, digits: str) -> str:
        """Name a node by the 8 hex digits of its id, or by the 4 that a prompt shows."""
        return self._make(f"id:{digits.lower()}")

    def name(self, folded: str) -> str:
        """Name the unknown or several owners of a name."""
        return self._make(f"name:{folded}")

    def _make(self, what: str) -> str:
        digest = hmac.digest(self._key, what.encode("utf-8", "replace"), "sha256")
        number = int.from_bytes(digest[:8], "big")
        letters = []
        for _ in range(_LENGTH):
            number, place = divmod(number, len(_LETTERS))
            letters.append(_LETTERS[place])
        return f"node-{''.join(letters)}"


def read_key(path: Path) -> bytes | None:
    """Read the key; None when there is none yet. Raises UserError for one that cannot be used."""
    try:
        text = regular.read_bytes(path).decode("ascii", "replace")
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from error
    if not _KEY.fullmatch(text):
        raise UserError(f"{path}: is no key; put back the copy, or remove it for new pseudonyms")
    if mode & 0o077:
        raise UserError(f"{path}: others can read the key (try: chmod 600 {path})")
    return bytes.fromhex(text)


def make_key(path: Path) -> bytes:
    """Draw a key and keep it durably. The caller holds its lock. Raises StoreWriteError."""
    key = random_key()
    atomic.replace(path, [f"{key.hex()}\n".encode()], modes=atomic.Modes(file=KEY_MODE))
    return key


def random_key() -> bytes:
    """Draw a key that is kept nowhere, for a trial."""
    return secrets.token_bytes(KEY_BYTES)
