"""radio.json and agent.json: what each process says of itself. Whole files, replaced atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from meshllm.errors import NotRegularError
from meshllm.store import atomic, regular

STOPPED: Final = "stopped"  #: link_cause of every radio when its bridge ended in order


def write(path: Path, facts: Mapping[str, object], *, modes: atomic.Modes) -> None:
    """Replace a status file. Raises StoreWriteError; the old file stays whole."""
    text = json.dumps(facts, ensure_ascii=False, indent=1, sort_keys=False) + "\n"
    atomic.replace(path, [text.encode("utf-8", "replace")], modes=modes)


def read(path: Path) -> dict[str, Any]:
    """Read a status file; {} when it is missing or not a JSON object; never blocks."""
    try:
        parsed = json.loads(regular.read_bytes(path))
    except (OSError, NotRegularError, ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
