"""Measures how much of a prompt the model server has read before: through the real agent service.

Without `--ollama` a scripted model answers and bytes are compared. With it, a real server is asked
twice the same: as the agent lays prompts out, and with what changes put first.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import requests
from structlog.testing import capture_logs

from benchmarks import rows
from benchmarks.report import Figure, Part, figure, median
from benchmarks.world import BenchmarkError
from meshllm.agent.service import AgentService
from meshllm.clock import Clock, SystemClock, Waker, utc_text
from meshllm.config import Settings
from meshllm.layout import Layout, node_id
from meshllm.llm.base import (
    ChatMessage,
    ChatModel,
    ChatRequest,
    ChatResult,
    Outcome,
    ProbeResult,
    never,
)
from meshllm.llm.ollama import OllamaModel
from meshllm.records import Latest, Message, Node
from meshllm.store.table import Table
from meshllm.testing.clock import ManualClock
from meshllm.testing.model import ScriptedModel

TURNS: Final = 20
THREADS: Final = 3
TIMED_TURN: Final = 5
ROUNDS: Final = 3
_BETWEEN_S: Final = 600.0  #: between two questions; names, signal and time change meanwhile
_LIMIT_S: Final = 600.0  #: real seconds for one answer
_STEP_S: Final = 0.02
_FAKE_VERSION: Final = "0.0.0"  #: what the repository's own server calls itself

_QUESTIONS: Final = (
    "how do I find north without a compass?",
    "which knot holds two ropes of different thickness together?",
    "can I use the bark of a birch as tinder when it has rained for days?",
    "and if there is no birch?",
    "how do I keep bread for a week in summer",
    "what do I do first when the tent pole breaks in the wind? there is tape and one spare peg",
    "why does my lamp flicker",
)
_ANSWERS: Final = (
    (
        "At noon the sun stands in the south in the northern half of the world: a stick's shortest "
        "shadow points north. At night find the Pole Star from the two end stars of the Plough."
    ),
    "A double sheet bend. Make a loop with the thicker rope.",
    "Yes. Peel thin outer layers, scrape them to fluff and light that. The oil in it burns wet.",
    "Split dead wood that is still standing, and shave curls off the dry inside.",
    (
        "Wrap it in cloth, not plastic. Keep it in a closed tin in the shade. Toast it once dry. "
        "Cut away mould with two fingers of bread around it, or better throw it out. Flat bread "
        "without yeast keeps longer."
    ),
    "Slide a sleeve over the break: half a can or a peg along it, and tape both ends tight.",
    "Clean both contacts and tighten the cap.",
)


@dataclass
class _Bench:
    """One agent on files of its own, asked by people in turn."""

    folder: Path
    model: ChatModel
    clock: Clock
    waker: Waker = field(default_factory=Waker)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1000))

    def __post_init__(self) -> None:
        self.files = Layout(
            self.folder / "data", self.folder / "data/nodes", self.folder / "prompts"
        )
        self.tree = self.files.tree(node_id(rows.OWN_NUMBER))
        for folder in self.tree.folders():
            folder.mkdir(parents=True)
        facts = {"node_id": node_id(rows.OWN_NUMBER), "link_state": "up"}
        self.tree.radio_status.write_text(json.dumps(facts))
        settings = Settings(max_question_age_seconds=86_400)
        self.service = AgentService(
            settings, self.files, clock=self.clock, model=self.model, waker=self.waker
        )

    def meet(self, peer: str) -> None:
        """Have the radio know a person."""
        Table(self.tree.nodes, Node).append([Node(peer, peer[-2:], f"Hut {peer[-4:]}")])
        Table(self.tree.latest, Latest).append([Latest(peer)])

    def ask(self, peer: str, number: int) -> None:
        """Put a question down and tick until it is answered."""
        now = utc_text(self.clock.utc())
        fresh = Latest(
            peer, 6.0 - number % 5, -80 - number % 7, 1, now, 50.1, 8.2, "", now,
            100 - number, 4.0, now,
        )  # fmt: skip
        Table(self.tree.latest, Latest).update({(peer,): lambda _: fresh})
        name = str(next(self.numbers))
        text = _QUESTIONS[number % len(_QUESTIONS)]
        path = self.tree.dm_thread(peer)
        table = Table(path, Message)
        table.append([Message("dm", peer, name, "inbound", peer, "", now, text)])
        for _ in range(int(_LIMIT_S / _STEP_S)):
            self.service.tick()
            if any(row.reply_to_id == name for row in table.read().rows):
                return
            self.waker.wait_real(_STEP_S)
            if isinstance(self.clock, ManualClock):
                self.clock.advance(1.0)
        raise BenchmarkError(f"question {name} of {peer} was not answered")


@contextmanager
def _bench(folder: Path, model: ChatModel, clock: Clock) -> Iterator[_Bench]:
    with capture_logs():  # what the service logs is none of the figures
        made = _Bench(folder, model, clock)
        made.service.start()
        try:
            yield made
        finally:
            made.service.stop()


def measure(folder: Path, *, url: str = "", model: str = "") -> Part:
    """Compare prompts byte by byte; with `url`, time them on a server as well."""
    alone = _prompts(folder / "prompt-1", 1)
    turns = _prompts(folder / "prompt-3", THREADS)
    figures = [*_alone(alone), *_in_turn(turns), _moved_figure(alone)]
    notes = [
        (
            f"{TURNS} questions a thread, turns 2 to {TURNS}, ten minutes apart; names, battery "
            "and signal known, the battery another at every turn; the real agent service and "
            "prompt log, default settings, a scripted model with answers of "
            f"{min(map(_size, _ANSWERS))} to {max(map(_size, _ANSWERS))} bytes. Bytes with the "
            "role marks of ChatML."
        ),
        (
            "The share counts what the prompt before has, not the answer to it, which the server "
            "has read, too."
        ),
        "The worst turn is one at which half of the history was dropped.",
    ]
    if url:
        timed, note = _timed(folder, url, model)
        figures.extend(timed)
        notes.append(note)
    else:
        notes.append("No real server was measured: none was given by `--ollama URL`.")
    return Part("prompt", "Prompts that continue each other", tuple(figures), tuple(notes))


def _prompts(folder: Path, threads: int) -> list[ChatRequest]:
    """Ask in each thread in turn; return the requests in their order."""
    clock = ManualClock()
    model = ScriptedModel(_ANSWERS * (TURNS * threads // len(_ANSWERS) + 1))
    people = [node_id(rows.FIRST_PEER + number) for number in range(threads)]
    with _bench(folder, model, clock) as bench:
        for peer in people:
            bench.meet(peer)
        for number in range(TURNS):
            for peer in people:
                bench.ask(peer, number)
                clock.advance(_BETWEEN_S)
    if len(model.requests) != TURNS * threads:
        raise BenchmarkError(f"{len(model.requests)} calls for {TURNS * threads} questions")
    return model.requests


def rendered(messages: Sequence[ChatMessage]) -> bytes:
    """Render messages as a ChatML template does."""
    text = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    return text.encode()


def _same(one: bytes, other: bytes) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def share(prompt: bytes, before: bytes) -> float:
    """Percent of a prompt that is the same from its first byte on as the one before."""
    return _same(prompt, before) / len(prompt) * 100


def _shares(prompts: Sequence[bytes], back: int = 1) -> list[float]:
    return [share(prompts[n], prompts[n - back]) for n in range(back, len(prompts))]


def _alone(requests: Sequence[ChatRequest]) -> Iterator[Figure]:
    prompts = [rendered(r.messages) for r in requests]
    shares = _shares(prompts)
    yield _at_least("one thread, same as the turn before, median", shares, 75)
    worst = min(range(len(shares)), key=shares.__getitem__)
    yield Figure("one thread, worst turn", f"{shares[worst]:.1f} % (turn {worst + 2})")
    second = min(range(len(shares)), key=lambda n: shares[n] if n != worst else 100.0)
    yield Figure("one thread, second worst turn", f"{shares[second]:.1f} % (turn {second + 2})")
    cuts = sum(len(b.messages) < len(a.messages) for a, b in itertools.pairwise(requests))
    yield Figure("one thread, turns at which history was dropped", f"{cuts} of {len(shares)}")
    yield figure("one thread, new bytes a turn, median", median(_new(prompts)), "bytes")


def _new(prompts: Sequence[bytes]) -> list[float]:
    return [float(len(one) - _same(one, before)) for before, one in itertools.pairwise(prompts)]


def _in_turn(requests: Sequence[ChatRequest]) -> Iterator[Figure]:
    prompts = [rendered(r.messages) for r in requests]
    own = _shares(prompts, THREADS)
    yield _at_least("three threads in turn, same as the thread's turn before, median", own, 75)
    yield Figure("three threads in turn, worst turn", f"{min(own):.1f} %")
    last = _shares(prompts)[THREADS - 1 :]
    yield Figure(
        "three threads in turn, same as the last prompt of all, median", f"{median(last):.1f} %"
    )


def _moved_figure(requests: Sequence[ChatRequest]) -> Figure:
    shares = _shares([rendered(changes_first(r).messages) for r in requests])
    return Figure("for comparison: clock and facts first, median", f"{median(shares):.1f} %")


def _at_least(what: str, shares: Sequence[float], aim: float) -> Figure:
    found = median(shares)
    return Figure(what, f"{found:.1f} %", -found, -aim, f"≥ {aim:g} %")


def _size(text: str) -> int:
    return len(text.encode())


def changes_first(request: ChatRequest) -> ChatRequest:
    """Lay a request out as it should not be: what changes before everything else."""
    system, *turns = request.messages
    head = turns[-1].content.rpartition("\n\n")[2]
    said = (replace(m, content=m.content.rpartition("\n\nData: ")[0] or m.content) for m in turns)
    first = replace(system, content=f"{head}\n\n{system.content}")
    return replace(request, messages=(first, *said))


class _Timed:
    """Passes calls on to a model, laid out by `lay`, and keeps what came of them."""

    def __init__(self, model: ChatModel, lay: Callable[[ChatRequest], ChatRequest]) -> None:
        self.results: list[ChatResult] = []
        self._model = model
        self._lay = lay

    def chat(self, request: ChatRequest, cancel: Callable[[], bool] = never) -> ChatResult:
        result = self._model.chat(self._lay(request), cancel)
        self.results.append(result)
        return result

    def probe(self) -> ProbeResult:
        return self._model.probe()

    def warm_up(
        self, messages: Sequence[ChatMessage], cancel: Callable[[], bool] = never
    ) -> ChatResult:
        return self._model.warm_up(messages, cancel)

    def close(self) -> None:
        self._model.close()


def _timed(folder: Path, url: str, name: str) -> tuple[list[Figure], str]:
    """Time the prompt of a turn in both layouts, in pairs, each in a thread of its own."""
    is_fake = _version(url) == _FAKE_VERSION
    ours: list[float] = []
    moved: list[float] = []
    for number in range(ROUNDS):
        for lay, found in ((_as_it_is, ours), (changes_first, moved)):
            clock = SystemClock()
            model = _Timed(OllamaModel(url, name, clock=clock), lay)
            peer = node_id(rows.FIRST_PEER + number)
            with _bench(folder / f"timed-{number}-{lay.__name__}", model, clock) as bench:
                bench.meet(peer)
                for turn in range(TIMED_TURN):
                    bench.ask(peer, turn)
            found.append(_evaluation_ms(model.results))
    ratio = median(ours) / median(moved)
    shown = f"{ratio:.2f} times ({median(ours):.1f} ms beside {median(moved):.1f} ms)"
    what = f"prompt evaluation at turn {TIMED_TURN}, beside clock and facts first"
    if is_fake:
        note = "The server is the repository's own fake: no real server was measured."
        return [Figure(what, f"{shown}, of no meaning")], note
    note = f"{ROUNDS} threads in each layout, in turn, {name} at the address given."
    return [Figure(what, shown, ratio, 0.25, "≤ 0.25 times")], note


def _as_it_is(request: ChatRequest) -> ChatRequest:
    return request


def _evaluation_ms(results: Sequence[ChatResult]) -> float:
    usable = [result for result in results if result.outcome is not Outcome.CANCELLED]
    found = usable[-1].raw.get("prompt_eval_duration") if usable else None
    if len(usable) != TIMED_TURN or not isinstance(found, int):
        raise BenchmarkError(f"the server gave no figures: {[str(r.outcome) for r in usable]}")
    return found / 1e6


def _version(url: str) -> str:
    try:
        answer = requests.get(f"{url.rstrip('/')}/api/version", timeout=10)
        return str(answer.json().get("version", ""))
    except (requests.RequestException, ValueError) as error:
        raise BenchmarkError(f"{url}: no server there: {error}") from error
