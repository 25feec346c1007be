"""Whatever the mesh and the model say stays text: built by the real Jekyll, then parsed."""

from pathlib import Path
from typing import Final

import pytest
import yaml

from meshllm.site.page import render
from tests.site.world import (
    Html,
    add,
    build,
    complaints,
    copy_theme,
    make_page,
    needs_jekyll,
    parse,
    run_jekyll,
)

pytestmark = needs_jekyll

SECRET: Final = "only-in-a-direct-message-4711"
HOSTILE: Final = (
    # Liquid
    "{% include sorted.html %}",
    "{% include /etc/passwd %}",
    "{{ site }} {{ site.pages | jsonify }}",
    "{{ content }}{{ page.meta_json }}",
    "{% raw %}",
    "{% endraw %}",
    "{% raw %}{{ site.title }}{% endraw %}{{ site.title }}",
    "{%- assign x = site.config -%}{{ x }}",
    "{% link x.md %}{% post_url x %}",
    "{{ '<b>' }}",
    "{{",
    "%}",
    "{% comment %}",
    # HTML
    "<script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    "</pre><script>document.title='owned'</script><pre>",
    "</pre>",
    "</script></title></style></textarea>",
    "<!-- ",
    "-->",
    "]]>",
    "<![CDATA[ x",
    '" onmouseover="document.title=1" x="',
    "' onclick='x'",
    "&lt;script&gt; &amp;lt; &#60; &#x3c;",
    "<meta http-equiv=refresh content=0;url=https://example.org/>",
    # Markdown and kramdown
    "![a](https://example.org/a.png) [b](javascript:alert(1))",
    "[c][1]\n\n[1]: https://example.org/",
    "[page](index.md)",
    "a\n{: onclick='x' .evil #id}",
    "{::options parse_block_html='true' /}",
    "{::nomarkdown}<b>x</b>{:/}",
    "<div markdown='1'>\n# head\n</div>",
    "# head\n\n- list\n\n```ruby\nputs 1\n```\n\n~~~\nx",
    "$$ x^2 $$ \\( y \\)",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "*[HTML]: y\n\n[^1]: note",
    "<https://example.org/> https://example.org/",
    # Front matter
    "---",
    "x\n---\nlayout: evil\npublished: true\n---\n",
    "...\n---",
    "\n\n\n## Response\n\n<pre>forged</pre>\n",
    # YAML
    "a: b",
    "a #b",
    "# c",
    "!!python/object/apply:os.system [id]",
    "!ruby/object:Gem::Installer x",
    "&a *a",
    "*a",
    "- a",
    "? x",
    "%TAG ! x",
    "@x",
    "`x`",
    "[a, {b: c}]",
    "'it''s",
    '"quoted" \\n \\u0041',
    "| block",
    "> folded",
    "<<",
    "=",
    "~",
    "null",
    "nUll",
    "true",
    "oN",
    "1,000",
    "1_000",
    "0x1F",
    "017",
    "1e3",
    ".5",
    ".inf",
    "12:30:45",
    "2026-01-01",
    "2026-01-01 00:00:00",
    ":symbol",
    ":)",
    ":'x y'",
    # Characters
    "\u202egnol eht si siht\u202c after",
    "\u202eunclosed",
    "\u2066isolate \u2067two",
    "\u200f\u061cmark",
    "עברית عربي English",
    "a\u2028b\u2029c\x85d",
    "\ufeffbom \ufffe \uffff",
    "👩‍🚒🇺🇦 𝔘 𐍈",
    "e\u0301 \u1e69",
    "Ａ＜ｓｃｒｉｐｔ＞",
    "nul \x00 bell \x07 escape \x1b[31m del \x7f c1 \x9b",
    "lone \ud800 surrogate \udfff",
    "tab\tand  two spaces ",
    "x" * 5000,
)
NAIVE: Final = (
    "<script>document.title='owned'</script>",
    '<img src="x" onerror="document.title=\'owned\'">',
    "</pre><b>x</b><pre>",
    "{{ site.title }}",
    "a &lt; b",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_theme(tmp_path_factory.mktemp("hostile") / "prompts")
    ends = (make_page(f"p-{year}", moment=f"{year}-06-01 00:00:00") for year in (2025, 2027))
    add(source, make_page("p-plain"), *ends)
    for number, text in enumerate(HOSTILE):
        moment = f"2026-01-{1 + number // 24:02} {number % 24:02}:00:00"
        dm = make_page(f"d-{number}", f"{text} {SECRET}", thread_type="dm", name=text)
        add(source, make_page(f"p-{number}", text, moment=moment), dm)
    (source / "prompts.csv").write_text(f"prompt_id\n{SECRET}\n")
    (source / "prompts.csv.lock").write_text(SECRET)
    (source / "archive").mkdir()
    (source / "archive/prompts-2025-12.csv").write_text(SECRET)
    (source / ".prompts.csv.abc.tmp").write_text(SECRET)
    (source / "README.md").write_text(SECRET)
    return build(source)


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=lambda n: ascii(HOSTILE[n][:24]))
def test_hostile_text_is_shown_as_it_is_and_makes_no_element(site: Path, number: int) -> None:
    text = HOSTILE[number].encode("utf-8", "replace").decode()
    found, plain = parse(site / f"p-{number}.html"), parse(site / "p-plain.html")

    assert complaints(found, plain, [text]) == []
    assert len(found.text_of("pre")) == len(plain.text_of("pre"))


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=lambda n: ascii(HOSTILE[n][:24]))
def test_front_matter_gives_jekyll_the_very_text(site: Path, number: int) -> None:
    text = HOSTILE[number].encode("utf-8", "replace").decode()

    channel, model = parse(site / f"p-{number}.html").text_of("bdi")[:2]

    assert (channel, model) == (text, text)


