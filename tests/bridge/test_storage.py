"""A full disk, a read-only one, editors and locks: nothing is lost, nothing is sent twice."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.typing import EventDict

from meshllm.bridge import tables as tables_module
from meshllm.bridge.registry import MAX_URGENT, Registry
from meshllm.bridge.storage import Storage
from meshllm.bridge.tables import BUSY_LOCK_WAIT_S, Tables
from meshllm.bridge.written import MAX_ROWS, Written
from meshllm.clock import utc_text
from meshllm.errors import LockTimeoutError, StoreWriteError
from meshllm.layout import NodeTree
from meshllm.radio.base import Envelope, UserHeard
from meshllm.records import Message, Node, compact_json
from meshllm.store import codec, locks
from meshllm.store.atomic import Modes
from meshllm.store.reserve import Reserve
from meshllm.store.space import DiskSpace
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from meshllm.testing.radio import OWN_NUMBER
from tests.bridge.world import DELIVERED, OutboxWorld
from tests.mounts import SmallDisk, small_disk

PEER = "!a11ce001"
SIZE = 1_000_000


def names(events: list[EventDict], *wanted: str) -> list[str]:
    return [e["event"] for e in events if not wanted or e["event"] in wanted]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=8) as found:
        yield found


class Shelf:
    """Tables over one tree, with a reserve of their own where wanted."""

    def __init__(self, tree: NodeTree, *, reserve: bool = False) -> None:
        self.tree = tree
        self.clock = ManualClock()
        folder = tree.root
        folder.mkdir(parents=True, exist_ok=True)
        self.reserve = (
            Reserve(folder / ".reserve", floor_bytes=0, size_bytes=SIZE) if reserve else None
        )
        self.storage = Storage(self.reserve, DiskSpace((folder,), 0, consequence="none"))
        self.storage.look()
        self.tables = self.make()
        self.path = tree.dm_thread(PEER)

    def make(self) -> Tables:
        return Tables(
            self.tree.quarantine,
            modes=Modes(),
            lock_timeout_s=0.1,
            clock=self.clock,
            storage=self.storage,
        )

    def heard(self, number: int, text: str = "hi", path: Path | None = None) -> Message:
        row = Message(
            thread_type="dm",
            thread_key=PEER,
            message_id=str(number),
            direction="inbound",
            sender_id=PEER,
            timestamp=utc_text(self.clock.utc()),
            content=text,
        )
        self.tables.append(path or self.path, [row])
        return row

    def ids(self) -> list[str]:
        return [row.message_id for row in Table(self.path, Message).read().rows]

    def save(self, data: bytes) -> None:
        """Save as an editor does: a new file with other permissions takes the place."""
        other = self.path.with_name("lu1234.tmp")
        other.write_bytes(data)
        other.chmod(0o664)
        other.replace(self.path)


@pytest.fixture
def shelf(tree: NodeTree, events: list[EventDict]) -> Shelf:
    return Shelf(tree)


# -- full ------------------------------------------------------------------------------------------


def test_texts_heard_on_a_full_disk_take_the_reserve(
    disk: SmallDisk, events: list[EventDict]
) -> None:
    shelf = Shelf(NodeTree(disk.path / "aaaa0001"), reserve=True)
    shelf.heard(1)
    disk.fill()

    for number in range(2, 12):
        shelf.heard(number)

    assert shelf.ids() == [str(n) for n in range(1, 12)]
    assert not shelf.storage.has_room_for_rest
    assert shelf.storage.state == "full"
    disk.empty()
    shelf.storage.look()
    assert (shelf.storage.has_room_for_rest, shelf.storage.state) == (True, "ok")
    assert names(events) == ["reserve_spent", "reserve_made"]


def test_an_intent_does_not_cost_the_reserve(disk: SmallDisk, events: list[EventDict]) -> None:
    shelf = Shelf(NodeTree(disk.path / "aaaa0001"), reserve=True)
    row = shelf.heard(1)
    disk.fill()

    def change(found: Message) -> Message:
        return replace(found, content=found.content + "x" * 10_000)

    with pytest.raises(StoreWriteError):
        shelf.tables.update(shelf.path, {row.key: change}, may_spend=False)

    assert shelf.reserve is not None
    assert shelf.reserve.is_kept
    shelf.tables.update(shelf.path, {row.key: change})
    assert shelf.reserve.is_spent
    assert names(events) == ["storage_refused", "reserve_spent"]  # full all the time

    disk.empty()
    shelf.storage.look()
    assert names(events)[2:] == ["reserve_made", "storage_back"]


def test_a_full_disk_without_a_reserve_is_told_once_and_left_by_itself(
    disk: SmallDisk, events: list[EventDict]
) -> None:
    shelf = Shelf(NodeTree(disk.path / "aaaa0001"))
    disk.fill()
    for number in range(3):
        with pytest.raises(StoreWriteError):
            shelf.heard(number)

    disk.empty()
    shelf.heard(9)

    assert names(events) == ["storage_refused", "storage_back"]
    assert (events[0]["state"], events[1]["was"]) == ("full", "full")


def test_nodes_wait_while_the_reserve_is_spent(disk: SmallDisk, events: list[EventDict]) -> None:
    shelf = Shelf(NodeTree(disk.path / "aaaa0001"), reserve=True)
    registry = _registry(shelf)
    shelf.heard(1)
    disk.fill()
    shelf.heard(2)

    registry.heard(Envelope(0xB0B, OWN_NUMBER, 5), at=utc_text(shelf.clock.utc()))
    registry.flush()
    wait_s = registry.due_in_s()
    before = Table(shelf.tree.nodes, Node).read().rows
    disk.empty()
    shelf.storage.look()
    registry.flush()

    assert wait_s > 0  # else the station would run in circles
    assert before == ()
    assert [row.node_id for row in Table(shelf.tree.nodes, Node).read().rows] == ["!00000b0b"]
    assert "registry_not_written" not in names(events)


def test_a_result_waits_for_the_disk_and_the_text_is_sent_once(
    disk: SmallDisk, events: list[EventDict]
) -> None:
    world = OutboxWorld(disk.path)
    world.queue("hello")
    world.tick()
    packet_id = world.port.sent[0].packet_id
    disk.fill()

    world.accept()
    world.ack(packet_id)
    on_full_disk = world.state()
    disk.empty()
    world.run(12)

    assert on_full_disk == [("queued", "", None, None)]
    assert world.state() == [DELIVERED]
    assert [text.packet_id for text in world.port.sent] == [packet_id]


def test_a_crash_on_a_full_disk_resumes_under_the_same_id(
    disk: SmallDisk, events: list[EventDict]
) -> None:
    world = OutboxWorld(disk.path)
    world.queue("hello")
    world.tick()
    packet_id = world.port.sent[0].packet_id
    disk.fill()
    world.accept()

    world.restart()
    world.run(30)
    during = list(world.port.sent)
    disk.empty()
    world.run(30)
    assert {text.packet_id for text in world.port.sent} <= {packet_id}
    world.accept()
    world.ack(packet_id)

    assert during == []  # without its intent on disk nothing goes out
    assert world.state() == [DELIVERED]


# -- read-only -------------------------------------------------------------------------------------


def test_a_read_only_disk_is_told_once_and_left_by_itself(
    disk: SmallDisk, events: list[EventDict]
) -> None:
    shelf = Shelf(NodeTree(disk.path / "aaaa0001"), reserve=True)
    shelf.heard(1)
    disk.remount(read_only=True)
    for _ in range(3):
        shelf.storage.look()
        with pytest.raises(StoreWriteError):
            shelf.heard(2)
    state = shelf.storage.state

    disk.remount(read_only=False)
    shelf.storage.look()
    shelf.heard(2)

    assert state == "read_only"
    assert shelf.ids() == ["1", "2"]
    assert names(events) == ["storage_refused", "storage_back"]


# -- locks -----------------------------------------------------------------------------------------


def test_a_locked_file_is_waited_for_once_and_told_once(
    shelf: Shelf, events: list[EventDict]
) -> None:
    shelf.heard(1)
    waits = []
    with locks.hold(shelf.path):
        for number in range(2, 5):
            with pytest.raises((LockTimeoutError, RuntimeError)):
                _in_thread(lambda n=number: shelf.heard(n))  # type: ignore[misc]
            waits.append(shelf.tables.get(shelf.path).lock_timeout_s)
    shelf.heard(9)

    assert waits == [BUSY_LOCK_WAIT_S] * 3
    assert shelf.tables.get(shelf.path).lock_timeout_s == 0.1
    assert shelf.ids() == ["1", "9"]
    assert names(events) == ["file_locked", "file_unlocked"]


def _in_thread(act: Callable[[], object]) -> None:
    """Run in a thread of its own, since a lock of this thread would be a bug; raise its error."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result(10)


