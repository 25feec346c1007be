"""Makes requests of questions and deliveries of results, and commits these. Waits for nothing.

A delivery is what must become durable: the page and row of a model call, then rows in the thread.
It is kept and repeated until it is, so storage trouble costs no second model call.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from meshllm.agent.context import Reach, last_prompt_id, named, one_line, story
from meshllm.agent.meshfacts import MeshFacts
from meshllm.agent.notices import OFFLINE, notice_row, offline_text
from meshllm.agent.optouts import OptOuts
from meshllm.agent.participants import Participants
from meshllm.agent.policy import Backoff
from meshllm.agent.prompt import Assembled, assemble
from meshllm.agent.promptlog import Call, PromptLog, question_key
from meshllm.agent.questions import Question
from meshllm.agent.replay import blocks
from meshllm.agent.reply import (
    CANNOT_ANSWER,
    NO_ANSWER,
    Judged,
    Part,
    budget_bytes,
    compose,
    fresh_ids,
    judge,
    packet_id,
    reply_rows,
)
from meshllm.agent.safety import EMERGENCY_NOTICE
from meshllm.agent.threads import Thread, ThreadBook
from meshllm.agent.tokens import prompt_room
from meshllm.cleaning import clean_model_text
from meshllm.clock import Clock, utc_text
from meshllm.errors import TransientError
from meshllm.llm.base import (
    THOUGHT_TOKENS,
    ChatMessage,
    ChatRequest,
    ChatResult,
    Outcome,
    answer_tokens,
)
from meshllm.records import Message, PromptRow, compact_json
from meshllm.site.page import Page

log = structlog.get_logger()

MAX_CALLS: Final = 3  #: model calls that one question may cost before it gets an honest no
MAX_FIGURES: Final = 5  #: of an answer's figures, named in the log
MAX_EMPTY_CALLS: Final = 2  #: the same for a model that says nothing: it was up, and is tired
#: A call that ended so has cost the model its time; the others never reached it.
ATTEMPTS: Final = frozenset({Outcome.TIMEOUT, Outcome.BROKEN, Outcome.PARTIAL, Outcome.EMPTY})


@dataclass(frozen=True, slots=True)
class Ids:
    """Where new ids come from."""

    message: Callable[[], str] = packet_id
    prompt: Callable[[], str] = field(default=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a prompt and a reply may hold."""

    model: str
    context_chars: int
    context_tokens: int  #: the model's whole window, answer included
    message_chars: int
    reply_parts: int
    keep_s: float  #: how long a question is kept
    deadline_s: float

    @property
    def reply_bytes(self) -> int:
        """Bytes that an answer may have."""
        return budget_bytes(max_parts=self.reply_parts, max_chars=self.message_chars)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its prompt."""

    thread: Thread
    question: Question
    prompt_id: str
    prompt: Assembled
    rows: int  #: rows of the thread before the question
    reach: Reach
    mesh: MeshFacts | None = None  #: what an answer about the mesh must keep to


@dataclass(slots=True)
class Delivery:
    """What must become durable for one question."""

    thread: Thread
    question: Question
    kind: str  #: reply, notice or record
    rows: tuple[Message, ...] = ()
    page: Page | None = None
    prompt_id: str = ""
    backoff: Backoff = field(default_factory=Backoff)
    is_recorded: bool = False
    command: str = ""  #: name of the command that is answered, "" for the model's answers


class Answering:
    """Builds and commits. Used by the service's thread alone."""

    def __init__(
        self,
        book: ThreadBook,
        prompts: PromptLog,
        clock: Clock,
        *,
        limits: Limits,
        ids: Ids,
    ) -> None:
        self._book = book
        self._prompts = prompts
        self._clock = clock
        self._limits = limits
        self._ids = ids
        self._participants = Participants()
        self._opt_outs = OptOuts()

    def ask(
        self,
        thread: Thread,
        question: Question,
        *,
        facts: str = "",
        passages: str = "",
        thought_tokens: int = 0,
    ) -> tuple[Asked, ChatRequest]:
        """Continue the thread's conversation with a question. Raises TransientError.

        `facts` about the mesh and `passages` of the library go into the last message;
        `thought_tokens` are kept free in the window for reasoning.
        """
        rows = self._rows(thread)
        # Rows before it may have gone to the archive since the question was found.
        question = next((q for q in thread.standing.open if q.key == question.key), question)
        limits = self._limits
        num_predict = answer_tokens(limits.reply_bytes)
        source = question.row
        name = (thread.tree.node_uid, source.thread_type, source.thread_key)
        told = story(rows, question.position, self._prompts.sent(last_prompt_id(rows), name))
        text = one_line(question.text)
        prompt = assemble(
            named(source, text) if source.thread_type == "channel" and text else text,
            before=told.turns,
            burst=told.burst,
            details=self._participants.describe(
                thread.tree, source, told.speakers, self._clock.utc()
            ),
            limit_bytes=limits.reply_bytes,
            room=prompt_room(
                max_chars=limits.context_chars,
                context_tokens=limits.context_tokens,
                num_predict=num_predict + thought_tokens,
            ),
            facts=facts,
            passages=passages,
        )
        asked = Asked(thread, question, self._ids.prompt(), prompt, question.position, told.reach)
        request = ChatRequest(
            model=limits.model,
            messages=messages_of(prompt),
            num_predict=num_predict,
            budget_bytes=limits.reply_bytes,
            part_bytes=budget_bytes(max_parts=1, max_chars=limits.message_chars),
            thought_tokens=THOUGHT_TOKENS,
            deadline_s=limits.deadline_s,
        )
        return asked, request

    def reply(self, asked: Asked, result: ChatResult, text: str) -> Delivery:
        """Turn an answer into its page and rows. Raises TransientError."""
        borne_out, result = _borne_out(asked, text, result)
        said = _judged(asked, text) if borne_out == text else Judged(borne_out, "replaced")
        is_unsaid = result.outcome is Outcome.CAPPED and not said.fault
        parts = self._compose(asked.thread, said.text, is_unsaid=is_unsaid)
        source = asked.question.row
        rows = self._reply_rows(asked.thread, source, parts, asked.prompt_id)
        page = self._page(asked, result, parts, fault=said.fault)
        return Delivery(
            asked.thread, asked.question, "reply", rows, page, prompt_id=asked.prompt_id
        )

    def failure(self, asked: Asked, result: ChatResult) -> Delivery:
        """Turn a failed call into its page and a notice; at the last try, into an honest no."""
        if self.attempts(asked.thread, asked.question) + _counts(result) >= MAX_CALLS:
            return self.reply(asked, result, CANNOT_ANSWER)
        delivery = self.notice(asked.thread, asked.question, result.outcome.value)
        delivery.page = self._page(asked, result, ())
        delivery.prompt_id = asked.prompt_id
        return delivery

    def retry(self, asked: Asked, result: ChatResult) -> Delivery:
        """Turn a call that brought nothing into its page; at the last try, into an honest line.

        The model is there, so nobody is told of trouble, and the question is asked once more.
        Raises TransientError.
        """
        is_empty = result.outcome is Outcome.EMPTY
        limit = MAX_EMPTY_CALLS if is_empty else MAX_CALLS
        if self.attempts(asked.thread, asked.question) + _counts(result) >= limit:
            return self.reply(asked, result, NO_ANSWER if is_empty else CANNOT_ANSWER)
        return self.record(asked, result)

    def record(self, asked: Asked, result: ChatResult) -> Delivery:
        """Turn a call that brought nothing into its page alone."""
        page = self._page(asked, result, ())
        return Delivery(
            asked.thread, asked.question, "record", page=page, prompt_id=asked.prompt_id
        )

    def notice(self, thread: Thread, question: Question, reason: str) -> Delivery:
        """Say once that the model is away; nothing where that was said. Raises TransientError."""
        age_s = self._book.age_s(question) or 0.0
        text = offline_text(reason, max(0.0, self._limits.keep_s - age_s))
        return self.notify(thread, question, OFFLINE, text)

    def notify(self, thread: Thread, question: Question, kind: str, text: str) -> Delivery:
        """Tell a person something about a question, once a kind. Raises TransientError."""
        if self.is_noticed(thread, question, kind):
            return Delivery(thread, question, "record")
        taken = {row.message_id for row in self._rows(thread)}
        row = notice_row(
            question.row,
            kind=kind,
            content=text,
            message_id=fresh_ids(1, taken, self._ids.message)[0],
            own_id=self._book.own_id(thread.tree),
            now=self._now(),
        )
        return Delivery(thread, question, "notice", (row,))

    def recovered(self, thread: Thread, question: Question, call: Call) -> Delivery:
        """Queue a logged answer with the ids it was given."""
        rows = self._reply_rows(thread, question.row, call.parts, call.prompt_id)
        log.info("answer_recovered", prompt_id=call.prompt_id, **_names(thread, question))
        return Delivery(thread, question, "reply", rows, prompt_id=call.prompt_id)

    def refusal(self, thread: Thread, question: Question, text: str = CANNOT_ANSWER) -> Delivery:
        """Close a question with a line of ours, without the model. Raises TransientError."""
        parts = self._compose(thread, text)
        return Delivery(
            thread, question, "reply", self._reply_rows(thread, question.row, parts, "")
        )

    def commanded(
        self,
        thread: Thread,
        question: Question,
        text: str,
        *,
        command: str,
        cancels: Sequence[str] = (),
    ) -> Delivery:
        """Queue what a command says; no model call, so nothing is logged. Raises TransientError."""
        parts = self._compose(thread, text)
        first, *others = (
            row.with_meta(command=command)
            for row in self._reply_rows(thread, question.row, parts, "")
        )
        rows = (first.with_meta(cancels=list(cancels) or None), *others)
        return Delivery(thread, question, "reply", rows, command=command)

    def has_used_up_calls(self, thread: Thread, question: Question) -> bool:
        """Say whether a question may cost no further call."""
        return self.attempts(thread, question) >= MAX_CALLS

    def is_noticed(self, thread: Thread, question: Question, kind: str = OFFLINE) -> bool:
        """Say whether the person was told that the model is away, or another kind of notice."""
        return (*question.key, kind) in thread.standing.noticed

    def wants_silence(self, thread: Thread, question: Question) -> bool:
        """Say whether the person wants no notices. Raises TransientError."""
        return self._opt_outs.wants_silence(thread, self._rows(thread), question.row.sender_id)

    def commit(self, delivery: Delivery) -> bool:
        """Make it durable: page, row, then all thread rows in one commit.

        Returns False when the thread turned out to need no rows any more. Raises TransientError;
        repeating it then is safe.
        """
        is_wanted = bool(delivery.rows) and self._is_wanted(delivery)
        if delivery.page is not None and not delivery.is_recorded:
            self._prompts.record(delivery.page)
            delivery.is_recorded = True
        if not is_wanted:
            return False
        delivery.thread.table.append(delivery.rows)
        return True

    def _is_wanted(self, delivery: Delivery) -> bool:
        found = self._book.reread(delivery.thread)
        if found is None:
            raise TransientError(f"{delivery.thread.path}: cannot be used now")
        rows, standing = found
        if delivery.question.key not in standing.waiting:
            return False
        if delivery.kind == "notice":
            kind = str(delivery.rows[0].meta.get("notice", ""))
            if (*delivery.question.key, kind) in standing.noticed:
                return False
            person = delivery.question.row.sender_id
            is_vital = kind == EMERGENCY_NOTICE
            return is_vital or not self._opt_outs.wants_silence(delivery.thread, rows, person)
        ids = {row.message_id for row in rows if row.is_outgoing}
        return not ids.intersection(row.message_id for row in delivery.rows)

    def _rows(self, thread: Thread) -> tuple[Message, ...]:
        found = self._book.reread(thread)
        if found is None:
            raise TransientError(f"{thread.path}: cannot be used now")
        return found[0]

    def _compose(self, thread: Thread, text: str, *, is_unsaid: bool = False) -> tuple[Part, ...]:
        return compose(
            text,
            max_parts=self._limits.reply_parts,
            max_chars=self._limits.message_chars,
            taken={row.message_id for row in self._rows(thread)},
            new_id=self._ids.message,
            is_unsaid=is_unsaid,
        )

    def _reply_rows(
        self, thread: Thread, source: Message, parts: tuple[Part, ...], prompt_id: str
    ) -> tuple[Message, ...]:
        own_id = self._book.own_id(thread.tree)
        return reply_rows(parts, source, own_id=own_id, now=self._now(), prompt_id=prompt_id)

    def attempts(self, thread: Thread, question: Question) -> int:
        """Count the model calls that a question has cost."""
        return sum(call.is_attempt for call in self._calls(thread, question))

    def _calls(self, thread: Thread, question: Question) -> Sequence[Call]:
        return self._prompts.calls(question_key(thread.tree.node_uid, question.row))

    def _now(self) -> str:
        return utc_text(self._clock.utc())

    def _page(
        self, asked: Asked, result: ChatResult, parts: tuple[Part, ...], *, fault: str = ""
    ) -> Page:
        source = asked.question.row
        earlier = self._calls(asked.thread, asked.question)
        queued = tuple(part.facts(source) for part in parts)
        facts = _call_facts(source, result, queued, fault) | _repeat_facts(earlier)
        row = PromptRow(
            prompt_id=asked.prompt_id,
            node_uid=asked.thread.tree.node_uid,
            datetime=self._clock.utc().strftime("%Y-%m-%d %H:%M:%S"),
            model=result.model or self._limits.model,
            thread_type=source.thread_type,
            thread_key=source.thread_key,
            source_message_id=source.message_id,
            response_message_id=parts[0].id if parts else "",
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            prompt_tps=result.prompt_tps,
            eval_tps=result.eval_tps,
            duration_ms=result.duration_ms,
            meta_json=compact_json(facts | _replay_facts(asked)),
        )
        note = (
            f"{len(asked.prompt.turns) - 1} turns of history out of {asked.rows} rows before the "
            f"question, {len(asked.prompt.turns[-1].text)} characters in the last message."
        )
        return Page(row, result.outcome.value, queued, blocks(asked.prompt), result.text, note)


