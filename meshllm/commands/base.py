"""What a command is: its words, its answer, and what it may look at. Knows no command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from meshllm.commands.ages import Ages
from meshllm.commands.mesh import Mesh
from meshllm.records import Message

Arguments: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """Questions that wait for the model."""

    waiting: int = 0
    place: int | None = None  #: of the asker's own question, from 1; None: the asker has none there
    wait_s: float | None = None  #: until it is likely answered; None: nothing was measured yet


def no_queue() -> Queue:
    """Know of no question."""
    return Queue()


@dataclass(frozen=True, slots=True)
class Context:
    """What a command may know: values, and functions that read files. Nothing here writes."""

    asked: Message  #: the row that asks
    rows: Sequence[Message]  #: the whole thread, that row included
    own_id: str  #: node id of the radio that heard it
    mesh: Mesh
    ages: Ages
    arguments: Arguments = ()  #: what `match` made of the text
    queue: Callable[[], Queue] = no_queue
    help_lines: Sequence[str] = ()  #: of all commands, in the order they were registered
    room_bytes: int = 380  #: what fits into one answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command says, and which queued rows it takes back."""

    text: str
    cancels: tuple[str, ...] = ()  #: message ids of queued rows that shall not be sent


Match: TypeAlias = Callable[[str], Arguments | None]


def always(_: Context) -> bool:
    """Apply whatever the files say."""
    return True


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    `match` gets the text as `words.plain` leaves it and is pure. `applies` may look into the
    files: a text that matches and does not apply is tried with the next command, and goes to the
    model when there is none. `answer` may raise TransientError when a file cannot be read now: the
    question is then tried again. Any other exception costs only this answer.
    """

    name: str
    help_line: str  #: a few words; "" keeps it out of the help
    match: Match
    answer: Callable[[Context], Answer | str]
    applies: Callable[[Context], bool] = field(default=always)


#: Marks an answer's rows in meta_json; the word `stop` there is also the opt-out itself.
STOP: Final = "stop"
START: Final = "start"
MORE: Final = "more"