# -- what stands in a file's place -----------------------------------------------------------------


def _in_place(path: Path, kind: str, elsewhere: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
        (path / "inside").write_bytes(b"kept")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(elsewhere if kind == "link" else path.parent / "nowhere")


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "dangling link"])
def test_what_is_no_file_is_moved_aside_and_texts_go_on(
    shelf: Shelf, tmp_path: Path, events: list[EventDict], kind: str
) -> None:
    precious = tmp_path / "precious.csv"
    precious.write_bytes(b"not ours\n")
    shelf.heard(1)
    _in_place(shelf.path, kind, precious)

    shelf.heard(2)

    assert shelf.ids() == ["1", "2"]
    assert stat.S_ISREG(shelf.path.lstat().st_mode)
    assert precious.read_bytes() == b"not ours\n"
    assert len(list(shelf.tree.quarantine.iterdir())) == 1
    assert names(events) == ["file_displaced", "rows_vanished"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "dangling link"])
@pytest.mark.parametrize("file", ["nodes", "sightings", "latest"])
def test_what_is_no_registry_file_is_moved_aside(
    shelf: Shelf, tmp_path: Path, events: list[EventDict], file: str, kind: str
) -> None:
    precious = tmp_path / "precious.csv"
    precious.write_bytes(b"not ours\n")
    _in_place(getattr(shelf.tree, file), kind, precious)

    registry = _registry(shelf)
    registry.heard(Envelope(0xB0B, OWN_NUMBER, 5), at=utc_text(shelf.clock.utc()))
    registry.flush(force=True)

    assert stat.S_ISREG(getattr(shelf.tree, file).lstat().st_mode)
    assert [row.node_id for row in Table(shelf.tree.nodes, Node).read().rows] == ["!00000b0b"]
    assert names(events, "file_displaced", "registry_not_written") == ["file_displaced"]


