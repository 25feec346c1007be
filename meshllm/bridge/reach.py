"""How well a person can be reached, from the packets heard of them. Pure but for its memory."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from meshllm.radio.base import Envelope
from meshllm.records import Message

KEPT_PACKETS: Final = 5  #: newest packets of a person that the trend is taken from
KEPT_PEOPLE: Final = 500  #: beyond this the one heard least recently is forgotten
#: LongFast is decoded down to about -17.5 dB (Semtech SX1262 data sheet, SF11); below this a fade
#: of a few dB loses packets.
WEAK_SNR_DB: Final = -10.0
TREND_DB: Final = 4.0  #: a change of the mean smaller than this is fading, not movement


@dataclass(frozen=True, slots=True)
class Reach:
    """What is known of the way to a person; None where no packet told it."""

    hops: int | None = None
    snr_db: float | None = None  #: of the newest packet heard directly: a relay's says nothing here
    trend_db: float = 0.0  #: newest direct SNR minus the mean of those before it

    @property
    def is_direct(self) -> bool:
        """True when the newest packet came without a relay."""
        return self.hops == 0

    @property
    def is_strong(self) -> bool:
        """A direct neighbour with signal to spare: whole silence means that they are away."""
        return self.is_direct and self.snr_db is not None and self.snr_db > WEAK_SNR_DB

    @property
    def is_leaving(self) -> bool:
        """The signal falls: a later try is worth less than an early one."""
        return self.trend_db <= -TREND_DB

    @property
    def is_coming(self) -> bool:
        """The signal rises: waiting makes the next try better."""
        return self.trend_db >= TREND_DB


@dataclass(frozen=True, slots=True)
class _Packet:
    hops: int | None
    snr_db: float | None


class Reaches:
    """The newest packets of everybody heard, in memory only; a restart begins from the rows."""

    def __init__(self) -> None:
        """Know nobody."""
        self._people: OrderedDict[int, deque[_Packet]] = OrderedDict()

    def note(self, envelope: Envelope) -> None:
        """Take in one packet."""
        packets = self._people.setdefault(envelope.sender, deque(maxlen=KEPT_PACKETS))
        packets.append(_Packet(envelope.hops, envelope.snr_db))
        self._people.move_to_end(envelope.sender)
        while len(self._people) > KEPT_PEOPLE:
            self._people.popitem(last=False)

    def of(self, number: int, rows: Iterable[Message] = ()) -> Reach:
        """Sum up what is known of a node; `rows` of its thread stand in after a restart."""
        packets = self._people.get(number)
        return _reach(packets or _from_rows(rows))


def _from_rows(rows: Iterable[Message]) -> list[_Packet]:
    inbound = [row for row in rows if row.direction == "inbound"][-KEPT_PACKETS:]
    return [_Packet(_hops(row), _number(row.meta.get("snr"))) for row in inbound]


def _hops(row: Message) -> int | None:
    start, limit = _number(row.meta.get("hop_start")), _number(row.meta.get("hop_limit"))
    if start is None or start < (limit or 0):
        return None
    return int(start - (limit or 0))


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _reach(packets: Iterable[_Packet]) -> Reach:
    known = list(packets)
    if not known:
        return Reach()
    direct = [p.snr_db for p in known if p.hops == 0 and p.snr_db is not None]
    if not direct:
        return Reach(hops=known[-1].hops)
    earlier = direct[:-1]
    trend = direct[-1] - sum(earlier) / len(earlier) if earlier else 0.0
    return Reach(hops=known[-1].hops, snr_db=direct[-1], trend_db=trend)
