"""The site in a real browser: what it runs, what it fetches, what its own script does."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from tests.site.world import (
    Html,
    add,
    build,
    copy_theme,
    make_page,
    needs_chromium,
    needs_jekyll,
)

pytestmark = [needs_jekyll, needs_chromium]

BASE: Final = "/some/base"  #: the site lies below a folder, as GitHub's project pages do
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--virtual-time-budget=3000",
)
ATTACK: Final = (
    "<script>document.title='owned';fetch('/beacon-1')</script>"
    "<img src=/beacon-2 onerror=\"document.title='owned'\">"
    "<svg onload=\"document.title='owned'\"></svg>"
    "</pre></p></td></title><script src=/beacon-3></script><link rel=stylesheet href=/beacon-4>"
    "<iframe src=/beacon-5></iframe><meta http-equiv=refresh content='0;url=/beacon-6'>"
)
Fetch = Callable[[str], Html]


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder and notes every path asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Browser:
    """A folder served on loopback, and Chromium to look at it."""

    def __init__(self, root: Path, profiles: Path) -> None:
        self.asked: list[str] = []
        handler = type("Handler", (_Handler,), {"asked": self.asked})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._profiles = profiles
        self._thread.start()

    def show(self, path: str) -> Html:
        """Load a page, let its scripts run, return what became of it."""
        self.asked.clear()
        profile = self._profiles / f"profile-{len(list(self._profiles.iterdir()))}"
        url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"
        command = ["chromium", *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, timeout=18, check=True)
        return Html(done.stdout.decode())

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("chromium")
    source = copy_theme(folder / "prompts")
    add(source, make_page("attack", ATTACK, moment="2026-01-01 00:00:00", duration_ms=9000))
    for number, text in enumerate(("water and fire", "fire", "WATER again")):
        moment, spent = f"2026-01-0{number + 2} 00:00:00", (20000, None, 3000)[number]
        add(source, make_page(f"n{number}", text, moment=moment, duration_ms=spent, name="mesh"))
    site = build(source)
    _add_trials(site)
    served = folder / f"served{BASE}"
    shutil.copytree(site, served)
    profiles = folder / "profiles"
    profiles.mkdir()
    running = Browser(folder / "served", profiles)
    yield running
    running.close()


def _add_trials(site: Path) -> None:
    """Beside the pages: two that let the attack in, one that works the list as a person does."""
    page = (site / "attack.html").read_text()
    (site / "naive.html").write_text(f"<!DOCTYPE html><title>plain</title><p>{ATTACK}")
    (site / "leaky.html").write_text(page.replace("<article", f"{ATTACK}<article", 1))
    index = (site / "index.html").read_text()
    driver = '<script src="driver.js" defer></script></head>'
    (site / "driven.html").write_text(index.replace("</head>", driver, 1))
    (site / "driver.js").write_text(
        'const seconds = [...document.querySelectorAll("th button")].at(-1);'
        "seconds.click(); seconds.click();"
        'const field = document.getElementById("search"); field.value = "water MESH";'
        'field.dispatchEvent(new Event("input"));'
    )


def test_an_attack_in_a_text_runs_nothing_and_fetches_nothing(browser: Browser) -> None:
    page = browser.show(f"{BASE}/attack.html")

    assert page.text_of("title") == ["Prompt attack · The librarian's log"]
    assert [text for text in page.text_of("pre") if text == ATTACK]
    own = {"attack.html", "assets/site.css", "assets/site.js", "assets/icon.svg"}
    assert set(browser.asked) <= {f"{BASE}/{name}" for name in own}
    assert {f"{BASE}/assets/site.css", f"{BASE}/assets/site.js"} <= set(browser.asked)


def test_the_attack_works_on_a_page_that_lets_it_in(browser: Browser) -> None:
    """The control: else the test above would pass with a browser that runs nothing."""
    page = browser.show(f"{BASE}/naive.html")

    assert "owned" in page.text_of("title") or "/beacon-6" in browser.asked
    assert {"/beacon-1", "/beacon-2", "/beacon-3"} <= set(browser.asked)


def test_even_a_leak_into_the_page_runs_no_script_under_its_policy(browser: Browser) -> None:
    page = browser.show(f"{BASE}/leaky.html")

    assert "owned" not in page.text_of("title")
    assert not {"/beacon-1", "/beacon-5"} & set(browser.asked)


def test_search_and_sorting_work_under_the_policy(browser: Browser) -> None:
    page = browser.show(f"{BASE}/driven.html")

    order = [
        link for link in page.links if link in {"attack.html", "n0.html", "n1.html", "n2.html"}
    ]
    rows = [dict(attributes) for tag, attributes in page.elements if tag == "tr"][1:]
    assert order == ["n2.html", "attack.html", "n0.html", "n1.html"]  # no seconds: last
    assert ["hidden" in row for row in rows] == [False, True, False, True]
    assert "2 found" in page.text_of("span")


def test_without_a_script_the_list_is_whole_and_offers_no_search(browser: Browser) -> None:
    """As built, before any script: the field is hidden, every row is shown."""
    served = Path(str(browser._profiles.parent / "served")) / f"{BASE[1:]}/index.html"
    page = Html(served.read_text())

    tools = [
        dict(attributes) for tag, attributes in page.elements if ("class", "tools") in attributes
    ]
    rows = [dict(attributes) for tag, attributes in page.elements if tag == "tr"]
    assert ["hidden" in attributes for attributes in tools] == [True]
    assert ["hidden" in row for row in rows] == [False] * 5
