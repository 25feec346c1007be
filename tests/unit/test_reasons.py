"""Every reason that the code can give has a sentence, and the page has the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from meshtastic.protobuf import mesh_pb2

from meshllm import reasons
from meshllm.agent.safety import Danger
from meshllm.llm.base import Outcome, ProbeState
from meshllm.reasons import REASONS, Kind

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference/reasons.md"
#: Words in capitals in the bridge that are no reason.
OTHER_WORDS = {
    "LONG_SLOW",
    "NODEINFO_APP",
    "NONE",
    "POSITION_APP",
    "ROUTING_APP",
    "SHORT",
    "TELEMETRY_APP",
    "TEXT_MESSAGE_APP",
    "UNKNOWN_APP",
    "UNSET",
    "UNTOLD",
    "VERY_LONG_SLOW",
}
CAPITALS = re.compile(r"[A-Z][A-Z_]{3,}")
CODE = re.compile(r"[a-z]+(_[a-z]+)*")


def modules(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for path in sorted((ROOT / "meshllm" / folder).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def constants(tree: ast.AST) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def named(folder: str) -> dict[str, str]:
    """Text constants of a package, by name."""
    return {
        target.id: node.value.value
        for tree in modules(folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign | ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else node.targets)
        if isinstance(target, ast.Name)
    }


def first_texts(folder: str, function: str) -> set[str]:
    """Texts that a function or method is given, constants by name included."""
    known = named(folder)
    found = set()
    for tree in modules(folder):
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name == function:
                found |= {known.get(getattr(a, "id", ""), "") for a in call.args}
                found |= {c for a in call.args for c in constants(a)}
    return {text for text in found if CODE.fullmatch(text)}


def returned(folder: str, *functions: str) -> set[str]:
    """Texts that these functions return, where they return a reason."""
    known = named(folder)
    found = set()
    for tree in modules(folder):
        for function in ast.walk(tree):
            if (
                isinstance(function, ast.FunctionDef)
                and function.name in functions
                and function.returns is not None
                and ast.unparse(function.returns).startswith(("str", "tuple[str", "Obstacle"))
            ):
                for node in (n for n in ast.walk(function) if isinstance(n, ast.Return)):
                    assert node.value is not None
                    found |= constants(node.value)
                    found |= {
                        known.get(n.id, "") for n in ast.walk(node.value) if isinstance(n, ast.Name)
                    }
    return {text for text in found if CODE.fullmatch(text)}


def codes(kind: Kind) -> set[str]:
    return {reason.code for reason in REASONS if reason.kind == kind}


def test_every_reason_of_the_bridge_has_a_sentence() -> None:
    used = {text for tree in modules("bridge") for text in constants(tree)}

    words = {text for text in used if CAPITALS.fullmatch(text)}
    given = words - OTHER_WORDS - {reasons.RADIO_ERROR}

    assert "MAX_RETRANSMIT" in given
    assert given - codes("sending") == set()


def test_every_routing_error_of_the_firmware_has_a_sentence() -> None:
    assert set(mesh_pb2.Routing.Error.keys()) - {"NONE"} - codes("sending") == set()


def test_every_reason_not_to_answer_has_a_sentence() -> None:
    refusals = returned("agent", "refusal", "bot_reason", "election")
    skips = first_texts("agent", "skipped")
    lists = {f"not_in_{scope}_allowlist" for scope in ("channel", "dm")}

    given = refusals | skips | lists

    assert {"bot_loop", "came_over_internet", "same_text_waits", "expired"} <= given
    known = codes("skipped") | codes("deferred")
    assert given - known == set()


def test_every_reason_to_answer_later_has_a_sentence() -> None:
    given = first_texts("agent", "Obstacle")

    assert {"cooldown", "line_full", "hourly_limit"} <= given
    assert given - codes("deferred") == set()


def test_every_event_with_a_fixed_reason_of_the_agent_has_a_sentence() -> None:
    given = {
        keyword.value.value
        for tree in modules("agent", "commands")
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "reason"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, str)
    }

    assert given - codes("skipped") == set()


def test_every_notice_has_a_sentence() -> None:
    known = named("agent")
    names = ("OFFLINE", "WORKING", "THINKING", "EMERGENCY_NOTICE", "LIMIT", "DOWNGRADED")

    given = {known[name] for name in (*names, "ENDLESS_REPLIES")}

    assert given == codes("line")


def test_every_end_of_a_model_call_every_danger_and_fault_has_a_sentence() -> None:
    assert {outcome.value for outcome in Outcome} == codes("model")
    assert {state.value for state in ProbeState} - {"ready"} <= codes("model")
    assert {d.value for d in Danger if d.is_refused} == codes("refused")
    faults = first_texts("agent", "Judged")
    assert {"empty", "leaked", "looped"} <= faults
    assert faults <= codes("fault")


def test_no_reason_is_listed_twice_and_each_is_one_line_without_a_full_stop() -> None:
    assert len({(reason.kind, reason.code) for reason in REASONS}) == len(REASONS)
    assert {reason.kind for reason in REASONS} == set(get_args(Kind))
    for reason in REASONS:
        assert "\n" not in reason.text + reason.advice
        assert not reason.text.endswith(".")


@pytest.mark.parametrize("code", ["RADIO_ERROR_41", "SOMETHING_NEW", ""])
def test_an_unknown_reason_is_shown_and_not_explained_away(code: str) -> None:
    told = reasons.explain("sending", code)

    assert not reasons.is_listed("sending", code)
    assert code.removeprefix("RADIO_ERROR_") in told.text
    assert told.advice


def test_reference_page_is_this_table() -> None:
    text = PAGE.read_text(encoding="utf-8")

    begun = text.index("## ")
    assert text[begun:].strip() == reasons.reference().strip()
