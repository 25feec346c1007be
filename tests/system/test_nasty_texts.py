"""Everything that a radio can carry goes into the files and gets an answer."""

import csv
import io

import pytest

from tests.system.world import SECOND, World, read, wait_until

QUEUED_ROW = (
    '"\ndm,!51e0bb01,7,queued,!51e0aa01,,2026-01-01T00:00:00Z,EVIL,0,,"{""kind"":""reply""}"\n'
)
TEXTS: dict[str, bytes] = {
    "nul": b"a\x00b",
    "newline": b"first\nsecond\r\nthird",
    "lone carriage return": b"first\rsecond",
    "only a carriage return": b"\r",
    "quotes and commas": b'he said ",", and "" and left',
    "formula": b'=cmd()|"/C calc"!A0',
    "guarded formula": b"'=1+1",
    "right to left": "\u202eabc\u2066 \u200f!".encode(),
    "emoji": "🏔".encode() * 54,  # an encrypted DM has room for 216 bytes
    "terminal escapes": b"\x1b[31mred\x1b]0;title\x07",
    "invalid bytes": b"caf\xe9 \xff\xfe ok",
    "half a character": "ä".encode()[:1],
    "queued row": QUEUED_ROW.encode(),
    "empty": b"",
    "byte order mark": b"\xef\xbb\xbfhello",
    "only spaces": b"   ",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_kept_as_it_came_and_answered(world: World, name: str) -> None:
    ada = world.newcomer()
    expected = TEXTS[name].decode("utf-8", "replace")

    question = ada.say(TEXTS[name], to=world.radio)
    answer = wait_until(lambda: world.answers_heard(ada, question), "the answer")
    wait_until(lambda: all(r.direction == "outbound" for r in world.replies(ada, question)), "sent")

    row = world.question(ada, question)
    assert row is not None
    assert row.content == expected
    assert len(answer) == 1
    raw = world.dm_file(ada).read_bytes().decode()
    cells = list(csv.reader(io.StringIO(raw, newline=""), strict=True))
    assert {len(line) for line in cells} == {11}
    assert len(cells) == len(world.rows(ada)) + 1
    assert cells[1][7].lstrip("'") == expected.lstrip("'")
    assert "EVIL" not in {item.packet.text for item in world.radio.received}


def test_longest_text_of_a_channel_is_kept_and_answered(world: World) -> None:
    ada = world.newcomer()
    text = "librarian " + "🏔" * 54 + ".."

    question = ada.say(text, channel=1)
    answer = ada.wait_for(lambda heard: heard.reply_id == question, 10)

    assert len(text.encode()) == 228
    assert answer is not None
    rows = read(world.tree().channel_thread(SECOND.lower()))
    assert [r.content for r in rows if r.message_id == str(question)] == [text]
