import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshllm.records import Message
from meshllm.store import codec, held, table
from meshllm.store.table import Table

CONTENT = st.text(alphabet="\0\n\r\",'=a1,\U0001f469", max_size=8)
IDS = st.integers(0, 5)
WHO = st.integers(0, 1)


class TableMachine(RuleBasedStateMachine):
    """Two users of one file, an operator's editor, and restarts, against a list of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "t.csv"
        self.users = [Table(self.path, Message), Table(self.path, Message)]
        self.model: list[Message] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(who=WHO, rows=st.lists(st.tuples(IDS, CONTENT), max_size=3))
    def append(self, who: int, rows: list[tuple[int, str]]) -> None:
        new = [Message("dm", "!a", str(i), "queued", "!b", content=text) for i, text in rows]
        self.users[who].append(new)
        self.model += new

    @rule(who=WHO, ids=st.sets(IDS, min_size=1), content=CONTENT, add=st.booleans())
    def commit(self, who: int, ids: set[int], content: str, add: bool) -> None:
        def change(now: Message) -> Message:
            return replace(now, content=now.content[:4] + content, send_status="sent")

        extra = [Message("dm", "!a", "6", "queued", "!b")] if add else []
        done = self.users[who].commit(append=extra, changes={("!b", str(i)): change for i in ids})

        expected = {}
        for position in range(len(self.model) - 1, -1, -1):
            row = self.model[position]
            if int(row.message_id) in ids and row.key not in expected:
                expected[row.key] = self.model[position] = change(row)
        self.model += extra
        assert done == expected

    @rule(style=st.sampled_from(["crlf", "bom", "cut", "blank"]), by_rename=st.booleans())
    def edit(self, style: str, by_rename: bool) -> None:
        if not self.path.exists():
            return
        data = codec.header(Message)
        lines = [codec.encode_row(row) for row in self.model]
        if style == "crlf":
            data = data[:-1] + b"\r\n" + b"".join(line[:-1] + b"\r\n" for line in lines)
        else:
            data = b"".join([codec.BOM if style == "bom" else b"", data, *lines])
        if style == "cut":
            data = data[:-1]
        if style == "blank":
            data += b"\n"
        target = self.folder / "saved" if by_rename else self.path
        target.write_bytes(data)
        target.rename(self.path)

    @rule(who=WHO)
    def drop_first_row(self, who: int) -> None:
        self.users[who].rewrite(lambda _bytes, snapshot: snapshot.rows[1:])
        self.model = self.model[1:]

    @rule(who=WHO)
    def restart(self, who: int) -> None:
        table._files = held.HeldFiles()  # type: ignore[misc]
        self.users[who] = Table(self.path, Message)

    @rule(who=WHO)
    def read(self, who: int) -> None:
        assert list(self.users[who].read().rows) == self.model
        assert not self.users[who].changed()

    @invariant()
    def the_file_holds_the_model(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        decoded = codec.decode(data, Message)
        assert (list(decoded.rows), decoded.damage) == (self.model, ())


TableMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_a_table_behaves_like_a_list_of_rows = TableMachine.TestCase
