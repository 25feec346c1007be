"""Crash points between page, row and queue commit: one answer each, no second model call."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshllm.agent.answering import Ids
from meshllm.config import Settings
from meshllm.errors import DamagedFileError, StoreWriteError
from meshllm.llm.base import ChatResult, Outcome
from meshllm.records import Message, PromptRow, Record
from meshllm.store import atomic
from meshllm.store.table import Table
from tests.agent.conftest import ALICE, World

LONG = "".join(f"Boil the water for {n} minutes, and for longer above 2000 m. " for n in range(8))


class PowerCutError(BaseException):
    """Ends the process at once: nothing may catch it."""


@contextmanager
def refusing(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, *, at: str, times: int = 1
) -> Iterator[None]:
    """Raise just before the next write of one kind: page, row or queue."""
    left = [times]
    write_text, append = atomic.write_text, Table.append

    def hit(kind: str) -> None:
        if kind == at and left[0]:
            left[0] -= 1
            raise error

    def write(path: Path, text: str, *, modes: atomic.Modes | None = None) -> None:
        hit("page")
        write_text(path, text, modes=modes)

    def add(self: Table[Record], rows: Sequence[Record]) -> None:
        hit("row" if self.record_type is PromptRow else "queue")
        append(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "write_text", write)
        patched.setattr(Table, "append", add)
        yield


@pytest.mark.parametrize(("at", "calls"), [("page", 2), ("row", 1), ("queue", 1)])
def test_a_crash_between_two_writes_ends_in_one_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, at: str, calls: int
) -> None:
    world.model.script = ChatResult(Outcome.OK, LONG, "m")
    question = world.hear("hi", channel_index=3)
    world.start()
    with refusing(monkeypatch, PowerCutError(), at=at), pytest.raises(PowerCutError):
        world.idle()
    world.crash()
    assert world.ours() == []

    world.idle()

    assert [row.reply_to_id for row in world.ours()] == [question.message_id] * 2
    assert len(world.model.requests) == calls
    assert len(world.pages()) == len(world.prompts()) == 1
    assert world.prompts()[0].response_message_id == world.ours()[0].message_id


def test_a_recovered_reply_is_the_one_that_was_logged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ids = Ids(message=iter(["11", "22", "33", "44"]).__next__)
    world.model.script = ChatResult(Outcome.OK, LONG, "m")
    world.hear("hi", channel_index=3)
    world.start()
    with refusing(monkeypatch, PowerCutError(), at="queue"), pytest.raises(PowerCutError):
        world.idle()
    world.crash()

    world.idle()

    rows = world.ours()
    assert [row.message_id for row in rows] == ["11", "22"]
    assert [row.meta["channel_index"] for row in rows] == [3, 3]
    assert rows[1].meta["rest"]
    assert world.prompts()[0].prompt_id == rows[0].meta["prompt_id"]
    assert world.count("answer_recovered") == 1


def test_a_crash_after_the_queue_commit_changes_nothing(world: World) -> None:
    world.hear("hi")
    world.start()
    world.until(lambda: len(world.ours()) == 1)
    world.crash()

    world.idle()

    assert (len(world.ours()), len(world.model.requests)) == (1, 1)


def test_a_logged_answer_is_not_queued_for_a_question_that_grew_too_old(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings = Settings(max_question_age_seconds=100)
    world.hear("hi")
    world.start()
    with refusing(monkeypatch, PowerCutError(), at="row"), pytest.raises(PowerCutError):
        world.idle()
    world.crash()
    world.clock.advance(200)

    world.idle()

    assert (world.ours(), world.reasons()) == ([], ["expired"])
    assert len(world.prompts()) == 1


def test_a_logged_answer_is_not_queued_when_a_later_question_was_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hear("hi")
    world.start()
    with refusing(monkeypatch, PowerCutError(), at="queue"), pytest.raises(PowerCutError):
        world.idle()
    world.crash()
    later = world.hear("hi again")
    world.put(Message("dm", ALICE, "77", "queued", "!aaaa0001", later.message_id, "", "by hand"))

    world.idle()

    assert world.said() == ["by hand"]


def test_without_prompt_logs_the_model_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings = Settings(enable_prompt_logs=False)
    world.hear("hi")
    world.start()
    with refusing(monkeypatch, PowerCutError(), at="queue"), pytest.raises(PowerCutError):
        world.idle()
    world.crash()

    world.idle()

    assert (len(world.ours()), len(world.model.requests)) == (1, 2)
    assert not world.layout.prompts_dir.exists()


@pytest.mark.parametrize("at", ["page", "row", "queue"])
def test_a_refused_write_is_repeated_with_the_same_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    world.hear("hi")
    world.start()
    with refusing(monkeypatch, StoreWriteError("disk full"), at=at, times=3):
        world.pass_time(60)

    assert world.count("delivery_failed") == 3
    assert world.said() == ["The librarian is here."]
    assert len(world.model.requests) == 1
    assert len(world.pages()) == len(world.prompts()) == 1


def test_a_damaged_registry_does_not_hold_answers_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hear("hi")
    world.start()
    with refusing(monkeypatch, DamagedFileError("open quote"), at="row"):
        world.idle()

    assert (len(world.ours()), len(world.pages()), len(world.prompts())) == (1, 1, 0)
    assert world.count("prompt_rows_held") == 1
    world.stop()

    world.idle()

    assert len(world.prompts()) == 1
    assert (len(world.ours()), len(world.model.requests)) == (1, 1)


def test_an_unusable_prompt_folder_delays_answers_and_loses_none(world: World) -> None:
    world.layout.prompts_dir.write_text("a file where the folder should be")
    world.hear("hi")
    world.start()
    service = world.service
    assert service is not None
    service.tick()
    assert (world.count("prompt_log_unavailable"), world.ours()) == (1, [])

    world.layout.prompts_dir.unlink()
    world.clock.advance(10)
    world.idle()

    assert len(world.ours()) == 1


def test_a_page_that_is_not_ours_is_left_alone(world: World) -> None:
    world.layout.prompts_dir.mkdir()
    for name, text in (
        ("index.md", "---\nlayout: home\n---\n"),
        ("x.md", "---\n: [\n---\n"),
        ("y.md", "no front matter"),
        ("z.md", "---\nprompt_id: other\n---\n"),
    ):
        (world.layout.prompts_dir / name).write_text(text)

    world.idle()

    assert world.prompts() == []
