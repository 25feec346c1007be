"""`meshllm sim`: a simulated mesh on TCP ports, with a person in it that one types as."""

import os
import queue
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import click

from meshllm.airtime import PRESETS
from meshllm.clock import SystemClock, time_scale_from_environment
from meshllm.errors import UserError
from meshllm.sim.mesh import LOOPBACK, SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.people import Heard, Person
from meshllm.sim.script import Play, apply, load

RADIO_NAMES: Final = ("Base Camp", "Hill Top", "River Hut", "North Gate")
PEOPLE_NAMES: Final = ("Ada Example", "Bob Example", "Cleo Example", "Dan Example")
SAY_APART_S: Final = 3.0  #: between two --say texts, as a person would need at least
HELP: Final = """\
TEXT              say it to the radio as a direct message
/ch N TEXT        say it on channel N
/to NAME TEXT     say it to a node by (the start of) its name
/as NAME          type as another person
/who              list the nodes
/quit             end the simulation"""


@click.command()
@click.option("--port", default=4403, show_default=True, help="First port; 0 takes any free one.")
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on.")
@click.option("--radios", default=1, show_default=True, type=click.IntRange(1, 16))
@click.option("--people", default=1, show_default=True, type=click.IntRange(0, 200))
@click.option("--channel", "channels", multiple=True, help="Further channel of every node.")
@click.option("--loss", default=0.0, type=click.FloatRange(0, 1), help="Chance to lose a frame.")
@click.option("--seed", default=1, show_default=True, help="Same seed, same losses.")
@click.option("--preset", default="LONG_FAST", show_default=True, type=click.Choice(list(PRESETS)))
@click.option("--instant", is_flag=True, help="No airtime: everything arrives at once.")
@click.option("--script", type=click.Path(path_type=Path), help="YAML file with people and links.")
@click.option("--say", multiple=True, help="Direct message to the first radio; may be repeated.")
@click.option("--exit-on-eof", is_flag=True, help="End when the input ends.")
def sim(  # noqa: PLR0913 (one parameter per option)
    *,
    port: int,
    host: str,
    radios: int,
    people: int,
    channels: tuple[str, ...],
    loss: float,
    seed: int,
    preset: str,
    instant: bool,
    script: Path | None,
    say: tuple[str, ...],
    exit_on_eof: bool,
) -> None:
    """Run a simulated mesh: radios on TCP ports, people behind them, one of whom is you.

    Prints the address of each radio, then everything the people hear. Type /help for what can be
    typed. MESHLLM_TIME_SCALE makes it run faster. SIGTERM and Ctrl-C end it.
    """
    try:
        clock = SystemClock(time_scale_from_environment())
        mesh = SimMesh(seed=seed, clock=clock, preset=preset, instant_air=instant)
        with mesh:
            all_channels = ("", *channels)
            for index in range(radios):
                name = _name(RADIO_NAMES, index, "Radio")
                number = port + index if port else 0
                mesh.add_radio(name, channels=all_channels, host=host, port=number)
            for index in range(people):
                mesh.add_person(_name(PEOPLE_NAMES, index, "Person"), channels=all_channels)
            _lose_everywhere(mesh, loss)
            plays = apply(load(script), mesh) if script else []
            Console(mesh, exit_on_eof=exit_on_eof).run(say, plays)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except OSError as e:
        print(f"error: cannot listen on {host}, port {port}: {e.strerror}", file=sys.stderr)
        sys.exit(UserError.exit_code)


def _name(names: tuple[str, ...], index: int, kind: str) -> str:
    return names[index] if index < len(names) else f"{kind} {index + 1}"


def _lose_everywhere(mesh: SimMesh, loss: float) -> None:
    nodes = mesh.nodes
    for index, node in enumerate(nodes if loss else ()):
        for other in nodes[index + 1 :]:
            mesh.link(node, other, loss=loss)


