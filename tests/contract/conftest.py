from collections.abc import Iterator
from contextlib import ExitStack
from os import environ

import pytest

from meshllm.config.links import Link
from tests.contract import firmware
from tests.contract.worlds import FirmwareWorld, World


@pytest.fixture(scope="session")
def firmware_link() -> Iterator[Link]:
    """One node of the real firmware for all cases."""
    with firmware.running(environ[firmware.VARIABLE]) as link:
        yield link


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        if request.param is FirmwareWorld:
            yield FirmwareWorld(stack, request.getfixturevalue("firmware_link"))
        else:
            yield request.param(stack)