@pytest.mark.parametrize(
    "junk",
    [b"\0" * 4096, b"\xff\xfe,\xff\n", b"dm,x,1\n", b"x" * 10_000_000 + b"\n", b'"' * 99 + b"\n"],
    ids=["zeros", "not utf-8", "half a row", "a line of ten megabytes", "quotes"],
)
def test_junk_in_the_middle_costs_no_row_and_is_kept(
    shelf: Shelf, events: list[EventDict], junk: bytes
) -> None:
    for number in range(1, 5):
        shelf.heard(number)
    lines = shelf.path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], junk, *lines[3:]])
    shelf.save(damaged)

    shelf.heard(5)

    assert sorted(shelf.ids()) == ["1", "2", "3", "4", "5"]
    assert [p.read_bytes() for p in shelf.tree.quarantine.glob("*.csv")] == [damaged]
    assert names(events).count("rows_quarantined") == 1


def test_a_damaged_file_that_cannot_be_mended_is_told_once(
    shelf: Shelf, events: list[EventDict]
) -> None:
    shelf.heard(1)
    shelf.save(shelf.path.read_bytes() + b"junk\n")
    with locks.hold(shelf.path):
        for _ in range(3):
            _in_thread(lambda: shelf.tables.read(shelf.path))
    shelf.clock.advance(6)

    assert [row.message_id for row in shelf.tables.read(shelf.path)] == ["1"]
    assert names(events, "repair_failed", "file_locked", "rows_quarantined") == [
        "file_locked",
        "repair_failed",
        "rows_quarantined",
    ]


# -- an operator's spreadsheet ---------------------------------------------------------------------


def test_an_old_copy_saved_over_newer_rows_loses_none(
    shelf: Shelf, events: list[EventDict]
) -> None:
    shelf.heard(1)
    old = shelf.path.read_bytes()
    shelf.heard(2)
    shelf.heard(3)
    shelf.save(old)

    shelf.heard(4)

    assert shelf.ids() == ["1", "2", "3", "4"]
    vanished = [e for e in events if e["event"] == "rows_vanished"]
    assert [(e["message_ids"], e["rows_gone"]) for e in vanished] == [(["2", "3"], 2)]


@pytest.mark.parametrize("how", ["deleted", "emptied in place"])
def test_a_file_that_is_gone_comes_back_with_what_is_remembered(shelf: Shelf, how: str) -> None:
    shelf.heard(1)
    shelf.heard(2)
    if how == "deleted":
        shelf.path.unlink()
    else:
        shelf.path.chmod(0o644)
        shelf.path.write_bytes(b"")

    shelf.tables.read(shelf.path)

    assert shelf.ids() == ["1", "2"]


