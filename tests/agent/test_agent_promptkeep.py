"""prompts.csv over the borders of months, and what is not to be kept: nothing that matters goes."""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.agent import promptkeep
from meshllm.agent.promptkeep import movable
from meshllm.agent.settled import is_final
from meshllm.clock import boot_id, uptime_s
from meshllm.keeping import month_of
from meshllm.llm.base import ChatResult, Outcome
from meshllm.records import Message, PromptRow
from meshllm.store import codec, locks, rotate
from meshllm.store.table import Table
from meshllm.testing.clock import NOON
from tests.agent.conftest import ALICE, BOB, HOME, World

DAY_S = 86_400.0


def settle(world: World, key: str = ALICE, delivery: str = "delivered") -> None:
    """Send what is queued, as the bridge does."""

    def sent(now: Message) -> Message:
        return replace(now.with_meta(delivery=delivery), direction="outbound", send_status="sent")

    queued = [row for row in world.ours(key) if row.direction == "queued"]
    Table(world.thread(key), Message).update({row.key: sent for row in queued})


def ask(world: World, *, key: str = ALICE, is_settled: bool = True) -> PromptRow:
    """Have a question answered now; return what was logged."""
    before = len(world.ours(key))
    world.hear(f"question {uuid.uuid4()}", key=key)
    world.idle()
    assert len(world.ours(key)) > before
    if is_settled:
        settle(world, key)
    world.idle()
    return world.prompts()[-1]


def days(world: World, count: float) -> None:
    world.clock.advance(count * DAY_S)
    world.idle()


def tidy(world: World) -> None:
    """Let the log be looked after until nothing is left to do."""
    service = world.service or world.start()
    world.idle()
    keep = service._prompt_keep
    assert keep is not None
    world.clock.advance(promptkeep.LOOK_S)
    for _ in range(500):
        pause_s = keep.tick(has_room=True)
        if pause_s >= promptkeep.AGAIN_S:
            return
        world.clock.advance(pause_s)
    pytest.fail("never ends")


def history(world: World) -> list[PromptRow]:
    table = Table(world.layout.prompts_table, PromptRow)
    return list(rotate.history(table, world.layout.prompts_shelf))


def archived(world: World) -> dict[str, list[str]]:
    return {
        path.name: [row.prompt_id for row in codec.decode(path.read_bytes(), PromptRow).rows]
        for _, _, path in world.layout.prompts_shelf.parts()
    }


def page_ids(world: World) -> set[str]:
    return {page.stem for page in world.pages()}


def ids(rows: list[PromptRow]) -> set[str]:
    return {row.prompt_id for row in rows}


def keeping(world: World, **changes: object) -> None:
    """Restart with other settings."""
    world.stop()
    world.settings = world.settings.model_copy(update=changes)


# Over the border of a month


def test_rows_of_earlier_months_move_to_the_file_of_their_month(world: World) -> None:
    march = [ask(world), ask(world)]
    world.clock.advance(35 * DAY_S)
    april = ask(world)
    tidy(world)
    world.clock.advance(35 * DAY_S)
    may = ask(world)

    tidy(world)

    assert [row.prompt_id for row in world.prompts()] == [may.prompt_id]
    assert archived(world) == {
        "prompts-2026-03.csv": [row.prompt_id for row in march],
        "prompts-2026-04.csv": [april.prompt_id],
    }
    assert history(world) == [*march, april, may]
    assert len(world.pages()) == 4
    told = [e for e in world.events if e["event"] == "prompts_rotated"]
    assert [(e["moved"], e["kept"], e["archive"]) for e in told] == [
        (2, 0, ["prompts-2026-03.csv"]),
        (1, 0, ["prompts-2026-04.csv"]),
    ]


def test_yesterday_stays_though_it_was_last_month(world: World) -> None:
    days(world, 30.4)
    last = ask(world)
    assert last.datetime.startswith("2026-03-31")
    days(world, 1)
    ask(world)

    tidy(world)
    assert archived(world) == {}

    days(world, 2)
    tidy(world)
    assert list(archived(world).values()) == [[last.prompt_id]]


