import ast
import builtins
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import yaml

from meshllm import __version__, config, records
from meshllm.cli.main import cli
from meshllm.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "meshllm").rglob("*.py"))
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "data/README.md", "prompts/README.md")
    for page in ROOT.glob(pattern)
)
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table_after(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a line, without its two head lines."""
    lines = iter(text.partition(heading)[2].splitlines())
    table = []
    for line in lines:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            break
    assert len(table) > 2, f"no table after {heading}"
    return table[2:]


def first_spans(rows: list[list[str]]) -> list[str]:
    return [SPAN.findall(row[0])[0] for row in rows]


def blocks(text: str, language: str) -> list[str]:
    return [block for _, kind, block in CODE_BLOCK.findall(text) if kind == language]


# Links


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    targets = [t.split("#")[0] for t in LINK.findall(path.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target]

    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pictures_in_documents_are_there(path: Path) -> None:
    shown = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))

    assert [name for name in shown if not (path.parent / name).is_file()] == []


def test_every_page_is_in_the_index() -> None:
    folder = ROOT / "docs"
    pages = {
        str(path.relative_to(folder))
        for kind in ("tutorial", "how-to", "reference", "explanation")
        for path in (folder / kind).glob("*.md")
    }

    assert pages - set(LINK.findall(page("docs/README.md"))) == set()


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs/decisions"
    pages = {path.name for path in folder.glob("0*.md")}

    assert set(LINK.findall((folder / "README.md").read_text(encoding="utf-8"))) == pages


def test_changelog_has_the_version_of_the_package() -> None:
    assert f"\n## [{__version__}]" in page("CHANGELOG.md")


def test_architecture_has_a_line_for_every_module() -> None:
    told: set[str] = set()
    for row in table_after(page("ARCHITECTURE.md"), "## Modules"):
        folder = ""
        for span in SPAN.findall(row[0]):
            folder = f"{span.rpartition('/')[0]}/" if "/" in span else folder
            told.add(f"{folder}{span.rpartition('/')[2]}")

    modules = {
        str(path.relative_to(ROOT / "meshllm").with_suffix(""))
        for path in SOURCES
        if not path.name.startswith("__")
    }
    whole = {name.removesuffix("*") for name in told if name.endswith("/*")}
    in_whole = {name for name in modules if any(name.startswith(folder) for folder in whole)}
    assert {name for name in told if not name.endswith("*")} == modules - in_whole


# Commands


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for child, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {child}")


COMMANDS = dict(commands(cli, "python -m meshllm"))


def test_command_line_page_has_a_section_for_every_command_and_no_other() -> None:
    headings = re.findall(r"^## `(python -m .*)`$", page("docs/reference/cli.md"), re.MULTILINE)

    assert headings == sorted(COMMANDS, key=headings.index)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_line_page_lists_every_option(name: str) -> None:
    options = {
        option
        for parameter in COMMANDS[name].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    } - {"--help"}
    section = page("docs/reference/cli.md").partition(f"## `{name}`\n")[2].partition("\n## ")[0]

    listed = first_spans(table_after(section, "\n")) if options else []
    assert set(listed) == options
    assert options or "No options." in section


def test_documents_name_only_commands_that_run_sh_explains() -> None:
    help_text = subprocess.run(
        [str(ROOT / "run.sh"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    passed_on = set(cli.commands)

    for path in PAGES:
        for verb in re.findall(r"\./run\.sh ([a-z][a-z-]*)", path.read_text(encoding="utf-8")):
            is_explained = re.search(rf"^  {verb}\b", help_text, re.MULTILINE)
            assert is_explained or verb in passed_on, f"{path.name}: ./run.sh {verb}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_in_the_text_are_options_of_their_command(path: Path) -> None:
    unknown = []
    for line in re.findall(
        r"(?:\./run\.sh|python -m meshllm) ([a-z][^\n`|#>&]*)", path.read_text(encoding="utf-8")
    ):
        words, name = line.split(), "python -m meshllm"
        while words and f"{name} {words[0]}" in COMMANDS:
            name = f"{name} {words.pop(0)}"
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        given = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", line)) - {"--help", "--version"}
        if name != "python -m meshllm":
            unknown += [f"{line}: {option}" for option in given - known]
    assert unknown == []


@pytest.mark.parametrize("kind", ["tutorial", "how-to"])
def test_readers_are_told_the_command_that_works_without_an_environment(kind: str) -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in PAGES if kind in path.parts}
    bare = r"(?:^|[^/\w])python -m meshllm (?=[a-z])"  # not the one of .venv, nor a module

    assert [name for name, text in pages.items() if re.search(bare, text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_in_examples_have_values_that_are_taken(path: Path, tmp_path: Path) -> None:
    keys = set(config.Settings.model_fields)
    for number, block in enumerate(blocks(path.read_text(encoding="utf-8"), "yaml")):
        if set(yaml.safe_load(block)) <= keys:
            example = tmp_path / f"{number}.yaml"
            example.write_text(block, encoding="utf-8")

            config.load(example, {}, must_exist=True)  # raises UserError with the problems


@pytest.mark.parametrize("program", ["meshtastic_bridge.py", "ai_agent.py"])
def test_command_line_page_lists_the_options_of_the_two_programs(program: str) -> None:
    help_text = subprocess.run(
        [sys.executable, str(ROOT / program), "--help"], capture_output=True, text=True, check=True
    ).stdout
    heading = "## `python meshtastic_bridge.py`, `python ai_agent.py`"

    options = set(re.findall(r"^  (--[a-z-]+)", help_text, re.MULTILINE)) - {"--help"}
    assert set(first_spans(table_after(page("docs/reference/cli.md"), heading))) == options


def test_exit_codes_page_is_the_enumeration() -> None:
    table = table_after(page("docs/reference/exit-codes.md"), "# Exit codes")

    assert [(int(row[0]), row[1].strip("`")) for row in table] == [
        (code.value, code.name) for code in ExitCode
    ]


# Files


@pytest.mark.parametrize("name", ["Message", "Node", "Sighting", "Latest", "PromptRow"])
def test_format_page_has_the_columns_of_every_file(name: str) -> None:
    record: type[records.Record] = getattr(records, name)
    table = table_after(page("docs/reference/csv-format.md"), f"<!-- columns: {name} -->")

    assert [(row[0].strip("`"), row[1], row[2] == "yes") for row in table] == [
        (column, kind, column in record.REQUIRED)
        for column, kind in zip(record.columns(), record.kinds(), strict=True)
    ]


def test_format_page_describes_every_record_type() -> None:
    described = re.findall(r"<!-- columns: (\w+) -->", page("docs/reference/csv-format.md"))

    assert set(described) == {kind.__name__ for kind in records.Record.__subclasses__()}


@pytest.mark.parametrize("name", ["Message", "PromptRow"])
def test_keys_of_meta_json_are_in_the_code(name: str) -> None:
    table = table_after(page("docs/reference/csv-format.md"), f"<!-- meta: {name} -->")

    assert [key for key in first_spans(table) if key not in vocabulary()] == []


@pytest.mark.parametrize(
    ("module", "function"),
    [("bridge/ingest.py", "_inbound_meta"), ("agent/answering.py", "_call_facts")],
)
def test_written_keys_of_meta_json_are_on_the_format_page(module: str, function: str) -> None:
    text = page("docs/reference/csv-format.md")
    listed = {
        key
        for name in ("Message", "PromptRow")
        for key in first_spans(table_after(text, f"<!-- meta: {name} -->"))
    }

    written = dict_keys(ROOT / "meshllm" / module, function)
    assert written - listed == set()


@pytest.mark.parametrize(
    ("heading", "module", "function"),
    [
        ("radio.json\n", "bridge/radio_status.py", "facts"),
        ("agent.json\n", "agent/health.py", "_facts"),
    ],
)
def test_status_page_has_every_key(heading: str, module: str, function: str) -> None:
    text = page("docs/reference/status-files.md")
    table = table_after(text, heading)

    nested = {key for row in table for key in SPAN.findall(row[1])}
    written = dict_keys(ROOT / "meshllm" / module, function)
    assert set(first_spans(table)) - written == set()
    assert written - set(first_spans(table)) - nested == set()


def dict_keys(path: Path, function: str) -> set[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return {
                str(key.value)
                for inner in ast.walk(node)
                if isinstance(inner, ast.Dict)
                for key in inner.keys
                if isinstance(key, ast.Constant)
            }
    raise AssertionError(f"{path.name}: no {function}")


# Log events


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_log(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in LEVELS
        and isinstance(node.value, ast.Name)
        and node.value.id == "log"
    )


def texts(node: ast.expr) -> list[str]:
    """Both names where a condition chooses one; nothing for a variable."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def events_of(path: Path) -> tuple[set[str], list[str]]:
    """Names of the events a module logs, and calls whose name cannot be told from the source."""
    found: set[str] = set()
    untold: list[str] = []
    for function in ast.walk(tree(path)):
        if not isinstance(function, ast.FunctionDef):
            continue
        aliases = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and any(map(is_log, ast.walk(node.value)))  # type: ignore[arg-type]
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or not (
                is_log(call.func) or (isinstance(call.func, ast.Name) and call.func.id in aliases)
            ):
                continue
            names = texts(call.args[0]) or passed_in(path, function, call.args[0])
            found.update(names)
            untold += [] if names else [f"{path.name}:{call.lineno}"]
    return found, untold


def passed_in(path: Path, function: ast.FunctionDef, name: ast.expr) -> list[str]:
    """Names that callers in the same module give for a parameter."""
    parameters = [argument.arg for argument in function.args.args if argument.arg != "self"]
    if not isinstance(name, ast.Name) or name.id not in parameters:
        return []
    place = parameters.index(name.id)
    return [
        text
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute | ast.Name)
        and getattr(call.func, "attr", getattr(call.func, "id", "")) == function.name
        for text in texts(call.args[place])
    ]


