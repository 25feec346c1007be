"""The bridge: one station per configured radio, and one watch over all their threads."""

import threading
from pathlib import Path
from typing import Final

import structlog

from meshllm.bridge.outbox import OutboxSettings
from meshllm.bridge.station import Station, StationSettings
from meshllm.clock import Clock, Waker
from meshllm.config import Radio as RadioEntry
from meshllm.config import Settings
from meshllm.layout import Layout, NodeTree
from meshllm.radio.base import Emit, Radio
from meshllm.radio.device import DeviceRadio
from meshllm.store import atomic
from meshllm.store.atomic import Modes
from meshllm.store.watch import FolderWatch

log = structlog.get_logger()

STOP_LIMIT_S: Final = 4.0  #: all stations together; the process has 5 s


class BridgeService:
    """Everything the bridge process does (see app.Service)."""

    def __init__(self, settings: Settings, files: Layout, *, clock: Clock, waker: Waker) -> None:
        """Build the stations; nothing is opened before `start`."""
        self._files = files
        self._modes = Modes(settings.file_mode, settings.folder_mode, settings.lock_mode)
        self._clock = clock
        self._waker = waker
        self._poll_s = settings.bridge_poll_interval_ms / 1000
        self._owners: dict[Path, Station] = {}
        self._owning = threading.Lock()
        self._watch = FolderWatch(self._on_change, poll_s=self._poll_s)
        self._stations = [self._station(entry, settings) for entry in settings.radios]

    def start(self) -> None:
        """Create the folders and start every station. Raises StoreWriteError."""
        atomic.make_folders(self._files.data_dir, self._files.nodes_dir, modes=self._modes)
        for station in self._stations:
            station.start()
        log.info("bridge_started", radios=len(self._stations))

    def tick(self) -> float:
        """Look at the files as a net under missed events; seconds until the next look."""
        self._watch.poll(self._clock.monotonic())
        return self._poll_s

    def stop(self) -> None:
        """Stop watching, then every station, within the process's limit."""
        self._watch.close()
        stoppers = [
            threading.Thread(target=s.stop, args=(STOP_LIMIT_S,), daemon=True)
            for s in self._stations
        ]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(STOP_LIMIT_S)
        log.info("bridge_stopped")

    def _station(self, entry: RadioEntry, settings: Settings) -> Station:
        link = entry.link

        def make_radio(emit: Emit) -> Radio:
            return DeviceRadio(link, emit, clock=self._clock)

        station_settings = StationSettings(
            name=str(link),
            kind=link.kind,
            alias=entry.alias if settings.node_uid_strategy == "config" else "",
            modes=self._modes,
            lock_timeout_s=settings.lock_timeout_seconds,
            outbox=OutboxSettings(
                spacing_s=settings.send_spacing_seconds,
                max_new_ids=settings.max_new_id_retries,
            ),
            max_nodes=settings.max_nodes,
            max_threads=settings.max_threads,
        )
        station: Station | None = None

        def on_tree(tree: NodeTree) -> bool:
            assert station is not None
            return self._claim(tree, station)

        station = Station(station_settings, self._files, make_radio, on_tree, clock=self._clock)
        return station

    def _claim(self, tree: NodeTree, station: Station) -> bool:
        """Give a tree to one station only: two configured links may lead to the same node.

        A station asks when its radio turned out to be another node, so what it had is free again:
        two serial radios that swapped their ports find each other's trees.
        """
        with self._owning:
            for root in [root for root, owner in self._owners.items() if owner is station]:
                del self._owners[root]
            if self._owners.setdefault(tree.root, station) is not station:
                return False
        atomic.make_folders(tree.channels, tree.dms, modes=self._modes)
        for folder in (tree.channels, tree.dms):
            self._watch.watch(folder)
        return True

    def _on_change(self, path: Path) -> None:
        root = path.parent.parent.parent
        station = self._owners.get(root)
        if station is not None:
            station.file_changed(path)