def messages_of(prompt: Assembled) -> tuple[ChatMessage, ...]:
    """Render a prompt as the model's messages."""
    turns = (ChatMessage(turn.role, turn.text) for turn in prompt.turns)
    return (ChatMessage("system", prompt.system), *turns)


def _borne_out(asked: Asked, text: str, result: ChatResult) -> tuple[str, ChatResult]:
    """Put the facts themselves where an answer about the mesh has figures that nobody measured.

    The page keeps what the model said; the reason goes with it.
    """
    if asked.mesh is None or not result.usable:
        return text, result
    said = clean_model_text(text, question=asked.question.text)
    figures = asked.mesh.invented(said, asked=asked.prompt.turns[-1].text)
    if not figures:
        return text, result
    log.warning(
        "answer_replaced_by_facts",
        prompt_id=asked.prompt_id,
        figures=list(figures[:MAX_FIGURES]),
        **_names(asked.thread, asked.question),
    )
    reason = f"replaced by the mesh facts; not in them: {', '.join(figures[:MAX_FIGURES])}"
    return asked.mesh.told, replace(result, error=reason)


def _judged(asked: Asked, answer: str) -> Judged:
    """Clean an answer; what is none gives way to an honest line, and the log says why."""
    question = asked.question.text
    judged = judge(answer, question=question, system_text=asked.prompt.system)
    if judged.fault:
        names = _names(asked.thread, asked.question)
        log.warning("answer_faulty", fault=judged.fault, prompt_id=asked.prompt_id, **names)
    return judged


