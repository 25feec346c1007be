"""Both real processes, a simulated mesh and a model server: the whole house, for one test.

The processes are started from the checkout as an operator starts them. Everything they write is
in the world's folder; a failing test prints the thread files and the ends of the logs.
"""

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from meshllm.clock import SystemClock, Waker
from meshllm.config import Settings
from meshllm.layout import Layout, NodeTree
from meshllm.observe import status
from meshllm.records import Message, PromptRow
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.people import Heard, Person
from meshllm.store import locks
from meshllm.store.table import Table
from meshllm.testing.ollama_server import Answer, OllamaServer

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"bridge": "meshtastic_bridge.py", "agent": "ai_agent.py"}
ROLES = tuple(SCRIPTS)
SCALE = 20.0  #: scaled seconds in a real one
LIMIT_S = 12.0  #: real seconds to wait for anything that is bound to happen
STEP_S = 0.003
REPORTED_THREADS = 4  #: the newest ones are shown when a test fails
SECOND = "Hiking"

T = TypeVar("T")
_started: "set[subprocess.Popen[bytes]]" = set()
live: "list[World]" = []  #: worlds to describe when a test fails


@atexit.register
def _end_all() -> None:
    for process in tuple(_started):
        process.kill()
        process.wait()


def wait_until(claim: Callable[[], T | None], what: str, limit_s: float = LIMIT_S) -> T:
    """Return the first true value of a claim; fails after that many real seconds."""
    waker, clock = Waker(), SystemClock()
    deadline = clock.monotonic() + limit_s
    while True:
        value = claim()
        if value:
            return value
        assert clock.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        waker.wait_real(STEP_S)


def stays(claim: Callable[[], object], real_s: float) -> bool:
    """Say whether a claim holds all through that many real seconds."""
    waker, clock = Waker(), SystemClock()
    deadline = clock.monotonic() + real_s
    while clock.monotonic() < deadline:
        if not claim():
            return False
        waker.wait_real(STEP_S)
    return bool(claim())


def clean_environment(**overrides: str) -> dict[str, str]:
    """Return the environment without any setting that the developer's shell may hold."""
    ours = {"RADIO", "MESHLLM_TIME_SCALE", *(name.upper() for name in Settings.model_fields)}
    return {name: value for name, value in os.environ.items() if name not in ours} | overrides


def start_process(
    arguments: Sequence[str | Path], *, environ: Mapping[str, str], log: Path
) -> "subprocess.Popen[bytes]":
    """Start something that is ended with the test run at the latest."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            arguments, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT
        )
    _started.add(process)
    return process


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that is still there."""
    if process.poll() is None:
        process.kill()
    process.wait()
    _started.discard(process)


class Model(OllamaServer):
    """A server that repeats the question in its answer, unless told what to say to it."""

    def __init__(self, port: int = 0) -> None:
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}  #: by a piece of the question
        super().__init__(self._answer, port=port)

    def _answer(self, body: Mapping[str, object]) -> Answer:
        text = last_text(body)
        for piece, answer in tuple(self.answers.items()):
            if piece in text:
                return answer() if callable(answer) else answer
        return f"You asked: {text}"

    def calls_about(self, piece: str) -> int:
        """Count the model calls whose question ends in this text."""
        return sum(last_text(body).endswith(piece) for body in self.chats)


