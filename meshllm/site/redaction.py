"""Takes out of texts who and where people are. Pure, but for a tally of what was found.

What it finds it finds by form or because the files know it. It cannot find what is told in words:
"the red house by the ford", "my brother", a name of somebody without a radio.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from meshllm.layout import node_number
from meshllm.records import compact_json
from meshllm.site import contacts, places, spans
from meshllm.site.known import Known, ends, pseudonym_of, terms
from meshllm.site.names import Finder
from meshllm.site.page import Block
from meshllm.site.pseudonyms import Pseudonyms

_SPEAKER: Final = re.compile(r"([0-9a-f]{4}): ")
_END: Final = re.compile(r"[0-9a-f]{4}")
_DATA: Final = "Data: "
_NAME_KEYS: Final = frozenset({"short_name", "long_name"})


class Redactor:
    """Redacts texts; the same text always becomes the same."""

    def __init__(
        self,
        known: Known,
        pseudonyms: Pseudonyms,
        *,
        area_degrees: float,
        plain_words: Iterable[str] = (),
    ) -> None:
        self._known = known
        self._pseudonyms = pseudonyms
        self._step = area_degrees
        self._ends = ends(known, pseudonyms)
        self._finder = Finder(terms(known, pseudonyms, plain_words), known.ids, pseudonyms)
        self.tally: Counter[tuple[str, str]] = Counter()  #: kind and words of what was replaced

    def text(self, text: str) -> str:
        """Redact free text; time stamps stay."""
        pieces = spans.around_timestamps(text)
        return "".join(piece if is_time else self._plain(piece) for is_time, piece in pieces)

    def turn(self, block: Block, *, is_channel: bool) -> Block:
        """Redact one turn of a prompt: what our own lines say of people is known by its place."""
        if block.role != "user":
            return Block(block.role, self.text(block.text))
        lines = (self._line(line, is_channel=is_channel) for line in block.text.split("\n"))
        return Block(block.role, "\n".join(lines))

    def node(self, name: str) -> str:
        """Redact a cell that names a node: by id, or a radio's folder by its alias."""
        number = node_number(name)
        digits = f"{number:08x}" if number is not None else self._known.radios.get(name)
        return self._pseudonyms.node(digits) if digits else self._pseudonyms.name(name)

    def _plain(self, text: str) -> str:
        text = spans.without_hidden(text)
        usual = spans.usual_signs(text)
        found = spans.replace(
            text,
            (*self._finder.find(text), *places.find(usual, self._step), *contacts.find(usual)),
        )
        self.tally.update(found.terms)
        return found.text

    def _line(self, line: str, *, is_channel: bool) -> str:
        if line.startswith(_DATA):
            try:
                told = json.loads(line.removeprefix(_DATA))
            except (ValueError, RecursionError):
                return self.text(line)
            if isinstance(told, dict):
                return _DATA + compact_json(self._data(told, ""))
        speaker = _SPEAKER.match(line) if is_channel else None
        if speaker is None:
            return self.text(line)
        return f"{self._end(speaker[1])}: {self.text(line[speaker.end() :])}"

    def _end(self, digits: str) -> str:
        self.tally["end of a node id", digits] += 1
        return self._ends.get(digits) or self._pseudonyms.node(digits)

    def _data(self, told: dict[str, Any], owner: str) -> dict[str, object]:
        """Redact what the agent tells the model of people."""
        end = told.get("id")
        if isinstance(end, str) and _END.fullmatch(end):
            owner = self._end(end)
        redacted: dict[str, object] = {}
        for key, value in told.items():
            if _END.fullmatch(key):
                below = self._end(key)
                redacted[below] = self._value(value, below)
            elif key in _NAME_KEYS and isinstance(value, str):
                self.tally["name", value] += 1
                redacted[key] = owner or pseudonym_of(value, self._known, self._pseudonyms)
            else:
                redacted[self.text(key)] = (
                    owner if key == "id" and owner else self._value(value, owner)
                )
        return redacted

    def _value(self, value: Any, owner: str) -> object:
        if isinstance(value, dict):
            return self._data(value, owner)
        if isinstance(value, list):
            return [self._value(one, owner) for one in value]
        if isinstance(value, str):
            return self.text(value)
        return value if value is None or isinstance(value, bool) else self._number(value)

    def _number(self, value: float) -> object:
        """Leave a figure as it is unless it is a position or a node's number."""
        shown = self.text(repr(value))
        return value if shown == repr(value) else shown
