"""A small world for the agent: files of radios, a clock that is moved, a scripted model."""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from meshllm.agent.answering import Ids
from meshllm.agent.service import AgentService
from meshllm.clock import Waker, utc_text
from meshllm.config import Settings
from meshllm.layout import Layout, channel_stem
from meshllm.observe.board import Board
from meshllm.records import Message, Node, PromptRow, compact_json
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from meshllm.testing.model import ScriptedModel

HOME = "aaaa0001"
OWN = "!aaaa0001"
ALICE = "!a11ce001"
BOB = "!b0b00001"
LIMIT_S = 5.0


@dataclass
class World:
    """Everything around one agent; `start` and `stop` stand for the life of a process."""

    root: Path
    events: list[EventDict]
    clock: ManualClock = field(default_factory=ManualClock)
    model: ScriptedModel = field(default_factory=ScriptedModel)
    settings: Settings = field(default_factory=Settings)
    waker: Waker = field(default_factory=Waker)
    service: AgentService | None = None
    ids: Ids = field(default_factory=Ids)
    board: Board = field(default_factory=Board)

    def __post_init__(self) -> None:
        self.layout = Layout(self.root / "data", self.root / "data/nodes", self.root / "prompts")
        self._ids = itertools.count(101)
        self.add_radio(HOME)

    def add_radio(self, uid: str, **facts: object) -> None:
        tree = self.layout.tree(uid)
        for folder in tree.folders():
            folder.mkdir(parents=True, exist_ok=True)
        status = {"node_uid": uid, "node_id": f"!{uid}", "link_state": "up", **facts}
        tree.radio_status.write_text(json.dumps(status))

    def thread(self, key: str, uid: str = HOME) -> Path:
        tree = self.layout.tree(uid)
        if key.startswith("!"):
            return tree.dm_thread(key)
        return tree.channel_thread(channel_stem(key, index=0, others={}))

    def hear(self, text: str, *, key: str = ALICE, uid: str = HOME, **extras: object) -> Message:
        """Let a text arrive: a DM from `key`, or on the channel of that name from `sender`."""
        sender = str(extras.pop("sender", key if key.startswith("!") else ALICE))
        row = Message(
            thread_type="dm" if key.startswith("!") else "channel",
            thread_key=key,
            message_id=str(extras.pop("message_id", next(self._ids))),
            direction="inbound",
            sender_id=sender,
            timestamp=str(extras.pop("timestamp", utc_text(self.clock.utc()))),
            content=text,
            meta_json=compact_json(extras),
        )
        self.put(row, uid)
        return row

    def put(self, row: Message, uid: str = HOME) -> None:
        Table(self.thread(row.thread_key, uid), Message).append([row])

    def rows(self, key: str = ALICE, uid: str = HOME) -> list[Message]:
        return list(Table(self.thread(key, uid), Message).read().rows)

    def ours(self, key: str = ALICE, uid: str = HOME) -> list[Message]:
        return [row for row in self.rows(key, uid) if row.is_outgoing]

    def said(self, key: str = ALICE, uid: str = HOME) -> list[str]:
        return [row.content for row in self.ours(key, uid)]

    def prompts(self) -> list[PromptRow]:
        return list(Table(self.layout.prompts_table, PromptRow).read().rows)

    def pages(self) -> list[Path]:
        return sorted(self.layout.prompts_dir.glob("*.md"))

    def name(self, node: Node, uid: str = HOME) -> None:
        Table(self.layout.tree(uid).nodes, Node).append([node])

    def reasons(self, event: str = "question_skipped") -> list[str]:
        return [str(e["reason"]) for e in self.events if e["event"] == event]

    def count(self, event: str) -> int:
        return sum(e["event"] == event for e in self.events)

    def start(self) -> AgentService:
        self.service = AgentService(
            self.settings,
            self.layout,
            clock=self.clock,
            model=self.model,
            waker=self.waker,
            ids=self.ids,
            board=self.board,
        )
        self.service.start()
        return self.service

    def stop(self) -> None:
        if self.service is not None:
            self.service.stop()
            self.service = None

    def crash(self) -> None:
        """End the process without its good-bye: whatever is on disk stays as it is."""
        service, self.service = self.service, None
        assert service is not None
        service._worker.stop()
        service._watch.close()

    def until(self, is_true: Callable[[], bool]) -> None:
        """Tick, at most some real seconds, until something holds."""
        assert self.service is not None
        for _ in range(int(LIMIT_S / 0.02)):
            self.service.tick()
            if is_true():
                return
            self.waker.wait_real(0.02)
        pytest.fail(f"never became true; events: {self.events}")

    def idle(self) -> None:
        """Look at all files as the poll would, and tick until nothing is left to do now."""
        service = self.service or self.start()
        service._look_due = 0.0
        for tree in self.layout.trees():
            for path in tree.thread_files():
                service._book.mark(path)
        self.until(
            lambda: (
                service._asked is None
                and not service._is_probing
                and not service._book.has_backlog
                and service.tick() > 0
                and service._asked is None
            )
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass in steps of a second or more, with a look at everything after each."""
        left = seconds
        while left > 0:
            step = min(left, max(1.0, seconds / 50))
            self.clock.advance(step)
            left -= step
            self.idle()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with capture_logs() as events:
        made = World(tmp_path, events)
        yield made
        made.model.gate.set()
        made.stop()
