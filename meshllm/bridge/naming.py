"""The fields by which events name a message, the same in both processes. Logs nothing."""

from pathlib import Path

from meshllm.bridge.work import Key
from meshllm.layout import node_id, node_number, node_uid_of
from meshllm.records import Message


def names_of(path: Path, row: Message) -> dict[str, str]:
    """Name a row: whose tree, which thread, which message; of one of ours also its prompt."""
    names = {
        "node_uid": node_uid_of(path),
        "thread_key": row.thread_key,
        "message_id": row.message_id,
    }
    if row.is_outgoing:
        names["prompt_id"] = str(row.meta.get("prompt_id") or "")
    return names


def names_by_place(path: Path, key: Key) -> dict[str, str]:
    """Name a row of ours that cannot be read now, as well as its file's name tells."""
    number = node_number(path.stem)
    return {
        "node_uid": node_uid_of(path),
        "thread_key": path.stem if number is None else node_id(number),
        "message_id": key[1],
        "prompt_id": "",
    }
