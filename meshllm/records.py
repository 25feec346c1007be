"""Frozen dataclasses that are the CSV schemas: columns, keys, cells. Knows no files, no quoting."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Final, Literal, Self, get_type_hints

Direction = Literal["inbound", "queued", "outbound"]
DIRECTIONS: Final = ("inbound", "queued", "outbound")
THREAD_TYPES: Final = ("channel", "dm")
SEND_STATUSES: Final = ("", "sent", "failed")


class BadCellError(ValueError):
    """A row's cells do not fit its schema; the text names the column."""


def compact_json(value: Mapping[str, object]) -> str:
    """Render JSON without spaces, keys in the order given, non-ASCII as it is; '' for nothing."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""


@dataclass(frozen=True, slots=True)
class Record:
    """Base of all rows: cells in the order of the fields."""

    REQUIRED: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @cache
    def columns(cls) -> tuple[str, ...]:
        """Column names in file order."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    @cache
    def kinds(cls) -> tuple[str, ...]:
        """Per column one of str, int, float: only str cells are guarded against formulas."""
        hints = get_type_hints(cls)
        return tuple(
            "int"
            if int in _members(hints[name])
            else "float"
            if float in _members(hints[name])
            else "str"
            for name in cls.columns()
        )

    @classmethod
    @cache
    def text_columns(cls) -> tuple[int, ...]:
        """Positions of the columns that hold text."""
        return tuple(i for i, kind in enumerate(cls.kinds()) if kind == "str")

    @classmethod
    @cache
    def _values(cls) -> Callable[["Record"], tuple[object, ...]]:
        return attrgetter(*cls.columns())

    @classmethod
    @cache
    def _numbers(cls) -> tuple[tuple[int, str], ...]:
        return tuple((i, kind) for i, kind in enumerate(cls.kinds()) if kind != "str")

    @classmethod
    @cache
    def _required(cls) -> tuple[int, ...]:
        return tuple(i for i, name in enumerate(cls.columns()) if name in cls.REQUIRED)

    @property
    def key(self) -> tuple[str, ...]:
        """What makes this row the same row after a change."""
        raise NotImplementedError  # each schema has its own key; a base row is never built

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes this row the same row over all files, archived ones too."""
        return self.key

    def cells(self) -> tuple[str, ...]:
        """Every field as text; None becomes the empty cell."""
        values = self._values()(self)
        return tuple([v if isinstance(v, str) else _cell(v) for v in values])

    @classmethod
    def from_cells(cls, cells: tuple[str, ...]) -> Self:
        """Parse and validate one row. Raises BadCellError naming the column."""
        columns = cls.columns()
        if len(cells) != len(columns):
            message = f"{len(cells)} cells instead of {len(columns)}"
            raise BadCellError(message)
        values: list[object] = list(cells)
        for index, kind in cls._numbers():
            try:
                values[index] = _value(kind, cells[index])
            except ValueError as error:
                message = f"{columns[index]}: not a {kind}"
                raise BadCellError(message) from error
        for index in cls._required():
            if not cells[index]:
                message = f"{columns[index]}: empty"
                raise BadCellError(message)
        row = cls(*values)
        row.check()
        return row

    def check(self) -> None:
        """Raise BadCellError when the values contradict the schema."""


def _members(hint: object) -> tuple[object, ...]:
    return getattr(hint, "__args__", None) or (hint,)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.7f}".rstrip("0").rstrip(".")
    return str(value)


def _value(kind: str, cell: str) -> object:
    if kind == "str":
        return cell
    if not cell:
        return None
    if not cell.isascii():
        raise ValueError(cell)
    return int(cell) if kind == "int" else float(cell)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        message = f"{name}: {value[:20]!r} is none of {', '.join(a or 'empty' for a in allowed)}"
        raise BadCellError(message)


@dataclass(frozen=True, slots=True)
class Node(Record):
    """One row of nodes.csv: a node of the mesh as one of our radios has seen it."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: str
    short_name: str = ""
    long_name: str = ""
    first_seen_at: str = ""
    last_seen_at: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """A node is its id."""
        return (self.node_id,)