@pytest.mark.parametrize("delivery", ["queued", "handed", "relayed"])
def test_a_call_stays_while_its_answer_is_on_the_way(world: World, delivery: str) -> None:
    waiting = ask(world, is_settled=False)
    if delivery != "queued":
        settle(world, delivery=delivery)
    other = ask(world, key=BOB)
    days(world, 40)

    tidy(world)
    assert archived(world) == {"prompts-2026-03.csv": [other.prompt_id]}

    settle(world)
    ended = {row.key: lambda now: now.with_meta(delivery="unconfirmed") for row in world.ours()}
    Table(world.thread(ALICE), Message).update(ended)
    tidy(world)
    assert set(archived(world)["prompts-2026-03.csv"]) == {waiting.prompt_id, other.prompt_id}


def test_a_call_stays_while_its_question_is_open_whatever_the_clock_says(world: World) -> None:
    """The clock was wrong until a moment ago; the age of the question is told by uptime."""
    world.model.script = ChatResult(Outcome.TIMEOUT, "", "m")
    world.hear("and now?", boot=boot_id(), up_s=uptime_s(world.clock))
    world.idle()
    [logged] = world.prompts()
    world.stop()
    world.clock.set_utc(NOON + timedelta(days=400))

    tidy(world)

    assert logged in world.prompts()
    assert archived(world) == {}


def test_a_damaged_thread_keeps_the_calls_about_it(world: World) -> None:
    ask(world)
    other = ask(world, key=BOB)
    world.stop()
    world.clock.advance(40 * DAY_S)
    path = world.thread(ALICE)
    path.chmod(0o640)
    path.write_bytes(path.read_bytes() + b"rubbish\n")

    tidy(world)

    assert archived(world) == {"prompts-2026-03.csv": [other.prompt_id]}


def test_channel_answers_are_found_in_whichever_file_they_stand(world: World) -> None:
    world.hear("librarian, hello", key="LongFast", message_id="7")
    world.idle()
    [logged] = world.prompts()
    days(world, 40)

    tidy(world)
    assert archived(world) == {}

    settle(world, "LongFast", "handed")
    tidy(world)
    assert archived(world) == {"prompts-2026-03.csv": [logged.prompt_id]}


def test_a_damaged_registry_is_left_to_its_repair(world: World) -> None:
    ask(world)
    world.stop()
    world.clock.advance(40 * DAY_S)
    path = world.layout.prompts_table
    path.chmod(0o640)
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    before = path.read_bytes()

    tidy(world)

    assert path.read_bytes() == before
    assert archived(world) == {}


def test_nothing_moves_on_a_full_disk_and_a_refusal_is_told(world: World) -> None:
    ask(world)
    service = world.service
    assert service is not None
    assert service._prompt_keep is not None
    world.clock.advance(40 * DAY_S)
    service._prompt_keep.tick(has_room=False)
    assert archived(world) == {}

    (world.layout.prompts_dir / "archive").write_text("a file where a folder should be")
    tidy(world)

    assert world.reasons("prompts_not_tidied")
    assert len(world.prompts()) == 1


def test_a_conversation_goes_on_over_the_border_and_over_a_restart(world: World) -> None:
    world.model.script = "Boil it."
    first = ask(world)
    days(world, 40)
    tidy(world)
    world.stop()
    world.model.script = "Ten minutes."

    ask(world)

    said = [message.content for message in world.model.requests[-1].messages]
    assert archived(world) == {"prompts-2026-03.csv": [first.prompt_id]}
    assert "Boil it." in said


def test_a_page_that_looks_new_gets_no_second_row(world: World) -> None:
    """Restoring a backup can give every page the time of today."""
    rows = [ask(world), ask(world)]
    days(world, 40)
    last = ask(world)
    tidy(world)
    world.stop()
    for page in world.pages():
        page.touch()

    world.idle()

    assert [row.prompt_id for row in world.prompts()] == [last.prompt_id]
    assert history(world) == [*rows, last]
    assert world.count("prompt_row_recovered") == 0


