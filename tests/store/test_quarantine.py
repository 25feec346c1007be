import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from meshllm.clock import SystemClock
from meshllm.records import Message, Node
from meshllm.store import codec
from meshllm.store.codec import Damage
from meshllm.store.quarantine import Repair, repair
from meshllm.store.table import Table

RUBBISH = b'dm,"open\n'


class FixedClock(SystemClock):
    def utc(self) -> datetime:
        return datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


def damaged(folder: Path, data: bytes) -> Table[Message]:
    folder.joinpath("t.csv").write_bytes(data)
    return Table(folder / "t.csv", Message)


def original_name(data: bytes) -> str:
    return f"t.20250102T030405Z.{hashlib.sha256(data).hexdigest()[:6]}.csv"


def test_a_sound_table_is_left_alone(tmp_path: Path, row: Message) -> None:
    table = damaged(tmp_path, codec.header(Message) + codec.encode_row(row))

    assert repair(table, tmp_path / "quarantine", FixedClock()) is None
    assert not (tmp_path / "quarantine").exists()


def test_good_rows_stay_and_queued_ones_are_never_sent(tmp_path: Path, row: Message) -> None:
    heard = replace(row, direction="inbound", message_id="1")
    gone_out = replace(row, direction="outbound", message_id="2", send_status="sent")
    retry = replace(row, message_id="3", send_status="failed")
    rows = codec.encode([heard, gone_out]) + RUBBISH + codec.encode([row, retry])
    data = codec.header(Message) + rows
    table = damaged(tmp_path, data)
    original = tmp_path / "quarantine" / original_name(data)
    structlog.reset_defaults()

    with capture_logs() as events:
        outcome = repair(table, tmp_path / "quarantine", FixedClock())

    spot = Damage(data.index(RUBBISH), len(RUBBISH), "open quote")
    assert outcome == Repair(original, (spot,), 2, (row, retry))
    assert original.read_bytes() == data
    assert table.path.read_bytes() == codec.header(Message) + codec.encode([heard, gone_out])
    assert events == [
        {
            "event": "rows_quarantined",
            "log_level": "warning",
            "file": str(table.path),
            "original": str(original),
            "reasons": {"open quote": 1},
            "damaged_places": 1,
            "rows_kept": 2,
            "queued_rows_dropped": 2,
            "message_ids": ["1000", "3"],
        }
    ]
    assert repair(table, tmp_path / "quarantine", FixedClock()) is None


def test_other_tables_keep_every_good_row(tmp_path: Path) -> None:
    nodes = [Node("!a1b2c3d4", "one"), Node("!a1b2c3d5", "two")]
    path = tmp_path / "nodes.csv"
    path.write_bytes(codec.header(Node) + codec.encode(nodes) + b"half a li")
    table = Table(path, Node)

    outcome = repair(table, tmp_path / "quarantine", FixedClock())

    assert outcome is not None
    assert (outcome.rows_kept, outcome.dropped) == (2, ())
    assert table.read().rows == tuple(nodes)


@pytest.mark.parametrize("data", [b"a,b\n1,2\n", bytes(range(256)), b"\0" * 999])
def test_a_file_that_is_no_table_moves_to_quarantine_as_a_whole(
    tmp_path: Path, data: bytes
) -> None:
    table = damaged(tmp_path, data)

    outcome = repair(table, tmp_path / "quarantine", FixedClock())

    assert outcome is not None
    assert outcome.original.read_bytes() == data
    assert table.path.read_bytes() == codec.header(Message)


def test_an_open_quote_before_text_like_a_queued_row_sends_nothing(
    tmp_path: Path, row: Message
) -> None:
    trap = replace(row, direction="inbound", content="x\ndm,!a,6,queued,!b,,,give up,0,,\ny")
    line = codec.encode_row(trap).replace(b'"', b"", 1)
    table = damaged(tmp_path, codec.header(Message) + line)

    repair(table, tmp_path / "quarantine", FixedClock())

    assert table.read().rows == ()


def test_a_repair_after_a_crash_finds_the_original_already_saved(
    tmp_path: Path, row: Message
) -> None:
    data = codec.header(Message) + RUBBISH
    digest = hashlib.sha256(data).hexdigest()[:6]
    saved = tmp_path / "quarantine" / f"t.20241231T000000Z.{digest}.csv"
    saved.parent.mkdir()
    saved.write_bytes(data)

    outcome = repair(damaged(tmp_path, data), saved.parent, FixedClock())

    assert outcome is not None
    assert outcome.original == saved
    assert list(saved.parent.iterdir()) == [saved]
