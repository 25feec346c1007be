"""The declaration of every setting: key, type, default, bounds, description. Reads no file."""

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from meshllm.config.links import FORMS, Link, parse_link

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Kind = Literal["flag", "whole", "number", "octal", "choice", "folder", "list", "name", "text"]

_OCTAL: Final = re.compile(r"(?:0o|0)?[0-7]{3,4}")
_MAX_LINE_BYTES: Final = 190  #: a line with a mark of ours in front fits into one message
_MAX_NAME_CHARS: Final = 100  #: longest name of a list or an alias; radios allow 39 bytes


def default_path() -> Path:
    """Path of the config.yaml beside the two programs."""
    return Path(__file__).resolve().parents[2] / "config.yaml"


def _clean(text: str) -> str:
    """Strip; refuse what a path, a log line or a terminal cannot carry."""
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise ValueError(f"{text[:40]!r} holds a control character or is not UTF-8")
    return text.strip()


def _name(text: str) -> str:
    name = _clean(text)
    if not 1 <= len(name) <= _MAX_NAME_CHARS:
        raise ValueError(f"a name must have from 1 to {_MAX_NAME_CHARS} characters")
    return name


def _alias(text: str) -> str:
    return _name(text) if text.strip() else ""


def _model(text: str) -> str:
    name = _clean(text)
    if not name:
        raise ValueError("must name a model")
    return name


def _url(text: str) -> str:
    url = _clean(text).rstrip("/")
    parts = urlsplit(url)
    try:
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or too large
        valid = False
    if not valid or parts.query or parts.fragment or " " in url:
        raise ValueError(f"{text!r} is not an address such as http://localhost:11434")
    return url


def _second_url(text: str) -> str:
    return _url(text) if text.strip() else ""


def _short_text(text: str) -> str:
    line = _clean(text)
    if len(line.encode()) > _MAX_LINE_BYTES:
        raise ValueError(f"must have at most {_MAX_LINE_BYTES} bytes, to fit into one message")
    return line


def _time_zone(text: str) -> str:
    name = _clean(text)
    if name == "UTC":  # valid on a machine without time zone files, too
        return name
    import zoneinfo  # noqa: PLC0415  costs time that the default need not spend

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{text!r} is not a time zone{_nearest_zone(name)}") from None
    return name


def _nearest_zone(name: str) -> str:
    import difflib  # noqa: PLC0415  only on the way to an error message
    import zoneinfo  # noqa: PLC0415  same

    zones = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    near = difflib.get_close_matches(name.lower(), zones, n=1)
    return f" (did you mean {zones[near[0]]}?)" if near else " such as Europe/Berlin"


def _folder(path: Path) -> Path:
    _clean(str(path))
    return path


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _octal(value: object) -> object:
    """Read a mode as chmod does: 0440, 440 and 0o440 are the same."""
    if isinstance(value, int):
        return value
    if not isinstance(value, str) or not _OCTAL.fullmatch(value.strip()):
        raise ValueError(f"must be an octal mode such as 0440, not {str(value)[:40]!r}")
    return int(value.strip().removeprefix("0o"), 8)


def _link(value: object) -> object:
    if isinstance(value, Link):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be text: {FORMS}")  # noqa: TRY004  pydantic passes TypeError on
    return parse_link(value)


OCTAL: Final = BeforeValidator(_octal)  #: marks the settings that are written in octal
ALIAS: Final = AfterValidator(_alias)  #: marks text that may look like a number
Name = Annotated[str, AfterValidator(_name)]
Names = tuple[Name, ...]
Folder = Annotated[Path, AfterValidator(_folder)]
Mode = Annotated[int, OCTAL]
LinkField = Annotated[Link, BeforeValidator(_link), PlainSerializer(str)]

_STRICT: Final = ConfigDict(
    strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
)


class Radio(BaseModel):
    """One entry of `radios`."""

    model_config = _STRICT

    link: LinkField = Field(description="how to reach it")
    alias: Annotated[str, ALIAS] = Field(default="", description="a name of yours")


