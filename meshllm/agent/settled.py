"""Says which logged calls may still matter to somebody. Reads thread files, writes none."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from meshllm.agent.promptlog import Key, ThreadName, prompt_key, thread_name
from meshllm.agent.threads import Thread
from meshllm.errors import TransientError
from meshllm.layout import Layout
from meshllm.records import Message, PromptRow
from meshllm.store.table import Table


def open_questions(threads: Iterable[Thread]) -> set[Key]:
    """Name the questions that an answer is still wanted for."""
    return {
        (thread.tree.node_uid, row.thread_type, row.thread_key, sender, message_id)
        for thread in threads
        for row in [question.row for question in thread.standing.open][:1]
        for sender, message_id in thread.standing.waiting
    }


def unsettled(rows: Sequence[PromptRow], waiting: Collection[Key], layout: Layout) -> set[str]:
    """Name the prompts whose question is open, or whose answer is on its way.

    All prompts of a thread count as such while its file cannot be read whole.
    """
    kept = {row.prompt_id for row in rows if prompt_key(row) in waiting}
    threads: dict[ThreadName, set[str]] = {}
    for row in rows:
        threads.setdefault(thread_name(row), set()).add(row.prompt_id)
    for name, prompts in threads.items():
        for path in _files(layout, name):
            kept |= prompts & _on_the_way(path, prompts)
    return kept


def _files(layout: Layout, name: ThreadName) -> Iterator[Path]:
    """Find where a thread may be: a channel's file cannot be told from its name alone."""
    node_uid, thread_type, thread_key = name
    tree = layout.tree(node_uid)
    if thread_type == "dm":
        yield tree.dm_thread(thread_key)
    else:
        yield from (path for path in tree.thread_files() if path.parent == tree.channels)


def _on_the_way(path: Path, prompts: set[str]) -> set[str]:
    try:
        snapshot = Table(path, Message).read()
    except TransientError:
        return prompts
    if snapshot.damage:
        return prompts
    return {str(row.meta.get("prompt_id", "")) for row in snapshot.rows if not is_final(row)}


def is_final(row: Message) -> bool:
    """Say whether nothing will become of a row any more but, at most, a late ACK."""
    if row.direction == "queued":
        return False
    is_handed = row.direction == "outbound" and row.send_status == "sent"
    return not (
        is_handed
        and row.thread_type == "dm"
        and ('"handed"' in row.meta_json or '"relayed"' in row.meta_json)
        and row.meta.get("delivery") in ("handed", "relayed")
    )
