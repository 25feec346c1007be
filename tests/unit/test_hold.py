"""Which answers held for people who are away give way."""

from typing import Any

from meshllm.bridge import hold
from meshllm.records import Message, compact_json


def row(number: int, question: str, *, held: bool = True, **fields: Any) -> Message:
    meta = {"wait_heard": True} if held else {}
    return Message(
        thread_type="dm",
        thread_key="!a11ce001",
        message_id=str(number),
        direction=fields.get("direction", "queued"),
        sender_id="!aaaa0001",
        reply_to_id=question,
        timestamp="2026-01-02T03:04:05Z",
        content=f"answer {number}",
        send_status=fields.get("send_status", "failed" if held else ""),
        meta_json=compact_json({**meta, **fields.get("meta", {})}),
    )


def ending(*rows: Message, limit: int = 3) -> list[tuple[str, str]]:
    return [(r.message_id, reason) for r, reason in hold.giving_way(rows, limit)]


def test_up_to_the_limit_everything_is_kept() -> None:
    assert ending(row(1, "71"), row(2, "72"), row(3, "73")) == []


def test_beyond_the_limit_the_oldest_answer_goes() -> None:
    rows = [row(n, str(70 + n)) for n in range(1, 6)]

    assert ending(*rows) == [("1", "TOO_MANY_HELD"), ("2", "TOO_MANY_HELD")]


def test_the_parts_of_one_answer_count_once_and_go_together() -> None:
    parts = [row(n, "71", meta={"prompt_id": "p", "part": n, "parts": 2}) for n in (1, 2)]

    assert ending(*parts, row(3, "72"), limit=2) == []
    assert ending(*parts, row(3, "72"), row(4, "73"), limit=2) == [
        ("1", "TOO_MANY_HELD"),
        ("2", "TOO_MANY_HELD"),
    ]


def test_a_newer_answer_to_the_same_question_replaces_the_older() -> None:
    assert ending(row(1, "71"), row(2, "71", held=False)) == [("1", "REPLACED")]


def test_an_answer_to_another_question_replaces_nothing() -> None:
    assert ending(row(1, "71"), row(2, "72", held=False)) == []


def test_a_newer_answer_that_was_given_up_replaces_nothing() -> None:
    given_up = row(2, "71", held=False, direction="outbound", send_status="failed")

    assert ending(row(1, "71"), given_up) == []


def test_texts_that_answer_nothing_do_not_replace_each_other() -> None:
    assert ending(row(1, ""), row(2, ""), limit=2) == []


def test_rows_that_are_not_held_do_not_count() -> None:
    rows = [row(n, str(70 + n), held=False) for n in range(1, 6)]

    assert ending(*rows, row(9, "99")) == []


def test_parts_of_other_programs_that_name_no_text_are_two_answers() -> None:
    """Only their order tells which belong together."""
    first = [row(n, "71", meta={"part": n, "parts": 2}) for n in (1, 2)]
    second = [row(n, "71", meta={"part": n - 2, "parts": 2}) for n in (3, 4)]

    assert ending(*first, *second) == [("1", "REPLACED"), ("2", "REPLACED")]
