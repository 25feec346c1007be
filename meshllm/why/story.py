"""The whole story of one message: what happened, step by step, and why. Pure but for the book.

Rows prove, logs tell, and what neither says is said to be unknown.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from meshllm import reasons
from meshllm.clock import Clock, parse_utc, wall_age_s
from meshllm.config import Settings
from meshllm.layout import NodeTree, node_number
from meshllm.reading.book import Book
from meshllm.records import Message, PromptRow
from meshllm.why import events, rules, sending
from meshllm.why.events import Event, Logs
from meshllm.why.find import NotFoundError, Spot
from meshllm.why.verdicts import Evidence, Verdict, judge, judge_outgoing

MAX_GENERAL: Final = 10  #: starts, ends and states of the model that are told
SILENT_S: Final = 180.0  #: the agent writes its status once a minute


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened."""

    what: str  #: heard, decided, told, asked, queued, tried, result or log
    at: str  #: timestamp cell, "" where no time is known
    text: str
    node_uid: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is known of one message."""

    message: Message
    node_uids: tuple[str, ...]
    verdict: Verdict
    steps: tuple[Step, ...]
    asked_for: str = ""  #: id of the row that was asked about, where that is another one
    logs_from: str = ""  #: the oldest log line; "" without log files


@dataclass(frozen=True, slots=True)
class Desk:
    """Where to read, and what is set."""

    book: Book
    settings: Settings
    clock: Clock


@dataclass(slots=True)
class _Copy:
    """One radio's copy of the message, in its thread."""

    spot: Spot
    rows: tuple[Message, ...]
    position: int
    replies: list[Message] = field(default_factory=list)
    notices: list[Message] = field(default_factory=list)

    @property
    def row(self) -> Message:
        return self.rows[self.position]

    @property
    def node_uid(self) -> str:
        return self.spot.thread.tree.node_uid


def tell(desk: Desk, spots: Sequence[Spot]) -> Story:
    """Tell the story of a message; of one that we sent, that of the question behind it."""
    copies = [_copy(desk.book, spot) for spot in spots]
    first = copies[0]
    if not first.row.is_outgoing:
        return _of_question(desk, copies)
    question = _question_behind(first)
    if question is None:
        return _of_outgoing(desk, first)
    copies = [_at(first, question), *_other_copies(desk.book, first, question)]
    return replace(_of_question(desk, copies), asked_for=first.row.message_id)


def _copy(book: Book, spot: Spot) -> _Copy:
    rows = tuple(book.messages(spot.thread))
    position = next((i for i in range(len(rows) - 1, -1, -1) if rows[i] == spot.row), None)
    if position is None:
        raise NotFoundError("the row changed while it was read", ["ask again"])
    return _at(_Copy(spot, rows, position), position)


def _at(copy: _Copy, position: int) -> _Copy:
    rows = copy.rows
    replies, notices = rules.replies_to(rows, position), rules.notices_about(rows, position)
    return _Copy(copy.spot, rows, position, replies, notices)


def _question_behind(copy: _Copy) -> int | None:
    """Place of the question that a row of ours answers or is about."""
    row = copy.row
    wanted = row.reply_to_id or str(row.meta.get("notice_for", ""))
    sender = row.meta.get("reply_to_sender")
    for position in range(copy.position - 1, -1, -1):
        asked = copy.rows[position]
        is_it = asked.message_id == wanted and not asked.is_outgoing
        if is_it and sender in (None, asked.sender_id):
            return position
    return None


def _other_copies(book: Book, first: _Copy, position: int) -> list[_Copy]:
    """Find what other radios heard of a channel question."""
    asked = first.rows[position]
    if asked.thread_type != "channel":
        return []
    spots = (
        Spot(thread, row)
        for tree in book.trees()
        if tree != first.spot.thread.tree
        for thread in book.threads(tree)
        if thread.thread_type == "channel"
        for row in book.messages(thread)
        if (row.key, row.content) == (asked.key, asked.content)
    )
    return [_copy(book, spot) for spot in spots]


def _own_ids(book: Book) -> frozenset[str]:
    return frozenset(name for tree in book.trees() for name in _names(book, tree))


