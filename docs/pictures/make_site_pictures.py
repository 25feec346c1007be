"""Makes the pictures of the prompt site: invented prompts, built by Jekyll, seen by Chromium.

Run it from the repository: `python -m docs.pictures.make_site_pictures [FOLDER]`. It needs jekyll
and chromium on the path, and writes site-*.png to FOLDER, which is this one by default.
"""

# ruff: noqa: INP001  a script, not a package
import random
import shutil
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from meshllm.records import PromptRow, compact_json
from meshllm.site.page import Block, Page, render
from meshllm.store import atomic

HERE: Final = Path(__file__).resolve().parent
THEME: Final = HERE.parents[1] / "prompts"
PROMPTS: Final = 60
LAST: Final = datetime(2026, 3, 1, 18, 40, tzinfo=UTC)
SYSTEM: Final = "You are the librarian of an off-grid radio mesh. Be brief, clear and practical."


class Talk(NamedTuple):
    """A question and the parts of its answer."""

    question: str
    parts: tuple[str, ...]


HOSTILE: Final = Talk(
    "What do {{ site.title }} and <b>bold</b> mean?",
    ("The first is a template tag, the second is HTML. Here both are only text 🙂",),
)
TALKS: Final = (
    Talk(
        "How long do I boil water at 2000 m?",
        ("A rolling boil for 3 minutes. Then let it cool with a lid on.",),
    ),
    Talk(
        "My battery drops to 20 % every night. What can I do?",
        (
            "(1/2) Send your position less often and turn off Wi-Fi and the screen.",
            "(2/2) Keep the battery warm: below 0 °C it gives less and must not be charged.",
        ),
    ),
    Talk(
        "Wie erkenne ich eine Unterkühlung?",
        ("Starkes Zittern, undeutliche Sprache. Nasse Kleidung ausziehen, Rumpf wärmen.",),
    ),
    Talk(
        "¿Qué altura de antena conviene?",
        ("Súbela por encima del tejado: la altura vale más que la ganancia.",),
    ),
    Talk(
        "كيف أنقي الماء بدون نار؟",
        ("ضع الماء في زجاجة شفافة تحت الشمس المباشرة ست ساعات على الأقل.",),
    ),
    Talk(
        "איך מכינים מצפן פשוט?", ("שפשפו מחט על בד משי, הניחו על עלה צף במים. הקצה יצביע צפונה.",)
    ),
    Talk("停电时手机怎么省电?", ("打开飞行模式, 调低亮度, 关闭定位。每小时只开机几分钟收消息。",)),
    Talk(
        "Як зупинити сильну кровотечу?",
        ("Притисніть рану чистою тканиною, не відпускайте. Кличте на поміч.",),
    ),
    HOSTILE,
    Talk("which spreading factor does LongFast use", ("SF 11 at 250 kHz, coding rate 4/5.",)),
)
CHROMIUM_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHANNELS: Final = ("LongFast", "LongFast", "Base Camp", "Ridge Runner")
MODELS: Final = ("qwen3:4b", "qwen3:4b", "gemma3:1b")


def make_page(number: int, dice: random.Random) -> Page:
    """Return one invented prompt; about one in ten has no answer."""
    talk = TALKS[number % len(TALKS)]
    is_answered = dice.random() > 0.1 or number < len(TALKS)
    queued = tuple(
        {"id": str(5000 + 10 * number + at), "content": part, "part": at, "parts": len(talk.parts)}
        for at, part in enumerate(talk.parts, 1)
        if is_answered
    )
    prompt = (
        Block("system", SYSTEM),
        Block("user", f"{talk.question}\n\nAnswer in at most 200 bytes."),
    )
    response = " ".join(talk.parts) if is_answered else ""
    outcome = "ok" if is_answered else dice.choice(("timeout", "unreachable"))
    note = "0 turns of history out of 3 rows before the question."
    return Page(_row(number, talk, response, dice), outcome, queued, prompt, response, note)