def last_text(body: Mapping[str, object]) -> str:
    """Return what the person said last in a chat request."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    text = str(last.get("content", "")) if last.get("role") == "user" else ""
    return text.rsplit("\n\n", 1)[0]  # what the agent adds stands behind an empty line


@dataclass
class World:
    """A mesh with radios, a model and both processes; nothing is left of it after `close`."""

    folder: Path
    radios: int = 1
    scale: float = SCALE
    instant_air: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    seed: int = 1

    def __post_init__(self) -> None:
        self.clock = SystemClock(self.scale)
        self.mesh = SimMesh(seed=self.seed, clock=self.clock, instant_air=self.instant_air).start()
        names = ("Base Camp", "Hill Top", "River Hut")
        self.channels = ("", SECOND)
        self.all_radios = [
            self.mesh.add_radio(names[i], channels=self.channels) for i in range(self.radios)
        ]
        self.radio: SimRadio = self.all_radios[0]
        self.model = Model()
        data = self.folder / "data"
        self.files = Layout(data, data / "nodes", self.folder / "prompts")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._status_before: dict[Path, object] = {}
        self._write_config()
        live.append(self)

    def _write_config(self) -> None:
        links = "\n".join(f"  - link: tcp:{radio.address}" for radio in self.all_radios)
        (self.folder / "config.yaml").write_text(f"radios:\n{links}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process, then the mesh and the model."""
        self.thaw()
        for process in self.running.values():
            end_process(process)
        self.running.clear()
        if self in live:
            live.remove(self)
        self.model.close()
        self.mesh.close()

    # Processes

    def environ(self) -> dict[str, str]:
        """Return the environment of both processes."""
        return clean_environment(
            DATA_DIR=str(self.files.data_dir),
            PROMPTS_DIR=str(self.files.prompts_dir),
            OLLAMA_BASE_URL=self.model.url,
            MESHLLM_TIME_SCALE=str(self.scale),
            **self.settings,
        )

    def spawn(self, role: str, *arguments: str, **changes: str) -> "subprocess.Popen[bytes]":
        """Start one process without waiting and without replacing the one of this role."""
        config = ("--config", self.folder / "config.yaml")
        return start_process(
            [sys.executable, ROOT / SCRIPTS[role], *config, *arguments],
            environ=self.environ() | changes,
            log=self.log_file(role),
        )

    def exit_code(self, process: "subprocess.Popen[bytes]", limit_s: float = 5.0) -> int:
        """Wait for a process to end by itself; fails when it takes longer."""
        try:
            return process.wait(limit_s)
        finally:
            end_process(process)

    def start(self, *roles: str) -> None:
        """Start processes (both by default) and return when they serve."""
        self.launch(*roles)
        self.wait_up(*roles)

    def launch(self, *roles: str) -> None:
        """Start processes (both by default) without waiting for them."""
        for tree in self.trees:
            self._status_before[tree.radio_status] = _signature(tree.radio_status)
        for role in roles or ROLES:
            self.running[role] = self.spawn(role)

    def wait_up(self, *roles: str) -> None:
        """Wait until the processes serve: radios connected, agent's status written."""
        for role in roles or ROLES:
            wait_until(lambda r=role: self._is_up(r), f"{role} is up")  # type: ignore[misc]

    def ensure_up(self) -> None:
        """Start again what a failed test left dead."""
        dead = [r for r in ROLES if r not in self.running or self.running[r].poll() is not None]
        if dead:
            self.start(*dead)

    def _is_up(self, role: str) -> bool:
        process = self.running[role]
        assert process.poll() is None, f"{role} ended with {process.returncode}\n{self.report()}"
        if role == "agent":
            facts = status.read(self.files.agent_status)
            return facts.get("pid") == process.pid and bool(facts.get("running"))
        return all(
            status.read(tree.radio_status).get("link_state") == "up"
            and _signature(tree.radio_status) != self._status_before.get(tree.radio_status)
            for tree in self.trees
        )

    def kill(self, *roles: str) -> None:
        """Send SIGKILL and wait for the end; both by default."""
        for role in roles or ROLES:
            self.running[role].send_signal(signal.SIGKILL)
        for role in roles or ROLES:
            end_process(self.running.pop(role))

    def stop(self, role: str, number: int = signal.SIGTERM, limit_s: float = 5.0) -> int:
        """Ask a process to end and return its exit code; fails when it takes longer."""
        process = self.running.pop(role)
        process.send_signal(number)
        return self.exit_code(process, limit_s)

    def freeze(self, role: str) -> None:
        """Keep a process where it is, as on a machine that swaps."""
        self.running[role].send_signal(signal.SIGSTOP)

    def thaw(self, *roles: str) -> None:
        """Let frozen processes go on; both by default."""
        for role in roles or ROLES:
            if role in self.running:
                self.running[role].send_signal(signal.SIGCONT)

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Hold a file's lock, so that whoever writes it next stands still in front of it."""
        wait_until(path.parent.is_dir, f"{path.parent} exists")
        with locks.hold(path, LIMIT_S, mode=0o660):
            yield

    # People and files

    def newcomer(self, name: str = "Ada Example") -> Person:
        """Add a person whom no other test talks to."""
        return self.mesh.add_person(name, channels=self.channels)

    def tree(self, radio: SimRadio | None = None) -> NodeTree:
        """Paths of a radio's files."""
        return self.files.tree((radio or self.radio).node_id)

    @property
    def trees(self) -> list[NodeTree]:
        """Paths of every radio's files."""
        return [self.tree(radio) for radio in self.all_radios]

    def dm_file(self, person: Person, radio: SimRadio | None = None) -> Path:
        """Path of the thread with a person."""
        return self.tree(radio).dm_thread(person.node_id)

    def rows(self, person: Person, radio: SimRadio | None = None) -> tuple[Message, ...]:
        """Return the rows of the thread with a person."""
        return read(self.dm_file(person, radio))

    def question(self, person: Person, packet_id: int) -> Message | None:
        """Return the row of something a person said."""
        wanted = (person.node_id, str(packet_id))
        return next((r for r in self.rows(person) if not r.is_outgoing and r.key == wanted), None)

    def replies(self, person: Person, packet_id: int) -> list[Message]:
        """Return the rows that answer something a person said."""
        return [r for r in self.rows(person) if r.is_outgoing and r.reply_to_id == str(packet_id)]

    def reply(self, person: Person, packet_id: int) -> Message | None:
        """Return the one row that answers, None while there is none."""
        found = self.replies(person, packet_id)
        assert len(found) <= 1, found
        return found[0] if found else None

    def wait_delivered(self, person: Person, packet_id: int, limit_s: float = LIMIT_S) -> Message:
        """Wait until the one answer is delivered and settled."""

        def delivered() -> Message | None:
            row = self.reply(person, packet_id)
            is_settled = row is not None and row.meta.get("delivery") == "delivered"
            return row if is_settled else None

        return wait_until(delivered, f"answer to {packet_id} delivered", limit_s)

    def answers_heard(self, person: Person, packet_id: int) -> list[Heard]:
        """Return what a person heard in reply to something they said."""
        return [h for h in person.heard if h.reply_id == packet_id]

    def prompts(self, packet_id: int) -> list[PromptRow]:
        """Return the logged model calls for a question."""
        rows = Table(self.files.prompts_table, PromptRow).read().rows
        return [row for row in rows if row.source_message_id == str(packet_id)]

    def pages(self, packet_id: int) -> list[Path]:
        """Return the prompt pages that name a question."""
        return [
            page
            for page in self.files.prompts_dir.glob("*.md")
            if str(packet_id) in page.read_text(encoding="utf-8")
        ]

    def log_file(self, role: str) -> Path:
        """Path of a process's log."""
        return self.folder / f"{role}.log"

    def log(self, role: str) -> str:
        """Return everything a process has logged so far, over all its lives."""
        path = self.log_file(role)
        return path.read_text(errors="replace") if path.exists() else ""

    def report(self) -> str:
        """Describe the world for a person who looks at a failure."""
        lines = [f"folder {self.folder}"]
        threads = [p for tree in self.trees for p in tree.thread_files() if p.is_file()]
        for path in sorted(threads, key=lambda p: p.stat().st_mtime)[-REPORTED_THREADS:]:
            content = path.read_text(encoding="utf-8", errors="backslashreplace")
            lines.append(f"--- {path.relative_to(self.folder)}\n{content[-4000:]}")
        lines += [f"--- {role}.log\n{self.log(role)[-4000:]}" for role in ROLES]
        for radio in self.all_radios:
            handed = [f"{h.verdict} {h.packet.id} {h.packet.text!r}" for h in radio.received[-12:]]
            lines.append(f"--- handed to {radio.name}\n" + "\n".join(handed))
        return "\n".join(lines)


def read(path: Path) -> tuple[Message, ...]:
    """Return the rows of a thread file."""
    return Table(path, Message).read().rows


def tries(row: Message) -> list[dict[str, Any]]:
    """Return the hand-overs that a row tells of."""
    found = row.meta.get("tries")
    return found if isinstance(found, list) else []


def _signature(path: Path) -> object:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns
