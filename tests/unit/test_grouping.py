"""Which rows are the parts of one text."""

import pytest

from meshllm.grouping import named
from meshllm.records import Message, compact_json


def part(message_id: str, number: int, parts: int = 2, reply_to: str = "71") -> Message:
    return Message(
        thread_type="dm",
        thread_key="!a11ce001",
        message_id=message_id,
        direction="queued",
        sender_id="!aaaa0001",
        reply_to_id=reply_to,
        timestamp="2026-01-02T03:04:05Z",
        content="words",
        meta_json=compact_json({"part": number, "parts": parts}),
    )


def texts(*rows: Message) -> list[set[str]]:
    """Group the ids of parts that have no name, as they are told apart."""
    groups: dict[str, set[str]] = {}
    for name, row in named(rows):
        groups.setdefault(name, set()).add(row.message_id)
    return list(groups.values())


@pytest.mark.parametrize("reply_to", ["71", ""])
def test_a_first_part_begins_another_text(reply_to: str) -> None:
    a1, a2 = (part(f"a{n}", n, reply_to=reply_to) for n in (1, 2))
    b1, b2 = (part(f"b{n}", n, reply_to=reply_to) for n in (1, 2))

    assert texts(a1, a2, b1, b2) == [{"a1", "a2"}, {"b1", "b2"}]


def test_texts_of_other_lengths_or_to_other_questions_do_not_mix() -> None:
    a1, b1, c1 = part("a1", 1), part("b1", 1, parts=3), part("c1", 1, reply_to="72")
    a2, b2, c2 = part("a2", 2), part("b2", 2, parts=3), part("c2", 2, reply_to="72")

    assert texts(a1, b1, c1, c2, b2, a2) == [{"a1", "a2"}, {"b1", "b2"}, {"c1", "c2"}]


def test_no_text_has_a_part_twice() -> None:
    a1, b1, a2, b2 = part("a1", 1), part("b1", 1), part("a2", 2), part("b2", 2)

    assert [len(text) for text in texts(a1, b1, a2, b2)] == [2, 2]


def test_a_later_part_without_its_first_stands_alone() -> None:
    assert texts(part("a2", 2), part("b1", 1), part("b2", 2)) == [{"a2"}, {"b1", "b2"}]