def _row(number: int, talk: Talk, response: str, dice: random.Random) -> PromptRow:
    words = len(response) // 4 or None
    speed = round(dice.uniform(3.0, 9.0), 2) if response else None
    moment = LAST - timedelta(hours=number * 9 + dice.randint(0, 8), minutes=dice.randint(0, 59))
    return PromptRow(
        prompt_id=str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        node_uid="5c0ffee1",
        datetime=moment.strftime("%Y-%m-%d %H:%M:%S"),
        model=dice.choice(MODELS),
        thread_type="channel",
        thread_key=dice.choice(CHANNELS),
        source_message_id=str(1000 + number),
        response_message_id=str(5001 + 10 * number) if response else "",
        prompt_tokens=dice.randint(180, 700),
        completion_tokens=words,
        prompt_tps=round(dice.uniform(30, 60), 1),
        eval_tps=speed,
        duration_ms=int(1000 * ((words or 0) / (speed or 1) + dice.uniform(1, 9))),
        meta_json=compact_json({"asked_chars": len(talk.question)}),
    )


def write_prompts(source: Path, prompts: int) -> list[Page]:
    """Make a folder of the theme and as many invented prompts; newest first."""
    shutil.copytree(THEME, source, ignore=shutil.ignore_patterns("*-*-*-*-*.md", "*.csv*", "_site"))
    dice = random.Random(5)  # noqa: S311  the same pictures every time
    pages = [make_page(number, dice) for number in range(prompts)]
    for page in pages:
        atomic.write_text(source / f"{page.row.prompt_id}.md", render(page))
    return pages


def build(source: Path, site: Path) -> None:
    """Build a site with Jekyll. Raises CalledProcessError."""
    command = ["jekyll", "build", "--safe", "--disable-disk-cache", "--quiet"]
    # No shell: a program of ours, or of the system, with arguments from this file.
    subprocess.run([*command, "-s", str(source), "-d", str(site)], check=True)  # noqa: S603


def picture(page: Path, target: Path, *, size: tuple[int, int], is_dark: bool, at: Path) -> None:
    """Save what Chromium shows of a page, with a new profile `at` a folder."""
    flags = list(CHROMIUM_FLAGS)
    if is_dark:
        flags.append("--blink-settings=preferredColorScheme=0")
    shot = (f"--window-size={size[0]},{size[1]}", f"--screenshot={target}")
    command = ["chromium", *flags, *shot, f"--user-data-dir={at}", page.as_uri()]
    # No shell: a program of ours, or of the system, with arguments from this file.
    subprocess.run(command, check=True, capture_output=True, timeout=60)  # noqa: S603


def phone(*pages: Path, at: Path) -> Path:
    """Write a page that shows others side by side in the width of a telephone; return it."""
    frames = (f'<iframe width="390" height="660" src="{page.as_uri()}"></iframe>' for page in pages)
    atomic.write_text(at, f"<meta charset=utf-8><body bgcolor=gray>{' '.join(frames)}")
    return at


def main() -> None:
    """Write the pictures to the folder named on the command line."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else HERE).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = folder / "site"
        pages = write_prompts(folder / "prompts", PROMPTS)
        build(folder / "prompts", site)
        hostile = next(page for page in pages if page.response == HOSTILE.parts[0])
        prompt = site / f"{hostile.row.prompt_id}.html"
        both = phone(site / "index.html", prompt, at=folder / "phone.html")
        shots = (
            ("site-list", site / "index.html", (1000, 620), False),
            ("site-figures", site / "stats.html", (1000, 700), False),
            ("site-phone", both, (820, 690), True),
        )
        for stem, page, size, is_dark in shots:
            at = folder / f"profile-{stem}"
            picture(page, target / f"{stem}.png", size=size, is_dark=is_dark, at=at)


if __name__ == "__main__":
    main()
