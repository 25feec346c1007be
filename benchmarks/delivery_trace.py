"""Shows what happened to one answer, event by event."""

from collections.abc import Iterator
from typing import Final

from benchmarks.delivery_mesh import OURS, PERSON
from benchmarks.delivery_run import Run, caused_by, performed
from benchmarks.delivery_scenario import Answer, Cell, Scenario
from meshllm.sim.air import OnAir
from meshllm.sim.packets import Port

_BEFORE_S: Final = 120.0
_AFTER_S: Final = 180.0

Event = tuple[float, str]


def show(scenario: Scenario, cell: Cell, policy: str, seed: int, number: int) -> None:
    """Run and print the events of one answer, seconds from its question."""
    with performed(scenario, cell, policy, seed) as done:
        answer = done.story.answers[number]
        events = sorted(_events(done, answer), key=lambda event: event[0])
        result = done.result().answers[number]
    print(f"{cell} policy {policy} seed {seed} answer {number}")
    for at, what in events:
        print(f"{at - answer.asked_at:10.2f}  {what}")
    print(result)


def _events(done: Run, answer: Answer) -> Iterator[Event]:
    own = [outcome for outcome in done.sender.outcomes if outcome.text in answer.parts]
    ids = {packet_id: outcome.text for outcome in own for packet_id in outcome.ids}
    yield answer.asked_at, "question heard"
    yield answer.queued_at, f"queued: {' + '.join(f'{len(t)} bytes' for t in answer.parts)}"
    told = [*_on_air(done, ids), *_screen(done, answer), *_states(done, answer)]
    yield from told
    last = max((at for at, _ in told), default=answer.queued_at)
    for at, what in done.line.presence:
        if answer.asked_at - _BEFORE_S <= at <= last + _AFTER_S:
            yield at, what


def _on_air(done: Run, ids: dict[int, str]) -> Iterator[Event]:
    names = {station.num: f"relay {n}" for n, station in enumerate(done.line.nodes)}
    names |= {OURS: "we", PERSON: "person"}
    for item in caused_by(done.line.air.log.items(), set(ids)):
        yield item.at, f"on air   {names.get(item.node, 'neighbour'):<8} {_packet(item, ids)}"


def _packet(item: OnAir, ids: dict[int, str]) -> str:
    packet = item.packet
    hops = f"hops left {packet.hop_limit} of {packet.hop_start}, {item.airtime_s:.2f} s"
    if packet.port != Port.ROUTING:
        return f"text {packet.id:08x} ({ids.get(packet.id, '?')[:16].strip()}), {hops}"
    whose = "the person's" if packet.sender == PERSON else "our"
    return f"{whose} ACK {packet.id:08x} of {packet.request_id:08x}, {hops}"


def _screen(done: Run, answer: Answer) -> Iterator[Event]:
    seen: set[str] = set()
    for item in done.line.shown:
        if item.text in answer.parts:
            again = " AGAIN" if item.text in seen else ""
            seen.add(item.text)
            yield item.at, f"screen   {item.text[:16].strip()} {item.packet_id:08x}{again}"


def _states(done: Run, answer: Answer) -> Iterator[Event]:
    for at, row in getattr(done.sender, "changes", ()):
        if row.content in answer.parts:
            meta = {key: value for key, value in row.meta.items() if key not in ("kind", "tries")}
            tries = row.meta.get("tries", ())
            last = " ".join(f"{t['id']:08x}:{t.get('result', '?')}" for t in tries)
            state = f"{row.direction}/{row.send_status} {meta} tries [{last}]"
            yield at, f"row      {row.content[:16].strip()} {state}"
