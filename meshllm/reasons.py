"""Every reason that the code gives, in words: one sentence and what to do. Pure; decides nothing.

A reason is told by its kind and its code, since two kinds may share a word (`empty`, `refused`).
The codes are those of the log events and of `meta_json`; docs/reference/reasons.md is this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

Kind = Literal["skipped", "deferred", "line", "refused", "fault", "model", "result", "sending"]

HEADINGS: Final[Mapping[Kind, str]] = {
    "skipped": "Why a text was not answered",
    "deferred": "Why an answer comes later",
    "line": "What a person was told meanwhile",
    "refused": "Why the model was not asked",
    "fault": "What was wrong with the model's words",
    "model": "How a model call ended",
    "result": "How far a text came",
    "sending": "Why a text was not sent, or is sent again",
}
RADIO_ERROR: Final = "RADIO_ERROR_"  #: and a number: an error that the firmware has no name for
NOTHING: Final = "nothing to do"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason in words."""

    kind: Kind
    code: str
    text: str  #: a sentence, without its full stop
    advice: str = NOTHING


def explain(kind: Kind, code: str) -> Reason:
    """Put a reason into words; one that is not listed is shown as it stands."""
    found = _table().get((kind, code))
    if found is not None:
        return found
    if code.startswith(RADIO_ERROR):
        number = code.removeprefix(RADIO_ERROR)
        text = f"the radio refused the text with error {number}, which has no name here"
        return Reason(kind, code, text, "update the firmware; the number is in its source")
    return Reason(kind, code, code, "not in the table of reasons; see the log event")


def is_listed(kind: Kind, code: str) -> bool:
    """Say whether the table has a sentence for a reason."""
    return (kind, code) in _table()


@cache
def _table() -> Mapping[tuple[Kind, str], Reason]:
    return {(reason.kind, reason.code): reason for reason in REASONS}


def reference() -> str:
    """Write the tables of docs/reference/reasons.md."""
    sections = []
    for kind, heading in HEADINGS.items():
        rows = [r for r in REASONS if r.kind == kind]
        lines = [f"| `{r.code}` | {_cell(r.text)} | {_cell(r.advice)} |" for r in rows]
        head = ["| reason | in words | what to do |", "| --- | --- | --- |"]
        sections.append("\n".join([f"## {heading}", "", *head, *lines, ""]))
    return "\n".join(sections)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_SETTING: Final = "change the setting in `config.yaml` and restart the agent"
_EXCHANGE: Final = "let both radios exchange node info again: on the phone, ask for the user info"
_READ_THREAD: Final = "read the thread with `messages`"

