"""Turns settings into what the agent's parts take. Decides nothing."""

from meshllm.agent.answering import Limits
from meshllm.agent.policy import Lists, Manners
from meshllm.config import Settings
from meshllm.llm.ollama import LoadOptions


def manners(settings: Settings) -> Manners:
    """Return whom to answer, and how often."""
    lists = Lists(
        channel_allow=settings.channel_allowlist,
        channel_block=settings.channel_blocklist,
        dm_allow=settings.dm_allowlist,
        dm_block=settings.dm_blocklist,
    )
    return Manners(
        lists,
        cooldown_s=settings.reply_cooldown_seconds,
        answers_an_hour=settings.max_answers_per_hour,
        answers_internet=settings.answer_internet_messages,
        refuses_downgraded=settings.refuse_downgraded_senders,
    )


def limits(settings: Settings) -> Limits:
    """Return what a prompt and a reply may hold."""
    return Limits(
        model=settings.ollama_model_instruct,
        context_chars=settings.max_context_chars,
        context_tokens=LoadOptions().num_ctx,
        message_chars=settings.max_message_chars,
        reply_parts=settings.max_reply_parts,
        keep_s=settings.max_question_age_seconds,
        deadline_s=settings.model_deadline_seconds,
    )
