"""The bridge: one station per configured radio, each with its own threads and folders."""

import threading
from typing import Final

import structlog

from meshllm.bridge.manners import Pace
from meshllm.bridge.open_tree import StationSettings
from meshllm.bridge.outbox import OutboxSettings
from meshllm.bridge.owners import Owners
from meshllm.bridge.station import Station
from meshllm.bridge.storage import CONSEQUENCE_LOW, LOOK_S, Storage
from meshllm.bridge.upkeep import UpkeepSettings
from meshllm.clock import Clock, Waker, boot_at
from meshllm.config import Radio as RadioEntry
from meshllm.config import Settings
from meshllm.keeping import Limits
from meshllm.layout import Layout
from meshllm.observe.board import Board, StorageState
from meshllm.radio.base import Emit, Radio
from meshllm.radio.device import DeviceRadio, look_for_ports
from meshllm.radio.ports import SerialPorts
from meshllm.store import atomic
from meshllm.store.atomic import Modes
from meshllm.store.reserve import Reserve
from meshllm.store.space import BYTES_PER_MB, DiskSpace, is_one_disk

log = structlog.get_logger()

STOP_LIMIT_S: Final = 4.0  #: all stations together; the process has 5 s


class BridgeService:
    """Everything the bridge process does (see app.Service)."""

    def __init__(
        self,
        settings: Settings,
        files: Layout,
        *,
        clock: Clock,
        waker: Waker,
        board: Board | None = None,
    ) -> None:
        """Build the stations; nothing is opened before `start`."""
        self._board = board or Board()
        self._files = files
        self._modes = Modes(settings.file_mode, settings.folder_mode, settings.lock_mode)
        self._clock = clock
        self._booted_at = boot_at(clock)
        self._waker = waker
        self._owners = Owners()
        self._storage = Storage(
            Reserve(
                files.reserve(same_disk=is_one_disk(files.data_dir, files.nodes_dir)),
                floor_bytes=settings.disk_reserve_mb * BYTES_PER_MB,
            ),
            DiskSpace(
                (files.data_dir, files.nodes_dir),
                settings.disk_reserve_mb,
                consequence=CONSEQUENCE_LOW,
            ),
        )
        self._ports = SerialPorts(look_for_ports, [entry.link for entry in settings.radios])
        self._stations = [
            self._station(place, entry, settings) for place, entry in enumerate(settings.radios)
        ]

    def start(self) -> None:
        """Create the folders and start every station. Raises StoreWriteError."""
        atomic.make_folders(self._files.data_dir, self._files.nodes_dir, modes=self._modes)
        self._storage.look()
        for station in self._stations:
            station.start()
        log.info("bridge_started", radios=len(self._stations))

    def tick(self) -> float:
        """Look at the disk. Every station keeps its own time, so that none waits for another."""
        self._storage.look()
        self._board.storage(lambda: StorageState(self._storage.state, self._storage.free_mb))
        return LOOK_S

    def stop(self) -> None:
        """Stop every station within the process's limit."""
        stoppers = [
            threading.Thread(target=s.stop, args=(STOP_LIMIT_S,), daemon=True)
            for s in self._stations
        ]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(STOP_LIMIT_S)
        log.info("bridge_stopped")

    def _station(self, place: int, entry: RadioEntry, settings: Settings) -> Station:
        link = entry.link

        def make_radio(emit: Emit) -> Radio:
            return DeviceRadio(link, emit, clock=self._clock, ports=self._ports)

        station_settings = StationSettings(
            name=str(link),
            kind=link.kind,
            alias=entry.alias if settings.node_uid_strategy == "config" else "",
            modes=self._modes,
            lock_timeout_s=settings.lock_timeout_seconds,
            outbox=OutboxSettings(
                pace=Pace(
                    spacing_s=settings.send_spacing_seconds,
                    budget_s=settings.airtime_budget,
                    slow_percent=settings.channel_use_slow_percent,
                    hold_percent=settings.channel_use_hold_percent,
                ),
                max_new_ids=settings.max_new_id_retries,
                insists=settings.repeat_far_under_new_id,
                max_held=settings.max_held_per_person,
                max_held_s=settings.max_held_seconds,
            ),
            max_nodes=settings.max_nodes,
            max_threads=settings.max_threads,
            poll_s=settings.bridge_poll_interval_ms / 1000,
            storage=self._storage,
            place=place,
            board=self._board,
            upkeep=UpkeepSettings(
                settings.live_rows,
                settings.max_question_age_seconds,
                booted_at=self._booted_at,
            ),
            keep=Limits(
                days=settings.keep_archive_days,
                size_bytes=settings.keep_archive_mb * BYTES_PER_MB,
            ),
        )
        return Station(station_settings, self._files, make_radio, self._owners, clock=self._clock)