def _counts(result: ChatResult) -> bool:
    return result.outcome in ATTEMPTS and not result.usable


def _call_facts(
    source: Message, result: ChatResult, queued: tuple[dict[str, object], ...], fault: str
) -> dict[str, object]:
    facts: dict[str, object] = {
        "outcome": result.outcome.value,
        "source_sender": source.sender_id,
        "attempt": _counts(result),
        "reason": result.error,
        "fault": fault,
        "first_token_ms": result.first_token_ms,
        "queued": list(queued),
        "raw": dict(result.raw),
    }
    return {key: value for key, value in facts.items() if value}


def _repeat_facts(earlier: Sequence[Call]) -> dict[str, object]:
    """Say why a question was asked once more: what became of the call before."""
    if not earlier:
        return {}
    return {"repeat_of": earlier[-1].prompt_id, "repeat_reason": earlier[-1].outcome}


def _replay_facts(asked: Asked) -> dict[str, object]:
    """Say what the next prompt of the thread needs to continue this one."""
    return {
        "asked_chars": len(asked.prompt.asked),
        "heard": list(asked.reach.heard),
        "seen": list(asked.reach.seen),
    }


def _names(thread: Thread, question: Question) -> dict[str, str]:
    return {
        "node_uid": thread.tree.node_uid,
        "thread_key": question.row.thread_key,
        "message_id": question.row.message_id,
    }
