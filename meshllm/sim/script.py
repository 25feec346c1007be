"""Scripted meshes: people, links and what the people do, from a YAML file. Sends nothing itself."""

import re
from pathlib import Path
from typing import Final, Literal

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from meshllm.errors import UserError
from meshllm.sim.engine import Journal, Timer
from meshllm.sim.mesh import SimMesh
from meshllm.sim.people import Heard, Person

log = structlog.get_logger()

DEFAULT_WAIT_S: Final = 120.0

_STRICT = ConfigDict(extra="forbid", frozen=True)


class TelemetryStep(BaseModel):
    """Values for `Person.send_telemetry`."""

    model_config = _STRICT
    battery: int | None = None
    voltage: float | None = None
    temperature: float | None = None
    humidity: float | None = None
    every_s: float = 0.0


class PositionStep(BaseModel):
    """Values for `Person.send_position`."""

    model_config = _STRICT
    latitude: float
    longitude: float
    altitude: int = 0
    every_s: float = 0.0


class Step(BaseModel):
    """One thing a person does; exactly one of the actions is set."""

    model_config = _STRICT
    say: str | None = None
    wait_for: str | None = Field(None, description="regular expression; the next text that fits")
    pause_s: float | None = None
    telemetry: TelemetryStep | None = None
    position: PositionStep | None = None
    radio: Literal["off", "on", "reboot", "introduce"] | None = None
    to: str | None = None
    channel: int = 0
    timeout_s: float = DEFAULT_WAIT_S

    @model_validator(mode="after")
    def _has_one_action(self) -> "Step":
        names = ("say", "wait_for", "pause_s", "telemetry", "position", "radio")
        if sum(getattr(self, name) is not None for name in names) != 1:
            raise ValueError(f"needs exactly one of {', '.join(names)}")
        if self.wait_for is not None:
            try:
                re.compile(self.wait_for)
            except re.error as e:
                raise ValueError(f"wait_for is no regular expression: {e}") from e
        return self


class PersonScript(BaseModel):
    """A person and their steps."""

    model_config = _STRICT
    name: str
    num: int | None = None
    channels: tuple[str, ...] = ("",)
    introduced: bool = True
    has_key: bool = True
    steps: tuple[Step, ...] = ()


class LinkScript(BaseModel):
    """A link between two nodes, by name."""

    model_config = _STRICT
    a: str
    b: str
    loss: float = Field(0.0, ge=0, le=1)
    delay_s: float = Field(0.0, ge=0)
    duplicate: float = Field(0.0, ge=0, le=1)
    reorder: float = Field(0.0, ge=0, le=1)
    cut: bool = False
    one_way: bool = False


class Script(BaseModel):
    """A whole scripted mesh; the radios are the caller's."""

    model_config = _STRICT
    people: tuple[PersonScript, ...] = ()
    links: tuple[LinkScript, ...] = ()


def load(path: Path) -> Script:
    """Read a script. Raises UserError with every problem in it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Script.model_validate(content or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{path}: cannot be read", [str(e)]) from e
    except ValidationError as e:
        problems = [
            f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
            for error in e.errors()
        ]
        raise UserError(f"{path}: not a script", problems) from e


def apply(script: Script, mesh: SimMesh) -> list["Play"]:
    """Add people and links, return the plays to start. Raises UserError on unknown names."""
    people = [
        mesh.add_person(
            entry.name,
            num=entry.num,
            channels=entry.channels,
            introduced=entry.introduced,
            has_key=entry.has_key,
        )
        for entry in script.people
    ]
    named = {node.name: node for node in mesh.nodes}
    wanted = {name for link in script.links for name in (link.a, link.b)}
    wanted |= {step.to for entry in script.people for step in entry.steps if step.to}
    if unknown := sorted(wanted - named.keys()):
        raise UserError("script: no node of that name", unknown)
    for link in script.links:
        ends = named[link.a], named[link.b]
        if link.cut:
            mesh.unlink(*ends, one_way=link.one_way)
            continue
        mesh.link(
            *ends,
            loss=link.loss,
            delay_s=link.delay_s,
            duplicate=link.duplicate,
            reorder=link.reorder,
            one_way=link.one_way,
        )
    return [Play(mesh, p, e.steps) for p, e in zip(people, script.people, strict=True) if e.steps]


class Play:
    """Runs one person's steps, one after the other, until the end or a wait that was in vain."""

    def __init__(self, mesh: SimMesh, person: Person, steps: tuple[Step, ...]) -> None:
        """Prepare; nothing happens before `start`."""
        self.person = person
        self.ended: Journal[str] = Journal()  #: "done", or which step waited in vain
        self._mesh = mesh
        self._steps = list(steps)
        self._listening_from = 0

    def start(self) -> None:
        """Begin with the first step. Safe from any thread."""
        self._mesh.engine.call(self._go_on)

    def _go_on(self) -> None:
        while self._steps:
            step = self._steps.pop(0)
            if step.pause_s is not None:
                self._mesh.engine.call_later(step.pause_s, self._go_on)
                return
            if step.wait_for is not None:
                self._wait(step.wait_for, step.timeout_s)
                return
            self._act(step)
        self.ended.add("done")

    def _act(self, step: Step) -> None:
        person = self.person
        if step.say is not None:
            # What answers it can only come later, so an older text does not satisfy the next wait.
            self._listening_from = len(person.heard)
            person.say(step.say, to=self._addressee(step.to), channel=step.channel)
        elif step.telemetry is not None:
            person.send_telemetry(**step.telemetry.model_dump())
        elif step.position is not None:
            person.send_position(**step.position.model_dump())
        else:
            actions = {
                "off": person.switch_off,
                "on": person.switch_on,
                "reboot": person.reboot,
                "introduce": person.send_user,
            }
            actions[step.radio or "on"]()

    def _addressee(self, name: str | None) -> int | None:
        return next((node.num for node in self._mesh.nodes if node.name == name), None)

    def _wait(self, wanted: str, timeout_s: float) -> None:
        pattern = re.compile(wanted)
        timer: list[Timer] = []

        def listen(heard: Heard) -> None:
            if pattern.search(heard.text or ""):
                self.person.on_heard.remove(listen)
                timer[0].cancel()
                self._listening_from = len(self.person.heard)
                self._go_on()

        def give_up() -> None:
            self.person.on_heard.remove(listen)
            log.warning("sim_script_stopped", person=self.person.name, waited_for=wanted)
            self.ended.add(f"waited in vain for {wanted}")

        timer.append(self._mesh.engine.call_later(timeout_s, give_up))
        self.person.on_heard.append(listen)
        for heard in self.person.heard[self._listening_from :]:
            if listen in self.person.on_heard:
                listen(heard)
