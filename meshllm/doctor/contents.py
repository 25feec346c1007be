"""Checks of what is in the files: damaged tables, left-overs, quarantine. Changes nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from meshllm.doctor.findings import Finding, fail, info, ok, warn
from meshllm.doctor.inventory import Known, leftovers, tables
from meshllm.doctor.place import Place
from meshllm.errors import NotRegularError
from meshllm.layout import Layout
from meshllm.store import codec, regular
from meshllm.store.codec import Damage
from meshllm.store.space import BYTES_PER_MB

REPAIR: Final = "python -m meshllm doctor --repair"
HOW_TO: Final = "docs/how-to/recover-a-damaged-file.md"
GROUP: Final = "files"


def look(place: Place) -> Iterator[Finding]:
    """Parse every table; count what is left over and what is in quarantine."""
    count = damaged = 0
    for known in tables(place.files):
        count += 1
        found = list(table(known))
        damaged += bool(found)
        yield from found
    if not damaged:
        yield ok(GROUP, f"{count} tables are whole" if count else "there are no tables yet")
    yield from temps(leftovers(place.files), place)
    yield from quarantined(place.files)


def table(known: Known) -> Iterator[Finding]:
    """Parse one table; nothing for a sound one."""
    path = known.path
    try:
        data = regular.read_bytes(path)
    except NotRegularError:
        kind = regular.kind_of(path)
        yield fail(GROUP, f"{path} is a {kind}, not a file", f"{REPAIR} moves it to quarantine")
        return
    except FileNotFoundError:
        return  # it was moved meanwhile
    except OSError as error:
        fix = "see the permissions below; a card that fails should be replaced"
        yield fail(GROUP, f"{path} cannot be read: {error.strerror or error}", fix)
        return
    decoded = codec.decode(data, known.record_type)
    if decoded.damage:
        yield fail(GROUP, f"{path}: {places(data, decoded.damage)}", f"{REPAIR} ({HOW_TO})")
    elif not data:
        yield warn(GROUP, f"{path} is empty, without a header", REPAIR)


def places(data: bytes, damage: Sequence[Damage]) -> str:
    """Say how many places are damaged, and where the first is."""
    first = damage[0]
    line = data.count(b"\n", 0, first.offset) + 1
    count = "1 damaged place" if len(damage) == 1 else f"{len(damage)} damaged places, the first"
    return f"{count} in line {line} (byte {first.offset}): {first.reason}"


def temps(found: Sequence[Path], place: Place) -> Iterator[Finding]:
    """Tell of temporary files; a running process may be writing one at this moment."""
    if not found:
        return
    fix = REPAIR
    if place.bridge_runs() or place.agent_runs():
        fix = f"look again: a running process may be writing it now; else {REPAIR}"
    yield warn(GROUP, f"{len(found)} half-written files of a killed process: {found[0]}", fix)


def quarantined(files: Layout) -> Iterator[Finding]:
    """Tell what is in the quarantine folders."""
    for folder in (*(tree.quarantine for tree in files.trees()), files.quarantine):
        try:
            kept = [(p, p.lstat()) for p in folder.iterdir() if not p.name.startswith(".")]
        except OSError:
            continue
        originals = sorted((s.st_mtime, p.name) for p, s in kept if not p.name.endswith(".lock"))
        if originals:
            size = sum(s.st_size for _, s in kept)
            plural = "" if len(originals) == 1 else "s"
            text = f"{len(originals)} damaged original{plural} in {folder}"
            text += f" ({size / BYTES_PER_MB:.1f} MB)"
            newest = f"the newest is {originals[-1][1]}"
            yield info(GROUP, f"{text}, {newest}", f"rows can be put back by hand: {HOW_TO}")
