"""Finds the rows of a table whose header line is lost or mangled. Pure; writes nothing."""

from typing import Final, TypeVar

from meshllm.records import Record
from meshllm.store import codec
from meshllm.store.codec import Damage, Decoded

R = TypeVar("R", bound=Record)

WRONG_HEADER: Final = "wrong header"  #: what the parser says of such a table


def without_header(data: bytes, record_type: type[R]) -> Decoded[R] | None:
    """Read a table as if its header were right; None where the rows may mean something else.

    The header may be missing altogether or be replaced by another line. A line that names columns
    at other places was written by a program that moved them: its rows are not guessed at. `damage`
    of the result names the header's bytes first, offsets counting in `data` as it is.
    """
    body = data[len(codec.BOM) * data.startswith(codec.BOM) :]
    lost = len(data) - len(body)
    first, newline, rest = body.partition(b"\n")
    as_row = codec.extend(first + newline, record_type, known=Decoded())
    if as_row.rows:
        return _moved(codec.extend(body, record_type, known=Decoded()), lost, 0)
    if _moves_columns(first, record_type):
        return None
    head = len(first) + len(newline)
    found = codec.extend(rest, record_type, known=Decoded())
    return _moved(found, lost + head, lost + head) if found.rows else None


def _moved(found: Decoded[R], by: int, header_bytes: int) -> Decoded[R]:
    head = Damage(0, header_bytes, WRONG_HEADER)
    damage = (head, *(Damage(d.offset + by, d.length, d.reason) for d in found.damage))
    return Decoded(found.rows, found.starts, found.end + by, damage, tidy=False)


def _moves_columns(line: bytes, record_type: type[Record]) -> bool:
    """Say whether a line names one of our columns where it does not belong."""
    names = [cell.strip(b' "\r').lower() for cell in line.split(b",")]
    wanted = [column.encode() for column in record_type.columns()]
    if len(names) != len(wanted):
        return any(name in wanted for name in names)
    return any(n in wanted and n != w for n, w in zip(names, wanted, strict=True))
