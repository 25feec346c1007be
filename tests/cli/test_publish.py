"""`prompts publish` as an operator types it, on the log that the agent wrote."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshllm.cli.main import cli
from meshllm.config import default_path
from meshllm.layout import Layout
from meshllm.records import Node, PromptRow, compact_json
from meshllm.site.page import Block, Page, render
from meshllm.store.table import Table

THEME = default_path().parent / "prompts" / "_config.yml"
ID = "00000000-0000-4000-8000-00000000000"
needs_theme = pytest.mark.skipif(not THEME.exists(), reason="the theme is not in this checkout")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make settings, one node and three prompts: two of channels, one direct."""
    root = tmp_path / "home"
    layout = Layout(root / "data", root / "data/nodes", root / "prompts")
    for folder in (*layout.tree("aaaa0001").folders(), layout.prompts_dir):
        folder.mkdir(parents=True)
    Table(layout.tree("aaaa0001").nodes, Node).append([Node("!a11ce001", "QW\x1b[2J", "Wren")])
    for number, (kind, key) in enumerate(
        (("channel", "Open"), ("channel", "Own"), ("dm", "!a11ce001"))
    ):
        row = PromptRow(
            f"{ID}{number}",
            "aaaa0001",
            "2026-03-01 12:00:00",
            "tiny",
            kind,
            key,
            "7",
            meta_json=compact_json({"asked_chars": 4}),
        )
        page = Page(row, "ok", (), (Block("user", "Wren?\nAnswer QW."),), f"text {number}", "")
        layout.prompt_page(row.prompt_id).write_text(render(page))
    (root / "config.yaml").write_text("publish_channels: [Open]\n")
    return root


def publish(home: Path, to: Path, *options: str) -> Result:
    arguments = ["prompts", "publish", "--config", str(home / "config.yaml"), "--to", str(to)]
    return CliRunner().invoke(cli, [*arguments, *options])


@needs_theme
def test_it_says_what_is_public_and_what_is_not_and_asks_for_a_review(
    home: Path, tmp_path: Path
) -> None:
    done = publish(home, tmp_path / "out")

    assert done.exit_code == 0
    assert "1 pages published" in done.stdout
    assert f"1 channel not in publish_channels: {ID}1.md" in done.stdout
    assert f"1 direct message: {ID}2.md" in done.stdout
    assert "Read what is in it before you push it" in done.stdout
    assert (tmp_path / "out" / f"{ID}0.md").exists()


@needs_theme
def test_a_dry_run_lists_terms_without_their_terminal_codes(home: Path, tmp_path: Path) -> None:
    done = publish(home, tmp_path / "out", "--dry-run")

    assert done.exit_code == 0
    assert "  Wren\n" in done.stdout
    assert "\x1b" not in done.stdout
    assert not (tmp_path / "out").exists()
    assert not (home / "data" / ".publish.key").exists()


@needs_theme
def test_json_holds_pages_reasons_and_terms(home: Path, tmp_path: Path) -> None:
    facts = json.loads(publish(home, tmp_path / "out", "--json").stdout)

    assert facts["published"] == [f"{ID}0"]
    assert facts["kept_back"] == {
        "channel not in publish_channels": [f"{ID}1.md"],
        "direct message": [f"{ID}2.md"],
    }
    assert {"kind": "name", "text": "Wren", "count": 1} in facts["replaced"]
    assert "misspelt names" in facts["review"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_does_not_make_the_key_that_the_owner_cannot_read(home: Path, tmp_path: Path) -> None:
    os.chown(home / "data", 12345, 12345)
    before = sorted(home.rglob("*"))

    done = publish(home, tmp_path / "out")

    assert "sudo -u 12345" in str(done.exception)
    assert sorted(home.rglob("*")) == before
    assert not (tmp_path / "out").exists()


def test_the_repository_and_the_log_are_refused(home: Path) -> None:
    for folder in (home / "prompts", home / "data" / "site", default_path().parent / "site"):
        before = folder.exists()
        failed = publish(home, folder)

        assert failed.exit_code != 0
        assert "which is private" in str(failed.exception)
        assert folder.exists() == before


def test_without_a_channel_it_names_those_in_the_log(home: Path, tmp_path: Path) -> None:
    (home / "config.yaml").write_text("publish_channels: []\n")

    failed = publish(home, tmp_path / "out")

    assert "publish_channels names no channel" in str(failed.exception)
    assert not (tmp_path / "out").exists()
