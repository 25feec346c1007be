"""The folder that is pushed: what is never touched, and what a second or broken run leaves."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.errors import UserError
from meshllm.site.target import MANIFEST, is_ours
from tests.site.conftest import ROOT, Log, files_of
from tests.site.publish_driver import DIED


def listed(log: Log) -> list[str]:
    names: list[str] = json.loads((log.to / MANIFEST).read_text())["files"]
    return names


def first_page(log: Log) -> str:
    return min(path.name for path in log.to.glob("*.md"))


def test_a_second_run_writes_nothing(log: Log) -> None:
    log.publish()
    before = {path: path.stat().st_mtime_ns for path in log.to.rglob("*")}

    report = log.publish()

    assert {path: path.stat().st_mtime_ns for path in log.to.rglob("*")} == before
    assert (report.changes.written, report.changes.removed) == ([], [])
    assert not list(log.to.parent.glob(".public*"))


def test_pages_no_longer_public_are_removed_and_only_those(log: Log) -> None:
    log.publish(publish_channels=("LongFast", "Family"))
    (log.to / "CNAME").write_text("log.example.org")
    (log.to / ".git").mkdir()
    (log.to / ".git" / "HEAD").write_text("ref")
    before = log.files()

    report = log.publish()

    after = log.files()
    (gone,) = report.changes.removed
    assert set(before) - set(after) == {gone}
    assert b"gate is otter" in before[gone]
    assert (log.to / "CNAME").read_text() == "log.example.org"
    assert (log.to / ".git" / "HEAD").read_text() == "ref"
    assert set(after) == {*listed(log), MANIFEST, "CNAME"}


def test_a_page_deleted_from_the_log_is_removed(log: Log) -> None:
    log.publish()
    name = first_page(log)
    (log.layout.prompts_dir / name).unlink()

    assert log.publish().changes.removed == [name]

    assert not (log.to / name).exists()
    assert name.removesuffix(".md").encode() not in log.files()["prompts.csv"]


@pytest.mark.parametrize("survivors", [0, 1, 4, 7])
def test_a_run_that_is_killed_at_any_file_is_finished_by_the_next(log: Log, survivors: int) -> None:
    """The list, five pages, the table and the list again: eight renames, death before one."""
    log.publish(publish_channels=("Family",))
    old = log.files()
    whole = replace(log, to=log.to.with_name("whole"))
    whole.publish()
    expected = whole.files()
    driver = "tests.site.publish_driver"
    given = (log.layout.data_dir.parent, log.to, log.theme, survivors)

    died = subprocess.run([sys.executable, "-m", driver, *map(str, given)], cwd=ROOT, check=False)

    half = log.files()
    assert died.returncode == DIED
    whole_files = {name for name in half if not name.startswith(".")}
    assert half != expected
    assert all(half[name] in {old.get(name), expected.get(name)} for name in whole_files)
    assert whole_files <= set(listed(log))
    log.publish()
    assert log.files() == expected
    assert not list(log.to.parent.glob(".public*"))


def test_a_first_run_that_was_killed_at_its_first_file_is_no_foreign_folder(log: Log) -> None:
    log.to.mkdir()
    (log.to / f".{MANIFEST}.0123abcd.tmp").write_text("half")

    log.publish()

    assert not list(log.to.rglob("*.tmp"))


def test_temporary_files_of_others_stay(log: Log) -> None:
    log.publish()
    (log.to / ".CNAME.0123abcd.tmp").write_text("mine")

    log.publish()

    assert (log.to / ".CNAME.0123abcd.tmp").read_text() == "mine"


def test_what_a_killed_run_left_beside_the_folder_is_removed(log: Log) -> None:
    left = log.to.with_name(".public.publish-staging")
    left.mkdir()
    (left / "staged-0123").write_text("x")

    log.publish()

    assert not left.exists()


def test_a_foreign_file_in_the_staging_folder_is_not_removed(log: Log) -> None:
    left = log.to.with_name(".public.publish-staging")
    left.mkdir()
    (left / "thesis.txt").write_text("x")

    with pytest.raises(UserError, match=r"thesis\.txt: was not written by publish"):
        log.publish()

    assert (left / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize("where", ["data", "data/nodes/aaaa0001", "prompts", "prompts/site", "."])
def test_the_folder_shares_nothing_with_private_ones(log: Log, where: str) -> None:
    home = log.layout.data_dir.parent
    before = files_of(home)
    log.to = home / where

    with pytest.raises(UserError, match="which is private"):
        log.publish()

    assert files_of(home) == before


def test_a_link_to_a_private_folder_is_no_way_around(log: Log) -> None:
    log.to.symlink_to(log.layout.prompts_dir)

    with pytest.raises(UserError, match=r"the same as .*prompts, which is private"):
        log.publish()


def test_the_repository_is_private_too(log: Log, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which is private"):
        log.publisher().run((log.to,))
    with pytest.raises(UserError, match="is above"):
        log.publisher().run((log.to / "below",))
    assert not log.to.exists()


def test_a_folder_with_anything_in_it_is_left_alone_without_a_list_of_ours(log: Log) -> None:
    log.to.mkdir()
    (log.to / "letter.txt").write_text("dear")

    with pytest.raises(UserError, match=r"holds 'letter\.txt' and was not made by publish"):
        log.publish()
    assert files_of(log.to) == {"letter.txt": b"dear"}

    (log.to / "letter.txt").unlink()
    (log.to / ".git").mkdir()
    assert log.publish().published


def test_a_file_of_the_operator_under_our_name_is_not_replaced(log: Log) -> None:
    log.publish()
    (log.to / "more.html").write_text("mine")
    (log.theme / "more.html").write_text("theme")

    with pytest.raises(UserError, match=r"more\.html: was not written by publish"):
        log.publish()

    assert (log.to / "more.html").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["../x.html", "/etc/passwd", ".git/config", "assets/../../x.css", "CNAME", "a/b.md", 7]
)
def test_a_list_that_names_other_files_is_not_believed(log: Log, name: object) -> None:
    log.publish()
    outside = log.to.parent / "x.html"
    outside.write_text("x")
    (log.to / MANIFEST).chmod(0o600)
    (log.to / MANIFEST).write_text(json.dumps({"files": [*listed(log), name]}))

    with pytest.raises(UserError, match="names files that publish does not write"):
        log.publish()

    assert outside.read_text() == "x"


def test_nothing_is_written_or_removed_through_a_link(log: Log, tmp_path: Path) -> None:
    log.publish()
    elsewhere = tmp_path / "elsewhere"
    (log.to / "assets").rename(elsewhere)
    (log.to / "assets").symlink_to(elsewhere)
    before = files_of(elsewhere)
    (log.theme / "assets" / "site.css").write_text("changed")

    with pytest.raises(UserError, match="nothing is written through it"):
        log.publish()

    (log.theme / "assets" / "site.css").unlink()
    with pytest.raises(UserError, match="nothing is written through it"):
        log.publish()
    assert files_of(elsewhere) == before


def test_names_that_publish_writes() -> None:
    assert is_ours("assets/fonts/a.woff2")
    for name in ("assets/.x", "assets//x", "README.md", "x.HTML", "a.html\n", "_data/x.html"):
        assert not is_ours(name)
