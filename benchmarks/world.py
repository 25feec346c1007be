"""Starts what is measured: bridge and agent as real processes, a simulated radio, a model server.

Everything ends with the context, also after an error. Measures nothing.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Final

from benchmarks import rows
from meshllm.clock import TIME_SCALE_VARIABLE, SystemClock
from meshllm.layout import Layout, NodeTree, node_id
from meshllm.observe import status
from meshllm.sim import phone
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.outcome import Outcome, Result
from meshllm.sim.packets import Packet, Port
from meshllm.sim.phone import HandedOver

ROOT: Final = Path(__file__).resolve().parents[1]
BRIDGE: Final = "meshtastic_bridge.py"
AGENT: Final = "ai_agent.py"
READY_LIMIT_S: Final = 60.0
REPLY_LIMIT_S: Final = 30.0
STOP_LIMIT_S: Final = 6.0
_STEP_S: Final = 0.002
#: Both ACKs come soon, without a far node and its airtime.
_DELIVERED: Final = Outcome(
    transmit=False, results=(Result("implicit"), Result("explicit", after_s=0.002))
)
_ANSWER: Final = "Boil it for one minute; above 2,000 m for three."
_BURNER: Final = (
    "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n"
    "    for _ in range(1_000_000): pass\n"
)


class BenchmarkError(Exception):
    """The measured programs did not do what is measured."""


@dataclass(slots=True)
class World:
    """A running installation and the radio it hangs on."""

    folder: Path
    radio: SimRadio
    clock: SystemClock
    model_url: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  #: environment of both, over the usual
    _seen: int = 0
    _asked_id: int = 0

    @property
    def files(self) -> Layout:
        """Paths of the data."""
        data = self.folder / "data"
        return Layout(data, data / "nodes", self.folder / "prompts")

    @property
    def tree(self) -> NodeTree:
        """Paths of the radio's tree."""
        return self.files.tree(node_id(self.radio.num))

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of bridge and agent."""
        return tuple(process.pid for process in self.processes.values())

    def now(self) -> float:
        """Seconds on the clock that the radio stamps with."""
        return self.clock.monotonic()

    def ask(self, peer: int) -> float:
        """Send a question down the radio's socket; return the moment just before."""
        question_id = secrets.randbelow(2**32 - 1) + 1
        question = Packet(
            sender=peer,
            to=self.radio.num,
            id=question_id,
            port=Port.TEXT,
            payload=b"how long must water boil for %d people?" % (question_id % 1000),
            want_ack=True,
            hop_limit=3,
            hop_start=3,
            rx_time=int(self.clock.utc().timestamp()),
            rx_snr=6.25,
            rx_rssi=-87,
        )
        self.radio.script_next(_DELIVERED)
        asked_at = self.now()
        self.radio.inject(question)
        self._asked_id = question.id
        return asked_at

    def wait_reply(self) -> float:
        """Wait for the reply's packet at the radio; return the moment it came."""
        found = self.radio.phone.handed.wait_for(self._is_reply, REPLY_LIMIT_S, skip=self._seen)
        if found is None:
            raise BenchmarkError(f"no reply within {REPLY_LIMIT_S:g} s\n{self.logs()}")
        if found.verdict != "accepted":
            raise BenchmarkError(f"the radio did not take the reply: {found.verdict}")
        self._seen = len(self.radio.received)
        return found.real_at

    def _is_reply(self, item: HandedOver) -> bool:
        return item.packet.port == Port.TEXT and item.packet.reply_id == self._asked_id

    def logs(self) -> str:
        """Return the ends of what the processes logged."""
        ends = (
            f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted(self.folder.glob("*.log"))
        )
        return "\n".join(ends)


@contextmanager
def world(folder: Path, *, threads: int, prefilled: int) -> Iterator[World]:
    """Make files, radio and model server. Bridge and agent are not started yet."""
    # Rounds follow each other faster than a real radio lets texts pass.
    phone.SPACING_S[Port.TEXT] = 0.0
    clock = SystemClock()
    with ExitStack() as stack:
        url = stack.enter_context(model_server())
        mesh = stack.enter_context(SimMesh(seed=1, clock=clock, instant_air=True))
        radio = mesh.add_radio("Base Camp", num=rows.OWN_NUMBER)
        folder.mkdir()
        (folder / "config.yaml").write_text("{}\n")
        made = World(folder, radio, clock, url)
        rows.write_threads(made.tree, threads, prefilled)
        yield made


@contextmanager
def running(
    world: World,
    *,
    scripts: Sequence[str] = (BRIDGE, AGENT),
    counted: Path | None = None,
    counter: str = "counted.py",
) -> Iterator[World]:
    """Run bridge and agent. With `counted`, their flushes are noted in that file by `counter`."""
    with ExitStack() as stack:
        for script in scripts:
            wrapper = [str(ROOT / "benchmarks" / counter), str(counted)] if counted else []
            process = start(world, script, wrapper)
            stack.callback(stop, process)
            world.processes[script] = process
        yield world


def wait_ready(world: World) -> float:
    """Wait until the link is up and the agent says so; return the moment."""
    deadline = world.now() + READY_LIMIT_S
    while world.now() < deadline:
        if status.read(world.tree.radio_status).get("link_state") == "up" and (
            AGENT not in world.processes or world.files.agent_status.exists()
        ):
            return world.now()
        if any(process.poll() is not None for process in world.processes.values()):
            break
        sleep(_STEP_S)
    raise BenchmarkError(f"not ready\n{world.logs()}")


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with a process of its own."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = subprocess.Popen([sys.executable, "-c", _BURNER])
            stack.callback(stop, process)
        yield


def start(world: World, script: str, wrapper: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start one of the two programs on the world's radio and files."""
    environ = {
        **os.environ,
        "RADIO": f"tcp:{world.radio.address}",
        "DATA_DIR": str(world.files.data_dir),
        "NODES_BASE_DIR": str(world.files.nodes_dir),
        "PROMPTS_DIR": str(world.files.prompts_dir),
        "OLLAMA_BASE_URL": world.model_url,
        "SEND_SPACING_SECONDS": "0",
        "AIRTIME_BUDGET": "0",
        "MAX_ANSWERS_PER_HOUR": "0",
    }
    environ.pop(TIME_SCALE_VARIABLE, None)
    environ |= world.settings
    config = ["--config", str(world.folder / "config.yaml")]
    with (world.folder / f"{script}.log").open("ab") as log_file:
        return subprocess.Popen(
            [sys.executable, *wrapper, str(ROOT / script), *config],
            env=environ,
            cwd=world.folder,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )


@contextmanager
def model_server(answer: str = _ANSWER) -> Iterator[str]:
    """Run a model server that answers at once, always the same; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "meshllm.testing.ollama_server", "--port", "0", "--answer", answer],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()
    finally:
        stop(process)
        if process.stdout is not None:
            process.stdout.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program, by force when it takes too long."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
