"""A power cut before any single step of an answer's way to disk: one answer, under one id."""

import shutil
from pathlib import Path

import pytest

from meshllm.agent.answering import Ids
from meshllm.llm.base import ChatResult, Outcome
from meshllm.testing.power import Names, Tree, recording
from tests.agent.conftest import World

LONG = "".join(f"Boil the water for {n} minutes, and for longer above 2000 m. " for n in range(8))
NEVER = -1


class PowerCutError(BaseException):
    """Ends the process at once: nothing may catch it."""


class Cut:
    """Counts the steps of writing, and cuts the power before one of them."""

    def __init__(self, root: Path, fatal: int, names: Names, *, is_lying: bool = False) -> None:
        self.calls: list[tuple[str, str]] = []
        self.left: Tree | None = None  #: what the disk holds after the cut
        self.is_model_true = True
        self._root = root
        self._fatal = fatal
        self._names = names
        self._is_lying = is_lying

    def live(self, world: World) -> None:
        """Let an agent live until the cut, or until it has nothing left to do."""
        with recording(self._root, self._changing, is_lying=self._is_lying) as self._disk:
            world.start()
            try:
                world.idle()
            except PowerCutError:
                world.crash()
            else:
                self.is_model_true = _files(self._root) == dict(self._disk.live().files)

    def _changing(self, call: str, path: str) -> None:
        if self.left is not None:
            return  # clean-up on the way out of a process that is no more
        if len(self.calls) == self._fatal:
            self.left = self._disk.after_power_cut(self._names)
            raise PowerCutError
        self.calls.append((call, Path(path).suffix))


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def question(world: World) -> None:
    world.ids = Ids(message=iter([str(n) for n in range(11, 99)]).__next__)
    world.model.script = ChatResult(Outcome.OK, LONG, "m")
    world.hear("how long must water boil?", channel_index=3)


def steps(world: World) -> int:
    whole = Cut(world.root, NEVER, "lost")
    question(world)
    whole.live(world)
    world.stop()
    assert whole.is_model_true
    return len(whole.calls)


def complaints(world: World) -> list[str]:
    rows, prompts = world.ours(), world.prompts()
    found = []
    if [row.meta.get("part") for row in rows] != [1, 2] or len({r.message_id for r in rows}) != 2:
        found.append(f"not one answer: {[row.message_id for row in rows]}")
    if len(prompts) != 1 or len(world.pages()) != 1:
        found.append(f"{len(prompts)} prompt rows, {len(world.pages())} pages")
    if prompts and rows and prompts[0].response_message_id != rows[0].message_id:
        found.append(f"the log says {prompts[0].response_message_id}")
    return found


def survive(folder: Path, fatal: int, names: Names, *, is_lying: bool = False) -> list[str]:
    """Cut the power before a step, start again on what is left, and name what is wrong then."""
    world = World(folder, [])
    question(world)
    cut = Cut(world.root, fatal, names, is_lying=is_lying)
    cut.live(world)
    assert cut.left is not None, fatal
    is_answer_safe = any(name.endswith(".md") for name in cut.left.files)
    shutil.rmtree(world.root)
    cut.left.write(world.root)

    world.idle()
    world.stop()

    calls = len(world.model.requests)
    repeated = [f"{calls} model calls, an answer safe"] if is_answer_safe and calls != 1 else []
    return complaints(world) + repeated


@pytest.mark.parametrize(("names", "stride"), [("lost", 1), ("kept", 2)])
def test_a_power_cut_before_any_step_of_an_answer_ends_in_one_answer(
    tmp_path: Path, names: Names, stride: int
) -> None:
    total = steps(World(tmp_path / "whole", []))
    assert total > 30

    wrong = {
        fatal: said
        for fatal in range(0, total, stride)
        if (said := survive(tmp_path / str(fatal), fatal, names))
    }

    assert wrong == {}


def test_a_disk_that_flushes_nothing_is_caught(tmp_path: Path) -> None:
    """The control: with names kept and contents lost, a page is there and holds nothing."""
    total = steps(World(tmp_path / "whole", []))

    said = survive(tmp_path / "cut", total - 2, "kept", is_lying=True)

    assert said
