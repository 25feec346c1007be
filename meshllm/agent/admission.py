"""Finds what stands between an open question and the model. Reads files, writes none."""

from dataclasses import dataclass
from typing import Final

from meshllm.agent.bots import bot_reason
from meshllm.agent.policy import (
    DOWNGRADE,
    INTERNET,
    Claim,
    Copy,
    Manners,
    came_over_internet,
    claim,
    election,
    is_closed,
    is_downgraded,
    rest_of_hour,
)
from meshllm.agent.promptlog import Call, PromptLog, question_key
from meshllm.agent.questions import Question, rank
from meshllm.agent.threads import Thread, ThreadBook
from meshllm.clock import Clock, wall_age_s
from meshllm.errors import TransientError
from meshllm.layout import NodeTree
from meshllm.records import Message, Node
from meshllm.store.table import Table

#: How many answers of commands an hour may bring for each one of the model that it may bring.
COMMANDS_PER_ANSWER: Final = 2
MAX_FIRST_SEEN: Final = 1000  #: channel questions whose first sight is remembered


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a question is not asked now."""

    reason: str
    retry_in_s: float | None = None  #: None: only a change of the files can help
    is_deferral: bool = False  #: it will be asked later by itself


class People:
    """Names out of nodes.csv, one table object per radio."""

    def __init__(self) -> None:
        self._tables: dict[NodeTree, Table[Node]] = {}

    def find(self, tree: NodeTree, node_id: str) -> Node | None:
        """Return what a radio knows of a node; None also when its file cannot be read."""
        table = self._tables.setdefault(tree, Table(tree.nodes, Node))
        try:
            rows = table.read().rows
        except TransientError:
            return None
        return next((row for row in rows if row.node_id == node_id), None)


class Admission:
    """Applies lists, the election between radios and the cooldown."""

    def __init__(
        self,
        book: ThreadBook,
        people: People,
        log: PromptLog,
        clock: Clock,
        manners: Manners,
    ) -> None:
        self._book = book
        self._people = people
        self._log = log
        self._clock = clock
        self._manners = manners
        self._lists = manners.lists
        self._first_seen: dict[tuple[object, ...], float] = {}

    def refusal(self, thread: Thread, question: Question) -> str:
        """Return why this text is never answered, "" when it is."""
        row, rows = question.row, thread.rows or ()
        needs_name = self._lists.needs_names()
        person = self._people.find(thread.tree, row.sender_id) if needs_name else None
        listed = self._lists.refusal(row, person, channel_file=thread.path.stem)
        if listed:
            return listed
        if not self._manners.answers_internet and came_over_internet(row):
            return INTERNET
        if self._manners.refuses_downgraded and is_downgraded(row, rows[: question.position]):
            return DOWNGRADE
        return bot_reason(question, rows)

    def is_flagged(self, thread: Thread, question: Question) -> bool:
        """Say whether a person who used a key of their own before now came without it."""
        return is_downgraded(question.row, (thread.rows or ())[: question.position])

    def rest_s(self, thread: Thread, question: Question) -> float:
        """Scaled seconds until the limit of an hour lets this person have an answer; 0: now."""
        if not self._manners.answers_an_hour:
            return 0.0
        self._book.look_up(question.row.sender_id)
        is_command = question.key in thread.standing.commands
        limit = self._manners.answers_an_hour * (COMMANDS_PER_ANSWER if is_command else 1)
        return rest_of_hour(self._ages_of_answers(question.row.sender_id, is_command), limit)

    def _ages_of_answers(self, person: str, is_command: bool) -> list[float]:
        return [
            age_s
            for _, answer in self._book.answers()
            if answer.person == person and answer.is_command == is_command
            for age_s in [self._book.answer_age_s(answer)]
        ]

    def election(self, thread: Thread, question: Question) -> Obstacle | None:
        """Say whether another radio of ours answers this, or may yet turn out to."""
        row = question.row
        if row.thread_type != "channel" or self._book.tree_count < 2:
            return None
        now = self._clock.monotonic()
        first = self._first_seen.setdefault((*question.key, row.thread_key), now)
        if len(self._first_seen) > MAX_FIRST_SEEN:
            self._first_seen.pop(next(iter(self._first_seen)))
        copies = [
            Copy(
                self._claim(other, copied),
                is_closed(question, standing),
            )
            for other, copied, standing in self._book.channel_copies(question, of=thread)
        ]
        mine = self._claim(thread, row)
        may_wait = self._book.listening_trees > 1
        is_settled = not may_wait or self.logged_answer(thread, row) is not None
        waited_s = float("inf") if is_settled else now - first
        reason, left_s = election(mine, copies, waited_s=waited_s)
        return Obstacle(reason, left_s or None) if reason else None

    def _claim(self, thread: Thread, row: Message) -> Claim:
        return claim(
            rank(row, thread.tree.node_uid),
            has_answer=self.logged_answer(thread, row) is not None,
            is_down=self._book.is_down(thread.tree),
        )

    def logged_answer(self, thread: Thread, row: Message) -> Call | None:
        """Find an answer in the prompt log that a crash kept from being queued."""
        calls = self._log.calls(question_key(thread.tree.node_uid, row))
        return next((call for call in calls if call.parts), None)

    def cooldown(self, thread: Thread) -> Obstacle | None:
        """Say how long this thread must rest after its last reply."""
        since_s = wall_age_s(self._clock, thread.standing.last_reply_at)
        if since_s is None or since_s < 0 or since_s >= self._manners.cooldown_s:
            return None  # a reply from the future: the clock was set back, and nothing is known
        return Obstacle("cooldown", self._manners.cooldown_s - since_s, is_deferral=True)
