"""When and under which id a text goes on the air again. Pure: values in, a verdict out.

A repeated id is the only resend that a person cannot see twice, so it is what nearly every rule
here asks for; docs/explanation/delivery-promises.md has the table, docs/explanation/delivery.md
what each rule is worth. Every wait begins after the radio's own three transmissions have ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from meshllm.airtime import PRESETS, TRANSMISSIONS, retransmit_timer_s
from meshllm.bridge.life import Try
from meshllm.bridge.reach import Reach

MAX_ATTEMPTS: Final = 3  #: before a DM is held; each is three transmissions of the radio and relays
SURE_ATTEMPTS: Final = 2  #: where a third at once would most likely be wasted
MAX_HELD_TRIES: Final = 8  #: after holding, over the whole time that a row is kept
MAX_RELAYED_TRIES: Final = 2  #: after holding, where a relay took the text: it may have arrived
#: Packets heard since the last try after which relays have forgotten its id. They remember 160 to
#: 500 (PacketHistory.cpp, by platform; 200 on the commonest) and hear more than we at the edge.
TURNOVER_PACKETS: Final = 170
MAX_REFUSALS: Final = 24  #: refusals by our own radio, which cost no airtime
FIRST_BACKOFF_S: Final = 30.0  #: doubles with each attempt
KEY_WAIT_S: Final = 60.0  #: a node info exchange over a busy mesh
DUTY_CYCLE_WAIT_S: Final = 300.0  #: the window is an hour; five minutes free some of it
NO_REGION_WAIT_S: Final = 3600.0  #: longest between two looks whether the operator has set one
FAR_RELAYS: Final = 2  #: relays on the way from which on a repeated id does not get through
FIRST_RELEASE_GAP_S: Final = 60.0  #: between a try and the next one for a person who is heard
LONGEST_RELEASE_GAP_S: Final = 3600.0  #: the gap doubles up to this
SLOWEST_PRESET: Final = "LONG_SLOW"  #: timers of a radio with settings of its own
ACK_MARGIN_S: Final = 30.0  #: added to the radio's three timers: the ACK travels back, too
TX_DISABLED: Final = "TX_DISABLED"  #: the radio has no region set
SILENCE: Final = "NO_ACK"
SWALLOWED: Final = "SWALLOWED"  #: our name for a repeat that the radio took no notice of

#: Refused by our own radio before anything went on the air, and only for now; first wait in s.
_NOT_NOW: Final = {
    "RATE_LIMIT_EXCEEDED": 5.0,  # the firmware allows one text in 2 s
    "QUEUE_FULL": 5.0,
    "DUTY_CYCLE_LIMIT": DUTY_CYCLE_WAIT_S,
    TX_DISABLED: KEY_WAIT_S,  # only the operator can change that
}
#: A key is missing on one side. The far radio could not open the text, so nobody has seen it.
_FAR_KEY: Final = frozenset({"PKI_UNKNOWN_PUBKEY", "NO_CHANNEL"})
_NO_KEY: Final = frozenset({"PKI_SEND_FAIL_PUBLIC_KEY", *_FAR_KEY})
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
NEVER_SENT: Final = frozenset({*_NOT_NOW, "PKI_SEND_FAIL_PUBLIC_KEY"})
#: What only our own radio can say of a text.
OWN_ERRORS: Final = NEVER_SENT | {"TOO_LARGE", "NO_INTERFACE", "MAX_RETRANSMIT"}
_UNSEEN: Final = NEVER_SENT | _FAR_KEY  #: results after which nobody can have seen the text

Action = Literal["again", "hold", "fail", "unconfirmed"]


@dataclass(frozen=True, slots=True)
class Case:
    """One text that was not confirmed, with all that the policy looks at."""

    history: Sequence[Try]  #: the try that failed is the last, with its result
    is_dm: bool = True
    may_hold: bool = True  #: an answer to a person; a notice would come too late
    is_tcp: bool = True  #: a fresh connection empties the radio's memory of ids
    max_new_ids: int = 1
    insists: bool = False  #: a new id for people far away even where a relay took the text
    reach: Reach = field(default_factory=Reach)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a row next."""

    action: Action
    reason: str
    delay_s: float | None = 0.0  #: None: no time of its own, the person must be heard first
    ask_user: bool = False  #: ask the addressee for its node info, which carries its key


def after_error(case: Case, error: str, *, from_self: bool) -> Verdict:
    """Decide after a NAK or a non-zero queueStatus."""
    if error in _PERMANENT or (error == "NO_CHANNEL" and from_self):
        return Verdict("fail", error)
    if error in _NOT_NOW:
        return _after_refusal(case, error)
    if error in _NO_KEY and case.is_dm:
        return _after_missing_key(case, error)
    return _after_attempt(case, error)


def after_silence(case: Case) -> Verdict:
    """Decide when the own timer of a DM ended without an explicit ACK.

    An implicit ACK may be the last thing ever heard, and the radio stops repeating at it: whether
    a relay took the text or not, the same id goes out again.
    """
    return _after_attempt(case, SILENCE)


def _after_refusal(case: Case, error: str) -> Verdict:
    refusals = [t for t in case.history if t.result in _NOT_NOW]
    if len(refusals) >= MAX_REFUSALS:
        return Verdict("fail", error)
    same = sum(1 for t in refusals if t.result == error)
    return Verdict("again", error, min(_NOT_NOW[error] * 2.0 ** (same - 1), longest_wait_s(error)))


