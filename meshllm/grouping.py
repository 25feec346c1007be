"""Tells which rows of a thread are the parts of one text. Pure.

The agent and the operator's tool name the text in every part. Rows of other programs may lack
such a name; their parts belong together by their order in the file.
"""

from collections.abc import Iterable

from meshllm.records import Message


class Grouping:
    """Names the texts of one thread's rows, which are given in file order."""

    def __init__(self) -> None:
        """Know of no part yet."""
        self._unnamed: dict[tuple[str, str, object], list[tuple[str, set[object]]]] = {}

    def name(self, row: Message) -> str:
        """Name the text that this row is a part of; "more" gives another text of one prompt."""
        meta = row.meta if '"part"' in row.meta_json else {}
        part = meta.get("part")
        if part is None:
            return f"{row.message_id} {row.reply_to_id}"
        given = meta.get("prompt_id") or meta.get("group")
        if given:
            return f"{given} {row.reply_to_id}"
        return self._by_order(row, str(part), str(meta.get("parts")))

    def _by_order(self, row: Message, part: str, parts: str) -> str:
        """Give a part to the newest text of so many parts that does not have it yet."""
        texts = self._unnamed.setdefault((row.sender_id, row.reply_to_id, parts), [])
        if part != "1":
            for name, present in reversed(texts):
                if part not in present:
                    present.add(part)
                    return name
        texts.append((f"{row.message_id} {row.reply_to_id}", {part}))
        return texts[-1][0]


def named(rows: Iterable[Message]) -> list[tuple[str, Message]]:
    """Pair each outgoing row of a thread with the name of its text."""
    grouping = Grouping()
    return [(grouping.name(row), row) for row in rows if row.is_outgoing]
