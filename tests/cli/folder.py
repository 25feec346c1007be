"""A data folder with everything an operator may meet, and a way to run verbs on it."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from meshllm.cli.main import cli
from meshllm.cli.where import Tools
from meshllm.errors import UserError
from meshllm.layout import Layout, NodeTree
from meshllm.records import Latest, Message, Node, PromptRow, Record, Sighting, compact_json
from meshllm.store import codec
from meshllm.testing.clock import ManualClock

OWN = "!aaaa0001"
ADA = "!a11ce001"
EVE = "!e0e0e0e0"
PAGE = "---\nprompt_id: 0f0e\n---\n\nHello \x1b[31mred\n"
CHANNELS = [
    {"index": 0, "name": "LongFast", "file": "longfast", "role": "PRIMARY"},
    {"index": 1, "name": "Hiking", "file": "hiking", "role": "SECONDARY"},
]


def write(path: Path, rows: Sequence[Record], kind: type[Record]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return put(path, codec.header(kind) + codec.encode(rows))


def put(path: Path, data: bytes) -> Path:
    """Write a file with the mode that the store gives its files."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o440)
    return path


def heard(message_id: str, content: str, *, at: str, sender: str = ADA, **meta: object) -> Message:
    return Message(
        thread_type="dm",
        thread_key=sender,
        message_id=message_id,
        direction="inbound",
        sender_id=sender,
        timestamp=at,
        content=content,
        meta_json=compact_json({"channel_index": 0, **meta}),
    )


def ours(
    message_id: str,
    content: str,
    *,
    at: str,
    to: str = ADA,
    direction: str = "queued",
    status: str = "",
    reply_to: str = "",
    **meta: object,
) -> Message:
    return Message(
        thread_type="dm" if to.startswith("!") else "channel",
        thread_key=to,
        message_id=message_id,
        direction=direction,
        sender_id=OWN,
        reply_to_id=reply_to,
        timestamp=at,
        content=content,
        send_status=status,
        meta_json=compact_json(meta),
    )


@dataclass
class Folder:
    """One installation below `root`, looked at on 2026-03-01 at noon."""

    root: Path

    @property
    def files(self) -> Layout:
        return Layout(self.root / "data", self.root / "data/nodes", self.root / "prompts")

    @property
    def tree(self) -> NodeTree:
        return self.files.tree("aaaa0001")

    def thread(self, *rows: Message, tree: NodeTree | None = None) -> Path:
        key, where = rows[0].thread_key, tree or self.tree
        is_dm = rows[0].thread_type == "dm"
        path = where.dm_thread(key) if is_dm else where.channel_thread(key.lower())
        return write(path, rows, Message)

    def archived(self, live: Path, period: str, *rows: Message) -> Path:
        return write(self.tree.shelf(live).part(period, 1), rows, Message)

    def radio(self, *, tree: NodeTree | None = None, **facts: object) -> None:
        where = tree or self.tree
        where.root.mkdir(parents=True, exist_ok=True)
        said: dict[str, object] = {
            "node_uid": where.node_uid,
            "node_id": OWN,
            "short_name": "BASE",
            "long_name": "Base Camp",
            "firmware": "2.6.11",
            "region": "EU_868",
            "preset": "LongFast",
            "channels": CHANNELS,
            "link": "tcp:127.0.0.1:4403",
            "link_state": "up",
            "link_cause": "",
            "queued": 1,
            "held": 0,
            "air": "",
            "own_airtime_s": 12.25,
            "channel_utilization": 4.5,
            "air_util_tx": 0.5,
            "storage": "ok",
            "disk_free_mb": 1000,
            "heartbeat_at": "2026-03-01T11:59:30Z",
        }
        where.radio_status.write_text(json.dumps(said | facts), encoding="utf-8")

    def agent(self, **facts: object) -> None:
        self.files.data_dir.mkdir(parents=True, exist_ok=True)
        said: dict[str, object] = {
            "role": "agent",
            "pid": 77,
            "started_at": "2026-03-01T08:00:00Z",
            "heartbeat_at": "2026-03-01T09:00:00Z",
            "running": True,
            "model": {
                "state": "offline",
                "reason": "unreachable",
                "detail": "connection refused",
                "name": "qwen2.5:3b",
                "failures": 3,
                "retry_at": "2026-03-01T12:01:00Z",
            },
            "queue": 2,
            "rates": {"prompt_tps": 21.5, "eval_tps": 5.25},
            "answer_s": 42.0,
            "storage": "ok",
            "disk_free_mb": 1000,
        }
        self.files.agent_status.write_text(json.dumps(said | facts), encoding="utf-8")

    def nodes(self, *nodes: Node, tree: NodeTree | None = None) -> None:
        write((tree or self.tree).nodes, nodes, Node)

    def bytes(self) -> dict[str, bytes]:
        """Every file but locks, to show that nothing was written."""
        files = (p for p in self.root.rglob("*") if p.is_file() and p.suffix != ".lock")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


