"""Rows as cells: the columns are a contract, and bad cells are named."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.records import BadCellError, Latest, Message, Node, PromptRow, Record, Sighting

COLUMNS: dict[type[Record], str] = {
    Node: "node_id,short_name,long_name,first_seen_at,last_seen_at",
    Sighting: "node_id,latitude,longitude,rssi,telemetry_json,observed_at,sighting_hash",
    Latest: "node_id,snr_db,rssi,hops,signal_at,latitude,longitude,position_channel,position_at,"
    "battery,voltage,battery_at",
    Message: "thread_type,thread_key,message_id,direction,sender_id,reply_to_id,timestamp,content,"
    "send_attempts,send_status,meta_json",
    PromptRow: "prompt_id,node_uid,datetime,model,thread_type,thread_key,source_message_id,"
    "response_message_id,prompt_tokens,completion_tokens,prompt_tps,eval_tps,duration_ms,meta_json",
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_are_those_of_the_documents(kind: type[Record]) -> None:
    assert ",".join(kind.columns()) == COLUMNS[kind]


HEARD = Message("dm", "!a11ce001", "77", "inbound", "!a11ce001", content="hi")


def test_cells_read_back_as_the_row() -> None:
    row = replace(HEARD, send_attempts=3, meta_json='{"a":1}')

    assert Message.from_cells(row.cells()) == row


@given(
    st.one_of(st.none(), st.floats(-180, 180)),
    st.one_of(st.none(), st.integers(-200, 100)),
)
def test_numbers_read_back_to_seven_places(latitude: float | None, rssi: int | None) -> None:
    row = Sighting("!a11ce001", latitude, None, rssi, "", "2026-03-01T12:00:00Z", "f00")

    back = Sighting.from_cells(row.cells())

    assert back.rssi == rssi
    if latitude is None:
        assert back.latitude is None
    else:
        assert back.latitude == pytest.approx(latitude, abs=1e-7)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("thread_type", "Channel"),
        ("direction", "sideways"),
        ("send_status", "queued"),
        ("send_attempts", "x"),
        ("send_attempts", "-1"),
        ("send_attempts", "٣"),
        ("send_attempts", "1.5"),
        ("thread_key", ""),
        ("message_id", ""),
        ("meta_json", "[1]"),
    ],
)
def test_a_bad_cell_is_named(column: str, cell: str) -> None:
    cells = list(HEARD.cells())
    cells[Message.columns().index(column)] = cell

    with pytest.raises(BadCellError, match=column):
        Message.from_cells(tuple(cells))


def test_a_missing_cell_is_no_row() -> None:
    with pytest.raises(BadCellError, match="10 cells instead of 11"):
        Message.from_cells(HEARD.cells()[1:])


def test_an_empty_number_of_attempts_is_none_made() -> None:
    cells = list(HEARD.cells())
    cells[Message.columns().index("send_attempts")] = ""

    assert Message.from_cells(tuple(cells)) == HEARD


@pytest.mark.parametrize("cell", ["", "{", "{]}", "null", "[1]", "9" * 5000])
def test_extras_that_are_no_object_count_as_none(cell: str) -> None:
    assert replace(HEARD, meta_json=cell).meta == {}


def test_extras_are_merged_and_none_removes() -> None:
    row = replace(HEARD, meta_json='{"keep":"ü","drop":1}')

    assert row.with_meta(drop=None, new=2).meta_json == '{"keep":"ü","new":2}'
    assert replace(HEARD, meta_json='{"drop":1}').with_meta(drop=None).meta_json == ""
