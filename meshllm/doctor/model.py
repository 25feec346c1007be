"""Checks of the model server: reachable, its version, the model, room in memory. Loads nothing."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from meshllm.clock import Clock
from meshllm.doctor.findings import Finding, fail, info, ok, warn
from meshllm.doctor.machine import Machine
from meshllm.doctor.place import Place
from meshllm.llm.answers import full_name
from meshllm.llm.base import ProbeResult, ProbeState
from meshllm.llm.ollama import OllamaModel
from meshllm.store.space import BYTES_PER_MB

QUICK_S: Final = 3.0  #: longest wait for each answer of a server
GROUP: Final = "model"
#: Beside the weights: 4096 tokens of context of a 4b model and what the runner itself takes.
BESIDE_MB: Final = 900
_DOCKER: Final = "in a container: docker exec ollama "


def look(place: Place) -> Iterator[Finding]:
    """Look at one address after the other."""
    settings = place.settings
    urls = [url for url in (settings.ollama_base_url, settings.ollama_base_url_2) if url]
    states: list[str] = []
    for number, url in enumerate(urls, start=1):
        name = "the second address" if number > 1 else "the server"
        models = (settings.ollama_model_instruct, settings.ollama_model_think)
        server = _Server(url, name, models, place.clock, place.machine)
        yield from server.findings(is_spare=number > 1 and "ready" in states)
        states.append(server.state)
    if "ready" not in states:
        yield info(GROUP, "without a model, commands and notices are still answered")


class _Server:
    """One address, looked at once."""

    def __init__(
        self, url: str, name: str, models: tuple[str, str], clock: Clock, machine: Machine
    ) -> None:
        self._url = url
        self._name = name
        self._model, self._thinker = models
        self._client = OllamaModel(url, self._model, clock=clock, quick_s=QUICK_S * clock.scale)
        self._machine = machine
        self.state = ""

    def findings(self, *, is_spare: bool) -> Iterator[Finding]:
        """Say how it stands; trouble of a spare server is a warning."""
        try:
            found = self._client.probe()
            self.state = found.state.value
            tell = warn if is_spare else fail
            if found.state is ProbeState.READY:
                yield ok(GROUP, f"{self._name}: {found.detail}")
                yield from self._stock()
            elif found.state is ProbeState.MISSING_MODEL:
                yield tell(GROUP, f"{self._name}: {found.detail}", pull_fix(self._model))
                yield from self._others()
            else:
                yield tell(GROUP, f"{self._name}: {found.detail}", self._fix(found))
        finally:
            self._client.close()

    def _fix(self, found: ProbeResult) -> str:
        if found.state is ProbeState.UNREACHABLE and is_here(self._url):
            return "docker start ollama, or: sudo systemctl start ollama"
        if found.state is ProbeState.UNREACHABLE:
            return f"is it on? try: curl {self._url}/api/version"
        return "is another program at this address? ollama_base_url names it"

    def _others(self) -> Iterator[Finding]:
        names = sorted(self._client.sizes())
        if names:
            yield info(
                GROUP, f"{self._name} has: {', '.join(names)}", f"ollama_model_instruct: {names[0]}"
            )

    def _stock(self) -> Iterator[Finding]:
        sizes = self._client.sizes()
        if not sizes:
            return
        if self._thinker and full_name(self._thinker) not in sizes:
            text = f"{self._name}: no model {self._thinker}, which ollama_model_think names"
            yield warn(GROUP, text, pull_fix(self._thinker))
        if is_here(self._url):
            loaded = self._client.sizes(loaded=True)
            size_mb = sizes.get(full_name(self._model), 0) // BYTES_PER_MB
            is_loaded = full_name(self._model) in loaded
            yield from memory(self._model, size_mb, self._machine.memory_mb(), is_loaded=is_loaded)


def pull_fix(model: str) -> str:
    """Write the command that installs a model, both ways that Ollama is run."""
    return f"ollama pull {model} ({_DOCKER}ollama pull {model})"


def is_here(url: str) -> bool:
    """Say whether an address is this machine's own by its name."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def memory(
    model: str, size_mb: int, free: Mapping[str, int], *, is_loaded: bool
) -> Iterator[Finding]:
    """Compare a model with the memory of this machine. Pure."""
    total_mb, free_mb = free.get("MemTotal"), free.get("MemAvailable")
    if not size_mb or total_mb is None or free_mb is None:
        return
    need_mb = size_mb + BESIDE_MB
    figures = f"{model} takes about {_gb(need_mb)}"
    fix = "choose a smaller one: docs/how-to/change-the-model.md"
    if need_mb > total_mb:
        yield fail(GROUP, f"{figures}; this machine has {_gb(total_mb)} in all", fix)
    elif is_loaded:
        yield ok(GROUP, f"{model} is in memory; {_gb(free_mb)} are free beside it")
    elif need_mb > free_mb:
        yield warn(GROUP, f"{figures}; {_gb(free_mb)} are free now", f"end something, or {fix}")
    else:
        yield ok(GROUP, f"{figures}; {_gb(free_mb)} are free")


def _gb(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB"
