"""A whole simulated mesh: radios for bridges, people on far nodes, and the links between them."""

import hashlib
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from meshllm.airtime import PRESETS
from meshllm.clock import Clock, SystemClock, time_scale_from_environment
from meshllm.errors import UserError
from meshllm.sim.air import DEFAULT_SNR_DB, Air
from meshllm.sim.engine import Engine
from meshllm.sim.node import SimRadio
from meshllm.sim.packets import ChannelSpec, User
from meshllm.sim.people import Addressee, Person
from meshllm.sim.station import Station

FIRST_RADIO: Final = 0x51E0AA01
FIRST_PERSON: Final = 0x51E0BB01
LOOPBACK: Final = "127.0.0.1"

ChannelLike = ChannelSpec | str


class SimMesh:
    """Radios, people and links. Everybody hears everybody and knows everybody's key by default."""

    def __init__(
        self,
        *,
        seed: int = 1,
        clock: Clock | None = None,
        preset: str = "LONG_FAST",
        instant_air: bool = False,
        everyone_hears: bool = True,
    ) -> None:
        """Prepare an empty mesh; nothing is served before `start`.

        `instant_air` leaves out airtime and back-off, so an ACK follows at once. Without
        `everyone_hears` only nodes joined by `link` hear each other.
        """
        if preset not in PRESETS:
            raise UserError(f"preset {preset}: unknown", [f"known: {', '.join(sorted(PRESETS))}"])
        self.clock = clock or SystemClock(time_scale_from_environment())
        self.engine = Engine(self.clock)
        self.air = Air(
            self.engine,
            seed=seed,
            preset=preset,
            instant=instant_air,
            scale=self.clock.scale,
        )
        self.air.everyone_hears = everyone_hears
        self.radios: list[SimRadio] = []
        self.people: list[Person] = []
        self._seed = seed
        self._is_closed = False

    def add_radio(
        self,
        name: str = "Base Camp",
        *,
        channels: Sequence[ChannelLike] = ("",),
        num: int | None = None,
        host: str = LOOPBACK,
        port: int = 0,
        has_clock: bool = True,
        introduced: bool = True,
    ) -> SimRadio:
        """Add a radio with a TCP port. Without `has_clock` its packets carry no receive time."""
        number = FIRST_RADIO + len(self.radios) if num is None else num
        station = self._station(name, number, channels, has_clock=has_clock)
        radio = SimRadio(name, station, self.engine, self.clock, host=host, port=port)
        self.engine.call(lambda: self._admit(radio, introduced=introduced))
        return radio

    def _admit(self, radio: SimRadio, *, introduced: bool) -> None:
        self.radios.append(radio)
        if introduced:
            self._introduce(radio.station)
        if self.engine.is_running:
            radio.start_serving()

    def add_person(
        self,
        name: str = "Ada Example",
        *,
        channels: Sequence[ChannelLike] = ("",),
        num: int | None = None,
        introduced: bool = True,
        has_key: bool = True,
    ) -> Person:
        """Add a person on a far node. Without `has_key` it is an old radio without encrypted DMs.

        Not `introduced`, nobody knows this node or its key, nor it theirs, until they hear of
        each other.
        """
        number = FIRST_PERSON + len(self.people) if num is None else num
        station = self._station(name, number, channels, has_key=has_key)
        person = Person(name, station, self.engine, scale=self.clock.scale)

        def admit() -> None:
            self.people.append(person)
            if introduced:
                self._introduce(station)

        self.engine.call(admit)
        return person

    def _station(
        self,
        name: str,
        num: int,
        channels: Sequence[ChannelLike],
        *,
        has_clock: bool = True,
        has_key: bool = True,
    ) -> Station:
        if any(station.num == num for station in self._stations()):
            raise UserError(f"node number {num:#010x}: already taken")
        specs = tuple(ChannelSpec(c) if isinstance(c, str) else c for c in channels)
        key = hashlib.sha256(f"{self._seed}/{num:08x}".encode()).digest() if has_key else b""
        wall = self._wall if has_clock else (lambda: 0)
        user = User(num, name, _short(name), key)
        return self.engine.call(lambda: Station(self.air, user, specs, seed=self._seed, wall=wall))

    def _wall(self) -> int:
        return int(self.clock.utc().timestamp())

    def _introduce(self, newcomer: Station) -> None:
        for other in self._stations():
            if other is not newcomer:
                other.learn(newcomer.user)
                newcomer.learn(other.user)

    @property
    def nodes(self) -> list[SimRadio | Person]:
        """The radios, then the people."""
        return [*self.radios, *self.people]

    def _stations(self) -> list[Station]:
        return [node.station for node in self.nodes]

    def link(
        self,
        a: Addressee,
        b: Addressee,
        *,
        loss: float = 0.0,
        delay_s: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        snr_db: float = DEFAULT_SNR_DB,
        one_way: bool = False,
    ) -> None:
        """Set how frames fare between two nodes; `loss`, `duplicate`, `reorder` are chances.

        With `one_way` only from `a` to `b`.
        """

        def set_both() -> None:
            for source, target in ((a, b), (b, a))[: 1 if one_way else 2]:
                link = self.air.link(source.num, target.num)
                link.loss, link.delay_s, link.snr_db = loss, delay_s, snr_db
                link.duplicate, link.reorder = duplicate, reorder

        self.engine.call(set_both)

    def unlink(self, a: Addressee, b: Addressee, *, one_way: bool = False) -> None:
        """Put two nodes out of earshot; with `one_way` only `b` no longer hears `a`."""

        def cut() -> None:
            for source, target in ((a, b), (b, a))[: 1 if one_way else 2]:
                self.air.cut(source.num, target.num)

        self.engine.call(cut)

    def start(self) -> Self:
        """Start the thread and serve the radios' ports."""
        self.engine.start()
        for radio in self.radios:
            self.engine.call(radio.start_serving)
        return self

    def close(self) -> None:
        """End every connection and the thread; safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True

        def close_all() -> None:
            for radio in self.radios:
                radio.close()

        self.engine.call(close_all)
        self.engine.close()

    def __enter__(self) -> Self:
        return self if self.engine.is_running else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _short(name: str) -> str:
    initials = "".join(word[0] for word in name.split() if word)
    return (initials if len(initials) > 1 else name[:4])[:4]
