"""The text of config.yaml and the reference table, made from the declaration. Writes no file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import yaml

from meshllm.config.loading import bounds
from meshllm.config.settings import Kind, Radio, Settings, kind_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_HEADER: Final = """\
# Settings of Meshtastic-LLM: every key, with its default.
# The same names in upper case work in the environment and in `.env` beside this file, lists
# separated by commas. The environment wins over `.env`, and `.env` over this file.
# RADIO=tcp:HOST replaces `radios`. Relative folders are relative to this file.
# Made by `python -m meshllm config dump`; described in docs/reference/config.md.
"""
_PLAIN: Final = re.compile(r"[A-Za-z./][A-Za-z0-9._/-]*(?::[A-Za-z0-9._/-]+)*")
_YAML_TEXT: Final = "tag:yaml.org,2002:str"
_WRITTEN_AS: Final[dict[Kind, str]] = {
    "flag": "true or false",
    "whole": "whole number",
    "number": "number",
    "octal": "octal mode",
    "folder": "folder",
    "list": "list of names",
    "name": "text",
    "text": "text",
}


def dump(settings: Settings | None = None) -> str:
    """Write settings as config.yaml, the defaults when none are given. `load` reads them back."""
    chosen = settings or Settings()
    entries = (
        f"\n# {declared.description}; {_form(key, declared)}\n{_entry(key, getattr(chosen, key))}\n"
        for key, declared in Settings.model_fields.items()
    )
    return "".join((_HEADER, *entries))


def reference() -> str:
    """Write the Markdown table of all settings."""
    rows = [
        f"| `{key}` | `{_variable(key)}` | {_form(key, declared)} | {_default(key)} "
        f"| {_cell(declared.description)} |"
        for key, declared in Settings.model_fields.items()
    ]
    head = ("| key | variable | values | default | effect |", "| --- | --- | --- | --- | --- |")
    return "\n".join((*head, *rows)) + "\n"


def _variable(key: str) -> str:
    return "RADIO" if key == "radios" else key.upper()


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _default(key: str) -> str:
    if key == "radios":
        return "`link: serial:auto`"
    return f"`{_written(key, getattr(Settings(), key))}`"


def _form(key: str, declared: "FieldInfo") -> str:
    kind = kind_of(declared)
    if key == "radios":
        return "list"
    if kind == "choice":
        return ", ".join(get_args(declared.annotation))
    limits = f" {bounds(key)}" if kind in {"whole", "number", "octal"} else ""
    return f"{_WRITTEN_AS[kind]}{limits}"


def _entry(key: str, value: object) -> str:
    if key != "radios" or not isinstance(value, tuple):
        return f"{key}: {_written(key, value)}"
    return "\n".join(("radios:", *(_radio(radio) for radio in value)))


def _radio(radio: Radio) -> str:
    link = f"  - link: {_text(str(radio.link))}"
    return f"{link}\n    alias: {_text(radio.alias)}" if radio.alias else link


def _written(key: str, value: object) -> str:
    if kind_of(Settings.model_fields[key]) == "octal":
        return f"0{value:o}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Path):
        return _text(str(value) if value.is_absolute() else f"./{value}")
    if isinstance(value, tuple):
        return f"[{', '.join(_text(name) for name in value)}]"
    return str(value) if isinstance(value, int) else _text(str(value or ""))


def _text(text: str) -> str:
    """Write text plain where YAML reads it back as the same text, else quoted."""
    if _PLAIN.fullmatch(text):
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(node, yaml.ScalarNode) and (node.tag, node.value) == (_YAML_TEXT, text):
            return text
    return f'"{"".join(_escaped(char) for char in text)}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"