def _names(book: Book, tree: NodeTree) -> Iterator[str]:
    told = str(book.radio(tree).get("node_id", ""))
    if told:
        yield told
    number = node_number(tree.node_uid)
    if number is not None:
        yield f"!{number:08x}"


def _of_question(desk: Desk, copies: list[_Copy]) -> Story:
    own_ids = _own_ids(desk.book)
    first = next((copy for copy in copies if copy.replies), copies[0])
    closing = rules.closed_by(first.rows, first.position, own_ids)
    calls = _calls(desk.book, copies, closing)
    threads = {copy.row.thread_key for copy in copies}
    logs = events.read(desk.book.layout.logs_dir, _ids(copies, closing, calls), threads)
    evidence = _evidence(desk, first, own_ids, closing, calls, logs)
    steps = [
        *(_heard(copy) for copy in copies),
        *_noticed(copies),
        *_asked(calls),
        *(step for copy in copies for row in copy.replies for step in _sent(row, copy.node_uid)),
        *_logged(logs, evidence),
    ]
    node_uids = tuple(copy.node_uid for copy in copies)
    return Story(first.row, node_uids, judge(evidence), _in_order(steps), logs_from=logs.oldest)


def _evidence(
    desk: Desk,
    copy: _Copy,
    own_ids: Collection[str],
    closing: tuple[Message, list[Message]] | None,
    calls: tuple[PromptRow, ...],
    logs: Logs,
) -> Evidence:
    rows, position = copy.rows, copy.position
    stem = copy.spot.thread.path.stem
    return Evidence(
        row=copy.row,
        no_question=rules.no_question(copy.row, own_ids),
        replies=tuple(copy.replies),
        notices=tuple(copy.notices),
        closing=closing,
        same_before=rules.same_words_before(rows, position, own_ids),
        waits_with=rules.waits_with(rows, position, own_ids),
        barred=rules.barred(rows, position, desk.settings, file_stem=stem),
        calls=calls,
        logs=logs,
        age_s=wall_age_s(desk.clock, copy.row.timestamp),
        max_age_s=desk.settings.max_question_age_seconds,
        agent=_agent(desk),
    )


def _of_outgoing(desk: Desk, copy: _Copy) -> Story:
    """Tell of a row of ours with no question behind it, such as the operator's own."""
    row = copy.row
    logs = events.read(desk.book.layout.logs_dir, sending.ids_of(row), {row.thread_key})
    logged = [_of_event(event) for event in logs.events if event.name not in events.TOLD_BY_ROWS]
    steps = _in_order([*_sent(row, copy.node_uid), *logged])
    return Story(row, (copy.node_uid,), judge_outgoing(row), steps, logs_from=logs.oldest)


def _ids(
    copies: Iterable[_Copy],
    closing: tuple[Message, list[Message]] | None,
    calls: Iterable[PromptRow],
) -> set[str]:
    found = {call.prompt_id for call in calls}
    for copy in copies:
        found.add(copy.row.message_id)
        for row in (*copy.replies, *copy.notices):
            found |= sending.ids_of(row)
    for row in closing[1] if closing else ():
        found |= sending.ids_of(row)
    return found


def _calls(
    book: Book, copies: Sequence[_Copy], closing: tuple[Message, list[Message]] | None
) -> tuple[PromptRow, ...]:
    """Model calls about the message, or about the later question that closed it."""
    uids = {copy.node_uid for copy in copies}
    row = copies[0].row
    asked = {row.message_id} | ({closing[0].message_id} if closing else set())
    return tuple(
        call
        for call in book.prompts()
        if call.source_message_id in asked
        and call.node_uid in uids
        and call.thread_key == row.thread_key
        and sending.meta_of(call).get("source_sender", row.sender_id) == row.sender_id
    )


def _heard(copy: _Copy) -> Step:
    """Say when and how a radio heard it."""
    row = copy.row
    meta = row.meta
    said = [_hops(meta.get("hop_start"), meta.get("hop_limit"))]
    said += [f"SNR {meta['snr']} dB"] if "snr" in meta else []
    said += [f"RSSI {meta['rssi']} dBm"] if "rssi" in meta else []
    said += ["encrypted with the sender's key"] if meta.get("pki") else []
    said += ["came over the internet (MQTT)"] if meta.get("via_mqtt") else []
    where = f"channel {row.thread_key}" if row.thread_type == "channel" else "a direct message"
    heard = ", ".join(part for part in said if part)
    return Step("heard", row.timestamp, f"{where}{f': {heard}' if heard else ''}", copy.node_uid)