def documented_events() -> dict[str, list[str]]:
    text = page("docs/reference/log-events.md")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert len(cells) == len({row[0] for row in cells}), "an event is listed twice"
    return {row[0].strip("`"): row for row in cells}


def test_log_page_lists_every_event_and_no_other() -> None:
    logged = [events_of(path) for path in SOURCES]

    assert [place for _, untold in logged for place in untold] == []
    assert {name for found, _ in logged for name in found} == set(documented_events())


def test_log_page_has_level_and_fields_of_every_plain_event() -> None:
    documented = documented_events()
    wrong = []
    for path in SOURCES:
        for call in (n for n in ast.walk(tree(path)) if isinstance(n, ast.Call)):
            if not is_log(call.func) or not isinstance(call.func, ast.Attribute):
                continue
            for name in texts(call.args[0]):
                _, level, fields, _ = documented[name]
                given = {keyword.arg for keyword in call.keywords if keyword.arg}
                if call.func.attr not in level or given - set(SPAN.findall(fields)):
                    wrong.append((name, call.func.attr, sorted(given)))
    assert wrong == []


# Names in the text


@cache
def vocabulary() -> frozenset[str]:
    """Every name, argument and text constant of the code, and the settings' names."""
    found: set[str] = set(dir(builtins)) | set(config.Settings.model_fields)
    found |= {key.upper() for key in config.Settings.model_fields}
    found |= set(re.findall(r"\w+", page("compose.yaml")))
    for path in SOURCES:
        found |= set(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(tree(path)):
            found |= names_of(node)
    return frozenset(found)


def names_of(node: ast.AST) -> set[str]:
    found = {getattr(node, name, None) for name in ("id", "attr", "arg", "name")}
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
        found.update(re.findall(r"\w+", node.value))
    return {text for text in found if isinstance(text, str)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_the_text_are_names_in_the_code(path: Path) -> None:
    spans = SPAN.findall(CODE_BLOCK.sub("", path.read_text(encoding="utf-8")))
    names = [span for span in spans if re.fullmatch(r"[A-Za-z]+(_[A-Za-z0-9]+)+", span)]

    assert [name for name in names if name not in vocabulary()] == []


#: Variables of Ollama's own service that the pages advise on.
OLLAMAS = {
    "LLAMA_ARG_CACHE_RAM",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_NO_CLOUD",
    "OLLAMA_NUM_PARALLEL",
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_in_examples_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    keys = set(config.Settings.model_fields)
    ours = {key.upper() for key in keys} | {"RADIO", "MESHLLM_TIME_SCALE", "PYTHON", "FOLDER"}
    variables = ours | OLLAMAS
    variables |= set(re.findall(r"\$\{(\w+)", page("compose.yaml")))

    for block in blocks(text, "yaml"):
        given = set(yaml.safe_load(block))
        assert given <= keys or given <= {"people", "links"}, block
    assert set(re.findall(r"\b([A-Z][A-Z_]{3,})=[^\s`]", text)) <= variables


def test_transcript_of_the_readme_is_a_command_and_its_answer() -> None:
    transcript = page("README.md").partition("<!-- begin transcript -->")[2]
    command, answer = transcript.partition("<!-- end")[0].strip().strip("`").strip().splitlines()

    assert command == '$ ./run.sh demo --say "librarian are you there?"'
    assert answer.startswith("Here. I heard you direct: SNR ")


# Pictures

PICTURES = sorted((ROOT / "docs/pictures").glob("terminal-*.svg"))
SCRIPTED = "simulated mesh, answers of a scripted model"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_terminal_pictures_are_small_labelled_and_fetch_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert path.stat().st_size < 60_000
    assert SCRIPTED in text.replace("&#160;", " ")
    assert set(re.findall(r"https?://([^/:\"<]+)", text)) <= {"www.w3.org", "127.0.0.1"}
    assert not re.search(r"(?:url\((?!#)|xlink|href|<script|/(?:tmp|home|root)/)", text)


def test_recording_of_the_demo_tells_nothing_of_the_machine_it_was_made_on() -> None:
    path = ROOT / "docs/pictures/demo.cast"
    head, *events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    shown = "".join(event[2] for event in events)

    assert path.stat().st_size < 60_000
    assert set(head) == {"version", "width", "height", "title"}
    assert SCRIPTED in head["title"]
    assert shown.startswith("$ ./run.sh demo")
    assert "Here. I heard you direct: SNR " in shown
    assert not re.search(r"/(?:tmp|home|root)/", shown)


# The tutorial


def typed(name: str, folder: Path, *, model_port: int) -> subprocess.CompletedProcess[str]:
    """Run every line of a tutorial, in order, in one shell, as a reader would type them."""
    script = "\n".join(blocks(page(f"docs/tutorial/{name}.md"), "sh"))
    lines = script.replace("demo.log", str(folder / "demo.log"))
    lines = lines.replace("11499", str(model_port))
    environ = {"OLLAMA_BASE_URL": "http://127.0.0.1:9", "TMPDIR": str(folder)}
    return subprocess.run(
        ["bash", "-m", "-e", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n{lines}"],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.timeout(120)
def test_shell_lines_of_the_first_tutorial_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    done = typed("first-answer", tmp_path, model_port=port)

    assert done.returncode == 0, done.stdout + done.stderr
    answers = done.stdout.splitlines()
    assert "Boil it for one minute." in answers
    assert any(line.endswith("/prompts/prompts.csv") for line in answers)
    assert sum(",inbound," in line for line in answers) == 1
    assert sum(",outbound," in line for line in answers) == 1
    assert any(re.match(r"  agent +stopped", line) for line in answers)
    assert any(re.match(r"!51e0bb01 .*Ada Example", line) for line in answers)
    assert any(line.startswith("answered: ") for line in answers)


@pytest.mark.timeout(120)
def test_shell_lines_of_the_tutorial_on_reasons_run(tmp_path: Path) -> None:
    done = typed("ask-why", tmp_path, model_port=9)

    assert done.returncode == 0, done.stdout + done.stderr
    verdict = "not answered: `dm_allowlist` is set and does not name this person"
    assert verdict in done.stdout
    assert re.search(r"^ +1  not_in_dm_allowlist ", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_tutorials_with_shell_blocks_are_all_run() -> None:
    """Those on real hardware have indented lines: nothing here can run them."""
    pages = {path.stem for path in (ROOT / "docs/tutorial").glob("*.md")}

    assert {name for name in pages if blocks(page(f"docs/tutorial/{name}.md"), "sh")} == {
        "ask-why",
        "first-answer",
    }