REASONS: Final = (
    # -- skipped -------------------------------------------------------------------------------
    Reason(
        "skipped",
        "not_a_trigger",
        'a text on a channel is answered only when it begins with "librarian"',
        'begin with "librarian", or write a direct message',
    ),
    Reason("skipped", "reaction", "it is a reaction to a text, and asks nothing"),
    Reason("skipped", "own_radio", "a radio of this system sent it"),
    Reason(
        "skipped",
        "closed_by_later",
        "a later question of the same person in this thread was answered, with this one in view",
        _READ_THREAD,
    ),
    Reason(
        "skipped",
        "waits_with_later",
        "a later question of the same person waits; both are answered together",
    ),
    Reason(
        "skipped",
        "same_text_waits",
        "the same words were waiting already; one answer is for both",
    ),
    Reason(
        "skipped",
        "expired",
        "it grew older than `max_question_age_seconds` before it could be answered",
        "see whether the agent or the model was away (`doctor`); ask again",
    ),
    Reason(
        "skipped",
        "no_timestamp",
        "its time cannot be read, as after an edit of the file, so it counts as too old",
        "restore the time's form in the thread file: 2026-01-31T09:30:00Z",
    ),
    Reason("skipped", "channel_blocklist", "`channel_blocklist` names this channel", _SETTING),
    Reason("skipped", "dm_blocklist", "`dm_blocklist` names this person", _SETTING),
    Reason(
        "skipped",
        "not_in_channel_allowlist",
        "`channel_allowlist` is set and does not name this channel",
        _SETTING,
    ),
    Reason(
        "skipped",
        "not_in_dm_allowlist",
        "`dm_allowlist` is set and does not name this person",
        _SETTING,
    ),
    Reason(
        "skipped",
        "came_over_internet",
        "it came over an internet bridge (MQTT), and such texts are not answered",
        "`answer_internet_messages: true` would answer them",
    ),
    Reason(
        "skipped",
        "sender_downgraded",
        "it came without the sender's own key though earlier ones had it: anybody may have sent it",
        "ask the person: was the radio reset? `refuse_downgraded_senders: false` lets it in",
    ),
    Reason(
        "skipped",
        "bot_part_mark",
        'it begins with a part mark such as "(1/2)", as answers of a librarian do',
        "a person who writes so has to leave the mark out",
    ),
    Reason(
        "skipped",
        "bot_text",
        "it is worded as a bot's: a mark such as [AI], or a fixed line of another librarian",
        "a person has to word it otherwise",
    ),
    Reason(
        "skipped",
        "bot_loop",
        "several replies came within seconds, as no thumb types them: another bot answers us",
        'a person goes on by writing without "reply"',
    ),
    Reason(
        "skipped",
        "bot_endless_replies",
        "every text of a long talk was a reply to one of ours, as a bot's are",
        'a person goes on by writing without "reply"',
    ),
    Reason(
        "skipped",
        "bot_echo",
        "the same words came again right after each answer, as from a machine",
        "a person has to word it otherwise",
    ),
    Reason(
        "skipped",
        "answered_by_other_radio",
        "another radio of this system answered the same channel text",
    ),
    Reason(
        "skipped",
        "heard_better_by_other_radio",
        "another radio of this system heard it better and answers it",
    ),
    Reason(
        "skipped",
        "question_closed_meanwhile",
        "something else had answered it when the answer was ready",
        _READ_THREAD,
    ),
    # -- deferred ------------------------------------------------------------------------------
    Reason(
        "deferred",
        "election",
        "several radios heard it; a few seconds pass until it is known which one answers",
    ),
    Reason(
        "deferred",
        "cooldown",
        "the thread rests for `reply_cooldown_seconds` after its last answer",
        _SETTING,
    ),
    Reason(
        "deferred",
        "hourly_limit",
        "the person had `max_answers_per_hour` answers within the last hour",
        _SETTING,
    ),
    Reason(
        "deferred",
        "line_full",
        "a hundred questions wait before it",
        "`status` shows the line; a quicker model shortens it",
    ),
    Reason(
        "deferred",
        "own_id_unknown",
        "the bridge has not yet written which node this radio is",
        "start the bridge; radio.json must appear in the radio's folder",
    ),
    Reason("deferred", "command_rate", "too many commands came in this minute"),
    Reason(
        "deferred",
        "storage",
        "answers that are ready wait for the disk",
        "run `doctor`: the disk or a lock refuses the rows",
    ),
    # -- line ----------------------------------------------------------------------------------
    Reason(
        "line",
        "offline",
        "that the model is away, and that the question is kept",
        "run `doctor` for the model; it is answered when the model is back in time",
    ),
    Reason("line", "working", "that an answer is coming"),
    Reason("line", "thinking", "that thinking takes minutes"),
    Reason("line", "emergency", "whom to call when a life is in danger (`emergency_text`)"),
    Reason("line", "limit", "that the answers of this hour are used up"),
    Reason("line", "downgraded", "that their key is missing, and how to bring it back", _EXCHANGE),
    Reason(
        "line", "endless_replies", 'to write without "reply", since the talk looks like a bot\'s'
    ),
    # -- refused -------------------------------------------------------------------------------
    Reason("refused", "self_harm", "it speaks of suicide; a fixed line hands over to people"),
    Reason("refused", "weapon", "it asks for a weapon; a fixed line refuses"),
    Reason("refused", "poison", "it asks how to poison; a fixed line refuses"),
    Reason("refused", "violence", "it asks how to hurt somebody; a fixed line refuses"),
    # -- fault ---------------------------------------------------------------------------------
    Reason("fault", "empty", "the model's words came to nothing; an honest line was sent instead"),
    Reason("fault", "refused", "the model refused; an honest line was sent instead"),
    Reason("fault", "leaked", "the model recited its rules; an honest line was sent instead"),
    Reason("fault", "looped", "the model repeated itself; it is sent up to there"),
    Reason(
        "fault",
        "replaced",
        "the words about the mesh held figures that nobody measured; the facts were sent instead",
    ),
    # -- model ---------------------------------------------------------------------------------
    Reason("model", "ok", "the model finished its answer"),
    Reason("model", "capped", "the answer filled its messages and was ended at a sentence"),
    Reason(
        "model",
        "partial",
        "the answer broke off; what had come was used where it was enough",
        "look at the server's log; `model_deadline_seconds` may be too short",
    ),
    Reason(
        "model",
        "empty",
        "the call ended properly and said nothing",
        "name an instruct model: a thinking one may use up its room before the answer",
    ),
    Reason("model", "busy", "the server had too much to do", "is another program using it?"),
    Reason(
        "model",
        "missing_model",
        "the server does not have the model",
        "install it: `doctor` prints the command",
    ),
    Reason(
        "model",
        "bad_request",
        "the server refused the request, and would again",
        "the page of the prompt has its words; Ollama may be too old for the model",
    ),
    Reason(
        "model",
        "unreachable",
        "nothing answered at the server's address",
        "start Ollama (`docker start ollama`), or correct `ollama_base_url`",
    ),
    Reason(
        "model",
        "timeout",
        "nothing usable came within `model_deadline_seconds`",
        "a smaller model, or more time: see the how-to on changing the model",
    ),
    Reason(
        "model",
        "broken",
        "an error came instead of an answer, or no model server is there",
        "look at the server's log: memory is the usual cause",
    ),
    Reason("model", "cancelled", "the agent was stopped during the call; it is asked again"),
    # -- result --------------------------------------------------------------------------------
    Reason(
        "result",
        "handed",
        "our radio took it; nobody has confirmed it yet, and on a channel nobody does",
    ),
    Reason("result", "relayed", "another node was heard passing it on"),
    Reason("result", "delivered", "the addressee's radio confirmed it"),
    Reason(
        "result",
        "unconfirmed",
        "it may have arrived: nobody told, and it is not repeated",
        "ask the person",
    ),
    # -- sending: ours -------------------------------------------------------------------------
    Reason(
        "sending",
        "NO_ACK",
        "the addressee's radio did not confirm it in time",
        "the person is out of reach, or their radio is off; what is held goes out when it is heard",
    ),
    Reason(
        "sending",
        "NO_QUEUE_STATUS",
        "the radio said nothing about taking it, so it may have gone out",
        "look at the cable and the radio's power; `link_down` in the log tells of breaks",
    ),
    Reason(
        "sending",
        "SWALLOWED",
        "the radio took no notice of a repeat under the same id",
        "`max_new_id_retries` allows one under a new id, which may be seen twice",
    ),
    Reason(
        "sending",
        "EXPIRED",
        "it waited longer than its time: `max_held_seconds`, for a notice a few minutes",
        "the person was not heard meanwhile; they can ask again",
    ),
    Reason("sending", "CANCELLED", "the person wrote stop, or the operator took it back"),
    Reason("sending", "REPLACED", "a newer answer to the same question takes its place"),
    Reason(
        "sending",
        "TOO_MANY_HELD",
        "more than `max_held_per_person` answers waited for this person; the oldest gave way",
        "`max_held_per_person` keeps more",
    ),
    Reason(
        "sending",
        "DUPLICATE_ROW",
        "a row of the same id stands in the thread already; that one goes on",
        "ask who wrote the file: an editor or a restored backup left the row twice",
    ),
    Reason("sending", "QUEUE_FULL", "the radio's own queue was full; it is tried again"),
    Reason(
        "sending",
        "EARLIER_PART_FAILED",
        "the part before it failed, and half an answer is not sent",
        "see why that part failed",
    ),
    Reason("sending", "EMPTY_TEXT", "the row has no text", "whoever queued it must give one"),
    Reason(
        "sending",
        "NO_ADDRESS",
        "the thread names no node that a direct message can go to",
        "the thread's `thread_key` must be a node id such as !a1b2c3d4",
    ),
    Reason(
        "sending",
        "AMBIGUOUS_CHANNEL",
        "two channels of the radio have this name, and the row does not say which is meant",
        "give the channels different names, or `channel_index` to the row",
    ),
    Reason(
        "sending",
        "DAMAGED_FILE",
        "the file was damaged and mended meanwhile; nothing recovered is sent again",
        "the copy in quarantine has what was there",
    ),
    Reason(
        "sending",
        "TX_DISABLED",
        "the radio has no region set and sends nothing",
        "set the region with the Meshtastic app; what is queued then goes out",
    ),
    Reason(
        "sending",
        "CHANNEL_BUSY",
        "the air is busier than `channel_use_hold_percent`; texts wait for quieter air",
    ),
    Reason(
        "sending",
        "DUTY_CYCLE",
        "the radio has used up what its region allows it in an hour; texts wait",
    ),
    # -- sending: the firmware's routing errors -------------------------------------------------
    Reason("sending", "NO_ROUTE", "a node found no way to the addressee", "look at the coverage"),
    Reason("sending", "GOT_NAK", "a node on the way refused it", "look at the coverage"),
    Reason("sending", "TIMEOUT", "the radio gave up waiting for a node on the way"),
    Reason(
        "sending",
        "NO_INTERFACE",
        "our radio has no working transmitter",
        "restart the radio; look at its region and its log",
    ),
    Reason(
        "sending",
        "MAX_RETRANSMIT",
        "our radio sent it three times and heard no confirmation; it may have arrived",
        "the person is out of reach or their radio is off",
    ),
    Reason(
        "sending",
        "NO_CHANNEL",
        "the channel or the key is missing: on our radio, or on theirs for a direct message",
        "set the channel up on our radio again, or exchange node info with the person",
    ),
    Reason(
        "sending",
        "TOO_LARGE",
        "the text is longer than a packet",
        "lower `max_message_chars`, or queue shorter texts",
    ),
    Reason("sending", "NO_RESPONSE", "the addressee has no service for such a packet"),
    Reason(
        "sending",
        "DUTY_CYCLE_LIMIT",
        "the radio has used up what its region allows it in an hour; it is tried again",
    ),
    Reason("sending", "BAD_REQUEST", "the radio found the packet wrong", "update the firmware"),
    Reason(
        "sending",
        "NOT_AUTHORIZED",
        "the addressee does not accept such packets from us",
        "look at the settings of the addressee's radio",
    ),
    Reason(
        "sending",
        "PKI_FAILED",
        "our radio could not encrypt it with the person's key",
        _EXCHANGE,
    ),
    Reason(
        "sending",
        "PKI_UNKNOWN_PUBKEY",
        "the person's radio does not know our key and could not open it",
        _EXCHANGE,
    ),
    Reason(
        "sending",
        "PKI_SEND_FAIL_PUBLIC_KEY",
        "our radio does not have the person's key",
        _EXCHANGE,
    ),
    Reason(
        "sending",
        "ADMIN_BAD_SESSION_KEY",
        "an administration packet had an old session key; no text of ours is one",
        "look for another program that uses the radio",
    ),
    Reason(
        "sending",
        "ADMIN_PUBLIC_KEY_UNAUTHORIZED",
        "an administration packet had a key that is not allowed; no text of ours is one",
        "look for another program that uses the radio",
    ),
    Reason(
        "sending",
        "RATE_LIMIT_EXCEEDED",
        "texts followed each other too quickly for the radio; it is tried again",
        "`send_spacing_seconds` should be 2.5 or more",
    ),
)