class Console:
    """Turns typed lines into messages and shows what people hear."""

    def __init__(self, mesh: SimMesh, *, exit_on_eof: bool) -> None:
        """Type as the first person."""
        self._mesh = mesh
        self._exit_on_eof = exit_on_eof
        self._speaker = mesh.people[0] if mesh.people else None
        self._is_over = False
        self._heard: queue.SimpleQueue[tuple[Person, Heard]] = queue.SimpleQueue()
        self._typed = b""
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)

    def run(self, say: tuple[str, ...], plays: list[Play]) -> None:
        """Serve until the end of the input, /quit or a signal."""
        with self._signals():
            self._begin(say, plays)
            self._loop()
        self._wake_in.close()
        self._wake_out.close()

    def _begin(self, say: tuple[str, ...], plays: list[Play]) -> None:
        for radio in self._mesh.radios:
            print(f"{radio.name} ({radio.node_id}) listens on tcp:{radio.address}")
        if self._speaker is not None and sys.stdin.isatty():
            print(f"You are {self._speaker.name}. /help lists what you can type.")
        sys.stdout.flush()
        for person in self._mesh.people:
            person.on_heard.append(partial(self._on_heard, person))
        for index, text in enumerate(say):
            self._say_later(text, index * SAY_APART_S)
        for play in plays:
            play.start()

    def _say_later(self, text: str, delay_s: float) -> None:
        engine, speaker, radio = self._mesh.engine, self._speaker, self._mesh.radios[0]
        if speaker is None:
            raise UserError("--say needs somebody to say it", ["--people is 0"])
        action = partial(self._say, speaker, radio, text)
        engine.call(lambda: engine.call_later(delay_s, action))

    def _say(self, speaker: Person, radio: SimRadio, text: str) -> None:
        speaker.say(text, to=radio)

    def _on_heard(self, person: Person, heard: Heard) -> None:
        self._heard.put((person, heard))
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_out.send(b"\0")
        except BlockingIOError:
            return  # so many wake-ups are pending that one more changes nothing

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def end(_number: int, _frame: object) -> None:
            self._is_over = True

        old_fd = signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        old = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in old.items():
                signal.signal(number, handler)

    def _loop(self) -> None:
        sources: list[int] = [self._wake_in.fileno(), sys.stdin.fileno()]
        while not self._is_over:
            ready, _, _ = select.select(sources, [], [])
            if self._wake_in.fileno() in ready:
                self._wake_in.recv(4096)
            self._show()
            if sys.stdin.fileno() in ready and not self._read():
                sources.remove(sys.stdin.fileno())
                self._is_over = self._is_over or self._exit_on_eof
        self._show()

    def _show(self) -> None:
        while not self._heard.empty():
            person, heard = self._heard.get()
            place = "" if heard.is_dm else f" on channel {heard.channel}"
            text = heard.text if heard.text is not None else repr(heard.payload)
            sender = _printable(heard.sender_name)
            print(f"{person.name} hears from {sender}{place}: {_printable(text)}", flush=True)

    def _read(self) -> bool:
        chunk = os.read(sys.stdin.fileno(), 65536)
        *lines, self._typed = (self._typed + chunk).split(b"\n")
        if not chunk and self._typed:
            lines, self._typed = [self._typed], b""
        for line in lines:
            self._act(line.decode(errors="replace").strip())
        return bool(chunk)

    def _act(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        if not line:
            return
        if verb == "/quit":
            self._is_over = True
        elif verb == "/help":
            print(HELP, flush=True)
        elif verb == "/who":
            self._who()
        elif self._speaker is None:
            print("nobody to type as: started with --people 0", file=sys.stderr, flush=True)
        else:
            self._speak(self._speaker, verb, rest, line)

    def _who(self) -> None:
        for node in self._mesh.nodes:
            mark = " (you)" if node is self._speaker else ""
            print(f"{node.node_id} {node.name}{mark}", flush=True)

    def _speak(self, speaker: Person, verb: str, rest: str, line: str) -> None:
        first, _, text = rest.partition(" ")
        if verb == "/as":
            self._type_as(rest)
        elif verb == "/ch" and first.isdecimal() and text:
            speaker.say(text, channel=int(first))
        elif verb == "/to" and (node := self._find(rest)) is not None:
            speaker.say(_after_name(rest, node.name), to=node)
        elif line.startswith("/"):
            print(f"not understood: {line}\n{HELP}", file=sys.stderr, flush=True)
        else:
            speaker.say(line, to=self._mesh.radios[0])

    def _type_as(self, name: str) -> None:
        found = [p for p in self._mesh.people if p.name.lower().startswith(name.lower())]
        if found:
            self._speaker = found[0]
            print(f"You are {found[0].name}.", flush=True)
        else:
            print(f"nobody is called {name}; try /who", file=sys.stderr, flush=True)

    def _find(self, rest: str) -> SimRadio | Person | None:
        nodes = self._mesh.nodes
        whole = [node for node in nodes if rest.lower().startswith(node.name.lower() + " ")]
        first = rest.partition(" ")[0].lower()
        short = [node for node in nodes if first and node.name.lower().startswith(first)]
        return next(iter(whole + short), None)


def _after_name(rest: str, name: str) -> str:
    if rest.lower().startswith(name.lower() + " "):
        return rest[len(name) + 1 :]
    return rest.partition(" ")[2]


def _printable(text: str) -> str:
    # What was heard is anybody's text: control and direction characters stay visible, not active.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