class Settings(BaseModel):
    """Every setting. The order is that of config.yaml."""

    model_config = _STRICT

    radios: tuple[Radio, ...] = Field(
        default=(Radio(link=Link("serial", "auto")),),
        min_length=1,
        description="link: serial:auto, serial:/dev/ttyUSB0, tcp:HOST[:PORT], ble:ADDRESS; alias",
    )
    node_uid_strategy: Annotated[Literal["auto", "config"], BeforeValidator(_lower)] = Field(
        default="auto",
        description="name of a radio's folder: auto = its node id, config = its alias",
    )

    data_dir: Folder = Field(
        default=Path("data"), description="folder of everything heard and sent"
    )
    nodes_base_dir: Folder | None = Field(
        default=None, description='folder of the radios\' trees; "" = nodes in data_dir'
    )
    prompts_dir: Folder = Field(default=Path("prompts"), description="folder of the prompt log")
    enable_prompt_logs: bool = Field(
        default=True, description="keep prompt and answer of every model call in prompts_dir"
    )
    publish_channels: Names = Field(
        default=(),
        description="channels whose prompts `prompts publish` lets out, by name or *; empty = none",
    )
    publish_dms: bool = Field(
        default=False, description="let out prompts of direct messages, too: their texts in full"
    )
    publish_redaction: Annotated[Literal["pseudonyms", "off"], BeforeValidator(_lower)] = Field(
        default="pseudonyms",
        description="what is published has pseudonyms for people and coarse positions",
    )
    publish_area_degrees: float = Field(
        default=0.1, ge=0.05, le=10, description="grid to which published positions are rounded"
    )
    publish_plain_words: Names = Field(
        default=(), description="names that are ordinary words, and are published as they are"
    )
    log_level: Annotated[Literal["debug", "info", "warn", "error"], BeforeValidator(_lower)] = (
        Field(default="info", description="least level of the events that are logged")
    )
    log_file_mb: int = Field(
        default=5, ge=1, le=1000, description="megabytes of one log file in data_dir/logs"
    )
    log_files: int = Field(
        default=5,
        ge=0,
        le=100,
        description="most log files of each process, the current one included; 0 = none",
    )
    bridge_metrics_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="loopback port of the bridge's metrics and health pages; 0 = none",
    )
    agent_metrics_port: int = Field(
        default=0, ge=0, le=65_535, description="the same for the agent; 0 = none"
    )
    timezone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", description="zone of times shown to people; files always hold UTC"
    )

    ollama_base_url: Annotated[str, AfterValidator(_url)] = Field(
        default="http://localhost:11434", description="address of the Ollama server"
    )
    ollama_base_url_2: Annotated[str, AfterValidator(_second_url)] = Field(
        default="", description="a second server, used while the first does not answer"
    )
    ollama_model_instruct: Annotated[str, AfterValidator(_model)] = Field(
        default="qwen3:4b-instruct-2507-q8_0", description="model that writes the answers"
    )
    ollama_model_think: Annotated[str, AfterValidator(_clean)] = Field(
        default="",
        description='model for what is asked with "think": qwen3:4b-thinking-2507-q8_0',
    )
    model_deadline_seconds: float = Field(
        default=300, ge=1, le=3600, description="a model call that takes longer is given up"
    )
    max_context_chars: int = Field(
        default=6000, ge=200, le=100_000, description="most characters of context in one prompt"
    )

    max_message_chars: int = Field(
        default=200,
        ge=20,
        le=220,
        description="most characters of one message; 200 UTF-8 bytes hold as well",
    )
    max_reply_parts: int = Field(default=2, ge=1, le=9, description="most messages of one answer")
    max_question_age_seconds: float = Field(
        default=3600,
        ge=10,
        le=604_800,
        description="a question older than this is not answered any more",
    )
    reply_cooldown_seconds: float = Field(
        default=0,
        ge=0,
        le=86_400,
        description="least time between two answers in one thread; 0 = off",
    )
    working_notice_seconds: float = Field(
        default=20,
        ge=0,
        le=3600,
        description='say "working on it" to who waited this long in a DM; 0 = never',
    )
    channel_allowlist: Names = Field(
        default=(), description="channels answered on, by name; empty = all"
    )
    channel_blocklist: Names = Field(default=(), description="channels never answered on, by name")
    dm_allowlist: Names = Field(
        default=(), description="people answered in DMs, by node id or name; empty = all"
    )
    dm_blocklist: Names = Field(default=(), description="people never answered, by node id or name")
    max_answers_per_hour: int = Field(
        default=30,
        ge=0,
        le=3600,
        description="most answers to one person in an hour; commands twice that; 0 = off",
    )
    max_wait_seconds: float = Field(
        default=900,
        ge=10,
        le=604_800,
        description="a question that waits this long behind others gets an honest line",
    )
    answer_internet_messages: bool = Field(
        default=False, description="answer messages that came over an internet bridge (MQTT)"
    )
    refuse_downgraded_senders: bool = Field(
        default=True,
        description="no answer to DMs without the sender's key where earlier ones had it",
    )
    emergency_text: Annotated[str, AfterValidator(_short_text)] = Field(
        default="Life in danger? Call for help now: emergency number, or people near you.",
        description='sent at once, marked "[AI]", to who tells of a life in danger; "" = nothing',
    )

    send_spacing_seconds: float = Field(
        default=2.5,
        ge=0,
        le=600,
        description="least time between two texts on one radio; below 2 texts are lost",
    )
    max_new_id_retries: int = Field(
        default=1,
        ge=0,
        le=3,
        description="resends under a new id, which a person may see twice; DMs only",
    )
    repeat_far_under_new_id: bool = Field(
        default=False,
        description="also for silent people far away: more get it, one answer in ten comes twice",
    )
    max_held_per_person: int = Field(
        default=3, ge=0, le=100, description="answers kept for a person who is away; 0 = none"
    )
    max_held_seconds: float = Field(
        default=86_400,
        ge=60,
        le=2_592_000,
        description="an answer kept longer than this for a person who is away expires",
    )
    airtime_budget: float = Field(
        default=360,
        ge=0,
        le=3600,
        description="seconds of own airtime per hour for one person or channel; 0 = no limit",
    )
    channel_use_slow_percent: float = Field(
        default=25,
        ge=1,
        le=100,
        description="channel use from which texts wait longer and channel answers come last",
    )
    channel_use_hold_percent: float = Field(
        default=40, ge=1, le=100, description="channel use from which texts wait for quieter air"
    )

    live_rows: int = Field(
        default=500,
        ge=50,
        le=10_000,
        description="rows kept in a thread's live file; older ones move to the archive",
    )
    keep_archive_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="days that archived messages and sightings are kept; 0 = for ever",
    )
    keep_archive_mb: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="megabytes of archive kept per radio, newest months; 0 = all",
    )
    keep_prompts_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="days that the prompt log of a month is kept; 0 = for ever",
    )
    keep_prompts_count: int = Field(
        default=0, ge=0, le=10_000_000, description="model calls kept in the prompt log; 0 = all"
    )
    keep_prompts_mb: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="megabytes of prompt log kept, newest calls; 0 = all",
    )
    max_nodes: int = Field(
        default=2000,
        ge=10,
        le=100_000,
        description="most nodes recorded per radio; ids can be forged",
    )
    max_threads: int = Field(
        default=1000,
        ge=10,
        le=100_000,
        description="most threads recorded per radio; ids can be forged",
    )
    disk_reserve_mb: int = Field(
        default=50, ge=0, le=1_000_000, description="free megabytes below which nothing is queued"
    )
    bridge_poll_interval_ms: int = Field(
        default=1000,
        ge=10,
        le=60_000,
        description="bridge looks for changes that file events missed",
    )
    ai_poll_interval_ms: int = Field(
        default=1000,
        ge=10,
        le=60_000,
        description="agent looks for changes that file events missed",
    )
    lock_timeout_seconds: float = Field(
        default=5,
        ge=0.1,
        le=300,
        description="longest wait for a file's lock; bridge 1 s at most, agent 0.5 s",
    )
    file_mode: Mode = Field(
        default=0o440,
        ge=0o400,
        le=0o777,
        description="permissions of data files, octal as for chmod",
    )
    folder_mode: Mode = Field(
        default=0o750, ge=0o700, le=0o777, description="permissions of folders, octal as for chmod"
    )
    lock_mode: Mode = Field(
        default=0o660,
        ge=0o600,
        le=0o777,
        description="permissions of lock files, octal as for chmod",
    )

    @property
    def nodes_dir(self) -> Path:
        """Folder of the radios' trees: nodes_base_dir, or `nodes` in data_dir."""
        return self.nodes_base_dir or self.data_dir / "nodes"

    def anchored(self, folder: Path) -> "Settings":
        """Return the same settings with relative folders placed in `folder`."""
        paths = {key: getattr(self, key) for key in ("data_dir", "nodes_base_dir", "prompts_dir")}
        return self.model_copy(update={k: folder / p for k, p in paths.items() if p is not None})


_SIMPLE_KINDS: Final[dict[object, Kind]] = {bool: "flag", int: "whole", float: "number"}


def kind_of(declared: "FieldInfo") -> Kind:
    """Say how the values of a setting are written."""
    wanted = declared.annotation
    if OCTAL in declared.metadata:
        return "octal"
    if wanted in _SIMPLE_KINDS:
        return _SIMPLE_KINDS[wanted]
    if get_origin(wanted) is tuple:
        return "list"
    if get_origin(wanted) is Literal:
        return "choice"
    if wanted is Path or Folder in get_args(wanted):
        return "folder"
    return "name" if ALIAS in declared.metadata else "text"
