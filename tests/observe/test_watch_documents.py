"""What is written about logs and metrics, checked against the code and by other tools."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from meshllm.observe.counting import COUNTS
from meshllm.observe.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "meshllm").rglob("*.py"))
DASHBOARD = ROOT / "deploy/grafana/meshtastic-llm.json"
HOW_TO = "docs/how-to/watch-it-with-prometheus.md"
LEVELS = {"debug", "info", "warning", "error", "exception"}
#: Given by a dictionary, so that no call names them.
INDIRECT = {"message_id", "failures"}
#: Events of a message need who, where and which; a question or a row gives them as one.
NAMES = {"node_uid", "thread_key", "message_id"}
HELPERS = {"names", "names_of", "names_by_place", "_names", "event_names"}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed"
)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table(name: str, heading: str) -> list[list[str]]:
    lines = page(name).partition(f"\n{heading}\n")[2].partition("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


@cache
def log_calls() -> tuple[tuple[str, str, ast.Call], ...]:
    """File, event ("" for a variable) and call."""
    return tuple(_log_calls())


def _log_calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and _is_log(call.func):
                name = call.args[0].value if isinstance(call.args[0], ast.Constant) else ""
                yield str(path.relative_to(ROOT)), str(name), call


def _is_log(func: ast.expr) -> bool:
    if isinstance(func, ast.Name):
        return func.id == "level"  # where the level depends on the news
    is_level = isinstance(func, ast.Attribute) and func.attr in LEVELS
    return is_level and isinstance(func.value, ast.Name) and func.value.id == "log"  # type: ignore[attr-defined]


def given(call: ast.Call) -> set[str]:
    return {keyword.arg for keyword in call.keywords if keyword.arg}


def test_every_field_of_every_event_is_in_the_table_and_no_other() -> None:
    documented = [row[0].strip("`") for row in table("docs/reference/log-fields.md", "## Fields")]

    used = {field for _, _, call in log_calls() for field in given(call)}
    assert sorted(used | INDIRECT) == documented


def test_one_thing_has_one_name_in_both_processes() -> None:
    wrong = []
    for path, name, call in log_calls():
        fields = given(call)
        # Older names: a file's stem for a thread, and two words for a reason and for a node.
        is_ours = "/sim/" not in path
        if is_ours and (
            fields & {"error", "node"} or ("thread" in fields and name != "thread_died")
        ):
            wrong.append((path, name, fields))
        if "message_id" in fields or ("thread_key" in fields and "node_uid" not in fields):
            wrong.append((path, name, fields))
    assert wrong == []


def test_events_of_messages_are_named_by_the_helpers_and_told_so_on_the_page() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", page("docs/reference/log-events.md"), re.MULTILINE
    )
    marked = {
        name for name, fields in rows if re.search(r"\+ (question|text|row)|^question", fields)
    }

    named = set()
    for _, name, call in log_calls():
        spread = [keyword.value for keyword in call.keywords if keyword.arg is None]
        called = {
            getattr(v.func, "id", getattr(v.func, "attr", ""))
            for v in spread
            if isinstance(v, ast.Call)
        }
        called |= {value.id for value in spread if isinstance(value, ast.Name)}
        if name and called & HELPERS:
            named.add(name)
    by_condition = {"reply_queued", "notice_queued"}
    assert named | by_condition == marked


def test_no_event_at_info_or_above_has_the_text_of_a_message() -> None:
    texts = {"text", "content", "answer", "question", "prompt"}

    assert [
        (path, name)
        for path, name, call in log_calls()
        if given(call) & texts and getattr(call.func, "attr", "") != "debug"
    ] == []


def test_metrics_page_lists_every_metric_as_declared() -> None:
    rows = table("docs/reference/metrics.md", "## Metrics")

    assert rows == [
        [
            f"`{family.name}`",
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.roles,
            family.help,
        ]
        for family in FAMILIES
    ]


def test_every_counted_event_is_one_that_is_logged() -> None:
    logged = {
        constant.value
        for path in SOURCES
        if path.name != "counting.py"
        for constant in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }

    assert set(COUNTS) - logged == set()


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bmeshllm_\w+", text))


def exposed() -> set[str]:
    names = {family.name for family in FAMILIES}
    for family in FAMILIES:
        if family.kind == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def test_dashboard_and_rules_name_only_metrics_that_exist() -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]

    assert metrics_in(" ".join(queries)) - exposed() == set()
    assert metrics_in(page(HOW_TO)) - exposed() == set()
    shown = metrics_in(" ".join(queries))
    assert [f.name for f in FAMILIES if not any(name.startswith(f.name) for name in shown)] == []


def test_labels_in_legends_are_labels_of_the_metrics() -> None:
    labels = {label for family in FAMILIES for label in family.labels} | {"job"}

    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, panel["title"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["promtool", "check", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def examples() -> list[str]:
    blocks: list[str] = re.findall(
        r"^   ```yml\n(.*?)^   ```$", page(HOW_TO), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 2
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in blocks]


@needs_promtool
def test_promtool_accepts_the_settings_and_rules_of_the_how_to(tmp_path: Path) -> None:
    config, rules = tmp_path / "prometheus.yml", tmp_path / "rules.yml"
    config.write_text(examples()[0])
    rules.write_text(examples()[1])

    promtool("config", config)
    assert "4 rules found" in promtool("rules", rules)


@needs_promtool
def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    rules = [{"record": f"q:{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))

    assert f"{len(queries)} rules found" in promtool("rules", path)
