"""What gets out of the prompt log, and what does not."""

import csv
import html
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from meshllm.errors import UserError
from meshllm.records import Node, PromptRow
from meshllm.site.page import parse_row
from meshllm.site.target import MANIFEST
from meshllm.store.table import Table
from tests.agent.conftest import ALICE, HOME
from tests.site.conftest import (
    CONTACTS,
    DM_TEXT,
    ENDS,
    IDS,
    NAMES,
    POSITIONS,
    ROOT,
    Log,
    files_of,
    leaks,
)

EVERYTHING = (*NAMES, *IDS, *ENDS, *POSITIONS, *CONTACTS)
PRIVATE = (DM_TEXT, "blue barrel", "gate is otter", "Family")
MEETING = "meet QuartzWren"


def pages(files: dict[str, bytes]) -> dict[str, str]:
    return {n: html.unescape(data.decode()) for n, data in files.items() if n.endswith(".md")}


def key_of(log: Log) -> str:
    return log.layout.publish_key.read_text().strip()


def question(path: Path) -> str:
    front = yaml.safe_load(path.read_text().split("---\n")[1])
    return str(front["question"])


def page_about(log: Log, words: str) -> Path:
    (found,) = (path for path in log.layout.prompts_dir.glob("*.md") if words in question(path))
    return found


def rewrite(page: Path, change: Callable[[str], str]) -> None:
    changed = change(page.read_text())
    assert changed != page.read_text(), "the change does not change anything"
    page.chmod(0o600)
    page.write_text(changed)


def test_nothing_private_is_in_a_published_folder(log: Log) -> None:
    report = log.publish()

    files = log.files()
    assert len(report.published) == len(pages(files)) == 5
    assert report.threads == {"LongFast": 5}
    secrets = (*EVERYTHING, *PRIVATE, key_of(log), str(log.layout.data_dir))
    assert leaks(files, secrets) == []
    assert leaks(dict.fromkeys(pages(files).values(), b""), secrets) == []


def test_without_redaction_the_same_search_finds_all_of_it(log: Log) -> None:
    """The control: the search above is able to find what it looks for."""
    log.publish(publish_redaction="off")

    files = log.files()
    found = {secret for secret, _ in leaks(files, EVERYTHING)}
    only_in_tables = {"Hilltop Zwölf", *IDS}
    assert set(EVERYTHING) - found <= only_in_tables
    assert {ALICE[1:], "Quartz Wren", "山田", "47.123456", "wren@example.org"} <= found
    assert leaks(files, PRIVATE) == []


def test_direct_messages_are_published_only_when_set_and_then_shown(log: Log) -> None:
    report = log.publish(publish_dms=True)

    files = log.files()
    assert report.threads == {"LongFast": 5, "": 1}
    assert leaks(files, ("blue barrel",)) != []
    assert leaks(files, ("gate is otter", *EVERYTHING)) == []
    assert not any("published:" in text for text in pages(files).values())


def test_no_channel_is_published_unless_named(log: Log) -> None:
    with pytest.raises(UserError, match=r"publish_channels names no channel.*Family, LongFast"):
        log.publish(publish_channels=())

    assert not log.to.exists()
    assert log.publish(publish_channels=("*",)).threads == {"LongFast": 5, "Family": 1}


def test_published_rows_are_those_of_the_published_pages(log: Log) -> None:
    log.publish()

    files = log.files()
    rows = list(csv.DictReader(io.StringIO(files["prompts.csv"].decode())))
    assert {f"{row['prompt_id']}.md" for row in rows} == set(pages(files))
    assert tuple(rows[0]) == PromptRow.columns()
    assert {key for row in rows for key in json.loads(row["meta_json"])} <= {
        "outcome",
        "asked_chars",
        "first_token_ms",
    }
    assert all(not row["source_message_id"] + row["response_message_id"] for row in rows)
    for name, text in pages(files).items():
        row = parse_row(files[name].decode())
        assert row is not None
        assert f"{row.prompt_id}.md" == name
        assert row.meta["asked_chars"] > 0
        assert "reply_to_id" not in text
        assert "channel_index" not in text


