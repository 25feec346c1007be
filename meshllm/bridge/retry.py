"""When and under which id a text goes on the air again. Pure: values in, a verdict out.

The full table (held people, signal trend, airtime) belongs to a later release; this covers every
outcome a radio can report, and never overlaps the radio's own three transmissions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshllm.airtime import PRESETS, retransmit_timer_s
from meshllm.bridge.life import Try

MAX_ATTEMPTS: Final = 3  #: each is three transmissions of the radio plus every relay
MAX_ANY_TRIES: Final = (
    12  #: bound on tries that cost no attempt (full queue, rate limit, duty cycle)
)
FIRST_BACKOFF_S: Final = 30.0  #: doubles with each attempt
RATE_LIMIT_WAIT_S: Final = 5.0  #: the firmware allows one text in 2 s
DUTY_CYCLE_WAIT_S: Final = 300.0  #: the firmware's window is an hour; five minutes free some of it
KEY_WAIT_S: Final = 60.0  #: a node info exchange over a busy mesh
LONGEST_WAIT_S: Final = DUTY_CYCLE_WAIT_S  #: of all here; a later due time is a clock that jumped
SLOWEST_PRESET: Final = "LONG_SLOW"  #: timers of a radio with settings of its own
ACK_MARGIN_S: Final = 30.0  #: added to the radio's three timers: the ACK travels back, too
_TRANSMISSIONS: Final = 3  #: NUM_RELIABLE_RETX of the firmware: first send and two repeats

#: Refused by our own radio before anything went on the air, and only for now.
_NOT_NOW: Final = {
    "RATE_LIMIT_EXCEEDED": RATE_LIMIT_WAIT_S,
    "DUTY_CYCLE_LIMIT": DUTY_CYCLE_WAIT_S,
    "QUEUE_FULL": RATE_LIMIT_WAIT_S,
}
#: A key is missing on one side; the radios exchange node infos by themselves.
_NO_KEY: Final = frozenset({"PKI_SEND_FAIL_PUBLIC_KEY", "PKI_UNKNOWN_PUBKEY"})
#: Trying again cannot help before somebody changes a setting.
_PERMANENT: Final = frozenset(
    {
        "TOO_LARGE",
        "BAD_REQUEST",
        "NOT_AUTHORIZED",
        "PKI_FAILED",
        "NO_INTERFACE",
        "ADMIN_BAD_SESSION_KEY",
        "ADMIN_PUBLIC_KEY_UNAUTHORIZED",
    }
)
#: Errors after which the id has not been on the air, so a new id cannot be a second copy.
NEVER_SENT: Final = frozenset({*_NOT_NOW, "PKI_SEND_FAIL_PUBLIC_KEY", "TX_DISABLED"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a row next."""

    action: Literal["again", "fail", "unconfirmed"]
    reason: str
    delay_s: float = 0.0


def after_error(
    error: str, *, from_self: bool, history: Sequence[Try], is_tcp: bool, max_new_ids: int
) -> Verdict:
    """Decide after a NAK or a non-zero queueStatus. `history` includes the try that failed."""
    if error in _PERMANENT or (error == "NO_CHANNEL" and from_self):
        return Verdict("fail", error)
    if len(history) >= MAX_ANY_TRIES:
        return Verdict("fail", error)
    if error in _NOT_NOW:
        return Verdict("again", error, _NOT_NOW[error])
    attempts = _costly(history)
    if attempts >= MAX_ATTEMPTS or not _may_repeat(history, is_tcp, max_new_ids):
        return Verdict("fail", error)
    wait_s = KEY_WAIT_S if error in _NO_KEY else FIRST_BACKOFF_S
    return Verdict("again", error, wait_s * 2 ** (attempts - 1))


def after_silence(
    *, relayed: bool, history: Sequence[Try], is_tcp: bool, max_new_ids: int
) -> Verdict:
    """Decide when the own timer of a DM ended without an explicit ACK.

    A relayed text may well have arrived: behind a relay a missing ACK is the normal picture,
    and one more copy could be seen twice, so it is left unconfirmed.
    """
    if relayed:
        return Verdict("unconfirmed", "NO_ACK")
    if _costly(history) >= MAX_ATTEMPTS or not _may_repeat(history, is_tcp, max_new_ids):
        return Verdict("unconfirmed", "NO_ACK")
    return Verdict("again", "NO_ACK", 0.0)


def choose_id(own: int | None, history: Sequence[Try], *, is_tcp: bool, fresh: int) -> int:
    """Pick the packet id of the next try; `fresh` is a new random one.

    The same id as long as the radio accepts it: receivers that have the text drop it. Serial and
    BLE radios remember ids until they reboot, so there only a new id is sent at all.
    """
    if not history:
        return own or fresh
    last = history[-1]
    if last.result is None or is_tcp:
        return last.packet_id
    return fresh


def ack_timeout_s(text_bytes: int, preset: str) -> float:
    """Seconds after hand-over until silence counts: the radio's own three timers and a margin."""
    known = preset if preset in PRESETS else SLOWEST_PRESET
    return _TRANSMISSIONS * retransmit_timer_s(text_bytes, known, pki=True) + ACK_MARGIN_S


def _costly(history: Sequence[Try]) -> int:
    return sum(1 for t in history if t.result not in _NOT_NOW)


def _may_repeat(history: Sequence[Try], is_tcp: bool, max_new_ids: int) -> bool:
    if is_tcp:
        return True
    on_air = {t.packet_id for t in history if t.result not in NEVER_SENT}
    return len(on_air) <= max_new_ids