def full(root: Path) -> Folder:
    """Two threads, one with an archive; hostile names and texts; prompts; a log with a torn end."""
    folder = Folder(root)
    folder.radio()
    folder.agent()
    folder.nodes(
        Node(ADA, "ADA", "Ridge Runner", "2026-01-01T00:00:00Z", "2026-03-01T11:50:00Z"),
        Node(
            EVE,
            "\x1b[2J",
            "\u202eevil\x1b]0;owned\x07",
            "2026-02-01T00:00:00Z",
            "2026-03-01T11:40:00Z",
        ),
    )
    at = "2026-03-01T10:00:00Z"
    latest = Latest(ADA, 6.25, -90, 2, "2026-03-01T11:55:00Z", 47.12345, 8.5, "LongFast", at, 101)
    write(folder.tree.latest, [latest], Latest)
    sighting = Sighting(ADA, 47.12345, 8.5, -90, '{"battery":80}', at, "h1")
    write(folder.tree.sightings, [sighting], Sighting)
    _threads(folder)
    call = PromptRow(
        "0f0e-1", "aaaa0001", "2026-03-01 10:00:20", "qwen2.5:3b", "dm", ADA, "101", "102",
        500, 40, 21.5, 5.25, 9000, '{"outcome":"ok","source_sender":"!a11ce001"}',
    )  # fmt: skip
    write(folder.files.prompts_table, [call], PromptRow)
    folder.files.prompt_page("0f0e-1").write_text(PAGE, encoding="utf-8")
    log = folder.files.log_file("bridge")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(
        '{"timestamp":"2026-03-01T11:00:00.123456Z","level":"info","event":"x","role":"bridge"}\n'
        '{"timestamp":"2026-03-01T11:01:00.123456Z","level":"error","event":"link_down",'
        '"reason":"\\u001b[31mgone","role":"bridge"}\n{"timest'
    )
    return folder


def _threads(folder: Folder) -> None:
    question = heard("101", "=1+1 where is water?", at="2026-03-01T10:00:00Z")
    answer: dict[str, Any] = {"reply_to": "101", "kind": "reply", "parts": 2, "prompt_id": "0f0e-1"}
    tries = [{"id": 103, "at": "2026-03-01T10:00:24Z", "result": "MAX_RETRANSMIT"}]
    dm = folder.thread(
        question,
        ours(
            "102",
            "(1/2) Behind the mill.",
            at="2026-03-01T10:00:20Z",
            direction="outbound",
            status="sent",
            part=1,
            delivery="delivered",
            **answer,
        ),
        ours(
            "103",
            "(2/2) Mind the dog.",
            at="2026-03-01T10:00:20Z",
            status="failed",
            part=2,
            reason="MAX_RETRANSMIT",
            wait_heard=True,
            held_at="2026-03-01T10:05:00Z",
            tries=tries,
            **answer,
        ),
        ours("104", "Good morning", at="2026-03-01T11:58:00Z", kind="operator"),
    )
    folder.archived(dm, "2026-01", heard("11", "an old one", at="2026-01-05T08:00:00Z"), question)
    hostile = "hi \x1b[2J\u202eflip\u2028\x9b31m\u200b 日本"
    folder.thread(
        heard("201", hostile, at="2026-03-01T11:30:00Z", sender=EVE),
        ours(
            "202",
            "No.",
            at="2026-03-01T11:31:00Z",
            to=EVE,
            direction="outbound",
            status="failed",
            reply_to="201",
            kind="reply",
            part=1,
            parts=1,
            reason="NO_CHANNEL",
        ),
    )


class Terminal(io.StringIO):
    """A stream that counts as a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Result:
    out: str
    err: str
    code: int

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Runner:
    """Runs verbs in this process at a given time, on a terminal or in a pipe."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.clock = ManualClock()

    def __call__(
        self, *arguments: object, columns: int = 0, env: Mapping[str, str] | None = None
    ) -> Result:
        out: io.StringIO = Terminal() if columns else io.StringIO()
        err = io.StringIO()
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setenv("COLUMNS", str(columns or 80))
            patch.setenv("LINES", "60")
            patch.setenv("TERM", "xterm-256color")
            patch.delenv("NO_COLOR", raising=False)
            patch.delenv("FORCE_COLOR", raising=False)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code = self._run([str(argument) for argument in arguments], err)
        return Result(out.getvalue(), err.getvalue(), code)

    def _run(self, arguments: list[str], err: io.StringIO) -> int:
        tools = Tools(self.clock)
        try:
            code = cli.main(arguments, prog_name="meshllm", standalone_mode=False, obj=tools)
        except UserError as error:
            err.write(f"error: {error}\n")
            return int(error.exit_code)
        except click.ClickException as error:
            err.write(f"error: {error.format_message()}\n")
            return error.exit_code
        return code if isinstance(code, int) else 0
