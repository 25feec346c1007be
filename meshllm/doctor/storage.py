"""Checks of the disk, of owners and modes of our files, and of locks. Changes nothing."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshllm.doctor.findings import Finding, fail, info, ok, warn
from meshllm.doctor.inventory import entries, is_ours, wanted_mode
from meshllm.doctor.machine import may, user_name
from meshllm.doctor.place import Place, holder, written_pid
from meshllm.store import reserve, space
from meshllm.store.space import BYTES_PER_MB

MIN_INODES: Final = 1000  #: fewer free ones, and a thread more may be one too many
MAX_NAMED: Final = 3  #: files named in one finding
_DISK: Final = "disk"
_OWN: Final = "permissions"
_LOCKS: Final = "locks"


def disk(place: Place) -> Iterator[Finding]:
    """Look at the free space of each disk, and at the reserve."""
    seen: set[int] = set()
    files = place.files
    for folder in (files.data_dir, files.nodes_dir, files.prompts_dir):
        there = next((p for p in (folder, *folder.parents) if p.exists()), folder)
        device = there.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield from _room(there, place.settings.disk_reserve_mb)
    yield from _ballast(place)


def _room(folder: Path, reserve_mb: int) -> Iterator[Finding]:
    state = os.statvfs(folder)
    free_mb = state.f_bavail * state.f_frsize // BYTES_PER_MB
    if state.f_flag & os.ST_RDONLY:
        fix = "look for the cause: dmesg | grep -i -e mmc -e ext4; then: sudo mount -o remount,rw /"
        yield fail(_DISK, f"{folder} is on a read-only file system", fix)
        return
    how_to = "docs/how-to/free-a-full-card.md"
    if free_mb < reserve_mb:
        text = f"{free_mb} MB free for {folder}, below disk_reserve_mb ({reserve_mb})"
        yield fail(_DISK, f"{text}: nothing is answered", how_to)
    elif free_mb < 4 * reserve_mb:
        yield warn(_DISK, f"{free_mb} MB free for {folder}", f"it stops at {reserve_mb}: {how_to}")
    else:
        yield ok(_DISK, f"{free_mb} MB free for {folder}")
    if state.f_files and state.f_favail < MIN_INODES:
        text = f"{state.f_favail} files more fit on the disk of {folder}"
        yield fail(_DISK, text, "remove small files, such as old pages and caches")


def _ballast(place: Place) -> Iterator[Finding]:
    files = place.files
    path = files.reserve(same_disk=space.is_one_disk(files.data_dir, files.nodes_dir))
    try:
        found = path.lstat()
    except OSError:
        if place.bridge_runs():
            yield warn(_DISK, f"no reserve at {path} though the bridge runs", "free some space")
        else:
            yield info(_DISK, f"no reserve at {path}: the bridge makes it at its start")
        return
    if not stat.S_ISREG(found.st_mode) or found.st_size != reserve.SIZE_BYTES:
        fix = f"remove it; the bridge makes it anew: rm -r {path}"
        yield warn(_DISK, f"{path} is not the reserve that the bridge makes", fix)
    else:
        yield ok(_DISK, f"the reserve is there ({reserve.SIZE_BYTES // BYTES_PER_MB} MB)")


@dataclass(slots=True)
class _Strange:
    """What is not as it should be, by kind."""

    unwritable: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    modes: list[Path] = field(default_factory=list)
    open_to_all: list[Path] = field(default_factory=list)


def permissions(place: Place) -> Iterator[Finding]:
    """Look whether this user can work with every file, and whose files these are."""
    files = place.files
    roots = [p for p in (files.data_dir, files.nodes_dir, files.prompts_dir) if p.is_dir()]
    if not roots:
        yield _before_first_start(place)
        return
    owner = roots[0].stat().st_uid
    strange = _Strange()
    for path, found in entries(roots):
        _sort_in(strange, path, found, owner, place)
    yield from _told(strange, owner, roots, place)


def _before_first_start(place: Place) -> Finding:
    folder, machine = place.files.data_dir, place.machine
    parent = next(p for p in folder.parents if p.is_dir())
    if may(parent.stat(), 3, uid=machine.uid, groups=machine.groups):
        return info(_OWN, f"{folder} is not there: the first start makes it")
    fix = f"sudo chown {machine.user}: {parent}, or set data_dir"
    return fail(_OWN, f"{machine.user} cannot make {folder}", fix)


def _sort_in(
    strange: _Strange, path: Path, found: os.stat_result, owner: int, place: Place
) -> None:
    machine = place.machine
    is_folder = stat.S_ISDIR(found.st_mode)
    is_lock = path.name.endswith(".lock")
    # Our writers replace files: a read-only file in a writable folder is as it should be.
    wanted = 7 if is_folder else 6 if is_lock else 4
    if found.st_uid != owner:
        strange.foreign.append(path)
    if not may(found, wanted, uid=machine.uid, groups=machine.groups):
        (strange.unwritable if is_folder or is_lock else strange.unreadable).append(path)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o002:
        strange.open_to_all.append(path)
    if is_ours(path, place.files) and mode != wanted_mode(path, found, place.modes):
        strange.modes.append(path)


def _told(strange: _Strange, owner: int, roots: list[Path], place: Place) -> Iterator[Finding]:
    user = place.machine.user
    folders = " ".join(str(root) for root in _topmost(roots))
    if strange.unwritable:
        text = f"{user} cannot write {_named(strange.unwritable)}"
        yield fail(_OWN, text, f"sudo chown -R {user}: {folders}")
    if strange.unreadable:
        text = f"{user} cannot read {_named(strange.unreadable)}"
        yield fail(_OWN, text, f"sudo chown -R {user}: {folders}")
    if strange.foreign:
        text = f"not of {user_name(owner)}, as the data folder is: {_named(strange.foreign)}"
        fix = f"sudo chown -R {user_name(owner)}: {folders}"
        yield warn(_OWN, f"{text} (left by a run as another user)", fix)
    if strange.open_to_all:
        text = f"every user may write {_named(strange.open_to_all)}"
        yield warn(_OWN, text, f"chmod -R o-w {folders}")
    if strange.modes:
        text = f"other permission bits than the settings say: {_named(strange.modes)}"
        yield warn(_OWN, text, "python -m meshllm doctor --repair")
    if strange == _Strange():
        yield ok(_OWN, f"{user} can work with every file in {folders}")


def _topmost(roots: Iterable[Path]) -> list[Path]:
    unique = sorted(set(roots))
    return [p for p in unique if not any(p.is_relative_to(q) for q in unique if q != p)]


def _named(paths: list[Path]) -> str:
    names = ", ".join(str(path) for path in sorted(paths)[:MAX_NAMED])
    more = len(paths) - MAX_NAMED
    return f"{names} and {more} more" if more > 0 else names


def locks(place: Place) -> Iterator[Finding]:
    """Say who runs, and which files are locked now."""
    files = place.files
    yield _role("bridge", files.bridge_lock, place, runs_unseen=place.bridge_runs())
    yield _role("agent", files.agent_lock, place, runs_unseen=place.agent_runs())
    yield from _held_sidecars(place)


def _role(role: str, lock: Path, place: Place, *, runs_unseen: bool) -> Finding:
    process = holder(lock, place.machine)
    if process is not None:
        return ok(_LOCKS, f"the {role} runs (pid {process.pid})")
    if runs_unseen:
        return ok(_LOCKS, f"the {role} runs, in a container or as a process not seen from here")
    pid = written_pid(lock)
    note = f"; {lock.name} still names pid {pid}, which is harmless" if pid is not None else ""
    return info(_LOCKS, f"the {role} does not run{note}", "./run.sh starts both")


def _held_sidecars(place: Place) -> Iterator[Finding]:
    files = place.files
    holders = place.machine.lock_holders()
    ours = {p.pid for p in (place.bridge(), place.agent()) if p is not None}
    lifelong = {files.bridge_lock, files.agent_lock}
    for path, found in entries([files.data_dir, files.nodes_dir, files.prompts_dir]):
        pid = holders.get((found.st_dev, found.st_ino))
        if pid is None or path in lifelong or not path.name.endswith(".lock"):
            continue
        process = place.machine.process(pid)
        if pid in ours:
            yield info(_LOCKS, f"{path.name} is held by {process}, which writes just now")
        else:
            text = f"{path} is held by {process}, so nothing is written there"
            yield warn(_LOCKS, text, f"if it does not end by itself: kill {pid}")