def test_an_answer_is_found_in_the_log_as_long_as_its_question_is_kept(world: World) -> None:
    world.settings = world.settings.model_copy(update={"max_question_age_seconds": 604_800.0})
    question = world.hear("hello")
    world.idle()
    [answer] = world.ours()
    world.stop()
    world.thread(ALICE).unlink()
    world.put(question)
    world.clock.advance(3 * DAY_S)

    world.idle()

    assert [row.message_id for row in world.ours()] == [answer.message_id]
    assert len(world.model.requests) == 1


def test_a_clock_set_forward_does_not_hide_a_logged_answer(world: World) -> None:
    """The question's age is told by uptime; its logged answer must be found all the same."""
    question = world.hear("hello", boot=boot_id(), up_s=uptime_s(world.clock))
    world.idle()
    [answer] = world.ours()
    world.stop()
    world.thread(ALICE).unlink()
    world.put(question)
    world.clock.set_utc(NOON + timedelta(days=900))

    world.idle()

    assert [row.message_id for row in world.ours()] == [answer.message_id]
    assert len(world.model.requests) == 1


def logged_at(prompt_id: str, at: str) -> PromptRow:
    return PromptRow(prompt_id, HOME, at, "m", "dm", ALICE, prompt_id)


TIMES = st.datetimes(datetime(2025, 11, 1), datetime(2026, 5, 1))  # noqa: DTZ001 - as in a cell


@given(st.lists(st.tuples(TIMES, st.booleans()), max_size=12))
def test_no_young_call_moves_and_none_that_matters(calls: list[tuple[datetime, bool]]) -> None:
    rows = [logged_at(str(n), f"{at:%Y-%m-%d %H:%M:%S}") for n, (at, _) in enumerate(calls)]
    kept = {row.prompt_id for row, (_, is_kept) in zip(rows, calls, strict=True) if is_kept}
    odd = logged_at("odd", "1. May")

    moved = movable([*rows, odd], kept, month=month_of(NOON), young_from=NOON - timedelta(hours=48))

    old = [row for row in rows if row.datetime < "2026-02-27 12:00:00"]
    assert moved == [(row,) for row in old if row.prompt_id not in kept]


@pytest.mark.parametrize(
    ("thread_type", "direction", "status", "delivery", "expected"),
    [
        ("dm", "queued", "", None, False),
        ("dm", "queued", "failed", None, False),
        ("dm", "outbound", "sent", "handed", False),
        ("dm", "outbound", "sent", "relayed", False),
        ("dm", "outbound", "sent", "delivered", True),
        ("dm", "outbound", "sent", "unconfirmed", True),
        ("dm", "outbound", "failed", "handed", True),
        ("channel", "outbound", "sent", "handed", True),
        ("dm", "inbound", "", None, True),
    ],
)
def test_an_answer_is_final_when_nothing_will_become_of_it(
    thread_type: str, direction: str, status: str, delivery: str | None, *, expected: bool
) -> None:
    row = Message(thread_type, ALICE, "1", direction, ALICE, send_status=status)

    assert is_final(row.with_meta(delivery=delivery)) is expected


# What is not to be kept


def months(world: World, count: int, calls: int = 2) -> list[PromptRow]:
    """Log calls in so many months, the last being this one, and rotate them."""
    rows = []
    for n in range(count):
        rows += [ask(world) for _ in range(calls)]
        if n < count - 1:
            days(world, 35)
    tidy(world)
    return rows


def test_by_default_everything_is_kept(world: World) -> None:
    rows = months(world, 5)

    assert history(world) == rows
    assert page_ids(world) == ids(rows)


def test_months_that_are_old_enough_go_with_their_pages(world: World) -> None:
    rows = months(world, 5)
    keeping(world, keep_prompts_days=60)

    tidy(world)

    assert history(world) == rows[4:]
    assert page_ids(world) == ids(rows[4:])
    told = [e for e in world.events if e["event"] == "prompts_deleted"]
    assert [(e["archive"], e["calls"], e["pages"], e["reason"]) for e in told] == [
        ("prompts-2026-03.csv", 2, 2, "age"),
        ("prompts-2026-04.csv", 2, 2, "age"),
    ]
    assert all(e["bytes"] > 1000 for e in told)


