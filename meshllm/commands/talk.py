"""`help` and `ping`: what there is to ask, and how well the asker is heard."""

import re
from collections.abc import Mapping
from typing import Any, Final

from meshllm.commands.base import Command, Context
from meshllm.commands.words import fold, phrases

_INTRO: Final = "Ask me anything. Or send: "
_PLEA: Final = re.compile(fold(r"\b(?:please|pls|por favor|bitte|будь ласка)\b"))
_OUTRO: Final = ". What one does: help ping"


def _help(context: Context) -> str:
    """List the names, which fit one message, or say what one command does."""
    told = _told_of(context)
    if told is not None:
        return told
    return _INTRO + ", ".join(line.partition(":")[0] for line in context.help_lines) + _OUTRO


def _is_help(context: Context) -> bool:
    # "help water" is a question, "help more" is not; and who pleads for help wants no list.
    if context.arguments:
        return _told_of(context) is not None
    return _PLEA.search(fold(context.asked.content)) is None


def _told_of(context: Context) -> str | None:
    told = {line.split(" ")[0].rstrip(":"): line for line in context.help_lines}
    return told.get(context.arguments[0]) if context.arguments else None


def _ping(context: Context) -> str:
    meta = context.asked.meta
    where = "" if not meta.get("via_mqtt") else ", over an internet bridge"
    return f"Here. I heard you {hops_text(_hops(meta))}{where}: {_signal(meta)}."


def _hops(meta: Mapping[str, Any]) -> int | None:
    start, limit = meta.get("hop_start"), meta.get("hop_limit")
    # Older firmware sends no hop_start, which reads as 0 and says nothing.
    if not isinstance(start, int) or not isinstance(limit, int) or not start:
        return None
    return start - limit if start >= limit else None


def hops_text(hops: int | None) -> str:
    """Say how far a packet came."""
    if hops is None:
        return "over an unknown number of hops"
    if hops == 0:
        return "direct"
    return f"over {hops} hop{'s' if hops > 1 else ''}"


def _signal(meta: Mapping[str, Any]) -> str:
    snr, rssi = meta.get("snr"), meta.get("rssi")
    parts = [
        f"SNR {snr:.4g} dB" if isinstance(snr, (int, float)) else "SNR unknown",
        f"RSSI {rssi:.4g} dBm" if isinstance(rssi, (int, float)) else "RSSI unknown",
    ]
    is_relayed = bool(_hops(meta)) and "unknown" not in parts[0]
    return ", ".join(parts) + (" (of the last hop)" if is_relayed else "")


COMMANDS: Final = (
    Command(
        "help",
        "",
        # "help!" is somebody in need, not somebody who wants a list.
        phrases(
            "help (?:with )?([a-z]+)",
            "help|commands|command list|menu|usage|what can (?:you|i) (?:do|ask)(?: you)?"
            "|how do (?:you work|i use (?:you|this))|(?:show |list )?(?:the |all )?commands",
            "ayuda|comandos|qué puedes hacer",
            "hilfe|befehle|was kannst du",
            "допомога|команди|що ти вмієш",
            may_shout=False,
        ),
        _help,
        applies=_is_help,
    ),
    Command(
        "ping",
        "ping: how I hear you",
        phrases(
            "ping|test|testing|test test|test(?:ing)? (?:1 ?2 ?3|one two three)|radio check"
            "|signal|signal (?:report|check|test)|my signal"
            "|(?:are|r) (?:you|u) (?:there|here|online|alive|up|awake|on|listening|working)"
            "|you there|(?:is )?any(?:body|one) there",
            "(?:do|can|did) you (?:hear|read|copy) me(?: (?:now|well|ok))?"
            "|how do you (?:hear|read|copy) me"
            "|(?:how(?:'s| is)|what(?:'s| is)) my (?:signal|snr|rssi|connection|reception)"
            "(?: (?:like|now|today|strength|quality))?",
            "estás ahí|me (?:escuchas|oyes|recibes)|cómo está mi señal|mi señal",
            "bist du (?:da|wach|online)|hörst du mich|wie ist mein (?:signal|empfang)|mein signal",
            "ти тут|ти є|чуєш мене|ти мене чуєш|який (?:у мене |мій )?сигнал",
        ),
        _ping,
    ),
)
