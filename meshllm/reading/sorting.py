"""Sorts more rows than memory holds, in runs on disk. Knows no files of the data folder."""

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Final

Entry = tuple[str, Sequence[object]]  #: sort key and what belongs to it, as JSON can hold it

RUN_ROWS: Final = 20_000  #: sorted in memory at once, about 20 MB


def sorted_entries(entries: Iterable[Entry], *, run_rows: int = RUN_ROWS) -> Iterator[Entry]:
    """Yield entries by key; equal keys keep their order. Values may come back as lists.

    What exceeds `run_rows` goes to unnamed temporary files, which are gone with the process.
    Raises OSError when the disk has no room for them.
    """
    with ExitStack() as stack:
        runs: list[IO[str]] = []
        run: list[Entry] = []
        for entry in entries:
            run.append(entry)
            if len(run) >= run_rows:
                runs.append(stack.enter_context(_spill(run)))
                run = []
        run.sort(key=_key)
        yield from heapq.merge(*(_read(spilled) for spilled in runs), run, key=_key)


def _key(entry: Entry) -> str:
    return entry[0]


def _spill(run: list[Entry]) -> IO[str]:
    run.sort(key=_key)
    spilled = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  the caller closes it
    for entry in run:
        spilled.write(json.dumps(entry, ensure_ascii=True) + "\n")
    spilled.seek(0)
    return spilled


def _read(spilled: IO[str]) -> Iterator[Entry]:
    for line in spilled:
        key, values = json.loads(line)
        yield key, values