def _hops(start: object, limit: object) -> str:
    if not isinstance(start, int) or not isinstance(limit, int) or start < limit:
        return ""
    hops = start - limit
    return "direct" if hops == 0 else f"{hops} hop{'s' if hops > 1 else ''}"


def _noticed(copies: Iterable[_Copy]) -> Iterator[Step]:
    for copy in copies:
        for row in copy.notices:
            told = reasons.explain("line", str(row.meta.get("notice", ""))).text
            text = f"{told} (row {row.message_id}: {sending.state_words(row)})"
            yield Step("told", row.timestamp, text, copy.node_uid)


def _asked(calls: Iterable[PromptRow]) -> Iterator[Step]:
    for call in calls:
        meta = sending.meta_of(call)
        outcome = str(meta.get("outcome", ""))
        said = [reasons.explain("model", outcome).text] if outcome else []
        said += [str(meta["reason"])] if meta.get("reason") else []
        took = f" took {call.duration_ms / 1000:.1f} s" if call.duration_ms is not None else ""
        text = f"{call.model}{took}: {'; '.join(said) or 'outcome not recorded'}"
        at = call.datetime.replace(" ", "T") + "Z"
        yield Step("asked", at, f"{text} (prompt {call.prompt_id})", call.node_uid)


def _sent(row: Message, node_uid: str) -> Iterator[Step]:
    """Tell the life of one row of ours."""
    part = sending.part_words(row)
    yield Step("queued", row.timestamp, f"{part} as {row.message_id}", node_uid)
    for nth, (at, text) in enumerate(sending.try_words(row), start=1):
        yield Step("tried", at, f"{part}, try {nth}: {text}", node_uid)
    yield Step("result", "", f"{part}: {sending.state_words(row)}", node_uid)


def _logged(logs: Logs, evidence: Evidence) -> Iterator[Step]:
    """Tell what the log adds; where nothing answered, also who started and ended around then."""
    for event in logs.events:
        if event.name not in events.TOLD_BY_ROWS:
            yield _of_event(event)
    if evidence.replies or evidence.no_question:
        return
    heard_at = evidence.row.timestamp
    before = [event for event in logs.general if event.at < heard_at][-2:]
    after = [event for event in logs.general if event.at >= heard_at][:MAX_GENERAL]
    for event in (*before, *after):
        yield _of_event(event)


def _of_event(event: Event) -> Step:
    what = "decided" if event.name in {"question_skipped", "question_deferred"} else "log"
    return Step(what, event.at, event.words, str(event.fields.get("node_uid", "")))


def _in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Sort by time; a step without one stays behind the one before it."""
    placed: list[tuple[str, int, Step]] = []
    last = ""
    for number, step in enumerate(steps):
        last = step.at if parse_utc(step.at) else last
        placed.append((last, number, step))
    return tuple(step for _, _, step in sorted(placed, key=lambda one: one[:2]))


def _agent(desk: Desk) -> tuple[str, str]:
    """Say what is wrong with the agent now, and what to do; "" for nothing."""
    start = "./run.sh starts it; `doctor` says more"
    facts = desk.book.agent()
    if not facts:
        return "the agent has never run on these files", start
    beat = str(facts.get("heartbeat_at", ""))
    if facts.get("running") is False:
        return f"the agent was stopped at {beat}", start
    age_s = wall_age_s(desk.clock, beat)
    if age_s is None or age_s > SILENT_S * desk.clock.scale:
        return f"the agent gave its last sign of life at {beat or 'an unknown time'}", start
    model = facts.get("model")
    state = model.get("state") if isinstance(model, dict) else ""
    if isinstance(model, dict) and state in {"offline", "resting"}:
        reason = reasons.explain("model", str(model.get("reason", "")))
        return f"the model is {state}: {reason.text}", reason.advice
    return "", ""
