"""Merge the sources and judge the values: one `Loaded`, or one error with every problem."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import ValidationError

from meshllm import clock, layout
from meshllm.config.settings import Radio, Settings, kind_of
from meshllm.config.sources import (
    Bare,
    Layer,
    Loc,
    nearest,
    read_dotenv,
    read_environment,
    read_file,
    shorten,
)
from meshllm.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MIN_SAFE_SPACING_S: Final = 2.0  #: faster than this the firmware drops every second text
_LINE: Final = re.compile(r"[^:]*:(\d+):")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, what the operator should know about them, and the file they are from."""

    settings: Settings
    warnings: tuple[str, ...]
    path: Path


def load(path: Path, environ: Mapping[str, str], *, must_exist: bool = False) -> Loaded:
    """Read the settings: environment over `.env` over the file over the defaults.

    Raises UserError with every problem of all sources. A missing file is a warning, or a problem
    with `must_exist`. Relative folders are placed beside the file.
    """
    layers = (
        read_file(path, must_exist=must_exist),
        read_dotenv(path.with_name(".env")),
        read_environment(environ),
    )
    problems: list[str] = []
    merged: dict[str, object] = {}
    origin: dict[str, Layer] = {}
    bad: set[str] = set()
    for layer in layers:
        wrong = _judge(layer.values)
        found = [*layer.problems, *(f"{layer.locate(at)}: {what}" for at, what in wrong)]
        problems += sorted(found, key=_line)
        bad |= {str(at[0]) for at, _ in wrong}
        merged |= layer.values
        origin |= dict.fromkeys(layer.values, layer)
    settings = Settings.model_validate({k: v for k, v in merged.items() if k not in bad})
    problems += [
        f"{_locate(origin, at)}: {what}"
        for at, what, keys in _contradictions(settings)
        if not bad & keys
    ]
    problems += _time_scale_problems(() if "radios" in bad else settings.radios)
    if problems:
        raise UserError(f"the settings need attention ({path})", tuple(dict.fromkeys(problems)))
    warnings = [text for layer in layers for text in layer.warnings]
    warnings += [f"{_locate(origin, at)}: {what}" for at, what in _doubts(settings)]
    return Loaded(settings.anchored(path.absolute().parent), tuple(warnings), path)


def _line(problem: str) -> int:
    match = _LINE.match(problem)
    return int(match[1]) if match else 0


def _locate(origin: Mapping[str, Layer], loc: Loc) -> str:
    key = str(loc[0])
    return origin[key].locate(loc) if key in origin else f"default: {key}"


def _judge(values: Mapping[str, object]) -> list[tuple[Loc, str]]:
    """Return what is wrong with single values, each with its place."""
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        # A list whose entries are all wrong is also "too short" to pydantic.
        return [
            (detail["loc"], _explain(detail))
            for detail in error.errors(include_url=False)
            if detail["type"] != "too_short" or not detail["input"]
        ]
    return []


def _explain(error: "ErrorDetails") -> str:
    """Say in our words what pydantic found; the operator does not know its types."""
    kind, given = error["type"], error["input"]
    match kind:
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing" | "too_short":
            return "is missing" if kind == "missing" else "must have at least one entry"
        case "string_type" | "is_instance_of" if isinstance(given, Bare) and given.would_be_text:
            return f"must be text, not {_shown(given)}; put it in quotes if that is the text"
    return f"must be {_wanted(error)}, not {_given(error)}"


def _wanted(error: "ErrorDetails") -> str:
    key = str(error["loc"][0])
    match error["type"]:
        case "greater_than_equal" | "less_than_equal":
            return bounds(key)
        case "literal_error":
            return f"one of {', '.join(_choices(key))}"
        case kind:
            return _EXPECTED.get(kind, "something else")


def _given(error: "ErrorDetails") -> str:
    key, given = str(error["loc"][0]), error["input"]
    if error["type"] == "literal_error":
        return f"{_shown(given)}{nearest(str(given), _choices(key))}"
    if isinstance(given, int) and kind_of(Settings.model_fields[key]) == "octal":
        return f"0{given:o}"
    return _shown(given)


def _choices(key: str) -> tuple[str, ...]:
    return get_args(Settings.model_fields[key].annotation)


def _shown(value: object) -> str:
    if isinstance(value, Bare):
        return shorten(value.written) or "an empty value"
    if value is None or value == "":
        return "an empty value"
    if isinstance(value, str):
        return repr(shorten(value))
    return "a list" if isinstance(value, tuple) else shorten(value)


_EXPECTED: Final = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "is_instance_of": "the name of a folder",
    "tuple_type": "a list, such as [one, two]",
    "model_type": "a mapping, such as `link: serial:auto`",
}


def bounds(key: str) -> str:
    """Write the limits of a setting: `from 20 to 220`, octal ones in octal."""
    declared = Settings.model_fields[key]
    pattern = "0{:o}" if kind_of(declared) == "octal" else "{}"
    found: dict[str, Any] = {
        name: getattr(item, name)
        for item in declared.metadata
        for name in ("ge", "le")
        if hasattr(item, name)
    }
    return f"from {pattern.format(found['ge'])} to {pattern.format(found['le'])}"


def _contradictions(settings: Settings) -> Iterator[tuple[Loc, str, set[str]]]:
    """Yield place, problem and the keys involved."""
    folders: dict[str, int] = {}
    links: dict[str, int] = {}
    needs_alias = settings.node_uid_strategy == "config"
    for index, radio in enumerate(settings.radios):
        if links.setdefault(radio.link.identity, index) != index:
            yield ("radios", index, "link"), f"{radio.link} is listed twice", {"radios"}
        if radio.alias and folders.setdefault(layout.peer_stem(radio.alias), index) != index:
            text = f"{shorten(radio.alias)!r} names the same folder as another radio's alias"
            yield ("radios", index, "alias"), text, {"radios"}
        if needs_alias and not radio.alias:
            text = "alias is missing; node_uid_strategy config needs one for every radio"
            yield ("radios", index), text, {"radios", "node_uid_strategy"}
    for scope in ("channel", "dm"):
        allowed, blocked = f"{scope}_allowlist", f"{scope}_blocklist"
        known = {name.casefold() for name in getattr(settings, allowed)}
        for name in getattr(settings, blocked):
            if name.casefold() in known:
                yield (blocked,), f"{shorten(name)!r} is in {allowed} as well", {allowed, blocked}


def _time_scale_problems(radios: tuple[Radio, ...]) -> list[str]:
    """Refuse faster time with a real device: its own timers would not follow."""
    try:
        scale = clock.time_scale_from_environment()
    except UserError as error:
        return [f"environment: {error}"]
    if scale == 1.0:
        return []
    refused = f"environment: {clock.TIME_SCALE_VARIABLE}: only 1 is possible with"
    return [f"{refused} {radio.link}" for radio in radios if radio.link.kind != "tcp"]


def _doubts(settings: Settings) -> Iterator[tuple[Loc, str]]:
    """Yield what is allowed but probably not wanted."""
    if settings.send_spacing_seconds < MIN_SAFE_SPACING_S:
        text = f"below {MIN_SAFE_SPACING_S:g} the firmware drops texts that follow each other"
        yield ("send_spacing_seconds",), text
