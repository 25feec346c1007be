"""Moments as an operator writes and reads them. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from meshllm.cli.where import Tools
from meshllm.clock import Clock, utc_text
from meshllm.commands.ages import span

_AGO: Final = re.compile(r"(\d{1,5})\s*(m|min|h|d|w)")
_UNITS: Final = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[str]):
    """A moment in UTC, or how long ago: becomes a timestamp cell."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the cell form `YYYY-MM-DDTHH:MM:SSZ`; fails with what is accepted."""
        clock = ((ctx.find_object(Tools) if ctx else None) or Tools()).clock
        cell = parse_moment(str(value), clock)
        if cell is None:
            self.fail(
                f"{value!r} is none of 2026-03-01, 2026-03-01T12:00 (UTC), 90m, 2h, 3d, 1w",
                param,
                ctx,
            )
        return cell


def parse_moment(text: str, clock: Clock) -> str | None:
    """Read a date, a UTC time or a span before now; None for anything else."""
    text = text.strip()
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return utc_text(clock.utc() - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
        moment = datetime.fromisoformat(text)
        return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def short(cell: object) -> str:
    """Write a timestamp cell for a table: `2026-03-01 12:00`; what is none stays as it is."""
    text = str(cell or "")
    is_cell = len(text) == 20 and text[10] == "T" and text.endswith("Z")
    return f"{text[:10]} {text[11:16]}" if is_cell else text


def ago(seconds: float | None) -> str:
    """Say an age; "" for an unknown one, and what a wrong clock makes of the future."""
    if seconds is None:
        return ""
    return f"{span(seconds)} ago" if seconds >= 0 else f"{span(-seconds)} ahead of this clock"