def test_so_many_calls_stay(world: World) -> None:
    rows = months(world, 5)
    keeping(world, keep_prompts_count=6)

    tidy(world)

    assert history(world) == rows[4:]
    assert page_ids(world) == ids(rows[4:])


def test_the_size_is_kept_to_by_letting_the_oldest_go(world: World) -> None:
    rows = months(world, 4, calls=3)
    for page in world.pages():
        page.chmod(0o640)
        page.write_bytes(page.read_bytes() + b" " * 200_000)
    keeping(world, keep_prompts_mb=2)

    tidy(world)

    assert history(world) == rows[3:]
    assert page_ids(world) == ids(rows[3:])


def test_this_month_stays_whatever_the_limits(world: World) -> None:
    rows = months(world, 3)
    keeping(world, keep_prompts_days=1, keep_prompts_count=1, keep_prompts_mb=1)

    tidy(world)

    assert history(world) == rows[-2:]


def test_a_clock_years_ahead_deletes_nothing(world: World) -> None:
    rows = months(world, 3)
    keeping(world, keep_prompts_days=90)
    world.clock.set_utc(NOON + timedelta(days=5000))
    tidy(world)
    ask(world)
    days(world, 40)

    tidy(world)

    assert ids(rows) <= ids(history(world))
    assert ids(rows) <= page_ids(world)


def test_an_answer_that_was_queued_once_more_keeps_its_page(world: World) -> None:
    rows = months(world, 4)
    again = next(row for row in world.ours() if row.meta["prompt_id"] == rows[0].prompt_id)
    requeued = {again.key: lambda now: replace(now, direction="queued", send_status="")}
    Table(world.thread(ALICE), Message).update(requeued)
    keeping(world, keep_prompts_count=1)

    tidy(world)

    assert history(world) == rows
    assert page_ids(world) == ids(rows)
    assert set(world.reasons("prompts_kept")) == {"unsettled"}

    settle(world)
    tidy(world)
    assert history(world) == rows[-2:]


def test_a_row_that_names_another_page_takes_none_with_it(world: World) -> None:
    rows = months(world, 3)
    (world.layout.prompts_dir / "index.md").write_text("the site's own")
    path = world.layout.prompts_shelf.part("2026-03", 1)
    Table(path, PromptRow).append([replace(rows[0], prompt_id="index")])
    keeping(world, keep_prompts_count=1)

    tidy(world)

    assert (world.layout.prompts_dir / "index.md").read_text() == "the site's own"
    assert history(world) == rows[-2:]


def test_a_damaged_part_is_not_deleted(world: World) -> None:
    months(world, 3)
    path = world.layout.prompts_shelf.part("2026-03", 1)
    path.chmod(0o640)
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    keeping(world, keep_prompts_count=1)

    tidy(world)

    assert path.exists()
    assert len(world.pages()) == 6
    assert set(world.reasons("prompts_kept")) == {"damaged"}


def test_lock_files_stay(world: World) -> None:
    months(world, 3)
    keeping(world, keep_prompts_count=1)

    tidy(world)

    assert locks.lock_path(world.layout.prompts_shelf.part("2026-03", 1)).exists()


def test_with_prompt_logs_off_nothing_is_written_moved_or_deleted(world: World) -> None:
    rows = months(world, 3)
    keeping(world, enable_prompt_logs=False, keep_prompts_count=1)
    before = {path: path.read_bytes() for path in world.layout.prompts_dir.rglob("*.csv")}

    ask(world)
    days(world, 40)

    assert {p: p.read_bytes() for p in world.layout.prompts_dir.rglob("*.csv")} == before
    assert page_ids(world) == ids(rows)


def test_with_prompt_logs_off_there_is_no_folder_and_no_complaint(world: World) -> None:
    world.settings = world.settings.model_copy(update={"enable_prompt_logs": False})

    world.hear("hello")
    world.idle()

    assert len(world.ours()) == 1
    assert not world.layout.prompts_dir.exists()
    assert world.count("sweep_failed") == 0
