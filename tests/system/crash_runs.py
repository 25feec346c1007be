"""One send, one death, one resurrection: runs a bridge to a step, then another to the end.

The simulated mesh lives here, so the radio, its memory and the person's phone outlive the bridge.
"""

import json
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from meshllm.clock import SystemClock
from meshllm.layout import Layout, channel_stem
from meshllm.records import Message, compact_json
from meshllm.sim.mesh import SimMesh
from meshllm.sim.outcome import Outcome
from meshllm.sim.packets import Port
from meshllm.store.table import Table
from meshllm.testing.power import Tree
from tests.system.cable import Cable
from tests.system.world import ROOT, clean_environment, end_process, wait_until

DRIVER: Final = Path(__file__).with_name("crash_bridge.py")
DIED: Final = 77
NEVER: Final = -1
QUESTION: Final = 4711
FIRST_ID: Final = 900_001
LIMIT_S: Final = 15.0
REBOOT_S: Final = 2.0

#: kill: the process alone. The others cut the machine's power: changes of names that were not
#: flushed are lost or kept.
Death = Literal["kill", "lost", "kept"]
#: What else loses its power, and with it its memory, at the moment of the death.
Beside = Literal["", "radio", "person"]


@dataclass(frozen=True)
class Scenario:
    """A send from the queued rows to the last of them being final."""

    name: str
    texts: tuple[str, ...] = ("Boil it for a minute.",)
    is_dm: bool = True
    script: tuple[Outcome, ...] = ()
    scale: float = 40.0
    is_serial: bool = False


@dataclass(frozen=True)
class Fate:
    """Where, how and with whom the bridge dies, and what it does wrong."""

    step: int = NEVER
    death: Death = "kill"
    beside: Beside = ""
    control: str = ""


@dataclass
class Run:
    """What became of one send."""

    scenario: Scenario
    fate: Fate
    steps: list[list[str]] = field(default_factory=list)  #: of a bridge that lived
    died_before: str = ""
    first_code: int = 0
    handed_before: list[int] = field(default_factory=list)
    rows_at_death: tuple[Message, ...] = ()
    rows: tuple[Message, ...] = ()
    seen: list[str] = field(default_factory=list)  #: by the person, in order
    on_air: list[tuple[int, str]] = field(default_factory=list)  #: id and text, as transmitted
    is_model_true: bool = True
    log: str = ""

    def __str__(self) -> str:
        states = [
            f"{r.message_id} {r.direction}/{r.send_status} {r.meta_json}" for r in self.rows[1:]
        ]
        return "\n".join(
            [
                f"{self.scenario.name}, {self.fate}, before {self.died_before!r}",
                f"  seen {self.seen}, on the air {self.on_air}",
                *(f"  {state}" for state in states),
            ]
        )

    @property
    def sees(self) -> list[int]:
        """How often the person saw each part."""
        counts = Counter(self.seen)
        return [counts[text] for text in self.scenario.texts]

    @property
    def ids(self) -> list[set[int]]:
        """Under which ids each part went on the air."""
        return [{i for i, t in self.on_air if t == text} for text in self.scenario.texts]


class Driver:
    """The process that forks bridges."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self._process = subprocess.Popen(
            [sys.executable, DRIVER, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=clean_environment(PYTHONPATH=str(ROOT)),
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        end_process(self._process)

    def start(self, job: dict[str, Any]) -> "Bridge":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.sendall(json.dumps(job).encode() + b"\n")
        return Bridge(connection)


@contextmanager
def running_driver() -> Iterator[Driver]:
    # A socket's path is short; pytest's folders are not.
    with TemporaryDirectory(prefix="meshllm-") as folder:
        driver = Driver(Path(folder))
        try:
            yield driver
        finally:
            driver.close()


class Bridge:
    """A running bridge, at the end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.news: dict[str, Any] = {}

    @property
    def has_ended(self) -> bool:
        """Take in what it reported; true once the process is gone."""
        self._connection.setblocking(False)
        # A process that dies with our "stop" unread resets the connection behind its last words.
        with suppress(BlockingIOError, ConnectionResetError):
            while piece := self._connection.recv(1 << 16):
                self._buffer += piece
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self.news |= json.loads(line)
        return "code" in self.news

    def stop(self) -> None:
        self._connection.setblocking(True)
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(b"stop\n")
        wait_until(lambda: self.has_ended, "the bridge has ended", LIMIT_S)

    def close(self) -> None:
        self._connection.close()


