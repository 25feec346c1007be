"""The lists, the neighbours of a page and the charts, read out of what Jekyll built."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.site.world import (
    THEME,
    THEME_FILES,
    add,
    build,
    copy_theme,
    make_page,
    needs_jekyll,
    parse,
)

#: Moments out of order, two of them equal; ids in an order of their own.
MOMENTS = {
    "c": "2026-02-28 23:59:59",
    "a": "2026-03-02 08:00:00",
    "e": "2025-12-31 00:00:00",
    "b": "2026-03-02 07:59:59",
    "d": "2026-02-28 23:59:59",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_theme(tmp_path_factory.mktemp("lists") / "prompts")
    for prompt_id, moment in MOMENTS.items():
        add(source, make_page(prompt_id, f"text of {prompt_id}", moment=moment))
    return build(source)


def numbers(page: Path, title: str) -> dict[str, list[str]]:
    """The table below a chart: label to its cells."""
    figure = page.read_text().partition(f"<figcaption>{title}")[2].partition("</figure>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", figure.partition("<tbody>")[2], re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return {row[0]: row[1:] for row in cells}


@needs_jekyll
@pytest.mark.parametrize("name", ["index.html", "all.html"])
def test_lists_have_the_newest_first(site: Path, name: str) -> None:
    links = [link[0] for link in parse(site / name).links if re.fullmatch(r"[a-e]\.html", link)]

    assert [MOMENTS[link] for link in links] == sorted(MOMENTS.values(), reverse=True)
    assert sorted(links) == sorted(MOMENTS)


@needs_jekyll
def test_neighbours_lead_through_all_prompts_in_the_order_of_the_list(site: Path) -> None:
    order = [
        link for link in parse(site / "index.html").links if re.fullmatch(r"[a-e]\.html", link)
    ]

    pagers = {}
    for name in order:
        found = (site / name).read_text()
        pagers[name] = (
            re.findall(r'rel="prev" href="(.*?)"', found),
            re.findall(r'rel="next" href="(.*?)"', found),
        )
    assert [pagers[name][0] for name in order] == [[], *([name] for name in order[:-1])]
    assert [pagers[name][1] for name in order] == [*([name] for name in order[1:]), []]


@needs_jekyll
def test_every_link_is_relative_and_leads_somewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        for link in parse(page).links:
            assert (site / link).is_file(), f"{page.name}: {link}"
            assert not link.startswith("/"), f"{page.name}: {link}"


@needs_jekyll
def test_every_page_forbids_scripts_and_sources_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text()
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
        assert policy is not None, page.name
        assert "default-src 'none'" in policy[1]
        assert "unsafe" not in policy[1]
        assert "<meta charset" in text.partition("Content-Security-Policy")[0]
    served = [path.read_text() for path in site.rglob("*") if path.suffix in {".css", ".js"}]
    assert len(served) == 2
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttp|innerHTML", "".join(served))


@needs_jekyll
def test_first_list_ends_at_its_limit_and_the_other_has_all(tmp_path: Path) -> None:
    source = copy_theme(tmp_path / "prompts")
    settings = (source / "_config.yml").read_text()
    (source / "_config.yml").write_text(settings.replace("index_limit: 200", "index_limit: 3"))
    add(source, *(make_page(f"n{n}", moment=f"2026-01-0{n} 00:00:00") for n in range(1, 6)))

    site = build(source)

    index, everything = parse(site / "index.html"), parse(site / "all.html")
    assert [link for link in index.links if link.startswith("n")] == [
        "n5.html",
        "n4.html",
        "n3.html",
    ]
    assert len([link for link in everything.links if link.startswith("n")]) == 5
    assert index.text_of("h1") == ["The 3 newest prompts"]


@needs_jekyll
def test_a_site_without_prompts_builds(tmp_path: Path) -> None:
    site = build(copy_theme(tmp_path / "prompts"))

    for name in ("index.html", "stats.html"):
        assert "No prompt has been published yet." in (site / name).read_text()


@needs_jekyll
def test_pages_with_cells_that_no_program_of_ours_writes_do_not_stop_the_build(
    tmp_path: Path,
) -> None:
    source = copy_theme(tmp_path / "prompts")
    add(source, make_page("good"))
    odd = ("datetime: 2026-01-01 00:00:00", "datetime: 5", "datetime: [a]", "x: y", "datetime: ''")
    for number, line in enumerate(odd):
        (source / f"odd-{number}.md").write_text(f"---\nlayout: prompt\n{line}\n---\nx\n")
    (source / "text.md").write_text(
        "---\nlayout: prompt\ndatetime: '2026-01-01 00:00:00'\nqueued: text\nduration_ms: long\n"
        "eval_tps: fast\ncompletion_tokens: [1]\nquestion: 5\nmodel: 1.5\n---\nx\n"
    )

    site = build(source)

    assert [link for link in parse(site / "index.html").links if "odd" in link] == []


@needs_jekyll
def test_charts_count_answers_seconds_speeds_and_parts(tmp_path: Path) -> None:
    source = copy_theme(tmp_path / "prompts")
    cases: list[tuple[str, int, float | None, int | None]] = [
        ("2026-03-01 23:59:59", 1, 1.99, 1999),
        ("2026-03-01 00:00:00", 2, 2.0, 2000),
        ("2026-02-28 12:00:00", 4, 25.5, 80000),
        ("2026-02-28 13:00:00", 0, 3.0, 3000),
        ("2026-01-30 12:00:00", 1, 5.0, 7500),
        ("2026-01-31 00:00:00", 1, None, None),
    ]
    for number, (moment, queued, speed, duration) in enumerate(cases):
        page = make_page(
            f"n{number}", moment=moment, queued=queued, eval_tps=speed, duration_ms=duration
        )
        add(source, page)

    stats = build(source) / "stats.html"

    days = numbers(stats, "Answers a day")
    assert (min(days), max(days), len(days)) == ("01-31", "03-01", 30)
    assert list(days) == sorted(days)
    assert {day: cells for day, cells in days.items() if cells != ["0", "0"]} == {
        "01-31": ["1", "0"],
        "02-28": ["1", "1"],
        "03-01": ["2", "0"],
    }
    seconds = {label: int(cells[0]) for label, cells in numbers(stats, "Seconds").items()}
    assert seconds == {
        "0–2": 1, "2–5": 1, "5–10": 1, "10–20": 0, "20–40": 0, "40–80": 0, "80+": 1
    }  # fmt: skip
    speeds = {label: int(cells[0]) for label, cells in numbers(stats, "Tokens written").items()}
    assert speeds == {
        "0–2": 1, "2–4": 1, "4–6": 1, "6–8": 0, "8–12": 0, "12–20": 0, "20+": 1
    }  # fmt: skip
    parts = {label: int(cells[0]) for label, cells in numbers(stats, "Parts").items()}
    assert parts == {"1": 3, "2": 1, "3 or more": 1}


@needs_jekyll
def test_a_prompt_without_an_answer_says_what_happened(tmp_path: Path) -> None:
    source = copy_theme(tmp_path / "prompts")
    add(source, make_page("n", queued=0, outcome="timeout", completion_tokens=None, eval_tps=None))

    page = parse(build(source) / "n.html")

    assert "took too long" in page.text_of("p")[0]
    assert "No part was queued for the radio." in page.text_of("p")
    assert "Tokens written" not in page.text_of("dt")


def test_git_takes_the_theme_and_no_prompt() -> None:
    """Were a page not ignored, the next commit of an operator would publish it."""
    root = THEME.parent
    theme = [
        str(path.relative_to(root))
        for name in (*THEME_FILES, "README.md")
        for path in ([THEME / name] if (THEME / name).is_file() else (THEME / name).rglob("*"))
    ]
    run = ["prompts.csv", "prompts.csv.lock", "0b8f.md", "archive/prompts-2026-01.csv", ".x.tmp"]
    made = [f"prompts/{name}" for name in (*run, "_site/index.html", ".jekyll-cache/x", "x.html")]

    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *theme, *made],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.splitlines() == made
