"""Command line of the measurements: `python -m benchmarks [PART] [--rounds N] [--write]`.

`delivery` and `cost` have their own options (`delivery --help`) and page, explanation/delivery.md.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import (
    answers,
    commit,
    cost,
    crowd,
    delivery,
    history,
    idle,
    machine,
    prompt,
    report,
    roundtrip,
    window,
)
from benchmarks.report import Part
from benchmarks.world import ROOT, BenchmarkError
from meshllm.config import Settings

_PARTS: Final = ("commit", "roundtrip", "window", "idle", "history", "prompt", "answers", "crowd")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="?", default="all", choices=(*_PARTS, "all"))
    parser.add_argument("--rounds", type=int, help="pairs or round trips (default 200, 300)")
    parser.add_argument("--threads", type=int, default=idle.THREADS, help="threads while idle")
    parser.add_argument("--window", type=float, default=idle.WINDOW_S, help="idle seconds")
    parser.add_argument(
        "--messages", type=int, default=history.MESSAGES, help="messages of a long history"
    )
    parser.add_argument("--ollama", default="", metavar="URL", help="server that `prompt` times")
    parser.add_argument(
        "--model", default=Settings().ollama_model_instruct, help="model on that server"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "data", help="disk to measure")
    parser.add_argument("--write", action="store_true", help="put the figures into the page")
    return parser.parse_args()


def main() -> int:
    """Measure, print, perhaps write. 1 when the programs did not do what is measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if sys.argv[1:2] == ["delivery"]:
        return delivery.main(sys.argv[2:])
    if sys.argv[1:2] == ["cost"]:
        return cost.main(sys.argv[2:])
    options = _parse()
    rounds = {} if options.rounds is None else {"rounds": max(2, options.rounds)}
    measures: dict[str, Callable[[Path], Part]] = {
        "answers": answers.measure,
        "crowd": crowd.measure,
        "commit": lambda folder: commit.measure(folder, **rounds),
        "roundtrip": lambda folder: roundtrip.measure(folder, **rounds),
        "window": lambda folder: window.measure(folder, **rounds),
        "idle": lambda folder: idle.measure(
            folder, threads=options.threads, window_s=options.window
        ),
        "history": lambda folder: history.measure(folder, messages=options.messages, **rounds),
        "prompt": lambda folder: prompt.measure(folder, url=options.ollama, model=options.model),
    }
    wanted = _PARTS if options.part == "all" else (options.part,)
    try:
        with _scratch(options.folder) as folder:
            found = [machine.describe(folder)]
            _show(found[0])
            for name in wanted:
                found.append(measures[name](folder))
                _show(found[-1])
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.write:
        _write(found)
    return 0


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=parent.resolve()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(part: Part) -> None:
    print(report.for_terminal(part), end="\n\n", flush=True)


def _write(parts: list[Part]) -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    for part in parts:
        page = report.replace_block(page, part.name, report.for_page(part))
    report.PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