def longest_wait_s(reason: object) -> float:
    """The longest pause that any rule here gives for a reason; a later due time is not believed."""
    return NO_REGION_WAIT_S if reason == TX_DISABLED else DUTY_CYCLE_WAIT_S


def _after_missing_key(case: Case, error: str) -> Verdict:
    attempts = _costly(case.history)
    if attempts < MAX_ATTEMPTS:
        return Verdict("again", error, KEY_WAIT_S * 2 ** (attempts - 1), ask_user=True)
    if not case.may_hold or _held_tries(case) >= MAX_HELD_TRIES:
        return Verdict("fail", error)
    return Verdict("hold", error, None, ask_user=True)


def _after_attempt(case: Case, error: str) -> Verdict:
    if not _may_repeat(case):
        return _end(case, error)
    attempts = _costly(case.history)
    if attempts < _attempts_at_once(case):
        return Verdict("again", error, _backoff_s(case, attempts))
    limit = MAX_RELAYED_TRIES if _was_relayed(case.history) else MAX_HELD_TRIES
    if not case.may_hold or not case.is_dm or _held_tries(case) >= limit:
        return _end(case, error)
    return Verdict("hold", error, None)


def _end(case: Case, error: str) -> Verdict:
    """What the radio took may have arrived: only a NAK without any relay says otherwise."""
    if not case.is_dm:
        return Verdict("fail", error)
    if error in (SILENCE, SWALLOWED) or _was_relayed(case.history):
        return Verdict("unconfirmed", error)
    return Verdict("fail", error)


def _attempts_at_once(case: Case) -> int:
    """How many tries follow each other before the row is held.

    A strong neighbour who is silent is away. Behind two relays the second of them drops every
    repeat while it remembers the id. A single relay that was heard has most likely delivered.
    """
    if not case.is_dm:
        return MAX_ATTEMPTS
    is_far = (case.reach.hops or 0) >= FAR_RELAYS
    if case.reach.is_strong or is_far or _was_relayed(case.history):
        return SURE_ATTEMPTS
    return MAX_ATTEMPTS


def _backoff_s(case: Case, attempts: int) -> float:
    """Wait longer with each attempt; sooner for a person who leaves, later for one who comes."""
    wait_s = FIRST_BACKOFF_S * 2.0 ** (attempts - 1)
    if case.reach.is_leaving:
        wait_s /= 2
    elif case.reach.is_coming:
        wait_s *= 1.5
    return wait_s


def release_gap_s(tries: int) -> float:
    """Seconds after which a held row may go out again when its addressee is heard."""
    done = max(0, tries - SURE_ATTEMPTS)
    return float(min(FIRST_RELEASE_GAP_S * 2.0**done, LONGEST_RELEASE_GAP_S))


def may_release(*, relays: int | None, packets_since: int) -> bool:
    """Say whether a try for somebody who was heard can get through to them.

    `packets_since`: packets our radio heard since the last try, whosesoever.
    """
    return (relays or 0) < FAR_RELAYS or packets_since >= TURNOVER_PACKETS


def choose_id(own: int | None, case: Case, *, fresh: int) -> int:
    """Pick the packet id of the next try; `fresh` is a new random one.

    The same id wherever that can work: receivers that have the text drop it.
    """
    if not case.history:
        return own or fresh
    last = case.history[-1]
    if last.result is None:
        return last.packet_id
    return fresh if _needs_new_id(case) else last.packet_id


def is_possible_double(case: Case) -> bool:
    """Say whether a new id for this row may be a second copy on the person's screen."""
    return bool(_on_air_ids(case.history))


def _needs_new_id(case: Case) -> bool:
    last = case.history[-1]
    if last.result in _FAR_KEY:
        return True  # the far radio remembers the id and would drop the repeat unread
    if last.result in NEVER_SENT:
        return not case.is_tcp
    if last.result == SWALLOWED:
        return True
    return _is_deaf_path(case) and _new_ids_left(case) > 0


def _is_deaf_path(case: Case) -> bool:
    """Two relays or more, none of them heard: those who have the id keep it from the rest."""
    if not case.is_dm or (case.reach.hops or 0) < FAR_RELAYS:
        return False
    on_air = [t for t in case.history if t.result not in _UNSEEN]
    return bool(on_air) and (case.insists or not _was_relayed(case.history))


def _may_repeat(case: Case) -> bool:
    if case.history[-1].result == SWALLOWED:
        return _new_ids_left(case) > 0
    return case.is_dm or case.is_tcp


def _new_ids_left(case: Case) -> int:
    return case.max_new_ids - max(0, len(_on_air_ids(case.history)) - 1) if case.is_dm else 0


def _on_air_ids(history: Sequence[Try]) -> set[int]:
    return {t.packet_id for t in history if t.result not in _UNSEEN and t.result != SWALLOWED}


def _was_relayed(history: Sequence[Try]) -> bool:
    return any(t.result == "relayed" for t in history)


def _costly(history: Sequence[Try]) -> int:
    return sum(1 for t in history if t.result not in _NOT_NOW and t.result != SWALLOWED)


def _held_tries(case: Case) -> int:
    return max(0, _costly(case.history) - _attempts_at_once(case))


def ack_timeout_s(text_bytes: int, preset: str, *, channel_use_percent: float = 0.0) -> float:
    """Seconds after hand-over until silence counts: the radio's own three timers and a margin."""
    known = preset if preset in PRESETS else SLOWEST_PRESET
    timer_s = retransmit_timer_s(
        text_bytes, known, pki=True, channel_utilisation=channel_use_percent / 100
    )
    return TRANSMISSIONS * timer_s + ACK_MARGIN_S
