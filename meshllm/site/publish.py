"""Makes the folder that may be pushed out of the prompt log. The log itself is only read.

Two passes over the pages: the first collects names of people, so that a name known from one page is
replaced on all of them; the second makes what is public.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshllm.config import Settings
from meshllm.errors import NotRegularError, TransientError, UserError
from meshllm.layout import Layout
from meshllm.records import PromptRow
from meshllm.site import known, pseudonyms, theme
from meshllm.site.page import render
from meshllm.site.pseudonyms import Pseudonyms
from meshllm.site.public import PAGE_NAME, Rules, by_time, judge, public
from meshllm.site.redaction import Redactor
from meshllm.site.target import Changes, Target
from meshllm.store import codec, locks, regular
from meshllm.store.rotate import history
from meshllm.store.table import Table

TABLE: Final = "prompts.csv"


@dataclass(slots=True)
class Report:
    """What was, or would be, published and what was kept back."""

    folder: Path
    is_redacted: bool
    published: list[str] = field(default_factory=list)  #: prompt ids
    kept_back: dict[str, list[str]] = field(default_factory=dict)  #: reason -> file names
    threads: Counter[str] = field(default_factory=Counter)  #: pages by channel, "" for DMs
    terms: Counter[tuple[str, str]] = field(default_factory=Counter)  #: kind, words -> how often
    changes: Changes = field(default_factory=Changes)

    def keep_back(self, name: str, reason: str) -> None:
        """Note a page that is not published."""
        self.kept_back.setdefault(reason, []).append(name)


class Publisher:
    """One run. Reads everything before it changes anything."""

    def __init__(self, layout: Layout, settings: Settings, theme_dir: Path, folder: Path) -> None:
        self._layout = layout
        self._settings = settings
        self._theme_dir = theme_dir
        self._target = Target(folder)
        self._rules = Rules(settings.publish_channels, dms=settings.publish_dms)

    def run(self, private: Iterable[Path], *, is_trial: bool = False) -> Report:
        """Publish; a trial says what would happen and writes nothing at all.

        `private` are folders, besides those of data and prompts, that the target must not touch.
        Raises UserError, and TransientError with whole files in the target.
        """
        layout = self._layout
        self._target.check((*private, layout.data_dir, layout.nodes_dir, layout.prompts_dir))
        if not (self._rules.channels or self._rules.dms):
            raise UserError(
                "publish_channels names no channel, so nothing is public "
                f"(in the log: {', '.join(self._channels()) or 'no channel'}; name those whose "
                "every text may be read by everybody, and see docs/how-to/publish.md)"
            )
        files = theme.read(self._theme_dir)
        with ExitStack() as stack:
            if not is_trial:
                stack.enter_context(locks.hold(layout.publish_key))
                self._target.open_staging()
                stack.callback(self._target.close_staging)
            return self._run(files, is_trial=is_trial)

    def _run(self, files: dict[str, bytes], *, is_trial: bool) -> Report:
        redactor = self._redactor(is_trial=is_trial)
        report = Report(self._target.folder, is_redacted=redactor is not None)
        rows: list[PromptRow] = []
        for name, content in files.items():
            self._take(name, content, report, is_trial=is_trial)
        for name, row, content in self._public_pages(report, redactor):
            rows.append(row)
            self._take(name, content, report, is_trial=is_trial)
        table = codec.header(PromptRow) + codec.encode(by_time(rows))
        self._take(TABLE, table, report, is_trial=is_trial)
        wanted = [*files, *(f"{row.prompt_id}.md" for row in rows), TABLE]
        report.changes.removed = self._target.vanished(wanted)
        if redactor is not None:
            report.terms = redactor.tally
        if not is_trial:
            self._target.apply(report.changes, wanted)
        return report

    def _take(self, name: str, content: bytes, report: Report, *, is_trial: bool) -> None:
        if self._target.is_same(name, content):
            report.changes.unchanged += 1
            return
        report.changes.written.append(name)
        if not is_trial:
            self._target.stage(name, content)

    def _public_pages(
        self, report: Report, redactor: Redactor | None
    ) -> Iterator[tuple[str, PromptRow, bytes]]:
        registry = self._registry()
        for path in self._pages():
            try:
                text = _read(path)
            except (OSError, TransientError) as error:
                report.keep_back(path.name, f"cannot be read ({_kind(error)})")
                continue
            verdict = judge(text, path.stem, registry.get(path.stem), self._rules)
            if verdict.page is None:
                report.keep_back(path.name, verdict.reason)
                continue
            page = public(verdict.page, redactor)
            report.published.append(path.stem)
            report.threads[page.row.thread_key if page.row.thread_type == "channel" else ""] += 1
            yield path.name, page.row, render(page, is_public=True).encode("utf-8", "replace")

    def _pages(self) -> list[Path]:
        folder = self._layout.prompts_dir
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no prompt log")
        return sorted(path for path in folder.iterdir() if PAGE_NAME.fullmatch(path.name))

    def _registry(self) -> dict[str, PromptRow]:
        table = Table(self._layout.prompts_table, PromptRow)
        try:
            return {row.prompt_id: row for row in history(table, self._layout.prompts_shelf)}
        except TransientError as error:
            raise UserError(f"{error} (try: doctor --repair)") from error

    def _channels(self) -> list[str]:
        rows = self._registry().values()
        return sorted({row.thread_key for row in rows if row.thread_type == "channel"})

    def _redactor(self, *, is_trial: bool) -> Redactor | None:
        settings = self._settings
        if settings.publish_redaction == "off":
            return None
        people = known.of_trees(self._layout)
        if not people.ids:
            raise UserError(
                f"{self._layout.nodes_dir}: no node is known here, so no name could be replaced "
                "(publish where the data folder is)"
            )
        for path in self._pages():
            try:
                people.add_page(_read(path))
            except (OSError, TransientError):
                continue  # the second pass keeps it back and says so
        key = self._key(is_trial=is_trial)
        return Redactor(
            people,
            Pseudonyms(key),
            area_degrees=settings.publish_area_degrees,
            plain_words=settings.publish_plain_words,
        )

    def _key(self, *, is_trial: bool) -> bytes:
        path = self._layout.publish_key
        key = pseudonyms.read_key(path)
        if key is not None:
            return key
        return pseudonyms.random_key() if is_trial else pseudonyms.make_key(path)


def _read(path: Path) -> str:
    return regular.read_bytes(path).decode("utf-8", "replace")


def _kind(error: Exception) -> str:
    return "no plain file" if isinstance(error, NotRegularError) else str(error)[:80]
