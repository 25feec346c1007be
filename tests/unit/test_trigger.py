import pytest

from meshllm.records import Message, compact_json
from meshllm.trigger import question_text


def row(content: str, *, kind: str = "channel", **extras: object) -> Message:
    return Message(
        thread_type=kind,
        thread_key="LongFast",
        message_id="7",
        direction="inbound",
        sender_id="!a11ce001",
        content=content,
        meta_json=compact_json(extras),
    )


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ("librarian where is water?", "where is water?"),
        ("LiBrArIaN, where?", "where?"),
        ("  \n librarian: where?", "where?"),
        ("librarian", ""),
        ("librarian?", ""),
        ("librarian ?", ""),
        ("librarian!!! help", "help"),
        ("librarian - what now", "what now"),
        ("librarian \u2014 what now", "what now"),
        ("librarian -5 degrees, is that safe", "-5 degrees, is that safe"),
        ("librarian\twhere", "where"),
        ("librarian\u00a0where", "where"),
        ("librarian\u3001where", "where"),
        ("librarian's hours?", "s hours?"),
        ("librarian /help", "/help"),
    ],
)
def test_the_trigger_word_is_stripped_from_a_channel_question(content: str, question: str) -> None:
    assert question_text(row(content)) == question


@pytest.mark.parametrize(
    "content",
    [
        "librarians know",
        "librarianship",
        "librarian2",
        "a librarian",
        "",
        "libraria",
        "library",
        "@librarian hi",
    ],
)
def test_other_channel_texts_ask_nothing(content: str) -> None:
    assert question_text(row(content)) is None


def test_every_dm_asks_as_it_stands() -> None:
    assert question_text(row(" librarian hi ", kind="dm")) == "librarian hi"
    assert question_text(row("", kind="dm")) == ""


def test_reactions_ask_nothing_but_emoji_texts_do() -> None:
    assert question_text(row("\U0001f44d", kind="dm", emoji=1, reply_id=9)) is None
    assert question_text(row("librarian \U0001f44d", emoji=1, reply_id=9)) is None
    assert question_text(row("\U0001f44d", kind="dm", emoji=1)) == "\U0001f44d"
    assert question_text(row("what?", kind="dm", reply_id=9)) == "what?"


def test_our_own_radios_and_our_own_rows_ask_nothing() -> None:
    heard = row("librarian hi")

    assert question_text(heard, own_ids={"!a11ce001"}) is None
    assert question_text(Message("dm", "!a", "1", "queued", "!b", content="hi")) is None