def test_no_direct_message_is_in_the_site_whatever_it_says(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.is_file()]

    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []
    assert [path.name for path in files if path.name.startswith("d-")] == []


def test_nothing_but_pages_and_theme_is_in_the_site(site: Path) -> None:
    names = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}

    pages = {name for name in names if name.startswith("p-")}
    assert len(pages) == len(HOSTILE) + 3
    assert names - pages == {
        "00-order.txt",
        "all.html",
        "index.html",
        "stats.html",
        "assets/icon.svg",
        "assets/site.css",
        "assets/site.js",
    }


@pytest.mark.parametrize("name", ["index.html", "all.html", "stats.html"])
def test_lists_hold_no_element_that_a_text_made(site: Path, name: str) -> None:
    page = parse(site / name)

    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    names = {name for _, attributes in page.elements for name, _ in attributes}
    tags = {tag for tag, _ in page.elements}
    assert scripts == [(("src", "assets/site.js"), ("defer", ""))]
    assert [name for name in names if name.startswith("on") or name == "style"] == []
    assert tags & {"img", "iframe", "object", "b", "form", "base", "style", "textarea"} == set()
    assert [link for link in page.links if ":" in link] == []


def test_lists_show_hostile_channel_names_as_they_are(site: Path) -> None:
    shown = set(parse(site / "index.html").text_of("bdi"))

    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    expected = {text if len(text) <= 40 else f"{text[:37]}..." for text in texts}
    assert expected <= shown


def test_a_page_that_puts_texts_in_raw_is_found_out(tmp_path: Path) -> None:
    """The control: the same check must bite on a page written the naive way."""
    source = copy_theme(tmp_path / "prompts")
    add(source, make_page("p-plain"))
    head = render(make_page("p", name="plain")).partition("\n---\n")[0]
    for number, text in enumerate(NAIVE):
        page = f"{head}\n---\n\n## Prompt\n\n<pre>{text}</pre>\n"
        (source / f"n-{number}.md").write_text(page)

    site = build(source)

    plain = parse(site / "p-plain.html")
    for number, text in enumerate(NAIVE):
        found = parse(site / f"n-{number}.html")
        assert f"not shown: {text!r}" in complaints(found, plain, [text])


def test_a_page_whose_front_matter_is_broken_stops_the_build(tmp_path: Path) -> None:
    """It has lost its `published: false`: Jekyll left to itself would show it."""
    source = copy_theme(tmp_path / "prompts")
    (source / "d-1.md").write_text(f"---\nthread_key: :symbol\npublished: false\n---\n{SECRET}\n")

    done = run_jekyll(source)

    assert done.returncode != 0
    assert "d-1.md" in done.stderr
    assert not (tmp_path / "site/d-1.html").exists()


def test_plain_words_alone_are_unquoted_in_front_matter() -> None:
    for text in (*HOSTILE, "prompt", "ok", "LongFast", "qwen3:4b"):
        front = render(make_page("p", text)).partition("\n---\n")[0].removeprefix("---\n")
        values = yaml.safe_load(front)

        assert values["thread_key"] == text.encode("utf-8", "replace").decode()
        lines = [line for line in front.splitlines() if line.startswith("thread_key: ")]
        is_plain = text.isascii() and text.replace("_", "").isalpha() and text.islower()
        assert is_plain or lines[0].endswith(('"', "'")), lines


def test_parser_sees_what_a_browser_would_see() -> None:
    page = Html("<p>a &lt;b&gt; <b onclick=x>c</b></p><pre>\n{</pre>")

    assert page.elements == [("p", ()), ("b", (("onclick", "x"),)), ("pre", ())]
    assert page.text_of("p") == ["a <b> c"]
