"""Checks of the clock: plausible, synchronised, and not behind what the files say. Sets nothing."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from meshllm.clock import parse_utc
from meshllm.doctor.findings import Finding, fail, info, ok, warn
from meshllm.doctor.machine import Machine
from meshllm.doctor.place import Place
from meshllm.reading.book import Book
from meshllm.records import Message

GROUP: Final = "clock"
FIRST_YEAR: Final = 2025  #: older than this program: a machine without a battery begins so
LAST_YEAR: Final = 2100
SLACK: Final = timedelta(minutes=5)  #: rows may be so far ahead; both are read a moment apart
RADIO_SLACK: Final = timedelta(minutes=10)
_SET: Final = "sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS', or connect it to a network once"


def look(place: Place) -> Iterator[Finding]:
    """Compare the machine's time with everything at hand that tells one."""
    now = place.clock.utc()
    yield plausible(now)
    yield synchronised(place.machine)
    yield hardware(place.machine, now)
    rows = list(_newest_rows(Book(place.files)))
    yield from ahead(rows, now)
    yield from radio_time(rows)


def plausible(now: datetime) -> Finding:
    """Judge the year."""
    text = f"the time is {now:%Y-%m-%d %H:%M} UTC"
    if FIRST_YEAR <= now.year < LAST_YEAR:
        return ok(GROUP, text)
    return fail(GROUP, f"{text}: that cannot be", _SET)


def synchronised(machine: Machine) -> Finding:
    """Say whether a time service has set the clock in this boot."""
    if (machine.run / "systemd" / "timesync" / "synchronized").exists():
        return ok(GROUP, "the clock was set by a time server in this boot")
    if any(process.name in {"chronyd", "ntpd"} for process in machine.processes()):
        return info(GROUP, "a time service runs (chronyd or ntpd)")
    text = "no time server has set the clock in this boot"
    return info(GROUP, text, "offline: set it by hand, or give the machine a clock battery")


def hardware(machine: Machine, now: datetime) -> Finding:
    """Look at the battery-backed clock."""
    try:
        text = (machine.sys / "class" / "rtc" / "rtc0" / "since_epoch").read_text()
        told = datetime.fromtimestamp(int(text), UTC)
    except (OSError, ValueError, OverflowError):
        return info(GROUP, "no hardware clock: after a power cut the time stands still")
    if abs(told - now) <= RADIO_SLACK:
        return ok(GROUP, "the hardware clock agrees")
    text = f"the hardware clock says {told:%Y-%m-%d %H:%M} UTC"
    return warn(GROUP, text, "sudo hwclock --systohc, once the time is right; is its battery in?")


def _newest_rows(book: Book) -> Iterator[Message]:
    """Yield the newest row of each live thread, and its newest inbound one."""
    for tree in book.trees():
        for thread in book.threads(tree):
            dated = [row for row in book.live(thread) if parse_utc(row.timestamp)]
            if dated:
                yield max(dated, key=lambda row: row.timestamp)
            heard = [row for row in dated if not row.is_outgoing and "rx_time" in row.meta_json]
            if heard:
                yield heard[-1]


def ahead(rows: Iterable[Message], now: datetime) -> Iterator[Finding]:
    """Name the newest row when it lies in the future."""
    newest = max(rows, key=lambda row: row.timestamp, default=None)
    moment = parse_utc(newest.timestamp) if newest else None
    if newest is not None and moment is not None and moment - now > SLACK:
        text = f"row {newest.message_id} of {newest.thread_key} is of {newest.timestamp}, later"
        fix = f"the clock is behind, or was ahead then. {_SET}"
        yield warn(GROUP, f"{text} than now", fix)


def radio_time(rows: Iterable[Message]) -> Iterator[Finding]:
    """Compare the time of the newest text with the radio's own time for it."""
    newest = max(
        (row for row in rows if not row.is_outgoing and row.meta.get("rx_time")),
        key=lambda row: row.timestamp,
        default=None,
    )
    moment = parse_utc(newest.timestamp) if newest else None
    told = newest.meta.get("rx_time") if newest else None
    if moment is None or not isinstance(told, int) or not 0 < told < 2**32:
        return
    radio = datetime.fromtimestamp(told, UTC)
    if radio.year < FIRST_YEAR:
        yield info(GROUP, "the radio has no time of its own; it takes it from a phone or by GPS")
    elif abs(radio - moment) > RADIO_SLACK:
        text = f"the radio's clock said {radio:%Y-%m-%d %H:%M} UTC when this machine's said"
        yield warn(GROUP, f"{text} {moment:%Y-%m-%d %H:%M}", "one of them is wrong; see above")
    else:
        yield ok(GROUP, "the radio's clock agrees")