class Stage:
    """A radio, a person, a folder with the rows to send, and a bridge that comes and goes."""

    def __init__(self, driver: Driver, folder: Path, scenario: Scenario) -> None:
        self.scenario = scenario
        self.folder = folder
        self._driver = driver
        clock = SystemClock(scenario.scale)
        self.mesh = SimMesh(clock=clock, instant_air=True).start()
        self.radio = self.mesh.add_radio(channels=("", "Hiking"))
        self.person = self.mesh.add_person(channels=("", "Hiking"))
        self.radio.script_next(*scenario.script)
        self._cable = Cable(self.radio.address) if scenario.is_serial else None
        data = folder / "data"
        tree = Layout(data, data / "nodes", folder / "prompts").tree(self.radio.node_id)
        stem = channel_stem("Hiking", index=1, others={})
        person = self.person.node_id
        self.path = tree.dm_thread(person) if scenario.is_dm else tree.channel_thread(stem)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("{}\n")
        self.asked = self._rows()
        Table(self.path, Message).append(self.asked)

    def close(self) -> None:
        if self._cable is not None:
            self._cable.close()
        self.mesh.close()

    def _rows(self) -> tuple[Message, ...]:
        person, scenario = self.person.node_id, self.scenario
        kind = "dm" if scenario.is_dm else "channel"
        key = person if scenario.is_dm else "Hiking"
        index = 0 if scenario.is_dm else 1
        at = "2026-01-01T10:00:00Z"
        question = Message(kind, key, str(QUESTION), "inbound", person, timestamp=at, content="?")
        many = {"parts": len(scenario.texts)} if len(scenario.texts) > 1 else {}
        answers = [
            Message(
                kind,
                key,
                str(FIRST_ID + number),
                "queued",
                self.radio.node_id,
                reply_to_id=str(QUESTION),
                timestamp=at,
                content=text,
                meta_json=compact_json(
                    {"kind": "answer", "channel_index": index}
                    | ({"part": number + 1} if many else {})
                    | many
                ),
            )
            for number, text in enumerate(scenario.texts)
        ]
        return (question, *answers)

    def rows(self) -> tuple[Message, ...]:
        return Table(self.path, Message).read().rows

    def start(self, *, fatal: int = NEVER, watched: bool = True, control: str = "") -> Bridge:
        environ = clean_environment(
            DATA_DIR=str(self.folder / "data"),
            PROMPTS_DIR=str(self.folder / "prompts"),
            RADIO=f"tcp:{(self._cable or self.radio).address}",
            MESHLLM_TIME_SCALE=str(self.scenario.scale),
        )
        job = {
            "folder": str(self.folder),
            "environ": environ,
            "fatal": fatal,
            "watched": watched,
            "control": control,
            "is_serial": self.scenario.is_serial,
        }
        return self._driver.start(job)

    def handed(self) -> list[tuple[int, str]]:
        """Texts that the radio took, by id."""
        return [
            (item.packet.id, item.packet.text or "")
            for item in self.radio.sent
            if item.packet.port == Port.TEXT
        ]

    def is_settled(self) -> bool:
        rows = [row for row in self.rows() if row.is_outgoing]
        return bool(rows) and all(map(self.is_final, rows))

    def is_final(self, row: Message) -> bool:
        if row.direction != "outbound":
            return False
        states = ("delivered", "unconfirmed") if self.scenario.is_dm else ("handed", "relayed")
        return row.send_status == "failed" or row.meta.get("delivery") in states

    def cut_power(self, tree: dict[str, Any]) -> None:
        shutil.rmtree(self.folder)
        Tree.unpacked(tree).write(self.folder)


