"""Where settings come from: config.yaml, `.env`, the environment. Judges names, not values.

A plain YAML scalar is taken as it is written and read the same way as an environment variable:
`0440` stays octal, and an alias made of digits keeps its zeros.
"""

import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from meshllm.config.settings import Kind, Radio, Settings, kind_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Loc = tuple[str | int, ...]  #: where a value is: key, index in a list, key of an entry

MAX_FILE_BYTES: Final = 1_000_000  #: a larger file is not a config file
_TAG: Final = "tag:yaml.org,2002:"
_LOOKS_ELSE: Final = frozenset({"bool", "int", "float"})  #: plain text that YAML does not call text
_SCALARS: Final = _LOOKS_ELSE | {"str", "null", "timestamp", "value", "merge"}
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_VARIABLES: Final = {key.upper(): key for key in Settings.model_fields} | {"RADIO": "radios"}


@dataclass(frozen=True, slots=True)
class Bare:
    """What is no value of the wanted kind: a list, a tag, an unquoted `no` where text belongs."""

    written: str
    would_be_text: bool = False  #: quotes would make it right

    def __str__(self) -> str:
        """Show it as written."""
        return self.written


@dataclass(slots=True)
class Layer:
    """What one source says: values by key, and where each was written."""

    values: dict[str, object] = field(default_factory=dict)
    places: dict[Loc, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  #: key -> variable, in an environment
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def locate(self, loc: Loc) -> str:
        """Name a place: `config.yaml:12: radios.link` or `environment: RADIO`."""
        place = next(self.places[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.places)
        key = ".".join(part for part in loc if isinstance(part, str))
        return f"{place}: {self.names.get(str(loc[0]), key)}"


def read_file(path: Path, *, must_exist: bool) -> Layer:
    """Read config.yaml; what cannot be read is a problem of the layer."""
    reader = _YamlReader(path.name)
    layer = reader.layer
    try:
        text = _read_text(path)
        reader.read_root(yaml.compose(text, Loader=yaml.SafeLoader))
    except FileNotFoundError:
        told = layer.problems if must_exist else layer.warnings
        told.append(f"{path}: no such file{'' if must_exist else '; the defaults are used'}")
    except OSError as error:
        layer.problems.append(f"{path.name}: cannot be read: {error.strerror or error}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        layer.problems.append(f"{path.name}:{line}: holds a control character")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        layer.problems.append(f"{path.name}:{line}: is not valid YAML: {error.problem}")
    except RecursionError:
        layer.problems.append(f"{path.name}: is nested too deeply")
    except _NotTextError as error:
        layer.problems.append(f"{path.name}:{error}")
    return layer


def read_dotenv(path: Path) -> Layer:
    """Read `.env`; unknown names warn, since other programs may share the file."""
    layer = Layer()
    try:
        text = _read_text(path)
    except FileNotFoundError:
        return layer
    except OSError as error:
        layer.problems.append(f"{path.name}: cannot be read: {error.strerror or error}")
        return layer
    except _NotTextError as error:
        layer.problems.append(f"{path.name}:{error}")
        return layer
    from dotenv.parser import parse_stream  # noqa: PLC0415  most starts have no such file

    for binding in parse_stream(StringIO(text)):
        # The binding starts with the blank lines and comments before it.
        line = binding.original.line + _leading_lines(binding.original.string)
        place = f"{path.name}:{line}"
        if binding.error:
            layer.problems.append(f"{place}: is not a line of the form NAME=value")
        elif binding.key is not None and binding.key not in _VARIABLES:
            hint = nearest(binding.key.upper(), _VARIABLES)
            layer.warnings.append(f"{place}: {shorten(binding.key)}: is not a setting{hint}")
        elif binding.key is not None:
            _set_variable(layer, binding.key, binding.value or "", place)
    return layer


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Pick our variables from the environment; all others belong to somebody else."""
    layer = Layer()
    for name in _VARIABLES:
        if name in environ:
            _set_variable(layer, name, environ[name], "environment")
    return layer


def nearest(word: str, known: Collection[str]) -> str:
    """Return ` (did you mean X?)`, or nothing when no valid name is near."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.strip().lower().replace("-", "_"), folded, n=1)
    return f" (did you mean {folded[near[0]]}?)" if near else ""


def shorten(value: object) -> str:
    """Show a value in an error line: one line, no control characters, no novel."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


class _NotTextError(Exception):
    """The bytes of a file are no text that could be settings."""


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _NotTextError(f" is larger than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _NotTextError(f"{line}: is not UTF-8") from None


def _leading_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _set_variable(layer: Layer, name: str, text: str, place: str) -> None:
    key = _VARIABLES[name]
    if not text.strip():
        return
    if layer.names.get(key, name) != name:
        layer.problems.append(f"{place}: {name}: says the same as {layer.names[key]}; keep one")
        return
    layer.names[key] = name
    layer.places[(key,)] = place
    layer.values[key] = _from_variable(key, text.strip())


def _from_variable(key: str, text: str) -> object:
    kind = kind_of(Settings.model_fields[key])
    if kind != "list":
        return _from_text(text, kind)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple({"link": part} for part in parts) if key == "radios" else tuple(parts)


def _from_text(text: str, kind: Kind) -> object:
    """Read the written form; text that does not fit stays text and is refused with its type."""
    try:
        match kind:
            case "whole":
                return int(text)
            case "number":
                return float(text)
    except ValueError:
        return text
    if kind == "flag":
        word = text.lower()
        return word in _TRUE if word in _TRUE | _FALSE else text
    if kind == "folder":
        return Path(os.path.expanduser(text)) if text.strip() else None  # noqa: PTH111  unknown users stay
    return text


@dataclass(slots=True)
class _YamlReader:
    """Walks the nodes of one file and fills a layer."""

    file_name: str
    layer: Layer = field(default_factory=Layer)

    def read_root(self, root: yaml.Node | None) -> None:
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            self._complain(root, "must hold lines of the form `key: value`")
            return
        for key, node in self._items(root, Settings.model_fields, ""):
            self._place((key,), node)
            if key == "radios" and isinstance(node, yaml.SequenceNode):
                entries = enumerate(node.value)
                self.layer.values[key] = tuple(self._radio(i, entry) for i, entry in entries)
            elif not _is_null(node):
                self.layer.values[key] = self._value(node, Settings.model_fields[key])

    def _items(
        self, mapping: yaml.MappingNode, known: Mapping[str, object], prefix: str
    ) -> Iterator[tuple[str, yaml.Node]]:
        """Yield what is known and new; complain of the rest."""
        seen: dict[str, int] = {}
        for key_node, node in mapping.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            if key not in known:
                hint = nearest(key, known)
                self._complain(key_node, f"{prefix}{shorten(key)}: is not a setting{hint}")
            elif key in seen:
                self._complain(key_node, f"{prefix}{key}: was already set in line {seen[key]}")
            else:
                seen[key] = key_node.start_mark.line + 1
                yield key, node

    def _radio(self, index: int, node: yaml.Node) -> object:
        self._place(("radios", index), node)
        if not isinstance(node, yaml.MappingNode):
            return Bare(node.value if isinstance(node, yaml.ScalarNode) else "a list")
        entry: dict[str, object] = {}
        for key, value in self._items(node, Radio.model_fields, "radios."):
            self._place(("radios", index, key), value)
            if not _is_null(value):
                entry[key] = self._value(value, Radio.model_fields[key])
        return entry

    def _value(self, node: yaml.Node, declared: "FieldInfo") -> object:
        kind = kind_of(declared)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self._scalar(item, "name") for item in node.value)
        return self._scalar(node, kind)

    def _scalar(self, node: yaml.Node, kind: Kind) -> object:
        """Return the value of a scalar, or something that the type check refuses."""
        if not isinstance(node, yaml.ScalarNode):
            return Bare("a list" if isinstance(node, yaml.SequenceNode) else "a mapping")
        tag = node.tag.removeprefix(_TAG)
        if tag not in _SCALARS:
            return Bare(node.tag)
        if node.style is not None and kind in {"flag", "whole", "number"}:
            return Bare(f'"{node.value}" in quotes')
        if _is_null(node) or _is_bare(tag, kind):
            return Bare(node.value, would_be_text=True)
        return _from_text(node.value, kind)

    def _complain(self, node: yaml.Node, text: str) -> None:
        self.layer.problems.append(f"{self.file_name}:{node.start_mark.line + 1}: {text}")

    def _place(self, loc: Loc, node: yaml.Node) -> None:
        self.layer.places[loc] = f"{self.file_name}:{node.start_mark.line + 1}"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"


def _is_bare(tag: str, kind: Kind) -> bool:
    """Say whether YAML sees no text where text belongs. Numbers may be names, yes may not."""
    if kind == "name":
        return tag == "bool"
    return kind in {"text", "folder"} and tag in _LOOKS_ELSE
