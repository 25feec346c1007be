from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import world as worlds
from tests.system.world import World

MakeWorld = Callable[..., World]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for world in worlds.live:
            report.sections.append(("the world", world.report()))
    return report


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Build a world of the test's own; its processes are not started yet."""
    with ExitStack() as stack:

        def make(**options: object) -> World:
            return stack.enter_context(World(tmp_path, **options))  # type: ignore[arg-type]

        yield make


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("shared")) as world:
        world.start()
        yield world


@pytest.fixture
def world(shared_world: World) -> World:
    """Lend one world with both processes up to many tests; each brings people of its own."""
    shared_world.ensure_up()
    return shared_world
