"""Brings the open questions of all threads into the order of fairness. Keeps no state."""

from collections.abc import Callable, Sequence

from meshllm.agent.deliveries import subject
from meshllm.agent.fairness import CROWD, Served, Waiting, line_up
from meshllm.agent.questions import Question
from meshllm.agent.threads import Thread, ThreadBook
from meshllm.agent.waiting import Line

Pair = tuple[Thread, Question]


def in_order(
    pairs: Sequence[Pair], book: ThreadBook, attempts: Callable[[Thread, Question], int]
) -> list[Pair]:
    """Order questions for the model as they will be asked; `attempts` counts their calls."""
    if len(pairs) < 2:
        return list(pairs)
    by_waiting = {_waiting(*pair, book, attempts(*pair)): pair for pair in pairs}
    served = [
        Served(
            answer.person,
            thread.tree.node_uid,
            book.answer_age_s(answer),
            was_known=not answer.is_first,
        )
        for thread, answer in book.answers()
        if not answer.is_command
    ]
    return [by_waiting[one] for one in line_up(tuple(by_waiting), served)]


def waited_too_long(line: Sequence[Line], limit_s: float) -> list[Pair]:
    """Name who gets a line instead of an answer: behind others for longer than the limit.

    The first in line is being answered. In a crowd of strangers only people who were answered
    before are told: each line costs as much air as an answer. The others wait until they expire.
    """
    waiting = line[1:]
    strangers = {one.question.row.sender_id for one in waiting if not is_known(one)}
    return [
        (one.thread, one.question)
        for one in waiting
        if one.in_line_s >= limit_s and (len(strangers) <= CROWD or is_known(one))
    ]


def is_known(one: Line) -> bool:
    """Say whether a person was answered before in this thread."""
    return one.question.row.sender_id in one.thread.standing.answered_people


def _waiting(thread: Thread, question: Question, book: ThreadBook, attempts: int) -> Waiting:
    person = question.row.sender_id
    return Waiting(
        subject(thread, question),
        person,
        thread.tree.node_uid,
        book.age_s(question) or 0.0,
        is_known=person in thread.standing.answered_people,
        attempts=attempts,
    )