def test_a_person_has_one_pseudonym_in_id_name_and_speaker_for_ever(log: Log) -> None:
    log.publish()
    first = log.files()
    shutil.rmtree(log.to)
    log.publish()

    assert log.files() == first
    asked = question(log.to / page_about(log, "quartz wren (QWRN)").name)
    speaker = asked.partition(": ")[0]
    assert speaker.startswith("node-")
    assert asked.count(speaker) == 3


def test_another_installation_gives_other_pseudonyms(log: Log) -> None:
    log.publish()
    first = log.files()["prompts.csv"]
    log.layout.publish_key.unlink()
    log.publish()

    assert log.files()["prompts.csv"] != first


def test_a_key_that_others_can_read_or_that_is_none_stops(log: Log) -> None:
    log.publish()
    assert log.layout.publish_key.stat().st_mode & 0o777 == 0o600
    log.layout.publish_key.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        log.publish()

    log.layout.publish_key.chmod(0o600)
    log.layout.publish_key.write_text("hello")
    with pytest.raises(UserError, match="is no key"):
        log.publish()


def test_times_and_figures_stay(log: Log) -> None:
    log.publish()

    for name, text in pages(log.files()).items():
        before = parse_row((log.layout.prompts_dir / name).read_text())
        after = parse_row((log.to / name).read_text())
        assert before is not None
        assert after is not None
        for kept in ("datetime", "model", "completion_tokens", "duration_ms", "thread_key"):
            assert getattr(before, kept) == getattr(after, kept)
        assert '"time":"2026-03-01 12:00 UTC"' in text


def test_a_name_given_up_since_is_replaced_on_the_pages_of_its_time(log: Log) -> None:
    table = Table(log.layout.tree(HOME).nodes, Node)
    table.rewrite(lambda _, now: [node for node in now.rows if node.node_id != ALICE])
    table.append([Node(ALICE, "NEW", "Somebody Else")])

    log.publish()

    assert leaks(log.files(), ("Quartz Wren", "QWRN")) == []


def test_names_that_are_ordinary_words_stay_where_the_operator_says_so(log: Log) -> None:
    Table(log.layout.tree(HOME).nodes, Node).append([Node("!00c0ffee", "call", "Meet")])

    log.publish()
    assert not any("librarian call" in t or " meet " in t for t in pages(log.files()).values())

    log.publish(publish_plain_words=("meet",))
    assert any(" meet " in text for text in pages(log.files()).values())
    assert not any("librarian call" in text for text in pages(log.files()).values())


def test_a_trial_writes_nothing_and_tells_everything(log: Log, tmp_path: Path) -> None:
    before = files_of(tmp_path)

    report = log.publish(is_trial=True)

    assert files_of(tmp_path) == before
    assert len(report.published) == 5
    assert len(report.changes.written) == 5 + 1 + len(files_of(log.theme))
    assert report.terms["name", "Quartz Wren"] > 0
    assert {kind for kind, _ in report.terms} >= {"name", "node id", "position", "e-mail address"}


# What is not as the agent writes it


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[: len(text) // 2], "not a whole page of the log"),
        (lambda text: text.replace("thread_type: channel", "thread_type: [", 1), "not a whole"),
        (
            lambda text: text.replace("thread_type: channel", "thread_type: x", 1),
            "prompts.csv says",
        ),
        (lambda text: text + "more\n", "not a whole page of the log"),
        (lambda text: text.replace("</pre>", "</pre><b>", 1), "not a whole page of the log"),
        (lambda text: text.replace("layout: prompt", "published: false"), "marked published"),
        (lambda text: text.replace("layout: prompt", "published: 'no'"), "marked published"),
        (lambda text: text.replace('prompt_id: "', 'prompt_id: "f'), "another prompt"),
        (lambda text: text.replace('thread_key: "', 'thread_key: "x'), "prompts.csv says another"),
    ],
)
def test_a_page_that_is_not_whole_or_marked_stays_back(
    log: Log, change: Callable[[str], str], reason: str
) -> None:
    page = page_about(log, MEETING)
    rewrite(page, change)

    report = log.publish()

    kept = [why for why, names in report.kept_back.items() if page.name in names]
    assert [why[: len(reason)] for why in kept] == [reason]
    assert not (log.to / page.name).exists()
    assert page.name.encode().removesuffix(b".md") not in log.files()["prompts.csv"]


