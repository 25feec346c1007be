from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from meshllm.clock import SystemClock
from meshllm.sim.client import StreamClient
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio

MakeMesh = Callable[..., SimMesh]
Connect = Callable[[SimRadio], StreamClient]


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_mesh(closing: ExitStack) -> MakeMesh:
    """Start a mesh that is closed with the test; time runs 50 times as fast by default."""

    def make(scale: float = 50.0, *, seed: int = 1, instant_air: bool = True) -> SimMesh:
        mesh = SimMesh(seed=seed, clock=SystemClock(scale), instant_air=instant_air)
        return closing.enter_context(mesh)

    return make


@pytest.fixture
def connect(closing: ExitStack) -> Connect:
    """Connect to a radio and read its whole configuration."""

    def make(radio: SimRadio) -> StreamClient:
        client = closing.enter_context(StreamClient(radio.address))
        client.configure()
        return client

    return make
