"""Makes the recording of the demo and stills of it, of `status` and of `why`.

Run it from the repository: `python -m docs.pictures.make_terminal_pictures [FOLDER]`. It needs
asciinema 2 on the path, takes half a minute, and writes demo.cast and terminal-*.svg to
FOLDER, which is this one by default.

Everything is real but the air and the model: the mesh is simulated, and the words of the answers
are those of `ANSWERS`, given by the model server of the tests. The pictures say so.
"""

# ruff: noqa: INP001  a script, not a package
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.text import Text

from meshllm.clock import Waker
from meshllm.store import atomic
from meshllm.testing.ollama_server import OllamaServer, Reply

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
COLUMNS: Final = 92
ROWS: Final = 20
LABEL: Final = "simulated mesh, answers of a scripted model"
ANSWERS: Final = {
    "water": (
        "Bring it to a rolling boil for one minute, three above 2000 m. Cloudy water first goes "
        "through a clean cloth. Let it cool with a lid on. Boiling kills germs; it does not take "
        "out salt, fuel or metals. Keep it apart from water that nobody treated, and mark both."
    ),
    "battery": (
        "Turn off Wi-Fi and the screen, and send your position every 30 minutes only. Keep the "
        "battery warm."
    ),
    "": "Without fire: fill a clear bottle, lay it into full sun for six hours, turn it once.",
}
#: What is typed; the next when something was heard.
TYPED: Final = (
    "are you there?",
    "How do I make water safe?",
    "more",
    "My battery is low, what helps?",
)
STILLS: Final = {"status": ["status"], "why": ["why", "--node", "Ada Example"]}
PATIENCE_S: Final = 30.0
KEY_S: Final = 0.04
#: Rich's screen without the fonts that it would fetch from elsewhere.
SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px;
 line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 16px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def scripted(request: Mapping[str, object]) -> Reply:
    """Answer by the words of the last message."""
    messages = request.get("messages")
    said = str(messages[-1]) if isinstance(messages, list) and messages else ""
    found = next(text for word, text in ANSWERS.items() if word in said)
    return Reply(found, piece_delay_s=0.02)


def record(target: Path, stills: Path) -> None:
    """Record the demo; the screens of the other verbs are left in the folder `stills`."""
    player = f"{sys.executable} -m docs.pictures.make_terminal_pictures --play {stills}"
    command = ["asciinema", "rec", "--quiet", "--overwrite", "--cols", str(COLUMNS)]
    command += ["--rows", str(ROWS), "--idle-time-limit", "2", "--command", player, str(target)]
    with OllamaServer(scripted) as model:
        environ = {**os.environ, "OLLAMA_BASE_URL": model.url, "TERM": "xterm-256color"}
        # No shell: a program of ours, or of the system, with arguments from this file.
        subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=150)  # noqa: S603
    head, *events = target.read_text(encoding="utf-8").splitlines()
    size = {key: json.loads(head)[key] for key in ("version", "width", "height")}
    told = json.dumps({**size, "title": f"./run.sh demo: {LABEL}"})  # no time, no shell, no paths
    target.unlink()
    atomic.write_text(target, "\n".join([told, *events, ""]))


def play(stills: Path) -> None:
    """Type into a demo on this terminal, as a person would, and look at it from the side."""
    _type("./run.sh demo", prompt="$ ")
    command = [str(ROOT / "run.sh"), "demo", "--keep"]
    pipe = subprocess.PIPE
    # No shell: a program of ours, or of the system, with arguments from this file.
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as demo:  # noqa: S603
        assert demo.stdin is not None
        assert demo.stdout is not None
        assert demo.stderr is not None
        try:
            _converse(demo.stdin, _Screen(demo.stdout))
            folder = _folder(demo.stderr)
            for name, arguments in STILLS.items():
                atomic.write_text(stills / f"{name}.txt", _seen([*arguments, "--data", folder]))
            demo.stdin.close()
        except BaseException:
            demo.terminate()
            raise
    shutil.rmtree(folder)


def _converse(keys: IO[str], screen: "_Screen") -> None:
    screen.wait_for("Ctrl-D ends")
    for text in TYPED:
        Waker().wait_real(1)
        screen.forget()
        _type(text)
        keys.write(f"{text}\n")
        keys.flush()
        screen.wait_for("]")
    Waker().wait_real(2)


class _Screen:
    """Shows what a program writes, and lets one wait for words in it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._text = ""
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        for line in self._stream:
            sys.stdout.write(line)
            sys.stdout.flush()
            self._text += line

    def forget(self) -> None:
        self._text = ""

    def wait_for(self, words: str) -> None:
        waker, left_s = Waker(), PATIENCE_S
        while words not in self._text:
            if left_s <= 0:
                sys.exit(f"{words!r} did not come")
            waker.wait_real(KEY_S)
            left_s -= KEY_S


def _folder(stream: IO[str]) -> str:
    for line in stream:
        if line.startswith("data folder: "):
            return line.removeprefix("data folder: ").strip()
    sys.exit("the demo did not start")


def _type(text: str, prompt: str = "") -> None:
    sys.stdout.write(prompt)
    for char in text:
        sys.stdout.write(char)
        sys.stdout.flush()
        Waker().wait_real(KEY_S)
    sys.stdout.write("\n")
    sys.stdout.flush()


def _seen(arguments: list[str]) -> str:
    """Run a verb on a terminal of its own and return what it writes there."""
    ours, theirs = os.openpty()
    environ = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "100"}
    command = [sys.executable, "-m", "meshllm", *arguments]
    # No shell: a program of ours, or of the system, with arguments from this file.
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=theirs) as verb:  # noqa: S603
        os.close(theirs)
        pieces = []
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:  # the other end was closed: that is how a terminal ends
            verb.wait()
        finally:
            os.close(ours)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def still(text: str, target: Path, title: str) -> None:
    """Render a terminal's text to a picture without anything from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=False, highlight=False)
    name = target.stem
    picture = console.export_svg(title=f"{title} ({LABEL})", code_format=SVG, unique_id=name)
    lines = (line.rstrip() for line in picture.splitlines())
    atomic.write_text(target, "".join(f"{line}\n" for line in lines if line))


def main() -> None:
    """Write the recording and the pictures to the folder named on the command line."""
    if sys.argv[1:2] == ["--play"]:
        play(Path(sys.argv[2]))
        return
    target = Path(sys.argv[1] if len(sys.argv) > 1 else HERE).resolve()
    with tempfile.TemporaryDirectory() as name:
        stills = Path(name)
        record(target / "demo.cast", stills)
        events = (target / "demo.cast").read_text(encoding="utf-8").splitlines()[1:]
        shown = "".join(json.loads(event)[2] for event in events).replace("\r\n", "\n")
        still(shown, target / "terminal-demo.svg", "./run.sh demo")
        for verb, arguments in STILLS.items():
            typed = " ".join(f'"{word}"' if " " in word else word for word in arguments)
            seen = (stills / f"{verb}.txt").read_text(encoding="utf-8")
            command = f"./run.sh {typed}"
            still(f"$ {command} --data FOLDER\n{seen}", target / f"terminal-{verb}.svg", command)


if __name__ == "__main__":
    main()