def test_a_direct_message_disguised_as_a_channel_page_stays_back(log: Log) -> None:
    page = page_about(log, DM_TEXT)
    rewrite(
        page,
        lambda text: (
            text.replace("thread_type: dm", "thread_type: channel")
            .replace(f'thread_key: "{ALICE}"', 'thread_key: "LongFast"')
            .replace("published: false\n", "")
        ),
    )

    report = log.publish()

    assert report.kept_back["prompts.csv says another thread"] == [page.name]
    assert leaks(log.files(), ("blue barrel",)) == []


def test_links_in_the_log_are_not_followed(log: Log, tmp_path: Path) -> None:
    outside = tmp_path / "secret.md"
    outside.write_text(page_about(log, MEETING).read_text())
    link = log.layout.prompts_dir / "00000000-0000-4000-8000-000000000000.md"
    link.symlink_to(outside)

    report = log.publish()

    assert report.kept_back["cannot be read (no plain file)"] == [link.name]
    assert not (log.to / link.name).exists()


def test_links_and_tables_in_the_theme_are_not_published(log: Log) -> None:
    (log.theme / "assets" / "secret.css").symlink_to(log.layout.prompts_table)
    (log.theme / "more.html").symlink_to(log.layout.prompts_table)
    (log.theme / "_includes" / "below").symlink_to(log.layout.data_dir)
    (log.theme / "_sass").symlink_to(log.layout.data_dir)
    (log.theme / "assets" / "prompts.json").write_text(DM_TEXT)

    log.publish()

    names = set(log.files())
    assert "assets/site.css" in names
    assert not names & {"assets/secret.css", "more.html", "assets/prompts.json"}
    assert not any("below" in name or "_sass" in name for name in names)
    assert leaks(log.files(), (DM_TEXT,)) == []


def test_without_a_theme_nothing_is_published(log: Log) -> None:
    (log.theme / "_config.yml").unlink()

    with pytest.raises(UserError, match="there is no theme"):
        log.publish()

    assert not log.to.exists()


def test_names_that_cannot_be_read_stop_everything(log: Log) -> None:
    nodes = log.layout.tree(HOME).nodes
    nodes.chmod(0o600)
    nodes.write_bytes(nodes.read_bytes() + b"!aaaa0009,broken\n")

    with pytest.raises(UserError, match="damaged; names in it could not be replaced"):
        log.publish()

    assert not log.to.exists()


def test_a_log_without_its_data_folder_is_not_published(log: Log) -> None:
    shutil.rmtree(log.layout.nodes_dir)

    with pytest.raises(UserError, match="no node is known here"):
        log.publish()


# The built site


@pytest.mark.timeout(90)
def test_the_built_site_shows_public_pages_and_nothing_private(log: Log, tmp_path: Path) -> None:
    jekyll = shutil.which("jekyll")
    if jekyll is None:
        pytest.skip("jekyll is not installed")
    if (ROOT / "prompts" / "_config.yml").exists():
        log.theme = ROOT / "prompts"
    log.publish()

    site = tmp_path / "site"
    command = [jekyll, "build", "--source", str(log.to), "--destination", str(site)]
    built = subprocess.run(
        [*command, "--disable-disk-cache"], capture_output=True, text=True, check=False, timeout=80
    )

    assert built.returncode == 0, built.stdout + built.stderr
    files = files_of(site)
    names = {name.removesuffix(".html") for name in files if name.count("-") == 4}
    assert names == {name.removesuffix(".md") for name in pages(log.files())}
    assert "index.html" in files
    assert not any(name.endswith((".csv", ".json")) or MANIFEST in name for name in files)
    secrets = (*EVERYTHING, *PRIVATE, key_of(log), str(log.layout.data_dir), str(tmp_path))
    assert leaks(files, secrets) == []