def perform(driver: Driver, folder: Path, scenario: Scenario, fate: Fate) -> Run:
    """Let one bridge live until its fate, then another until everything is final."""
    stage = Stage(driver, folder, scenario)
    try:
        run = Run(scenario, fate)
        _first_life(stage, run)
        if run.died_before and len(run.rows_at_death) == len(stage.asked):
            _second_life(stage, run)
        run.rows = stage.rows()
        run.seen = [heard.text or "" for heard in stage.person.heard]
        run.on_air = stage.handed()
        log = Path(f"{folder}.log")
        run.log = log.read_text(errors="replace") if log.exists() else ""
        return run
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)


def _first_life(stage: Stage, run: Run) -> None:
    bridge = stage.start(fatal=run.fate.step, control=run.fate.control)
    try:
        wait_until(
            lambda: bridge.has_ended or stage.is_settled(), f"death or the end of {run}", LIMIT_S
        )
        bridge.stop()
    finally:
        bridge.close()
    news = bridge.news
    run.first_code = news["code"]
    run.steps = news.get("calls", [])
    run.died_before = " ".join(news.get("died", ()))
    run.is_model_true = _is_true(news["disk"]["live"], stage.folder)
    if not run.died_before:
        return
    run.handed_before = [packet_id for packet_id, _ in stage.handed()]
    if run.fate.death != "kill":
        stage.cut_power(news["disk"][run.fate.death])
    run.rows_at_death = stage.rows()
    if run.fate.beside == "radio":
        stage.radio.reboot(down_s=REBOOT_S)
    elif run.fate.beside == "person":
        stage.person.reboot()


def _second_life(stage: Stage, run: Run) -> None:
    control = run.fate.control if run.fate.control != "lying disk" else ""
    bridge = stage.start(watched=False, control=control)
    try:
        wait_until(lambda: bridge.has_ended or stage.is_settled(), f"the end of {run}", LIMIT_S)
        assert not bridge.has_ended, f"the second bridge ended: {bridge.news}"
        bridge.stop()
    finally:
        bridge.close()


def _is_true(told: dict[str, Any], folder: Path) -> bool:
    """Say whether the model of the disk saw every write."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return found == Tree.unpacked(told).files


def complaints(run: Run, *, most_seen: int = 1) -> list[str]:
    """Name what a person or an operator would hold against this run."""
    found = []
    scenario = run.scenario
    if not run.died_before and run.first_code != 0:
        found.append(f"the first bridge ended with {run.first_code}")
    if not run.is_model_true:
        found.append("the model of the disk missed a write")
    if any(count > most_seen for count in run.sees):
        found.append(f"seen more than once: {run.sees}")
    if any(count < 1 for count in run.sees):
        found.append(f"never seen: {run.sees}")
    own = [{FIRST_ID + number} for number in range(len(scenario.texts))]
    if any(ids - mine for ids, mine in zip(run.ids, own, strict=True)):
        found.append(f"another id on the air: {run.ids}")
    firsts = [run.seen.index(text) for text in scenario.texts if text in run.seen]
    if firsts != sorted(firsts):
        found.append("parts out of order")
    return found + _complaints_about_rows(run)


def _complaints_about_rows(run: Run) -> list[str]:
    found = []
    wanted = [str(QUESTION), *(str(FIRST_ID + n) for n in range(len(run.scenario.texts)))]
    if [row.message_id for row in run.rows] != wanted:
        found.append(f"rows lost or doubled: {[row.message_id for row in run.rows]}")
    for row, count in zip(run.rows[1:], run.sees, strict=False):
        delivery = row.meta.get("delivery")
        if row.direction != "outbound":
            found.append(f"{row.message_id} is not final")
        if row.send_status == "failed" and count:
            found.append(f"{row.message_id} was seen and says failed")
        if delivery == "delivered" and not count:
            found.append(f"{row.message_id} was not seen and says delivered")
        if run.scenario.is_dm and delivery != "delivered":
            found.append(f"{row.message_id} ended as {delivery or row.send_status}")
    intended = {entry["id"] for row in run.rows_at_death for entry in row.meta.get("tries", ())}
    if run.died_before and not set(run.handed_before) <= intended:
        found.append(f"on the air before it was on disk: {run.handed_before}")
    return found
