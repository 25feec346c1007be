"""Makes thread rows as a real conversation leaves them, about 243 bytes each, and whole files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from meshllm.layout import NodeTree, node_id
from meshllm.records import Message, compact_json
from meshllm.store import codec

LIVE_ROWS: Final = 500
OWN_NUMBER: Final = 0x51E0AA01
FIRST_PEER: Final = 0x51E0BB01
ROW_BYTES: Final = 243
_STARTED: Final = datetime(2025, 1, 1, tzinfo=UTC)
_QUESTION: Final = "how long must water boil before it is safe to drink, and how high up are we?"


def conversation(rows: int, peer: int = FIRST_PEER) -> list[Message]:
    """Return that many rows of a DM thread: questions, each followed by its delivered answer."""
    return [_row(number, peer) for number in range(rows)]


def _row(number: int, peer: int) -> Message:
    is_question = number % 2 == 0
    message_id = 1_000_000_000 + number
    text = (
        _QUESTION if is_question else "Boil it for one minute; above 2,000 m for three. (no source)"
    )
    return Message(
        thread_type="dm",
        thread_key=node_id(peer),
        message_id=str(message_id),
        direction="inbound" if is_question else "outbound",
        sender_id=node_id(peer if is_question else OWN_NUMBER),
        reply_to_id="" if is_question else str(message_id - 1),
        timestamp=(_STARTED + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        content=text,
        send_attempts=0 if is_question else 1,
        send_status="" if is_question else "sent",
        meta_json=_meta(message_id, is_question=is_question),
    )


def _meta(message_id: int, *, is_question: bool) -> str:
    if is_question:
        return compact_json({"snr": 6.25, "rssi": -87, "hop_start": 3, "hop_limit": 2})
    tries = [{"id": message_id, "at": "2025-01-01T00:00:00Z", "result": "delivered"}]
    return compact_json({"part": 1, "parts": 1, "tries": tries, "delivery": "delivered"})


def mean_row_bytes() -> float:
    """Return the mean size of a row."""
    return len(codec.encode(conversation(100))) / 100


def write_threads(tree: NodeTree, threads: int, rows: int) -> None:
    """Write DM threads with so many rows each, as plain files: nothing of it is measured."""
    for folder in tree.folders():
        folder.mkdir(parents=True, exist_ok=True)
    pattern = codec.header(Message) + codec.encode(conversation(rows))
    for number in range(threads):
        peer = FIRST_PEER + number
        content = pattern.replace(node_id(FIRST_PEER).encode(), node_id(peer).encode())
        write_file(tree.dm_thread(node_id(peer)), content)


def write_file(path: Path, content: bytes) -> None:
    """Write a file as our own writers leave it."""
    path.write_bytes(content)
    path.chmod(0o440)
