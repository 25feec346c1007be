"""Two librarians on one mesh never talk to each other."""

from meshllm.agent.bots import bot_reason
from meshllm.agent.notices import offline_text
from meshllm.agent.questions import Question
from meshllm.commands.parts import STOPPED
from meshllm.records import Message
from meshllm.refusals import refusal_line


def _heard(message_id: int, text: str, *, at: int, replies_to: str = "") -> Message:
    return Message(
        "dm", "!0000b0b0", str(message_id), "inbound", "!0000b0b0", replies_to, _time(at), text
    )


def _sent(message_id: int, *, at: int) -> Message:
    return Message(
        "dm", "!0000b0b0", str(message_id), "outbound", "!0000a0a0", "", _time(at), "an answer"
    )


def _time(second: int) -> str:
    return f"2026-05-01T10:{second // 60:02d}:{second % 60:02d}Z"


def _chain(length: int, *, gap_s: int, as_reply: bool = True) -> list[Message]:
    rows = [_heard(1, "hello", at=0)]
    for step in range(1, length + 1):
        start = step * 100
        rows.append(_sent(1000 + step, at=start))
        replies_to = str(1000 + step) if as_reply else ""
        rows.append(_heard(1 + step, f"and you, {step}?", at=start + gap_s, replies_to=replies_to))
    return rows


def _reason(rows: list[Message]) -> str:
    return bot_reason(Question(rows[-1], rows[-1].content, len(rows) - 1), rows)


def test_a_chain_of_quick_replies_to_our_replies_ends() -> None:
    assert [_reason(_chain(n, gap_s=3)) for n in (1, 2, 3, 4)] == ["", "", "", "bot_loop"]


def test_a_person_who_replies_slowly_or_without_the_reply_mark_is_answered() -> None:
    assert _reason(_chain(6, gap_s=40)) == ""
    assert _reason(_chain(8, gap_s=3, as_reply=False)) == ""


def test_replies_without_end_are_a_machines_however_slow_it_is() -> None:
    rows = _chain(7, gap_s=90)

    assert _reason(rows) == "bot_endless_replies"
    assert _reason([*rows, _heard(99, "and now a text of my own", at=900)]) == ""


def test_one_text_of_their_own_begins_the_count_anew() -> None:
    rows = [*_chain(6, gap_s=3), _heard(99, "a question of my own", at=900)]

    assert _reason(rows) == ""


def test_what_only_a_librarian_sends_is_not_answered() -> None:
    assert _reason([_heard(1, "(1/2) First boil the water.", at=0)]) == "bot_part_mark"
    assert _reason([_heard(1, "[AI] Boil the water.", at=0)]) == "bot_text"
    assert _reason([_heard(1, offline_text("unreachable", 3600), at=0)]) == "bot_text"
    assert _reason([_heard(1, STOPPED, at=0)]) == "bot_text"
    assert _reason([_heard(1, refusal_line("I cannot help with that."), at=0)]) == "bot_text"
    assert _reason([_heard(1, "The language model you use?", at=0)]) == ""
