import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from meshllm.errors import DamagedFileError, TransientError
from meshllm.records import BadCellError, Message, Node
from meshllm.store import atomic, codec
from meshllm.store.table import Snapshot, Table


@pytest.fixture
def table(tmp_path: Path) -> Table[Message]:
    return Table(tmp_path / "dms" / "a1b2c3d4.csv", Message)


def other(table: Table[Message]) -> Table[Message]:
    """The same file as another consumer sees it."""
    return Table(table.path, Message)


def sent(row: Message) -> Message:
    return replace(row, direction="outbound", send_status="sent")


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file in place, as a simple editor run by the operator does."""
    path.write_bytes(change(path.read_bytes()))


def foreign_changes(table: Table[Message]) -> list[dict[str, object]]:
    structlog.reset_defaults()
    with capture_logs() as events:
        table.append([Message("dm", "!a", "9", "inbound", "!b")])
    return [dict(event) for event in events]


def test_a_missing_file_is_an_empty_table(table: Table[Message]) -> None:
    assert table.read() == Snapshot()
    assert not table.changed()
    assert not table.path.parent.exists()


def test_ensure_creates_a_file_with_its_header(table: Table[Message]) -> None:
    table.ensure()
    table.ensure()

    assert table.path.read_bytes() == codec.header(Message)


def test_ensure_fills_an_empty_file_and_keeps_others(table: Table[Message], row: Message) -> None:
    table.path.parent.mkdir()
    table.path.write_bytes(b"")
    table.ensure()
    table.append([row])

    table.ensure()

    assert table.path.read_bytes() == codec.header(Message) + codec.encode_row(row)


def test_appending_to_an_empty_file_writes_the_header(table: Table[Message], row: Message) -> None:
    table.path.parent.mkdir()
    table.path.write_bytes(b"")

    table.append([row])

    assert table.read() == Snapshot((row,))


def test_a_file_first_seen_empty_is_read_when_it_has_rows(
    table: Table[Message], row: Message
) -> None:
    table.path.parent.mkdir()
    table.path.write_bytes(b"")
    assert table.read() == Snapshot()

    table.path.write_bytes(codec.header(Message) + codec.encode_row(row))

    assert table.read() == Snapshot((row,))


def test_created_things_have_the_modes(tmp_path: Path, row: Message) -> None:
    old = os.umask(0o077)
    try:
        Table(tmp_path / "new" / "t.csv", Message).append([row])
    finally:
        os.umask(old)

    found = {
        p.name: p.stat().st_mode & 0o777 for p in [tmp_path / "new", *(tmp_path / "new").iterdir()]
    }
    assert found == {"new": 0o750, "t.csv": 0o440, "t.csv.lock": 0o660}


def test_append_adds_and_update_changes_rows(table: Table[Message], row: Message) -> None:
    second = replace(row, message_id="1001", content='two\nlines, "quoted"')
    table.append([row, second])

    assert table.update({second.key: sent}) == {second.key: sent(second)}
    assert table.read().rows == (row, sent(second))
    assert table.path.read_bytes() == codec.header(Message) + codec.encode([row, sent(second)])


def test_commit_appends_and_changes_at_once(table: Table[Message], row: Message) -> None:
    table.append([row])
    answer = replace(row, message_id="1001")
    before = table.path.stat().st_ino

    done = table.commit(append=[answer], changes={row.key: sent})

    assert done == {row.key: sent(row)}
    assert table.read().rows == (sent(row), answer)
    assert table.path.stat().st_ino != before


def test_rows_made_of_those_there_are_added_once(table: Table[Message], row: Message) -> None:
    table.append([row])
    second = replace(row, message_id="2")

    def unless_there(rows: Sequence[Message]) -> list[Message]:
        return [] if second in rows else [second]

    assert other(table).append_made(unless_there) == [second]
    before = table.path.read_bytes()
    assert table.append_made(unless_there) == []

    assert table.read().rows == (row, second)
    assert table.path.read_bytes() == before


def test_update_gives_the_row_as_it_is_now(table: Table[Message], row: Message) -> None:
    table.append([row])
    table.read()
    other(table).update({row.key: sent})
    offered: list[Message] = []

    def decline(now: Message) -> None:
        offered.append(now)

    assert table.update({row.key: decline}) == {}
    assert offered == [sent(row)]


def test_a_declined_or_equal_change_writes_nothing(table: Table[Message], row: Message) -> None:
    table.append([row])
    before = table.path.stat()

    assert table.update({row.key: lambda _: None, ("!x", "1"): sent}) == {}
    assert table.update({row.key: replace}) == {row.key: row}
    assert table.commit() == {}
    assert table.path.stat() == before


def test_text_that_looks_like_the_row_is_not_changed(table: Table[Message], row: Message) -> None:
    line = codec.encode_row(row).decode()
    decoy = replace(
        row, message_id="1001", content=f"see:\n{line}{line}!11223344,1000,", direction="inbound"
    )
    table.append([row, decoy, replace(decoy, message_id="1002")])

    table.update({row.key: sent})

    assert table.read().rows == (sent(row), decoy, replace(decoy, message_id="1002"))


def test_rows_of_one_key_are_offered_newest_first_until_one_is_taken(
    table: Table[Message], row: Message
) -> None:
    forged = replace(row, direction="inbound", content="forged with our id")
    table.append([row, forged])

    table.update({row.key: lambda now: sent(now) if now.direction == "queued" else None})

    assert table.read().rows == (sent(row), forged)


def test_a_change_must_keep_the_key(table: Table[Message], row: Message) -> None:
    table.append([row])

    with pytest.raises(ValueError, match="must keep the key"):
        table.update({row.key: lambda now: replace(now, message_id="7")})
    assert table.read().rows == (row,)


def test_a_row_that_breaks_its_schema_is_not_written(table: Table[Message], row: Message) -> None:
    table.append([row])
    before = table.path.read_bytes()

    with pytest.raises(BadCellError, match="direction"):
        table.append([replace(row, direction="sideways")])
    with pytest.raises(BadCellError, match="message_id: empty"):
        table.append([row, replace(row, message_id="")])
    with pytest.raises(BadCellError, match="send_status"):
        table.update({row.key: lambda now: replace(now, send_status="lost")})
    assert table.path.read_bytes() == before


def test_writing_a_damaged_file_is_refused(table: Table[Message], row: Message) -> None:
    table.append([row])
    edit(table.path, lambda data: data + b'dm,"open\n')
    damaged = table.path.read_bytes()

    with pytest.raises(DamagedFileError, match="1 damaged places, the first at byte"):
        table.append([replace(row, message_id="1001")])
    with pytest.raises(DamagedFileError):
        table.update({row.key: sent})
    assert table.path.read_bytes() == damaged
    assert table.read().rows == (row,)
    assert [d.reason for d in table.read().damage] == ["open quote"]


def test_changed_tells_what_this_object_has_not_seen(table: Table[Message], row: Message) -> None:
    reader = other(table)
    table.append([row])

    assert (table.changed(), reader.changed()) == (False, True)
    reader.read()
    assert reader.changed() is False
    table.update({row.key: sent})
    assert reader.changed() is True


def test_changed_stays_true_after_a_write_on_top_of_unseen_rows(
    table: Table[Message], row: Message
) -> None:
    table.append([row])
    other(table).append([replace(row, message_id="1001")])

    table.append([replace(row, message_id="1002")])

    assert table.changed() is True
    assert len(table.read().rows) == 3
    assert table.changed() is False


def test_a_removed_file_reads_as_empty_and_is_made_again(
    table: Table[Message], row: Message
) -> None:
    table.append([row])
    table.path.unlink()

    assert table.changed() is True
    assert table.read() == Snapshot()
    table.append([row])
    assert table.read().rows == (row,)


def test_a_folder_that_was_replaced_gets_the_next_row(table: Table[Message], row: Message) -> None:
    table.append([row])
    folder = table.path.parent
    folder.rename(folder.with_name("moved"))
    folder.mkdir()

    table.append([row])

    assert table.path.read_bytes() == codec.header(Message) + codec.encode_row(row)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: codec.BOM + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data[:-1],
        lambda data: data.replace(b"boil", b"cool"),
        lambda data: data.replace(b"boil", b"boil all"),
    ],
    ids=["bom", "crlf", "no last newline", "same size", "other size"],
)
def test_a_foreign_edit_in_place_is_read_logged_once_and_brought_into_form(
    table: Table[Message], row: Message, change: Callable[[bytes], bytes]
) -> None:
    table.append([row])
    edit(table.path, change)
    (found,) = table.read().rows

    events = foreign_changes(table)
    again = foreign_changes(table)

    assert events == [
        {"event": "foreign_change_noticed", "log_level": "warning", "file": str(table.path)}
    ]
    assert again == []
    rows = table.read().rows
    assert (rows[0], len(rows)) == (found, 3)
    assert table.path.read_bytes() == codec.header(Message) + codec.encode(rows)


def test_an_editor_that_saves_by_rename_is_noticed_by_its_mode(
    table: Table[Message], row: Message, tmp_path: Path
) -> None:
    table.append([row])
    saved = tmp_path / "saved"
    saved.write_bytes(table.path.read_bytes() + codec.encode_row(replace(row, message_id="5")))
    saved.chmod(0o644)
    saved.rename(table.path)

    assert [event["event"] for event in foreign_changes(table)] == ["foreign_change_noticed"]
    assert [found.message_id for found in table.read().rows] == ["1000", "5", "9"]
    assert table.path.stat().st_mode & 0o777 == 0o440


def test_a_commit_of_another_process_is_not_foreign(table: Table[Message], row: Message) -> None:
    table.append([row])
    saved = codec.header(Message) + codec.encode([sent(row), replace(row, message_id="1001")])
    atomic.replace(table.path, [saved], modes=atomic.Modes())

    assert foreign_changes(table) == []
    assert [found.message_id for found in table.read().rows] == ["1000", "1001", "9"]


def test_left_over_temp_files_of_the_table_are_swept(tmp_path: Path, row: Message) -> None:
    for name in (".t.csv.0a1b.tmp", ".t.csv.x.csv.0a1b.tmp", ".u.csv.0a1b.tmp", "t.csv.tmp"):
        (tmp_path / name).write_bytes(b"half")

    Table(tmp_path / "t.csv", Message).append([row])

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".t.csv.x.csv.0a1b.tmp",
        ".u.csv.0a1b.tmp",
        "t.csv",
        "t.csv.lock",
        "t.csv.tmp",
    ]
    assert sorted(atomic.sweep(tmp_path)) == [".t.csv.x.csv.0a1b.tmp", ".u.csv.0a1b.tmp"]


def test_unreadable_things_say_so(tmp_path: Path, row: Message) -> None:
    (tmp_path / "t.csv").mkdir()
    table = Table(tmp_path / "t.csv", Message)

    with pytest.raises(TransientError, match=r"t\.csv: cannot read"):
        table.read()
    with pytest.raises(TransientError, match="cannot read: it is a folder"):
        table.append([row])


def test_more_tables_than_are_held_keep_their_rows(tmp_path: Path) -> None:
    tables = [Table(tmp_path / f"{n}.csv", Node) for n in range(40)]
    for turn in range(2):
        for n, table in enumerate(tables):
            table.append([Node(f"!{turn}{n}")])

    found = [tuple(node.node_id for node in table.read().rows) for table in tables]
    assert found == [(f"!0{n}", f"!1{n}") for n in range(40)]


def test_rewrite_replaces_all_rows_or_none(table: Table[Message], row: Message) -> None:
    table.append([row, replace(row, message_id="1001")])

    assert table.rewrite(lambda _bytes, _snapshot: None) is False
    assert table.rewrite(lambda _bytes, snapshot: snapshot.rows[1:]) is True
    assert [found.message_id for found in table.read().rows] == ["1001"]


def test_two_threads_lose_no_row(table: Table[Message], row: Message) -> None:
    start = threading.Barrier(2)

    def write(first: int) -> None:
        start.wait(5)
        for n in range(first, first + 40):
            table.append([replace(row, message_id=str(n))])
            table.update({(row.sender_id, str(n)): sent})

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)

    rows = table.read().rows
    assert sorted(int(found.message_id) for found in rows) == list(range(80))
    assert {found.send_status for found in rows} == {"sent"}


def test_readers_see_whole_tables_while_a_writer_works(table: Table[Message], row: Message) -> None:
    done = threading.Event()
    seen: list[Snapshot[Message]] = []

    def look() -> None:
        reader = other(table)
        while not done.is_set():
            seen.append(reader.read())

    thread = threading.Thread(target=look)
    thread.start()
    for n in range(60):
        table.append([replace(row, message_id=str(n), content="x" * 300)])
    done.set()
    thread.join(5)

    lengths = [len(snapshot.rows) for snapshot in seen]
    assert lengths == sorted(lengths)
    assert {snapshot.damage for snapshot in seen} == {()}
