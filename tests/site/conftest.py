"""A radio's files and a prompt log, written by the agent itself; and what must not get out."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshllm.config import Settings
from meshllm.layout import Layout
from meshllm.records import Latest, Node
from meshllm.site.publish import Publisher, Report
from meshllm.store.table import Table
from tests.agent.conftest import ALICE, BOB, HOME, OWN, World

ROOT = Path(__file__).resolve().parents[2]
CAROL = "!ca401e77"
DM_TEXT = "where did I bury the blue barrel"
#: What a reader of the published folder must not find, in any case of letters.
NAMES = ("Quartz Wren", "quartzwren", "QWRN", "Juniper Fell", "jfel", "Hilltop Zwölf", "🦊", "山田")
IDS = tuple(
    form
    for node in (ALICE, BOB, CAROL, OWN)
    for form in (node[1:], str(int(node[1:], 16)))  # the former stands in !id and 0xid as well
)
ENDS = ("e001: ", '"e001"', "1e77: ")
POSITIONS = ("47.123456", "11.654321", "32T PT 12345 67890", "8FVHG4M6+2X", "07.407", "39.259")
CONTACTS = ("wren@example.org", "0171 2345678", "AQIDBAUGBwgJCgsMDQ4PEA==")
_THEME = {
    "_config.yml": 'title: Log\nexclude: ["*.csv", "*.json"]\n',
    "_layouts/default.html": "<!doctype html><title>{{ page.title }}</title>{{ content }}\n",
    "_layouts/prompt.html": "---\nlayout: default\n---\n<p>{{ page.question | escape }}</p>"
    "{% for part in page.queued %}<p>{{ part.content | escape }}</p>{% endfor %}\n"
    "<p>{{ page.node_uid }} {{ page.thread_key | escape }}</p>{{ content }}\n",
    "_includes/note.html": "note\n",
    "index.html": "---\nlayout: default\n---\n{% for page in site.pages %}"
    "<a href='{{ page.url }}'>{{ page.question | escape }}</a>{% endfor %}\n",
    "assets/site.css": "body { color: black }\n",
}


@dataclass
class Log:
    """A prompt log and where it is published."""

    layout: Layout
    to: Path
    theme: Path

    def publisher(self, **changes: object) -> Publisher:
        given: dict[str, object] = {"publish_channels": ("LongFast",)}
        settings = Settings.model_validate(given | changes)
        return Publisher(self.layout, settings, self.theme, self.to)

    def publish(self, *, is_trial: bool = False, **changes: object) -> Report:
        return self.publisher(**changes).run((), is_trial=is_trial)

    def files(self) -> dict[str, bytes]:
        return files_of(self.to)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def leaks(files: dict[str, bytes], secrets: tuple[str, ...]) -> list[tuple[str, str]]:
    """Say which secret stands in which file, or in the name of which."""
    texts = {
        name: f"{name}\n{data.decode(errors='replace')}".casefold() for name, data in files.items()
    }
    return [(s, name) for name, text in texts.items() for s in secrets if s.casefold() in text]


def _talk(world: World) -> None:
    world.name(Node(OWN, "🦊", "Hilltop Zwölf"))
    world.name(Node(ALICE, "QWRN", "Quartz Wren"))
    world.name(Node(BOB, "山田", "Juniper Fell"))
    world.name(Node(CAROL, "jfel", ""))
    Table(world.layout.tree(HOME).latest, Latest).append(
        [Latest(ALICE, latitude=47.123456, longitude=11.654321, position_channel="LongFast")]
    )
    world.hear(DM_TEXT)
    world.idle()
    for text in (
        "librarian is quartz wren (QWRN) at 47.123456, 11.654321 or 32T PT 12345 67890?",
        f"librarian tell me of {BOB}, {ALICE[1:].upper()}, 0x{CAROL[1:]} or {int(BOB[1:], 16)}",
        "librarian call 0171 2345678 or wren@example.org, key AQIDBAUGBwgJCgsMDQ4PEA==",
        "librarian meet QuartzWren and 山田さん at 8FVHG4M6+2X 🦊 jfel",
    ):
        world.hear(text, key="LongFast")
        world.idle()
    world.hear("librarian are Juniper Fell and e001 well?", key="LongFast", sender=CAROL)
    world.idle()
    world.hear("librarian the code of the gate is otter", key="Family")
    world.idle()


@pytest.fixture(scope="session")
def talked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with capture_logs() as events:
        world = World(tmp_path_factory.mktemp("talked"), events)
        world.model.script = "Ask Quartz Wren at N 47° 07.407 E 011° 39.259, or the node QWRN."
        _talk(world)
        world.stop()
        yield world.root


@pytest.fixture
def theme(tmp_path: Path) -> Path:
    """Make a small theme, so that these tests need no other."""
    folder = tmp_path / "theme"
    for name, text in _THEME.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def log(talked: Path, theme: Path, tmp_path: Path) -> Log:
    """A log of one's own, to publish and to damage."""
    root = tmp_path / "home"
    shutil.copytree(talked, root)
    layout = Layout(root / "data", root / "data/nodes", root / "prompts")
    return Log(layout, tmp_path / "public", theme)
