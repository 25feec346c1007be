"""What `status` tells of the last warnings: one line that says which file, and what of it."""

import json
from pathlib import Path

import pytest

from meshllm.reading.logs import last_troubles


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"reason": "no room"}, "no room"),
        ({"error": "no room"}, "no room"),
        ({"consequence": "rows are put back", "file": "a.csv"}, "a.csv: rows are put back"),
        ({"consequence": "rows are put back", "file": "/d/a.csv"}, "a.csv: rows are put back"),
        ({"reason": "/d/a.csv: is a folder", "file": "a.csv"}, "/d/a.csv: is a folder"),
        ({"reason": "no room", "consequence": "it waits"}, "no room"),
        ({"file": "a.csv"}, "a.csv"),
        ({"file": 7}, ""),
    ],
)
def test_a_trouble_names_its_file_and_why_or_what_follows(
    fields: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "bridge.jsonl"
    path.write_text(json.dumps({"level": "warning", "event": "rows_vanished"} | fields) + "\n")

    (found,) = last_troubles([path], limit=5)

    assert found.reason == reason
