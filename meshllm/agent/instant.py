"""Answers commands out of the files: at once, past the model's queue, also while it is away.

Cooldowns do not hold a command back: they keep the model from talking too much, and a fact that
comes a minute later is another fact. What keeps commands from filling the air is `MAX_A_MINUTE`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from meshllm.agent.answering import Answering, Delivery
from meshllm.agent.meshfacts import MeshFacts, gather
from meshllm.agent.questions import Question
from meshllm.agent.threads import Thread, ThreadBook
from meshllm.agent.waiting import Line, lefts
from meshllm.clock import Clock
from meshllm.commands.ages import read_ages
from meshllm.commands.base import STOP, Context, Queue
from meshllm.commands.mesh import Mesh
from meshllm.commands.registry import Found, Registry
from meshllm.errors import TransientError
from meshllm.layout import Layout, NodeTree
from meshllm.records import Message
from meshllm.trigger import question_text

#: Answers without the model in any minute, per radio: on LongFast 10 of them are 40 s of the air.
MAX_A_MINUTE: Final = 10
MINUTE_S: Final = 60.0


class Instant:
    """Finds commands and builds their answers. Used by the service's thread alone."""

    def __init__(
        self,
        registry: Registry,
        book: ThreadBook,
        answering: Answering,
        layout: Layout,
        clock: Clock,
        *,
        room_bytes: int,
    ) -> None:
        """Tell the book which questions are commands; read nothing yet."""
        self._registry = registry
        self._book = book
        self._answering = answering
        self._layout = layout
        self._clock = clock
        self._room_bytes = room_bytes
        self._meshes: dict[NodeTree, Mesh] = {}
        self._answered: dict[NodeTree, deque[float]] = {}
        book.is_command = self.is_command

    def is_command(self, tree: NodeTree, row: Message, rows: Sequence[Message]) -> bool:
        """Say whether a question is a command's: it is answered by itself and hides no other.

        `rows` is the thread as it stands.
        """
        return self._find(self._context(tree, row, rows)) is not None

    def is_stop(self, thread: Thread, question: Question) -> bool:
        """Say whether a question is the command that is obeyed whatever limits there are."""
        rows = (question.row,)
        found = self._find(self._context(thread.tree, question.row, rows))
        return found is not None and found.command.name == STOP

    def rest_s(self, tree: NodeTree) -> float:
        """Scaled seconds until this radio may tell something again; 0 when it may now."""
        recent = self._answered.get(tree)
        if recent is None or len(recent) < MAX_A_MINUTE:
            return 0.0
        return max(0.0, recent[0] + MINUTE_S - self._clock.monotonic())

    def answer(
        self, thread: Thread, question: Question, line: Callable[[], Sequence[Line]]
    ) -> Delivery | None:
        """Build the answer of a command; None when the text is none. Raises TransientError.

        `line` says who waits for the model, the first being answered.
        """
        context = self._context(thread.tree, question.row, self._rows(thread))
        found = self._find(context)
        if found is None:
            return None
        asker = question.row.sender_id
        answer = self._registry.answer(
            found, replace(context, queue=lambda: queue_of(line(), asker, self._waiting()))
        )
        recent = self._answered.setdefault(thread.tree, deque(maxlen=MAX_A_MINUTE))
        recent.append(self._clock.monotonic())
        return self._answering.commanded(
            thread, question, answer.text, command=found.command.name, cancels=answer.cancels
        )

    def facts(self, thread: Thread, question: Question) -> MeshFacts | None:
        """Collect what the files say to a question about the mesh; None for any other."""
        context = self._context(thread.tree, question.row, self._rows(thread))
        return gather(question.text, context, context.mesh.known_people)

    def _rows(self, thread: Thread) -> tuple[Message, ...]:
        found = self._book.reread(thread)
        if found is None:
            raise TransientError(f"{thread.path}: cannot be used now")
        return found[0]

    def _waiting(self) -> int:
        """Count the questions that wait for the model, also while it is away."""
        threads = self._book.asking.values()
        return sum(len(t.standing.open) - len(t.standing.commands) for t in threads)

    def _context(self, tree: NodeTree, asked: Message, rows: Sequence[Message]) -> Context:
        mesh = self._meshes.setdefault(tree, Mesh(tree, self._layout.agent_status))
        return Context(
            asked=asked,
            rows=rows,
            own_id=self._book.own_id(tree),
            mesh=mesh,
            ages=read_ages(self._clock, rows),
            room_bytes=self._room_bytes,
        )

    def _find(self, context: Context) -> Found | None:
        # In a direct message the word "librarian" is not needed, and as welcome.
        row = context.asked
        called = question_text(replace(row, thread_type="channel"))
        return self._registry.find(row.content if called is None else called, context)


def queue_of(line: Sequence[Line], asker: str, waiting: int) -> Queue:
    """Say where a person stands in the line for the model, and how long that takes.

    `waiting` also counts what is not in the line, because the model is away.
    """
    left = lefts(line)
    places = [i for i, one in enumerate(line) if one.question.row.sender_id == asker]
    if not places:
        return Queue(max(waiting, len(line)), None, left[-1] if left else None)
    return Queue(max(waiting, len(line)), places[0] + 1, left[places[0]])
