"""The only module that knows file and folder names. Opens and creates nothing."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_NAME_CHARS: Final = 48  #: longest sanitised stem; leaves room for suffixes on any file system
DEFAULT_CHANNEL: Final = "LongFast"  #: name of an unnamed primary channel when no preset is known
UNDATED: Final = "undated"  #: period of archived rows whose time cannot be read
_PART: Final = re.compile(r"(\d{4}(?:-\d\d)?|undated)(?:-part([2-9]|[1-9]\d+))?\.csv")
_LEAVING: Final = ".leaving"
_SAFE: Final = re.compile(r"[^a-z0-9_-]+")
_NODE_ID: Final = re.compile(r"!?([0-9a-fA-F]{8})")
#: Device names of Windows: a card is read on other machines too.
_RESERVED: Final = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{p}{n}" for p in ("com", "lpt") for n in range(10)}
)


def sanitise(name: str) -> str:
    """Turn any text into a file stem: lower case, spaces to underscores, nothing unsafe.

    A name changed beyond case and spaces gets `-<6 hex of sha256>`, so two names never meet in
    one file unless they are equal but for case and spaces.
    """
    wanted = name.lower().replace(" ", "_")
    stem = _SAFE.sub("", unicodedata.normalize("NFKD", wanted))[:MAX_NAME_CHARS]
    if stem == wanted and stem and stem not in _RESERVED:
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{stem or 'x'}-{digest}"


def channel_stem(name: str, *, index: int, others: dict[int, str]) -> str:
    """File stem of a channel; a later channel of equal or case-equal name gets `-ch<index>`.

    `others` maps the indexes of all channels of this radio to their names.
    """
    stem = sanitise(name)
    taken = any(i < index and sanitise(other) == stem for i, other in others.items())
    return f"{stem}-ch{index}" if taken else stem


def node_id(number: int) -> str:
    """Write a node number as `!a1b2c3d4`."""
    return f"!{number & 0xFFFFFFFF:08x}"


def node_uid_of(thread_file: Path) -> str:
    """Name of the radio's folder that a thread file lies in."""
    return thread_file.parents[2].name


def node_number(text: str) -> int | None:
    """Read `!a1b2c3d4` or `a1b2c3d4`; None for anything else."""
    match = _NODE_ID.fullmatch(text)
    return int(match[1], 16) if match else None


def peer_stem(peer: str) -> str:
    """File stem of a DM thread: the 8 hex digits, or the sanitised name where there is no id."""
    match = _NODE_ID.fullmatch(peer)
    return match[1].lower() if match else sanitise(peer)


@dataclass(frozen=True, slots=True)
class Shelf:
    """The archive of one live file: a file per month or year, in parts where that grows large.

    Each thread has a folder of its own, so no name of one can be read as a month of another.
    """

    folder: Path
    prefix: str = ""

    def part(self, period: str, number: int) -> Path:
        """Path of a part of a period; parts count from 1, and the first bears no number."""
        return self.folder / f"{self.prefix}{period}{f'-part{number}' if number > 1 else ''}.csv"

    def leaving_name(self, part: Path) -> str:
        """Name of a part whose pages are being deleted: no part any more, and no hidden temp."""
        return f".{part.name}{_LEAVING}"

    def left_name(self, leaving: Path) -> str:
        """Name that such a part had."""
        return leaving.name.removeprefix(".").removesuffix(_LEAVING)

    def leaving(self) -> list[Path]:
        """Parts whose deletion has begun."""
        if not self.folder.is_dir():
            return []
        return sorted(self.folder.glob(f".{self.prefix}*{_LEAVING}"))

    def parts(self) -> list[tuple[str, int, Path]]:
        """Period, number and path of every part that exists, in order; UNDATED comes last."""
        if not self.folder.is_dir():
            return []
        found = [
            (match[1], int(match[2] or 1), path)
            for path in self.folder.iterdir()
            if path.name.startswith(self.prefix)
            and (match := _PART.fullmatch(path.name[len(self.prefix) :]))
        ]
        return sorted(found)


