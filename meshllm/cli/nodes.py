"""`meshllm nodes`: who is heard by which radio, and how. Changes nothing."""

from typing import Any, Final

import click

from meshllm.cli import show
from meshllm.cli.moments import short
from meshllm.cli.show import Column, Row
from meshllm.cli.where import Place, with_place
from meshllm.cli.whom import trees_of
from meshllm.layout import NodeTree
from meshllm.reading.book import Book
from meshllm.records import Latest

_MAINS: Final = 101  #: the firmware's battery level for external power


def _battery(row: Row) -> str:
    level = row["battery"]
    if level is None:
        return ""
    return "mains" if level == _MAINS else f"{level} %"


def _position(row: Row) -> str:
    if row["latitude"] is None or row["longitude"] is None:
        return ""
    return f"{row['latitude']:.4f} {row['longitude']:.4f}"


_COLUMNS: Final = (
    Column("node_id", "NODE"),
    Column("short_name", "SHORT", wrap=True),
    Column("long_name", "NAME", wrap=True),
    Column("last_heard_at", "HEARD UTC", show=lambda row: short(row["last_heard_at"])),
    Column("hops", right=True),
    Column("snr_db", "SNR DB", right=True),
    Column("battery", right=True, show=_battery),
    Column("position", show=_position),
)
_RADIO: Final = Column("node_uid", "RADIO")


@click.command()
@click.option("--radio", metavar="RADIO", help="Only this radio's: its folder, id or name.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=0, help="The newest so many; 0 (default): all."
)
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list.")
@with_place
def nodes(place: Place, radio: str | None, *, limit: int, as_json: bool) -> None:
    """List the nodes that were heard, the newest first, with their newest facts."""
    trees = trees_of(place.book, radio)
    found = [facts for tree in trees for facts in node_facts(place.book, tree)]
    found.sort(key=lambda facts: str(facts["last_heard_at"]), reverse=True)
    columns = (*_COLUMNS, _RADIO) if len(trees) > 1 else _COLUMNS
    shown = found[:limit] if limit else found
    show.table(shown, columns, as_json=as_json, empty="nobody was heard yet")
    place.tell_problems()


def node_facts(book: Book, tree: NodeTree) -> list[dict[str, Any]]:
    """Bring nodes.csv and latest.csv of a radio together."""
    latest = book.latest(tree)
    found = []
    for node in book.nodes(tree):
        newest = latest.get(node.node_id) or Latest(node.node_id)
        found.append(
            {
                "node_uid": tree.node_uid,
                "node_id": node.node_id,
                "short_name": node.short_name,
                "long_name": node.long_name,
                "first_seen_at": node.first_seen_at,
                "last_heard_at": max(node.last_seen_at, newest.signal_at),
                "hops": newest.hops,
                "snr_db": newest.snr_db,
                "rssi": newest.rssi,
                "signal_at": newest.signal_at,
                "latitude": newest.latitude,
                "longitude": newest.longitude,
                "position_at": newest.position_at,
                "position_channel": newest.position_channel,
                "battery": newest.battery,
                "voltage": newest.voltage,
                "battery_at": newest.battery_at,
            }
        )
    return found
