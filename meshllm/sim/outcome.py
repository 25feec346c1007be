"""What a test wants to happen to the next packet a client hands over. Decides nothing itself."""

from dataclasses import dataclass, replace
from typing import Literal

from meshllm.sim.packets import RoutingError

Origin = Literal["implicit", "explicit", "stranger"]


@dataclass(frozen=True, slots=True)
class Result:
    """One routing packet for the client.

    `implicit` comes from the node itself, `explicit` from the addressee, `stranger` from the
    addressee about an id that the client never sent.
    """

    origin: Origin
    error: RoutingError = RoutingError.NONE
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of one packet. The default is whatever the mesh does by itself."""

    transmit: bool = True
    queue_status: bool = True  #: False: the client never hears of the send queue
    res: int = 0  #: reported instead of 0 for a packet that was taken
    results: tuple[Result, ...] | None = None  #: None: what the mesh really answers

    @classmethod
    def natural(cls) -> "Outcome":
        """Whatever the mesh does by itself; fills a place in a script."""
        return cls()

    @classmethod
    def nak(cls, error: str, *, after_s: float = 0.0, far: bool = False) -> "Outcome":
        """Refuse by name, from the node itself or from the addressee; nothing arrives."""
        origin: Origin = "explicit" if far else "implicit"
        return cls(transmit=False, results=(Result(origin, RoutingError[error], after_s),))

    @classmethod
    def refused(cls, res: int | str, *, nak: bool = True) -> "Outcome":
        """Refuse at the queue with a number or the name of one, with or without the NAK."""
        number = RoutingError[res].value if isinstance(res, str) else res
        results: tuple[Result, ...] = ()
        if nak and number in set(RoutingError):
            results = (Result("implicit", RoutingError(number)),)
        return cls(transmit=False, res=number, results=results)

    @classmethod
    def acks(cls, *origins: Origin, apart_s: float = 0.5) -> "Outcome":
        """Send it, and answer with these ACKs in this order; none given means silence."""
        results = tuple(Result(o, after_s=apart_s * n) for n, o in enumerate(origins))
        return cls(results=results)

    @classmethod
    def delivered_but_nak(cls, error: str = "MAX_RETRANSMIT", *, after_s: float = 0.0) -> "Outcome":
        """Let it arrive, and tell the client that it did not."""
        return cls(results=(Result("implicit", RoutingError[error], after_s),))

    @classmethod
    def lost(cls) -> "Outcome":
        """Take it, and let nothing ever be heard of it again."""
        return cls(transmit=False, results=())

    def without_queue_status(self) -> "Outcome":
        """The same, but the queue state never comes."""
        return replace(self, queue_status=False)
