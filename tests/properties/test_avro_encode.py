"""The column-wise encoder writes what fastavro writes, byte for byte."""

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.feed import asx
from k2stream.feed.avro import FRAME, encode, encode_one
from k2stream.feed.recording import MessageIds
from k2stream.rows import avro_schema, body_schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=140)
OF_LOGICAL_TYPE = {
    "decimal": st.integers(1 - 10**18, 10**18 - 1).map(lambda n: Decimal(n).scaleb(-8)) | st.integers(-70_000, 70_000).map(lambda n: Decimal(n).scaleb(-8)),
    "timestamp-micros": st.integers(-(10**15), 10**16).map(lambda us: EPOCH + timedelta(microseconds=us)),
}
PLAIN = {"string": TEXT, "long": st.integers(-(2**63), 2**63 - 1), "boolean": st.booleans()}


def values_of(avro: Any) -> st.SearchStrategy[Any]:
    """Any value of an Avro type as our contracts use it."""
    if isinstance(avro, list):
        return st.none() | values_of(avro[1])
    if isinstance(avro, str):
        return PLAIN[avro]
    if "logicalType" in avro:
        return OF_LOGICAL_TYPE[avro["logicalType"]]
    if avro["type"] == "enum":
        return st.sampled_from(avro["symbols"])
    if avro["type"] == "array":
        return st.lists(values_of(avro["items"]), max_size=70)
    return st.dictionaries(TEXT, values_of(avro["values"]), max_size=5)


def rows_of(schema: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({f["name"]: values_of(f["type"]) for f in avro_schema(schema)["fields"]}), min_size=1, max_size=5)


def slow(rows: list[dict[str, Any]], schema: str, schema_id: int) -> list[bytes]:
    parsed = fastavro.parse_schema(avro_schema(schema))
    values = []
    for row in rows:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, parsed, row)
        values.append(FRAME.pack(0, schema_id) + body.getvalue())
    return values


@pytest.mark.parametrize("schema", ["trade_v2", "quote_v2", "reference_data_v2"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_rows_encode_as_fastavro_encodes_them(schema: str, data: st.DataObject) -> None:
    """Every value of every contract, and every slice of a table."""
    rows = data.draw(rows_of(schema))
    table = pa.Table.from_pylist(rows, schema=body_schema(schema))
    expected = slow(rows, schema, 77)
    assert encode(table, schema=schema, schema_id=77).to_pylist() == expected
    start = data.draw(st.integers(0, len(rows)))
    assert encode(table.slice(start, 2), schema=schema, schema_id=77).to_pylist() == expected[start : start + 2]
    assert encode_one(rows[0], schema=schema, schema_id=77) == expected[0]


def test_a_recording_with_dictionary_columns_encodes_as_fastavro_encodes_it() -> None:
    """The shipped rows, as the reader gives them."""
    table = asx.trades("DVN", ids=MessageIds(UUID(int=5)), now_us=10**15).rows
    rows = [{**row, "vendor_data": dict(row["vendor_data"])} for row in table.to_pylist()]
    assert encode(table, schema="trade_v2", schema_id=1).to_pylist() == slow(rows, "trade_v2", 1)


def test_a_missing_required_value_is_named() -> None:
    """A null where the contract has none must not become an empty string."""
    row = {f["name"]: None for f in avro_schema("trade_v2")["fields"]}
    loose = pa.schema([f.with_nullable(True) for f in body_schema("trade_v2")])
    with pytest.raises(TypeError, match="Field message_id of trade_v2 is required"):
        encode(pa.Table.from_pylist([row], schema=loose), schema="trade_v2", schema_id=1)
