"""A death before any single step of rotating or deleting: nothing lost, doubled or half there."""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from meshllm.records import PromptRow
from meshllm.testing.clock import ManualClock
from meshllm.testing.power import Names, Tree, recording
from tests.agent.conftest import World
from tests.agent.test_agent_promptkeep import DAY_S, archived, ask, history, ids, page_ids, tidy

NEVER = -1
Act = Literal["rotate", "delete"]


class DeathError(BaseException):
    """Ends the process at once: nothing may catch it."""


@dataclass(frozen=True)
class Template:
    """Calls of four months: to be rotated or, those of three being archived, to be deleted."""

    root: Path
    act: Act
    rows: list[PromptRow]
    clock: tuple[datetime, float]

    @classmethod
    def make(cls, folder: Path, act: Act) -> "Template":
        world = World(folder, [])
        rows = []
        for _ in range(3):
            rows += [ask(world), ask(world)]
            world.stop()
            world.clock.advance(35 * DAY_S)
        rows.append(ask(world))
        world.stop()
        if act == "delete":
            tidy(world)
            world.stop()
        return cls(folder, act, rows, (world.clock.utc(), world.clock.monotonic()))

    @property
    def wanted(self) -> list[PromptRow]:
        return self.rows if self.act == "rotate" else self.rows[-3:]

    def copy(self, folder: Path) -> World:
        shutil.copytree(self.root, folder)
        now, up_s = self.clock
        world = World(folder, [], clock=ManualClock(start=now, up_s=up_s))
        if self.act == "delete":
            world.settings = world.settings.model_copy(update={"keep_prompts_count": 3})
        return world


def live(world: World, fatal: int, names: Names | None) -> int:
    """Tidy until the death; the folder then is as it was left. Return the steps seen."""
    steps = 0
    left: list[Tree] = []

    def changing(_call: str, path: str) -> None:
        nonlocal steps
        if left or "/prompts" not in path:
            return
        if steps == fatal:
            left.append(disk.live() if names is None else disk.after_power_cut(names))
            raise DeathError
        steps += 1

    with recording(world.root, changing) as disk:
        try:
            tidy(world)
        except DeathError:
            world.crash()
        else:
            world.stop()
    if left:
        shutil.rmtree(world.root)
        left[0].write(world.root)
    return steps


def complaints(world: World, template: Template) -> list[str]:
    """Name what is wrong now, and what is wrong after the next life."""
    found = []
    rows, wanted = template.rows, template.wanted
    now = history(world)
    if not ids(now) <= page_ids(world):
        found.append("a row without its page")
    if not ids(wanted) <= ids(now) <= ids(rows):
        found.append(f"{len(now)} rows")
    world.idle()
    if len(history(world)) > len(now):
        found.append("a row came back")
    tidy(world)
    world.stop()
    if history(world) != wanted or page_ids(world) != ids(wanted):
        found.append(f"{len(history(world))} rows, {len(world.pages())} pages at the end")
    everywhere = [row.prompt_id for row in world.prompts()]
    for found_ids in archived(world).values():
        everywhere += found_ids
    if len(set(everywhere)) != len(everywhere):
        found.append("a row twice")
    if list(world.layout.prompts_dir.rglob(".*leaving")):
        found.append("a list left over")
    if world.model.requests or world.count("prompt_row_recovered"):
        found.append("a call or a row made again")
    return found


def survive(template: Template, folder: Path, fatal: int, names: Names | None) -> list[str]:
    world = template.copy(folder)
    live(world, fatal, names)
    return complaints(world, template)


@pytest.mark.parametrize("act", ["rotate", "delete"])
@pytest.mark.parametrize(
    ("names", "stride"),
    [
        (None, 3),
        ("lost", 5),
        ("kept", 7),
        pytest.param(None, 1, marks=pytest.mark.slow),
        pytest.param("lost", 1, marks=pytest.mark.slow),
        pytest.param("kept", 1, marks=pytest.mark.slow),
    ],
)
def test_a_death_before_any_step_loses_doubles_and_orphans_nothing(
    tmp_path: Path, act: Act, names: Names | None, stride: int
) -> None:
    template = Template.make(tmp_path / "template", act)
    total = live(template.copy(tmp_path / "whole"), NEVER, names)
    assert total > 10

    wrong = {
        fatal: said
        for fatal in range(0, total, stride)
        if (said := survive(template, tmp_path / str(fatal), fatal, names))
    }

    assert wrong == {}


def test_pages_that_go_before_their_rows_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the hidden list, a death leaves rows without their pages."""
    monkeypatch.setattr("meshllm.store.atomic.rename", lambda path, _name: path)
    template = Template.make(tmp_path / "template", "delete")
    total = live(template.copy(tmp_path / "whole"), NEVER, None)

    assert any(
        "a row without its page" in survive(template, tmp_path / str(n), n, None)
        for n in range(total)
    )
