"""Finds the thread files of all radios and keeps what they say of open questions. Answers none."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from meshllm.agent.questions import Ages, Answer, Key, Question, Standing, assess
from meshllm.clock import Clock
from meshllm.errors import TransientError
from meshllm.layout import Layout, NodeTree, node_number
from meshllm.layout import node_id as node_id_text
from meshllm.observe import status
from meshllm.records import Message
from meshllm.store import atomic
from meshllm.store.table import Table

log = structlog.get_logger()

SLICE_S: Final = 0.05  #: real seconds of the first reading of files per tick; events go first
EXPIRY_SLACK_S: Final = 0.01  #: a question is too old only beyond its limit, not at it


@dataclass(slots=True)
class Thread:
    """One thread file, and what its last reading said."""

    tree: NodeTree
    path: Path
    table: Table[Message]
    standing: Standing = field(default_factory=Standing)  #: empty while nothing is open
    rows: tuple[Message, ...] | None = None  #: what `standing` was made from, while it is kept
    expires_at: float | None = None  #: monotonic; when the first open question grows too old
    complaint: str = ""  #: why the file could not be used, as last logged
    told: set[tuple[Key, str]] = field(default_factory=set)  #: decisions that are logged
    closed_elsewhere: set[Key] = field(default_factory=set)  #: answered by another radio of ours

    def tell(self, question: Question, reason: str) -> bool:
        """Say whether a decision about a question is news, and remember that it was told."""
        mark = (question.key, reason)
        if mark in self.told:
            return False
        self.told.add(mark)
        return True


Heard = tuple[Thread, Message, Standing]


class ThreadBook:
    """All threads. `mark` may be called from any thread; the rest belongs to the service's."""

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        max_age_s: float,
        modes: atomic.Modes,
        lock_timeout_s: float,
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._max_age_s = max_age_s
        self._modes = modes
        self._lock_timeout_s = lock_timeout_s
        self._threads: dict[Path, Thread] = {}
        self._trees: dict[Path, NodeTree] = {}
        self._own: dict[Path, str] = {}
        self._down: set[Path] = set()
        self._marked: dict[Path, None] = {}
        self._marked_guard = threading.Lock()
        self._backlog: list[Path] = []
        #: Tells commands from questions for the model; set by the one who knows them.
        self.is_command: Callable[[NodeTree, Message, Sequence[Message]], bool] = _no_command
        self._ages = Ages(clock)
        self._answers: dict[Path, tuple[Answer, ...]] = {}  #: where there are any
        self.asking: dict[Path, Thread] = {}  #: threads with open questions

    @property
    def own_ids(self) -> frozenset[str]:
        """Node ids of all our radios."""
        return frozenset(self._own.values())

    @property
    def tree_count(self) -> int:
        """How many radios have, or had, files."""
        return len(self._trees)

    @property
    def trees(self) -> tuple[NodeTree, ...]:
        """Files of all radios."""
        return tuple(self._trees.values())

    @property
    def listening_trees(self) -> int:
        """How many radios may hear something now."""
        return len(self._trees) - len(self._down)

    @property
    def has_backlog(self) -> bool:
        """True while files have not been looked at since the start."""
        return bool(self._backlog)

    def is_down(self, tree: NodeTree) -> bool:
        """True when the bridge says that this radio's link is down."""
        return tree.root in self._down

    def own_id(self, tree: NodeTree) -> str:
        """Node id of a radio, "" while nobody knows it."""
        if tree.root not in self._own:
            self._read_radio(tree)
        return self._own.get(tree.root, "")

    def mark(self, path: Path) -> None:
        """Have a file looked at in the next refresh."""
        with self._marked_guard:
            self._marked[path] = None

    def close(self, thread: Thread, question: Question) -> None:
        """Count a question as answered by another radio: here, nothing is open of it any more."""
        thread.closed_elsewhere.add(question.key)
        thread.rows = None  # the same rows say something else now
        self.mark(thread.path)

    def discover(self, watch: Callable[[Path], None]) -> None:
        """Find new radios; watch their folders and put their files in line, newest first."""
        found = [tree for tree in self._layout.trees() if tree.root not in self._trees]
        for tree in found:
            self._trees[tree.root] = tree
            watch(tree.channels)
            watch(tree.dms)
        for tree in self._trees.values():
            self._read_radio(tree)
        for tree in found:
            log.info("tree_found", node_uid=tree.node_uid, node_id=self._own.get(tree.root, ""))
        if found:
            self._queue_files(found)

    def refresh(self) -> list[Thread]:
        """Read what was marked, then part of what was never read; return the threads read."""
        now = self._clock.monotonic()
        for thread in self.asking.values():
            if thread.expires_at is not None and thread.expires_at <= now:
                thread.rows = None  # the same rows say something else now
                self.mark(thread.path)
        with self._marked_guard:
            marked, self._marked = list(self._marked), {}
        looked = [self._look(path) for path in marked]
        deadline = self._clock.monotonic() + SLICE_S * self._clock.scale
        while self._backlog:
            looked.append(self._look(self._backlog.pop()))
            if self._clock.monotonic() >= deadline:
                break
        return [thread for thread in looked if thread is not None]

    def reread(self, thread: Thread) -> tuple[tuple[Message, ...], Standing] | None:
        """Read a thread as it is now; None, logged once, when it cannot be used."""
        try:
            snapshot = thread.table.read()
        except TransientError as error:
            self._complain(thread, "thread_unreadable", str(error))
            return None
        if snapshot.damage:
            text = "; ".join(str(damage) for damage in snapshot.damage[:3])
            self._complain(thread, "thread_damaged", text)
            return None
        thread.complaint = ""
        if thread.rows is snapshot.rows:
            return snapshot.rows, thread.standing
        standing = assess(
            snapshot.rows,
            own_ids=self.own_ids,
            max_age_s=self._max_age_s,
            age=self._ages,
            is_command=partial(self.is_command, thread.tree),
            closed_elsewhere=thread.closed_elsewhere,
        )
        self._keep(thread, snapshot.rows, standing)
        return snapshot.rows, standing

    def channel_copies(self, question: Question, of: Thread) -> Iterator[Heard]:
        """Find the same channel as other radios heard it, where they heard this question."""
        for tree in self._trees.values():
            if tree.root == of.tree.root or not tree.channels.is_dir():
                continue
            for path in tree.channels.glob("*.csv"):
                thread = self._thread(path)
                found = self.reread(thread) if thread is not None else None
                if thread is None or found is None or question.key not in found[1].asked:
                    continue
                copied = next((r for r in found[0] if _is_copy(r, question.row)), None)
                if copied is not None:
                    yield thread, copied, found[1]

    def age_s(self, question: Question) -> float | None:
        """Scaled seconds since a question was heard."""
        return self._ages(question.row)

    def oldest_age_s(self) -> float:
        """Scaled seconds since the oldest open question was heard; 0 where none is open."""
        open_ = (question for thread in self.asking.values() for question in thread.standing.open)
        return max((self.age_s(question) or 0.0 for question in open_), default=0.0)

    def row_age_s(self, row: Message) -> float | None:
        """Scaled seconds since a row was written; None when that cannot be read."""
        return self._ages(row)

    def answers(self) -> Iterator[tuple[Thread, Answer]]:
        """List the answers of the last hour over all threads that were read."""
        for path, answers in self._answers.items():
            yield from ((self._threads[path], answer) for answer in answers)

    def answer_age_s(self, answer: Answer) -> float:
        """Scaled seconds since an answer was given, as far as two clocks can tell.

        Its question's age survives a clock that is set; its own is less for what waited long.
        """
        ages = [self._ages(row) for row in (answer.reply, answer.question)]
        known = [age_s for age_s in ages if age_s is not None and age_s >= 0]
        return min(known, default=0.0)

    def look_up(self, person: str) -> None:
        """Read what may hold answers to a person, where the first reading did not come to it."""
        if not self._backlog:
            return
        for tree in self._trees.values():
            files = {tree.dm_thread(person), *tree.channels.glob("*.csv")}
            for path in [path for path in self._backlog if path in files]:
                self._backlog.remove(path)
                self._look(path)

    def _look(self, path: Path) -> Thread | None:
        thread = self._thread(path)
        if thread is None or self.reread(thread) is None:
            return None
        return thread

    def _thread(self, path: Path) -> Thread | None:
        known = self._threads.get(path)
        if known is not None:
            return known
        if path.suffix != ".csv" or path.name.startswith("."):
            return None
        for tree in self._trees.values():
            if path.parent in (tree.channels, tree.dms):
                table = Table(path, Message, self._modes, self._lock_timeout_s)
                return self._threads.setdefault(path, Thread(tree, path, table))
        return None

    def _keep(self, thread: Thread, rows: tuple[Message, ...], standing: Standing) -> None:
        if thread.told:
            listed = (*standing.open, *standing.expired, *standing.folded)
            current = {q.key for q in listed}
            thread.told = {mark for mark in thread.told if mark[0] in current}
        thread.closed_elsewhere &= standing.asked
        if standing.answers:
            self._answers[thread.path] = standing.answers
        else:
            self._answers.pop(thread.path, None)
        if not standing.open:
            self._forget(thread)
            thread.standing = Standing(expired=standing.expired)
            return
        thread.rows, thread.standing = rows, standing
        self.asking[thread.path] = thread
        oldest_s = max(self.age_s(q) or 0.0 for q in standing.open)
        left_s = max(0.0, self._max_age_s - oldest_s) + EXPIRY_SLACK_S
        thread.expires_at = self._clock.monotonic() + left_s

    def _forget(self, thread: Thread) -> None:
        self.asking.pop(thread.path, None)
        thread.standing, thread.rows, thread.expires_at = Standing(), None, None

    def _complain(self, thread: Thread, event: str, text: str) -> None:
        self._forget(thread)
        if thread.complaint == text:
            return
        thread.complaint = text
        log.warning(
            event,
            node_uid=thread.tree.node_uid,
            file=thread.path.name,
            reason=text,
            consequence="nothing is answered in this thread until the file is whole again",
        )

    def _read_radio(self, tree: NodeTree) -> None:
        facts = status.read(tree.radio_status)
        number = node_number(str(facts.get("node_id", "")))
        if number is None:
            number = node_number(tree.node_uid)
        before = self.own_ids
        if number is not None:
            self._own[tree.root] = node_id_text(number)
        (self._down.add if facts.get("link_state") == "down" else self._down.discard)(tree.root)
        if before and self.own_ids != before:
            self._queue_files(list(self._trees.values()))  # a row of ours may pass for a question

    def _queue_files(self, trees: list[NodeTree]) -> None:
        files = [path for tree in trees for path in tree.thread_files()]
        known = set(files)
        self._backlog = [path for path in self._backlog if path not in known] + files
        self._backlog.sort(key=_modified)  # the newest is taken from the end, first


def _no_command(_tree: NodeTree, _row: Message, _rows: Sequence[Message]) -> bool:
    return False


def _is_copy(row: Message, question: Message) -> bool:
    return row.key == question.key and row.thread_key == question.thread_key


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