@dataclass(frozen=True, slots=True)
class NodeTree:
    """Paths below data/nodes/<node_uid>/: everything one of our radios has heard and sent."""

    root: Path

    @property
    def node_uid(self) -> str:
        """Name of the folder."""
        return self.root.name

    @property
    def nodes(self) -> Path:
        """Registry of nodes."""
        return self.root / "nodes.csv"

    @property
    def sightings(self) -> Path:
        """Sightings."""
        return self.root / "sightings.csv"

    @property
    def latest(self) -> Path:
        """Newest facts per node."""
        return self.root / "latest.csv"

    @property
    def radio_status(self) -> Path:
        """What the bridge says of this radio."""
        return self.root / "radio.json"

    @property
    def channels(self) -> Path:
        """Folder of channel threads."""
        return self.root / "threads" / "channels"

    @property
    def dms(self) -> Path:
        """Folder of DM threads."""
        return self.root / "threads" / "dms"

    @property
    def archive(self) -> Path:
        """Folder of closed rows."""
        return self.root / "archive"

    def shelf(self, live: Path) -> Shelf:
        """Archive of a live file of this tree: `threads/dms/x.csv` has `archive/dms/x/`."""
        folder = self.archive if live.parent == self.root else self.archive / live.parent.name
        return Shelf(folder / live.stem)

    def shelves(self) -> list[Shelf]:
        """Archives that exist now, those of live files that are gone included."""
        folders = (self.archive / "channels", self.archive / "dms")
        found = [self.archive / self.sightings.stem]
        found += [p for folder in folders if folder.is_dir() for p in sorted(folder.iterdir())]
        return [Shelf(folder) for folder in found if folder.is_dir()]

    @property
    def quarantine(self) -> Path:
        """Folder of what could not be read."""
        return self.root / "quarantine"

    def channel_thread(self, stem: str) -> Path:
        """Thread file of a channel; `stem` comes from `channel_stem`."""
        return self.channels / f"{stem}.csv"

    def dm_thread(self, peer: str) -> Path:
        """Thread file of the DMs with a peer."""
        return self.dms / f"{peer_stem(peer)}.csv"

    def folders(self) -> tuple[Path, ...]:
        """Folders the bridge creates at start."""
        return (self.root, self.channels, self.dms)

    def thread_files(self) -> list[Path]:
        """Thread files that exist now; hidden and temporary ones left out."""
        return sorted(
            p
            for folder in (self.channels, self.dms)
            for p in folder.glob("*.csv")
            if not p.name.startswith(".")
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one installation."""

    data_dir: Path
    nodes_dir: Path
    prompts_dir: Path

    @property
    def bridge_lock(self) -> Path:
        """Held by the bridge for its life."""
        return self.data_dir / ".bridge.lock"

    @property
    def agent_lock(self) -> Path:
        """Held by the agent for its life."""
        return self.data_dir / ".agent.lock"

    @property
    def publish_key(self) -> Path:
        """Secret key of the pseudonyms on published pages; never leaves this folder."""
        return self.data_dir / ".publish.key"

    def reserve(self, *, same_disk: bool) -> Path:
        """Ballast of the bridge, on the disk of the threads; given up when that is full.

        In the data folder when that is on the same disk: the trees' folder holds trees alone.
        """
        return (self.data_dir if same_disk else self.nodes_dir) / ".reserve"

    @property
    def logs_dir(self) -> Path:
        """Folder of both processes' log files."""
        return self.data_dir / "logs"

    def log_file(self, role: str) -> Path:
        """Current log file of a process; older ones have `.1`, `.2` … behind the name."""
        return self.logs_dir / f"{role}.jsonl"

    @property
    def agent_status(self) -> Path:
        """What the agent says of itself."""
        return self.data_dir / "agent.json"

    @property
    def prompts_table(self) -> Path:
        """Registry of model calls."""
        return self.prompts_dir / "prompts.csv"

    @property
    def prompts_shelf(self) -> Shelf:
        """Archive of the registry of model calls."""
        return Shelf(self.prompts_dir / "archive", prefix="prompts-")

    @property
    def quarantine(self) -> Path:
        """What could not be read of the registry of model calls: beside no page, so on no site."""
        return self.data_dir / "quarantine"

    def prompt_page(self, prompt_id: str) -> Path:
        """Page of one model call; `prompt_id` is ours, never text from the mesh."""
        return self.prompts_dir / f"{sanitise(prompt_id)}.md"

    def tree(self, node_uid: str) -> NodeTree:
        """Paths of one radio, by its id digits or alias."""
        return NodeTree(self.nodes_dir / peer_stem(node_uid))

    def trees(self) -> list[NodeTree]:
        """Trees that exist now."""
        if not self.nodes_dir.is_dir():
            return []
        return [
            NodeTree(p)
            for p in sorted(self.nodes_dir.iterdir())
            if p.is_dir() and not p.name.startswith(".")
        ]