def test_rows_that_left_on_purpose_are_not_missed(shelf: Shelf, events: list[EventDict]) -> None:
    shelf.heard(1)
    old = shelf.path.read_bytes()
    shelf.heard(2)
    shelf.tables.forget(shelf.path)
    shelf.save(old)

    shelf.tables.read(shelf.path)

    assert shelf.ids() == ["1"]
    assert "rows_vanished" not in names(events)


def _resaved(data: bytes, how: str) -> bytes:
    text = data.decode()
    if how == "bom":
        return codec.BOM + data
    if how == "crlf":
        return text.replace("\n", "\r\n").encode()
    if how == "all quoted":
        lines = (",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines())
        return ("\n".join(lines) + "\n").encode()
    return (text.rstrip("\n") + "\n\n\n").encode()


@pytest.mark.parametrize("how", ["bom", "crlf", "all quoted", "blank lines"])
def test_a_resaved_file_keeps_its_rows_and_gets_its_form_back(
    shelf: Shelf, events: list[EventDict], how: str
) -> None:
    shelf.heard(1)
    shelf.heard(2)
    good = shelf.path.read_bytes()
    shelf.path.with_name(f".~lock.{shelf.path.name}#").write_bytes(b",operator,host;")
    shelf.save(_resaved(good, how))

    shelf.heard(3)

    assert shelf.path.read_bytes().startswith(good)
    assert shelf.ids() == ["1", "2", "3"]
    assert names(events) == ["foreign_change_noticed"]


def test_reformatted_ids_are_told_and_the_rows_put_back(
    shelf: Shelf, events: list[EventDict]
) -> None:
    shelf.heard(4123456789)
    shelf.save(shelf.path.read_bytes().replace(b"4123456789", b"4.12E+09"))

    shelf.tables.read(shelf.path)

    assert shelf.ids() == ["4.12E+09", "4123456789"]
    assert names(events, "rows_vanished") == ["rows_vanished"]


@pytest.mark.parametrize("state", ["handed", "delivered", "given up"])
def test_an_old_copy_sends_no_answer_again(
    world: OutboxWorld, events: list[EventDict], state: str
) -> None:
    world.queue("the answer")
    path = world.path()
    old = path.read_bytes()
    packet_id = world.hand_over()
    if state == "delivered":
        world.ack(packet_id)
    elif state == "given up":
        world.nak(packet_id, "TOO_LARGE")
    settled = world.state()

    other = path.with_name("lu77.tmp")
    other.write_bytes(old)
    other.replace(path)
    world.outbox.scan(path)
    world.run(10)

    assert world.state() == settled
    assert len(world.port.sent) == 1
    vanished = [e for e in events if e["event"] == "rows_vanished"]
    assert [(e["rows_gone"], e["rows_set_back"]) for e in vanished] == [(0, 1)]


def test_an_answer_that_the_agent_queues_again_is_not_sent_again(
    world: OutboxWorld, events: list[EventDict]
) -> None:
    """An old copy lacks the answer, so the agent takes it from its log, under the same id."""
    (message_id,) = world.queue("the answer")
    world.ack(world.hand_over())
    path = world.path()
    path.unlink()

    world.queue("the answer", message_id=message_id)
    world.run(10)

    assert world.state() == [DELIVERED]
    assert len(world.port.sent) == 1


def test_while_rows_cannot_be_put_back_nothing_of_them_is_sent(
    world: OutboxWorld, events: list[EventDict]
) -> None:
    world.queue("the answer")
    path = world.path()
    old = path.read_bytes()
    world.hand_over()
    other = path.with_name("lu77.tmp")
    other.write_bytes(old)
    other.replace(path)

    with locks.hold(path):
        for _ in range(4):
            _in_thread(lambda: world.outbox.scan(path))
            _in_thread(lambda: world.run(4))
    during = len(world.port.sent)
    world.outbox.scan(path)
    world.run(10)

    assert (during, len(world.port.sent)) == (1, 1)
    assert world.row().send_status == "sent"
    assert names(events, "rows_not_restored") == ["rows_not_restored"]


def test_rows_that_were_set_back_are_left_out_at_once(shelf: Shelf) -> None:
    row = _queued("5")
    shelf.tables.append(shelf.path, [row])
    old = shelf.path.read_bytes()
    shelf.tables.update(shelf.path, {row.key: lambda found: replace(found, send_attempts=1)})
    shelf.tables.update(shelf.path, {row.key: lambda found: replace(found, direction="outbound")})
    shelf.save(old)
    reads: list[tuple[Message, ...]] = []

    with locks.hold(shelf.path):
        for _ in range(2):
            _in_thread(lambda: reads.append(shelf.tables.read(shelf.path)))
    shelf.clock.advance(6)
    reads.append(shelf.tables.read(shelf.path))

    assert reads[:2] == [(), ()]
    assert [(found.direction, found.send_attempts) for found in reads[2]] == [("outbound", 1)]


def test_a_row_still_to_be_sent_stays_out_of_a_mended_file(shelf: Shelf) -> None:
    """The agent queues it again where it is wanted; no row of a damaged file is sent."""
    shelf.heard(1)
    row = _queued("5")
    shelf.tables.append(shelf.path, [row])
    tried = replace(row, send_attempts=1, meta_json=compact_json({"tries": [{"id": 5}]}))
    shelf.tables.update(shelf.path, {row.key: lambda _: tried})
    shelf.save(shelf.path.read_bytes() + b"junk\n")

    shelf.heard(2)

    assert shelf.ids() == ["1", "2"]


def test_an_editor_that_writes_in_place_is_waited_for(
    shelf: Shelf, events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.heard(1)
    whole = shelf.path.read_bytes()
    shelf.path.chmod(0o644)
    shelf.path.write_bytes(b"")  # as far as it has come when the bridge looks
    monkeypatch.setattr(tables_module, "pause_real", lambda _: shelf.path.write_bytes(whole))

    rows = shelf.tables.read(shelf.path)

    assert [row.message_id for row in rows] == ["1"]
    assert "rows_vanished" not in names(events)


def _queued(message_id: str) -> Message:
    return Message(
        "dm", PEER, message_id, "queued", "!aaaa0001", "1", "2026-01-01T00:00:00Z", "answer"
    )


def test_memory_of_written_rows_is_bounded() -> None:
    written, path = Written(), Path("t.csv")
    rows = [
        Message("dm", PEER, str(n), "inbound", PEER, "", "2026-01-01T00:00:00Z", "x")
        for n in range(MAX_ROWS + 5)
    ]
    written.note(path, rows, now=0.0)

    assert [r.message_id for r in written.loss(path, (), 1.0).gone] == [
        str(n) for n in range(5, MAX_ROWS + 5)
    ]
    assert not written.loss(path, (), 86_401.0)


def test_rows_still_to_be_tried_are_the_agents_to_queue_again() -> None:
    written, path = Written(), Path("t.csv")
    row = _queued("5")
    tried = replace(
        row, message_id="6", send_attempts=1, meta_json=compact_json({"tries": [{"id": 6}]})
    )
    written.note(path, [row, tried], now=0.0)

    assert [r.message_id for r in written.loss(path, (), 1.0).gone] == ["6"]


# -- forged ids ------------------------------------------------------------------------------------


def _registry(shelf: Shelf, *, max_nodes: int = 2000) -> Registry:
    registry = Registry(
        shelf.tree,
        modes=Modes(),
        lock_timeout_s=1.0,
        clock=shelf.clock,
        max_nodes=max_nodes,
        storage=shelf.storage,
    )
    registry.ensure()
    return registry


def test_thousands_of_forged_nodes_cost_few_commits_and_few_events(
    shelf: Shelf, events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = _registry(shelf, max_nodes=500)
    commits = []
    commit = Table.commit

    def counted(table: Table[Node], *args: object, **options: object) -> object:
        commits.append(table.path.name)
        return commit(table, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Table, "commit", counted)
    real = Envelope(0xB0B, OWN_NUMBER, 1)
    registry.heard(real, at=utc_text(shelf.clock.utc()))
    for n in range(5000):
        envelope = Envelope(0xD0000000 + n, OWN_NUMBER, n + 2)
        if registry.heard(envelope, at=utc_text(shelf.clock.utc())):
            registry.named(UserHeard(envelope, short_name="x", long_name=f"forged {n}"))
        registry.flush()
    shelf.clock.advance(120)
    registry.flush(force=True)

    assert len(Table(shelf.tree.nodes, Node).read().rows) == 500
    assert registry.heard(real, at=utc_text(shelf.clock.utc()))
    assert commits.count("nodes.csv") <= MAX_URGENT + 2
    told = names(events)
    assert told.count("node_limit_reached") == 1
    assert told.count("node_seen") <= 110
    assert len(told) < 300