@dataclass(frozen=True, slots=True)
class Sighting(Record):
    """One row of sightings.csv: where and how a node was seen. At most one a node and UTC day."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("node_id", "observed_at", "sighting_hash")

    node_id: str
    latitude: float | None = None
    longitude: float | None = None
    rssi: int | None = None
    telemetry_json: str = ""
    observed_at: str = ""
    sighting_hash: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """A node has one sighting a moment."""
        return (self.node_id, self.observed_at)


@dataclass(frozen=True, slots=True)
class Latest(Record):
    """One row of latest.csv: the newest facts about a node, each with its time."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: str
    snr_db: float | None = None
    rssi: int | None = None
    hops: int | None = None
    signal_at: str = ""
    latitude: float | None = None
    longitude: float | None = None
    position_channel: str = ""
    position_at: str = ""
    battery: int | None = None
    voltage: float | None = None
    battery_at: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """A node is its id."""
        return (self.node_id,)


@dataclass(frozen=True, slots=True)
class Message(Record):
    """One row of a thread file. Ours keep their message_id for life: their first packet id."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("thread_key", "message_id")

    thread_type: str
    thread_key: str
    message_id: str
    direction: str
    sender_id: str
    reply_to_id: str = ""
    timestamp: str = ""
    content: str = ""
    send_attempts: int = 0
    send_status: str = ""
    meta_json: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Inbound rows are unique by sender and id; ours are too, the sender being our node."""
        return (self.sender_id, self.message_id)

    @property
    def identity(self) -> tuple[str, ...]:
        """Packet ids come again after months: over the archive a row is told by its text, too."""
        return (*self.key, self.timestamp, self.content)

    @property
    def is_outgoing(self) -> bool:
        """True for rows that we send or have sent."""
        return self.direction != "inbound"

    @property
    def meta(self) -> dict[str, Any]:
        """The extras, parsed; {} when the cell is empty or not a JSON object."""
        return _parsed_object(self.meta_json)

    def with_meta(self, **changes: object) -> "Message":
        """Copy with these extras set; a value of None removes the key. Unknown keys stay."""
        merged = {**self.meta, **changes}
        return replace(
            self, meta_json=compact_json({k: v for k, v in merged.items() if v is not None})
        )

    def check(self) -> None:
        """Hold the three enumerations and the shape of meta_json."""
        _one_of("thread_type", self.thread_type, THREAD_TYPES)
        _one_of("direction", self.direction, DIRECTIONS)
        _one_of("send_status", self.send_status, SEND_STATUSES)
        if self.send_attempts is None:  # an empty cell: the specification's default is 0
            object.__setattr__(self, "send_attempts", 0)
        if self.send_attempts < 0:
            message = "send_attempts: negative"
            raise BadCellError(message)
        if self.meta_json and not (self.meta_json.startswith("{") and self.meta_json.endswith("}")):
            message = "meta_json: not a JSON object"
            raise BadCellError(message)


@dataclass(frozen=True, slots=True)
class PromptRow(Record):
    """One row of prompts.csv: one model call."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("prompt_id",)

    prompt_id: str
    node_uid: str
    datetime: str
    model: str
    thread_type: str
    thread_key: str
    source_message_id: str
    response_message_id: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tps: float | None = None
    eval_tps: float | None = None
    duration_ms: int | None = None
    meta_json: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """A model call is its id."""
        return (self.prompt_id,)

    @property
    def meta(self) -> dict[str, Any]:
        """The extras, parsed; {} when the cell is empty or not a JSON object."""
        return _parsed_object(self.meta_json)


def _parsed_object(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):  # the latter: thousands of nested braces
        return {}
    return parsed if isinstance(parsed, dict) else {}
