"""One tree in use: everything that depends on which node a radio turned out to be.

Belongs to one station and runs on its thread; connects nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from meshllm.bridge import channels, ingest
from meshllm.bridge.clearing import Clearing
from meshllm.bridge.manners import HOUR_S
from meshllm.bridge.outbox import LinkPort, Outbox, OutboxSettings
from meshllm.bridge.recorder import Recorder
from meshllm.bridge.registry import Registry
from meshllm.bridge.storage import Storage
from meshllm.bridge.tables import Tables
from meshllm.bridge.upkeep import Upkeep, UpkeepSettings
from meshllm.clock import Clock, uptime_s
from meshllm.errors import NotRegularError, TransientError
from meshllm.keeping import Limits
from meshllm.layout import NodeTree
from meshllm.observe import status
from meshllm.observe.board import Board
from meshllm.radio.base import LinkKind, RadioInfo
from meshllm.records import Message
from meshllm.store import atomic, codec, regular
from meshllm.store.atomic import Modes
from meshllm.store.watch import FolderWatch

log = structlog.get_logger()

SCAN_SLICE: Final = 20  #: thread files looked through between two looks at the radio
VERIFY_INTERVAL_S: Final = 1.0  #: between two whole reads after the start, 3 ms each
REGION_UNSET: Final = "UNSET"  #: the firmware sends nothing at all until a region is chosen
_WORK_MARKS: Final = (b"queued", b'""handed""', b'""relayed""')  #: rows with work hold one of these


@dataclass(frozen=True, slots=True)
class StationSettings:
    """What one station goes by."""

    name: str
    kind: LinkKind
    alias: str
    modes: Modes
    lock_timeout_s: float
    outbox: OutboxSettings
    max_nodes: int
    max_threads: int
    poll_s: float
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    keep: Limits = field(default_factory=Limits)  #: of the archive
    storage: Storage = field(default_factory=Storage)  #: shared by all stations
    place: int = 0  #: in the list of radios
    board: Board = field(default_factory=Board)  #: shared by all stations


class OpenTree:
    """The files of one node and what works on them."""

    def __init__(
        self,
        tree: NodeTree,
        info: RadioInfo,
        link: LinkPort,
        settings: StationSettings,
        on_change: Callable[[Path], None],
        *,
        clock: Clock,
    ) -> None:
        """Create the folders, load the registry, watch the threads. Raises TransientError.

        `on_change` hints at changed thread files, from any thread.
        """
        atomic.make_folders(*tree.folders(), modes=settings.modes)
        _sweep(tree)
        self.tree = tree
        self.info = info
        self.alive_up_s: float | None = None  #: uptime at which the radio last said anything
        self.longest_away = ingest.KEPT_MAX_AGE  #: before this connection
        self._settings = settings
        self._clock = clock
        self.tables = Tables(
            tree.quarantine,
            modes=settings.modes,
            lock_timeout_s=settings.lock_timeout_s,
            clock=clock,
            storage=settings.storage,
        )
        self.registry = Registry(
            tree,
            modes=settings.modes,
            lock_timeout_s=settings.lock_timeout_s,
            clock=clock,
            max_nodes=settings.max_nodes,
            storage=settings.storage,
        )
        self.registry.ensure()
        self.recorder = Recorder(tree, self.tables, clock=clock, max_threads=settings.max_threads)
        self.outbox = Outbox(self.tables, link, settings.outbox, clock=clock, kind=settings.kind)
        self._watch = FolderWatch(on_change, settings.poll_s)
        for folder in (tree.channels, tree.dms):
            self._watch.watch(folder)
        self._unscanned = tree.thread_files()
        self._unverified = list(self._unscanned)
        self._next_verify = 0.0
        self._upkeep = Upkeep(
            tree,
            settings.upkeep,
            modes=settings.modes,
            clock=clock,
            on_moved=self.recorder.forget,
        )
        self._clearing = Clearing(
            tree,
            settings.keep,
            clock=clock,
            lock_mode=settings.modes.lock,
            booted_at=settings.upkeep.booted_at,
            min_age_s=settings.upkeep.min_age_s,
        )
        self._slot_names = channels.names_of(status.read(tree.radio_status))
        self._untold: set[int] = set()
        self.outbox.loading(is_done=not self._unscanned)
        self.outbox.rest(self._newest_age_s())
        log.info("tree_opened", radio=settings.name, node_uid=tree.node_uid)

    def close(self) -> None:
        """Write what is gathered and stop watching."""
        self._watch.close()
        self.registry.flush(force=True)

    # -- what the radio says of itself ---------------------------------------------------------

    def link_up(self, info: RadioInfo) -> str:
        """Take what the radio tells, and what it is known to leave out; why it cannot send, or ''.

        A radio without a region refuses every text with TX_DISABLED, which costs no attempt.
        """
        radio = self._settings.name
        for change in channels.renamed(info, self._slot_names):
            log.info(
                "channel_renamed", radio=radio, slot=change.index, was=change.was, now=change.now
            )
        self._slot_names |= ingest.channel_names(info)
        self._untold -= {channel.index for channel in info.channels}
        for index in sorted(self._untold):
            info = channels.with_slot(info, index, self._slot_names)
        region = self.info.region if self.alive_up_s is not None else ""
        self.info = info
        up_s = uptime_s(self._clock)
        self.longest_away, self.alive_up_s = self.away(up_s), up_s
        self.registry.adopt(info)
        self.outbox.link_up(info)
        if info.region == REGION_UNSET:
            if region != REGION_UNSET:
                log.error(
                    "region_unset",
                    radio=radio,
                    consequence="the radio refuses every text; what is queued waits",
                    advice="set the region of this place in the Meshtastic app",
                )
            return "the radio has no region"
        if region == REGION_UNSET:
            log.info("region_set", radio=radio, region=info.region)
        return ""

    def add_slot(self, index: int) -> None:
        """Note a slot that the radio uses and did not tell of. Nothing is sent until the next Up.

        An answer on this slot would be given up with NO_CHANNEL otherwise.
        """
        self._untold.add(index)
        self.info = channels.with_slot(self.info, index, self._slot_names)
        name = self._slot_names[index] = ingest.thread_channel(index, self.info)
        self.outbox.link_down()
        log.warning(
            "channel_untold",
            radio=self._settings.name,
            slot=index,
            node_uid=self.tree.node_uid,
            thread_key=name,
            consequence="recorded by this name; the radio is asked for its channels again",
        )

    def away(self, up_s: float) -> timedelta:
        """How long the radio has said nothing at this uptime: it kept nothing for longer."""
        if self.alive_up_s is None:
            return ingest.KEPT_MAX_AGE
        return timedelta(seconds=max(0.0, up_s - self.alive_up_s))

    # -- its files -----------------------------------------------------------------------------

    def scan(self, path: Path) -> None:
        """Look at a file that may have changed."""
        if path.parent in (self.tree.channels, self.tree.dms):
            self.outbox.scan(path)
            self._upkeep.note(path)

    def tidy(self, *, quiet_s: float) -> None:
        """Archive old rows, clear the archive, unless something is due within `quiet_s`."""
        if self._unscanned:
            return
        if self._settings.storage.has_room_for_rest:
            self._upkeep.tick(quiet_s=quiet_s)
        self._clearing.tick(quiet_s=quiet_s)  # on a full disk above all

    def look(self) -> float:
        """Look for changes that no event told of, and at files not read yet; seconds to the next.

        A folder on a disk that hangs holds up this tree alone.
        """
        self._watch.poll(self._clock.monotonic())
        self._scan_slice()
        self._verify_next()
        if self._unscanned:
            return 0.0
        waits = (self._settings.poll_s, VERIFY_INTERVAL_S)
        return min(waits) if self._unverified else self._settings.poll_s

    def _scan_slice(self) -> None:
        """Look for unfinished rows a few files at a time, so that a text never waits for it."""
        for _ in range(min(SCAN_SLICE, len(self._unscanned))):
            path = self._unscanned.pop()
            try:
                has_work = any(mark in regular.read_bytes(path) for mark in _WORK_MARKS)
            except (OSError, NotRegularError):
                has_work = True  # the outbox reports it and tries again
            if has_work:
                self.outbox.scan(path)
            if self._is_recent(path):
                self.outbox.recall(path)
        self.outbox.loading(is_done=not self._unscanned)

    def _is_recent(self, path: Path) -> bool:
        """Say whether a file may hold texts of the last hour, which count against the limits."""
        try:
            age_s = self._clock.utc().timestamp() - path.stat().st_mtime
        except OSError:
            return False
        return age_s * self._clock.scale < HOUR_S

    def _verify_next(self) -> None:
        """Read one file whole, so that damage without queued rows is mended, too."""
        now = self._clock.monotonic()
        if self._unscanned or not self._unverified or now < self._next_verify:
            return
        self._next_verify = now + VERIFY_INTERVAL_S
        path = self._unverified.pop()
        try:
            # Past the tables: 500 files looked through once must not fill their cache.
            is_damaged = bool(codec.decode(regular.read_bytes(path), Message).damage)
            if is_damaged:
                self.tables.read(path)
        except NotRegularError:
            self.scan(path)  # moves it away
        except (OSError, TransientError) as error:
            log.error("thread_unreadable", file=path.name, reason=str(error))

    def _newest_age_s(self) -> float:
        """Age of the newest thread file: whatever an earlier run sent, it wrote there."""
        newest = max((path.stat().st_mtime for path in self._unscanned), default=0.0)
        return max(0.0, self._clock.utc().timestamp() - newest) * self._clock.scale


def _sweep(tree: NodeTree) -> None:
    """Remove what a killed bridge left half written; tables sweep for themselves."""
    try:
        atomic.sweep(tree.root, tree.radio_status.name)
        if tree.quarantine.is_dir():
            atomic.sweep(tree.quarantine)
    except TransientError as error:
        log.warning("sweep_failed", reason=str(error), consequence="left-over files stay")
