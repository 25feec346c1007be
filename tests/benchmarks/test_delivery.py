"""The delivery measurement counts what it says it counts, and says the same twice."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.delivery import main, planned, quiet, results
from benchmarks.delivery_client import Client, Outcome, Simple
from benchmarks.delivery_figures import estimate, figures, share_delivered, share_soon
from benchmarks.delivery_mesh import OURS, PERSON, Line, Shown
from benchmarks.delivery_ours import Ours, VirtualClock, outbox_settings
from benchmarks.delivery_run import AnswerResult, RunResult, caused_by, count, performed, run
from benchmarks.delivery_scenario import (
    Absence,
    Answer,
    Cell,
    Scenario,
    ScenarioError,
    Story,
    load,
    select,
    story,
)
from meshllm import airtime
from meshllm.bridge.manners import Pace
from meshllm.bridge.outbox import OutboxSettings
from meshllm.clock import Waker
from meshllm.config.settings import Settings
from meshllm.sim import wire
from meshllm.sim.air import OnAir
from meshllm.sim.engine import VirtualTime
from meshllm.sim.packets import Packet, Port, RoutingError

NEAR = Cell("stay", 1, 10, "light")
FAR = Cell("stay", 2, 30, "busy")
GONE = Cell("roam", 1, 10, "light")
ONE_PART = Answer(0, 10.0, 20.0, ("first",))
TWO_PARTS = Answer(1, 100.0, 120.0, ("left", "right"))


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with quiet():
        yield


def scenario(**changes: dict[str, Any]) -> Scenario:
    """The shipped scenario with some numbers replaced, short unless said otherwise."""
    shipped = load()
    raw = {**shipped.raw}
    for section, values in {"answers": {"per_run": 3}, **changes}.items():
        raw[section] = {**raw[section], **values}
    return Scenario(raw, shipped.chatter)


def quiet_line(cell: Cell = NEAR, *, loss: float = 0.0) -> Line:
    """A line without any other traffic, and unless said otherwise without loss."""
    given = scenario(air={"light": 1e-9, "busy": 1e-9}, radio={"next_hops": False})
    line = Line(given, cell, seed=1)
    for one, other in zip(line.nodes, line.nodes[1:], strict=False):
        line.air.link(one.num, other.num).loss = line.air.link(other.num, one.num).loss = loss
    return line


def send_one(line: Line, *, tries: int, text: str = "x" * 60) -> Simple:
    sender = Simple(line, scenario(), seed=1, tries=tries)
    answer = Answer(0, 0.0, 1.0, (text,))
    line.time.call_later(1.0, lambda: sender.queue(answer))
    line.time.run(200)
    return sender


# -- counting --------------------------------------------------------------------------------


def outcome(text: str, state: str, final_at: float, *, is_final: bool = True) -> Outcome:
    return Outcome(text, [1], final_at, state, is_final)


def test_an_answer_is_delivered_when_all_its_parts_are_on_the_screen() -> None:
    ends = [outcome("first", "delivered", 31), outcome("left", "failed", 200)]
    ends.append(outcome("right", "delivered", 160))
    shown = [Shown(25, "first", 1), Shown(130, "left", 2), Shown(150, "right", 3)]

    assert list(count((ONE_PART, TWO_PARTS), ends, shown)) == [
        AnswerResult(0, delivered_s=15.0, doubles=0, final_s=21.0, state="delivered"),
        AnswerResult(1, delivered_s=50.0, doubles=0, final_s=100.0, state="failed"),
    ]
    (unfinished,) = count((TWO_PARTS,), ends, shown[:2])
    assert unfinished.delivered_s is None


def test_every_showing_after_the_first_is_a_double() -> None:
    shown = [Shown(at, "left", 1) for at in (130, 140, 150)] + [Shown(160, "right", 2)] * 2

    (result,) = count((TWO_PARTS,), [], shown)

    assert (result.delivered_s, result.doubles) == (60.0, 3)


def test_an_answer_with_an_open_part_has_no_final_time() -> None:
    ends = [outcome("left", "delivered", 1), outcome("right", "relayed", 2, is_final=False)]

    (result,) = count((TWO_PARTS,), ends, [])

    assert (result.final_s, result.state) == (None, "relayed")


def on_air(node: int, packet: Packet) -> OnAir:
    return OnAir(node, packet, 1.0, 0.0, 0.0)


def test_airtime_counts_texts_their_acks_and_the_acks_of_those_by_every_node() -> None:
    text = on_air(OURS, Packet(sender=OURS, to=PERSON, id=7))
    relayed = on_air(0x11, text.packet)
    ack = on_air(PERSON, Packet(sender=PERSON, to=OURS, id=8, port=Port.ROUTING, request_id=7))
    answer = on_air(OURS, Packet(sender=OURS, to=PERSON, id=9, port=Port.ROUTING, request_id=8))
    same_id_of_another = on_air(PERSON, Packet(sender=PERSON, id=7))
    stranger = on_air(OURS, Packet(sender=OURS, to=PERSON, id=10))
    other_ack = on_air(PERSON, Packet(sender=PERSON, id=11, port=Port.ROUTING, request_id=10))
    talk = on_air(0x21, Packet(sender=0x21, id=12))

    log = [text, relayed, ack, answer, same_id_of_another, stranger, other_ack, talk, relayed]

    assert list(caused_by(log, {7})) == [text, relayed, ack, answer, relayed]


# -- the world that is counted in ------------------------------------------------------------


def test_without_loss_one_text_costs_three_frames_of_known_length() -> None:
    line = quiet_line()

    sender = send_one(line, tries=1)

    frames = list(caused_by(line.air.log.items(), set(sender.outcomes[0].ids)))
    ack = Packet(port=Port.ROUTING, payload=wire.routing_payload(RoutingError.NONE), request_id=1)
    ack_s = airtime.frame_airtime_s(
        airtime.frame_bytes(wire.data_size(replace(ack, bitfield=0))), "LONG_FAST"
    )
    text_s = airtime.frame_airtime_s(
        airtime.frame_bytes(airtime.data_bytes(60, reply=True), pki=True), "LONG_FAST"
    )
    assert [shown.text for shown in line.shown] == ["x" * 60]
    assert [frame.airtime_s for frame in frames] == pytest.approx([text_s, ack_s, ack_s], rel=0.02)
    assert sender.outcomes[0].state == "delivered"


def test_when_no_ack_ever_comes_back_each_new_id_is_shown_again() -> None:
    for tries, shown in ((1, 1), (3, 3)):
        line = quiet_line()
        line.air.cut(PERSON, OURS)

        sender = send_one(line, tries=tries)

        assert len(line.shown) == shown
        assert len(set(sender.outcomes[0].ids)) == tries
        assert sender.outcomes[0].is_final


def test_the_second_try_comes_twenty_seconds_after_the_first_and_none_after_an_ack() -> None:
    deaf, well = quiet_line(), quiet_line()
    deaf.air.cut(PERSON, OURS)

    first = send_one(deaf, tries=3).outcomes[0]
    second = send_one(well, tries=3).outcomes[0]

    handed = [item.at for item in deaf.phone.handed.items()]
    assert [b - a for a, b in itertools.pairwise(handed)] == pytest.approx([20, 20])
    assert first.final_at == pytest.approx(61.0)
    assert len(second.ids) == 1


def test_what_a_relay_says_is_no_delivery() -> None:
    line = quiet_line(Cell("stay", 2, 10, "light"))
    line.air.cut(line.nodes[1].num, PERSON)

    outcome = send_one(line, tries=3).outcomes[0]

    assert (len(outcome.ids), outcome.state, line.shown) == (3, "unconfirmed", [])


def test_two_texts_keep_their_distance() -> None:
    line = quiet_line()
    sender = Simple(line, scenario(), seed=1, tries=1)

    line.time.call_later(1.0, lambda: sender.queue(TWO_PARTS))
    line.time.run(60)

    assert {item.verdict for item in line.phone.handed.items()} == {"accepted"}
    assert [shown.text for shown in line.shown] == ["left", "right"]


def test_who_is_out_of_range_gets_nothing_and_hears_again_after() -> None:
    line = quiet_line(GONE)
    line.live(Story((Absence(0.5, 100.0, off=False),), (), 200.0))

    sender = send_one(line, tries=1)
    later = Answer(1, 0.0, 0.0, ("later",))
    sender.queue(later)
    line.time.run(60)

    assert [shown.text for shown in line.shown] == ["later"]
    assert [outcome.state for outcome in sender.outcomes] == ["failed", "delivered"]


def test_a_radio_that_was_switched_off_shows_a_known_id_again() -> None:
    for off, times in ((True, 2), (False, 1)):
        line = quiet_line(GONE)
        line.live(Story((Absence(50.0, 100.0, off=off),), (), 200.0))
        client = Client(line, scenario(), seed=1)
        for at in (1.0, 120.0):
            line.time.call_later(at - 0.5, client.connect)
            packet = client.text(5, "again?", reply_id=1)
            line.time.call_later(at, lambda c=client, p=packet: c.send(p))  # type: ignore[misc]
        line.time.run(180)

        assert len(line.shown) == times


def test_the_radio_keeps_what_comes_while_nobody_is_connected() -> None:
    line = quiet_line()
    client = Client(line, scenario(), seed=1)
    heard: list[int] = []
    client.on_packet = lambda packet: heard.append(packet.sender)
    client.connect()
    line.time.call_later(1.0, lambda: client.send(client.text(5, "hello", reply_id=1)))
    line.time.call_later(1.1, client.reconnect)

    line.time.run(2.0)
    assert heard == []
    line.time.run(10)

    assert heard == [PERSON]
    assert client.connections == 2


def test_the_talk_of_others_uses_the_air_as_the_cell_says() -> None:
    for cell, low, high in ((NEAR, 0.03, 0.08), (FAR, 0.17, 0.32)):
        line = Line(load(), cell, seed=1)
        uses = []
        for _ in range(60):
            line.time.run(60)
            uses.append(line.air.channel_use(OURS))

        assert low < sum(uses) / len(uses) < high


# -- ours ------------------------------------------------------------------------------------


def test_ours_is_the_real_outbox_and_its_rows(tmp_path: Path) -> None:
    line = quiet_line(Cell("stay", 2, 10, "light"))
    ours = Ours(line, scenario(), tmp_path, seed=1)
    line.time.call_later(5.0, lambda: ours.question(TWO_PARTS))
    line.time.call_later(20.0, lambda: ours.queue(TWO_PARTS))
    line.time.run(120)

    assert [shown.text for shown in line.shown] == ["left", "right"]
    assert [(o.state, o.is_final, len(o.ids)) for o in ours.outcomes] == [
        ("delivered", True, 1)
    ] * 2
    (file,) = tmp_path.rglob("*.csv")
    assert file.read_text().count("outbound") == 2
    states = [row.meta.get("delivery") for _, row in ours.changes if row.content == "left"]
    assert states == [None, None, "handed", "relayed", "delivered"]


def test_ours_reconnects_where_the_outbox_asks_for_it(tmp_path: Path) -> None:
    line = quiet_line()
    line.air.cut(OURS, PERSON)
    ours = Ours(line, scenario(), tmp_path, seed=1)

    line.time.call_later(20.0, lambda: ours.queue(ONE_PART))
    line.time.run(150)
    line.air.link(OURS, PERSON)
    line.time.run(300)

    assert ours.client.connections > 1
    assert {item.verdict for item in line.phone.handed.items()} == {"accepted"}
    assert [(shown.text, ours.outcomes[0].state) for shown in line.shown] == [
        ("first", "delivered")
    ]


def test_ours_has_the_settings_of_a_fresh_installation_and_insisting_one_more() -> None:
    shipped, insisting = (outbox_settings(insists=insists) for insists in (False, True))

    assert shipped == OutboxSettings(pace=Pace(budget_s=Settings().airtime_budget))
    assert insisting == replace(shipped, insists=True)


@pytest.mark.parametrize(("insists", "ids"), [(False, 1), (True, 2)])
def test_only_who_insists_shows_a_text_twice_when_its_acks_are_lost_far_away(
    tmp_path: Path, *, insists: bool, ids: int
) -> None:
    line = quiet_line(Cell("stay", 3, 10, "light"))
    line.air.cut(PERSON, line.nodes[2].num)
    ours = Ours(line, scenario(), tmp_path, seed=1, insists=insists)
    line.time.call_later(5.0, lambda: ours.question(ONE_PART))
    line.time.call_later(20.0, lambda: ours.queue(ONE_PART))
    line.time.run(600)

    assert len(ours.outcomes[0].ids) == len(line.shown) == ids


def test_nearer_than_two_relays_insisting_changes_nothing() -> None:
    given = scenario(answers={"per_run": 6})

    shipped, insisting = (run(given, FAR, policy, 2) for policy in ("c", "d"))

    assert any(answer.state != "delivered" for answer in shipped.answers), "it has to insist"
    assert replace(insisting, policy="c") == shipped


def test_a_fresh_connection_takes_a_radio_its_time(tmp_path: Path) -> None:
    line = quiet_line()
    ours = Ours(line, scenario(), tmp_path, seed=1)
    line.time.run(10)

    ours.refresh("an id goes on the air again")
    line.time.run(0.9)
    at_once = ours.client.connections
    line.time.run(2.2)

    assert (at_once, ours.client.connections) == (1, 2)


def test_nothing_that_is_measured_may_block() -> None:
    with pytest.raises(RuntimeError, match="blocked"):
        VirtualClock(VirtualTime()).wait(Waker(), 1.0)


# -- runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["a", "b", "c", "d"])
def test_the_same_seed_gives_the_same_result_and_another_does_not(policy: str) -> None:
    given = scenario()

    first, again, other = (run(given, FAR, policy, seed) for seed in (1, 1, 2))

    assert again == first
    assert other.answers != first.answers


def test_all_policies_meet_the_same_world() -> None:
    given = scenario()
    stories = [
        story(given, replace(GONE, hops=hops, air=air), 4) for hops in (1, 4) for air in "xy"
    ]

    assert len(set(map(str, stories))) == 1
    assert str(story(given, GONE, 5)) != str(stories[0])
    for answer in stories[0].answers:
        assert 5 <= answer.queued_at - answer.asked_at <= 90
        assert not any(gap.start < answer.asked_at < gap.end for gap in stories[0].absences)
    assert stories[0].answers[-1].asked_at < 4 * 3600, "three questions, minutes apart"


def test_no_file_stays_behind() -> None:
    with performed(scenario(), NEAR, "c", 1) as done:
        assert isinstance(done.sender, Ours)
        folder = done.sender.folder
        assert list(folder.rglob("*.csv"))

    assert not folder.exists()


def test_kept_results_are_not_computed_again_unless_something_changed(tmp_path: Path) -> None:
    given, kept, task = scenario(), tmp_path / "kept", (NEAR, "a", 1)
    (fresh,) = results(given, [task], kept=kept)
    entry = json.loads(kept.read_text())
    entry["run"]["frames"] = 4711
    kept.write_text(json.dumps(entry) + "\n")

    (from_file,) = results(given, [task], kept=kept)
    kept.write_text(json.dumps({**entry, "mark": "other sources"}) + "\n")
    (computed,) = results(given, [task], kept=kept)

    assert (from_file.frames, computed) == (4711, fresh)


def test_two_processes_find_what_one_finds(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--cells", "hops=1,loss=10,air=light,people=stay", "--policy", "a", "--seeds", "2"]

    assert main(arguments) == 0
    one = capsys.readouterr().out
    assert main([*arguments, "--jobs", "2"]) == 0

    assert capsys.readouterr().out == one
    assert "hops=1,loss=10,air=light,people=stay" in one


def test_a_trace_tells_what_happened_to_one_answer(capsys: pytest.CaptureFixture[str]) -> None:
    cell = "hops=2,loss=30,air=light,people=roam"
    assert main(["--cells", cell, "--policy", "c", "--trace", "0"]) == 0

    told = capsys.readouterr().out
    for what in ("question heard", "on air   we", "on air   relay 1", "screen", "row"):
        assert what in told


# -- figures and cells -----------------------------------------------------------------------


def one_run(*delivered: bool, doubles: int = 0, seed: int = 1) -> RunResult:
    answers = tuple(
        AnswerResult(n, 1.0 if is_there else None, doubles, 2.0, "delivered")
        for n, is_there in enumerate(delivered)
    )
    return RunResult("c", str(NEAR), seed, answers, 10.0, 5, 2, 0.05, 100.0, 9, 1)


def test_figures_are_shares_of_all_answers() -> None:
    runs = [one_run(True, True, doubles=1), one_run(True, False, doubles=1)]

    found = figures(runs)

    assert found.answers == 4
    assert (found.delivered.value, found.doubles.value) == (75.0, 100.0)
    assert found.airtime.value == pytest.approx(20 / 3)
    assert found.channel_use == pytest.approx(5.0)


def test_what_comes_after_minutes_is_delivered_but_not_soon() -> None:
    times = (299.0, 300.0, 301.0, None)
    answers = tuple(AnswerResult(n, at, 0, 2.0, "delivered") for n, at in enumerate(times))
    runs = [replace(one_run(), answers=answers)]

    assert (share_delivered(runs), share_soon(runs)) == (75.0, 50.0)


def test_intervals_are_wide_where_runs_differ_and_nothing_where_they_do_not() -> None:
    alike = estimate([one_run(True, False)] * 20, share_delivered)
    apart = estimate([one_run(True, True)] * 10 + [one_run(False, False)] * 10, share_delivered)

    assert (alike.low, alike.value, alike.high) == (50, 50, 50)
    assert apart.low < 35
    assert apart.high > 65


def test_nothing_delivered_has_no_airtime_per_delivered_answer() -> None:
    assert figures([one_run(False)] * 3).airtime.value == float("inf")


def test_cells_are_chosen_by_what_they_are() -> None:
    given = load()

    assert len(given.cells) == len(select(given, "all")) == 48
    assert {cell.hops for cell in select(given, "hops=3,loss=50")} == {3}
    assert len(select(given, "hops=3,loss=50")) == 4
    assert len(select(given, "hops=1;air=busy")) == 12 + 24 - 6
    assert len(select(given, "small")) == 3
    for wrong in ("hops=9", "speed=3"):
        with pytest.raises(ScenarioError):
            select(given, wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cells", "hops=9"), "no such cell"),
        (("--policy", "ax"), "no such policy: x"),
        (("--policy", "abc", "--write"), "light,people=stay (d)"),
        (("--cells", "hops=1", "--write"), "hops=2,loss=10,air=light,people=stay (a)"),
    ],
)
def test_what_cannot_be_measured_or_written_is_said_at_once(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_insisting_is_measured_only_where_two_relays_or_more_are_between() -> None:
    cells = load().cells

    tasks = list(planned(cells, ("c", "d"), range(1, 3)))

    assert len(tasks) == 48 * 2 + 24 * 2
    assert {cell.hops for cell, policy, _ in tasks if policy == "d"} == {3, 4}
