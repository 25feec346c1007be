"""What every test gets: no network but loopback, golden files, Hypothesis profiles."""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

GOLDEN_DIR = Path(__file__).parent / "golden"

# The shared machine of a CI run is slow at times; the deadline of a test is pytest's.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deterministic", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the expected files and fail, so that a person looks at the diff",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--update-golden") and os.environ.get("CI"):
        raise pytest.UsageError("--update-golden is not for CI: a person has to look at the diff")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], None]]:
    """Compare a text with the file of that name under tests/golden."""
    is_update = bool(request.config.getoption("--update-golden"))
    rewritten: list[str] = []

    def check(name: str, text: str) -> None:
        path = GOLDEN_DIR / name
        expected = path.read_bytes().decode() if path.exists() else None
        if is_update and text != expected:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            rewritten.append(name)
        elif not is_update:
            assert expected is not None, f"no {path}: run pytest --update-golden and look at it"
            assert text == expected, f"differs from {path}"

    yield check

    if rewritten:
        pytest.fail(f"rewritten, look at the diff: {', '.join(rewritten)}")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Undo what a program under test made of the log: its level would silence later tests."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


class NetworkBlockedError(RuntimeError):
    """A test reached for something beyond this machine."""


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    attempts: list[object] = []

    def guarded(name: str) -> Callable[..., object]:
        original = getattr(socket.socket, name)

        def call(self: socket.socket, *arguments: object) -> object:
            # sendto has the address last, after data and perhaps flags.
            address = arguments[-1]
            if self.family != socket.AF_UNIX and not _is_local(address):
                attempts.append(address)
                raise NetworkBlockedError(f"{name} {address}: tests reach loopback only")
            return original(self, *arguments)

        return call

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    resolve = socket.getaddrinfo

    def getaddrinfo(host: object, *arguments: object, **options: object) -> object:
        if not _is_local((host,)):
            raise socket.gaierror(socket.EAI_NONAME, f"{host}: no names are resolved in tests")
        return resolve(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    yield

    # The code under test may take the error for a server that is down; the test still fails.
    assert attempts == []


def _is_local(address: object) -> bool:
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in {None, "", "localhost", "0.0.0.0", "::"}:
        return True
    try:
        return ipaddress.ip_address(str(host).split("%")[0]).is_loopback
    except ValueError:
        return False
