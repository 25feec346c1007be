"""Decides whom to answer, when, and through which radio. Pure: takes values, returns values."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from meshllm.agent.questions import RECENT_S, Question, Rank, Standing
from meshllm.layout import node_number
from meshllm.records import Message, Node

ELECTION_WAIT_S: Final = 3.0  #: scaled; a copy that another radio hears later may lose an answer
ANSWERED_ELSEWHERE: Final = "answered_by_other_radio"
INTERNET: Final = "came_over_internet"
DOWNGRADE: Final = "sender_downgraded"
FIRST_RETRY_S: Final = 5.0
MAX_RETRY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Lists:
    """Who is answered. An empty allow list allows everybody."""

    channel_allow: Sequence[str] = ()
    channel_block: Sequence[str] = ()
    dm_allow: Sequence[str] = ()
    dm_block: Sequence[str] = ()

    def needs_names(self) -> bool:
        """True when a list of people holds more than node ids."""
        return any(node_number(name) is None for name in (*self.dm_allow, *self.dm_block))

    def refusal(self, row: Message, person: Node | None, *, channel_file: str = "") -> str:
        """Return the reason not to answer a row, "" when there is none.

        A channel is listed by its name, or by the stem of its file where two have the same name.
        Who is blocked is answered nowhere; the allow list of people is about DMs.
        """
        people = _names(row.sender_id, person)
        if row.thread_type == "channel":
            names = {row.thread_key.casefold(), channel_file} - {""}
            allow, block = _folded(self.channel_allow), _folded(self.channel_block)
        else:
            names, allow, block = people, _listed(self.dm_allow), set()
        if names & block:
            return "channel_blocklist"
        if people & _listed(self.dm_block):
            return "dm_blocklist"
        if allow and not names & allow:
            return f"not_in_{row.thread_type}_allowlist"
        return ""


@dataclass(frozen=True, slots=True)
class Manners:
    """The operator's rules of who is answered and how often."""

    lists: Lists = Lists()
    cooldown_s: float = 0.0  #: least time between two answers in one thread
    answers_an_hour: int = 0  #: most for one person; 0: no limit
    answers_internet: bool = False
    refuses_downgraded: bool = True


def _names(node_id: str, person: Node | None) -> set[str]:
    names = {_canonical(node_id)}
    if person is not None:
        names |= {person.short_name.casefold(), person.long_name.casefold()} - {""}
    return names


def _folded(names: Collection[str]) -> set[str]:
    return {name.casefold() for name in names}


def _listed(names: Collection[str]) -> set[str]:
    return {_canonical(name) for name in names}


def _canonical(name: str) -> str:
    number = node_number(name)
    return name.casefold() if number is None else f"!{number:08x}"


def came_over_internet(row: Message) -> bool:
    """Say whether a text came through a bridge to the internet at some point."""
    return '"via_mqtt"' in row.meta_json and bool(row.meta.get("via_mqtt"))


def is_downgraded(row: Message, before: Sequence[Message]) -> bool:
    """Say whether a DM came without the sender's key, though one came with it before.

    Whoever has the channel's key can write in anybody's name; nobody can do so under their key.
    """
    if row.thread_type != "dm" or _is_under_key(row):
        return False
    return any(not r.is_outgoing and _is_under_key(r) for r in before)


def _is_under_key(row: Message) -> bool:
    return '"pki"' in row.meta_json and bool(row.meta.get("pki"))


def rest_of_hour(ages_s: Collection[float], limit: int) -> float:
    """Return the seconds until fewer than `limit` answers are younger than an hour."""
    recent = sorted(age_s for age_s in ages_s if age_s <= RECENT_S)
    return RECENT_S - recent[limit - 1] if len(recent) >= limit else 0.0


Claim = tuple[int, Rank]


def claim(rank: Rank, *, has_answer: bool, is_down: bool) -> Claim:
    """Put an answer that is written already first, and a radio that cannot send last."""
    return (0 if has_answer else 2 if is_down else 1), rank


@dataclass(frozen=True, slots=True)
class Copy:
    """One radio's copy of a channel question; the least claim answers."""

    claim: Claim
    is_closed: bool


def election(mine: Claim, others: Collection[Copy], *, waited_s: float) -> tuple[str, float]:
    """Return why not to answer through this radio, and for how long that holds; "" for no reason.

    A hold of 0.0 s lasts as long as the rows stay as they are.
    """
    if any(copy.is_closed for copy in others):
        return ANSWERED_ELSEWHERE, 0.0
    if any(copy.claim < mine for copy in others):
        return "heard_better_by_other_radio", 0.0
    left_s = ELECTION_WAIT_S - waited_s
    return ("election", left_s) if left_s > 0 else ("", 0.0)


def is_closed(question: Question, standing: Standing) -> bool:
    """Say whether a thread that holds this question has an answer to it."""
    unanswered = (*standing.expired, *standing.folded)
    return question.key not in standing.waiting and all(q.key != question.key for q in unanswered)


class Backoff:
    """Growing pauses: 5, 10, 20, 40, 60, 60 … scaled seconds."""

    def __init__(self) -> None:
        self._next_s = FIRST_RETRY_S
        self.due = 0.0  #: monotonic; nothing should be tried before

    def fail(self, now: float) -> float:
        """Note a failure; return the pause before the next try."""
        pause_s = self._next_s
        self.due = now + pause_s
        self._next_s = min(MAX_RETRY_S, 2 * pause_s)
        return pause_s

    def reset(self) -> None:
        """Note a success."""
        self._next_s, self.due = FIRST_RETRY_S, 0.0
