"""Column names and Arrow schemas of trades, quotes and instruments, derived from the Avro contracts."""

import json
from collections.abc import Container, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import pyarrow as pa

AvroSchema = dict[str, Any]
"""A parsed .avsc; `Any` because Avro schemas are JSON."""

SCHEMA_OF_DATA_TYPE = {"trades": "trade_v2", "quotes": "quote_v2", "reference_data": "reference_data_v2"}

NATIVE_IDS = {"trades": "trade_id", "quotes": "quote_id"}
"""Data type -> the column that holds the venue's own id."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
DECIMAL = pa.decimal128(18, 8)

ORIGIN_FIELDS = (
    pa.field("is_sample_data", pa.bool_(), nullable=False),
    pa.field("topic", pa.string(), nullable=False),
    pa.field("partition", pa.int32(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
)
"""What k2stream adds to a decoded row: where it came from, and whether it was played from a recording."""

SAMPLE_KEY = "is_sample_data"
"""vendor_data key that recorded feeds set to "true"; it becomes the column of that name."""
FEED_KEY = "feed"
"""vendor_data key of whose report a row is, where the feed has a name."""
BACKFILL = "backfill"
"""... and its value where no live feed brought the row."""


def key_columns(names: Container[str]) -> tuple[str, str, str]:
    """The columns that tell two rows apart for dedup, of a table with these columns: exchange, symbol and native id."""
    native_id = next(column for column in NATIVE_IDS.values() if column in names)
    return "exchange", "symbol", native_id


@cache
def avro_schema(name: str) -> AvroSchema:
    """The contract `k2stream/schemas/{name}.avsc`, parsed."""
    text = files("k2stream").joinpath(f"schemas/{name}.avsc").read_text(encoding="utf-8")
    schema: AvroSchema = json.loads(text)
    return schema


def arrow_type(avro: Any) -> pa.DataType:
    """Arrow type of an Avro type as our contracts use it; raises KeyError for a type they do not use."""
    if isinstance(avro, list):
        return arrow_type(next(t for t in avro if t != "null"))
    if isinstance(avro, str):
        plain: dict[str, pa.DataType] = {
            "string": pa.string(),
            "long": pa.int64(),
            "int": pa.int32(),
            "boolean": pa.bool_(),
            "bytes": pa.binary(),
            "double": pa.float64(),
        }
        return plain[avro]
    match avro.get("logicalType"):
        case "decimal":
            return pa.decimal128(avro["precision"], avro["scale"])
        case "timestamp-micros":
            return TIMESTAMP
    match avro["type"]:
        case "enum":
            return pa.string()
        case "array":
            return pa.list_(pa.field("element", arrow_type(avro["items"]), nullable=False))
        case "map":
            return pa.map_(pa.string(), pa.field("value", arrow_type(avro["values"]), nullable=False))
        case other:
            return arrow_type(other)


def body_schema(name: str) -> pa.Schema:
    """Arrow schema of a contract's own fields, in the contract's order."""
    return pa.schema(pa.field(f["name"], arrow_type(f["type"]), nullable=isinstance(f["type"], list)) for f in avro_schema(name)["fields"])


def table_schema(name: str) -> pa.Schema:
    """Arrow schema of the rows of a table: the contract's fields and the origin."""
    return pa.schema([*body_schema(name), *ORIGIN_FIELDS])


TRADES = table_schema("trade_v2")
QUOTES = table_schema("quote_v2")
INSTRUMENTS = table_schema("reference_data_v2")


def own_columns(rows: pa.Schema) -> list[pa.Field]:
    """Columns that all rows of a data type have: the contract's and the origin; those that writers added stand behind them."""
    return list(rows)[: rows.get_field_index(ORIGIN_FIELDS[-1].name) + 1]


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Rows under each other. Columns that only some tables have are null in the others, and as wide as the widest."""
    schema = tables[0].schema
    if all(t.schema is schema or t.schema.equals(schema) for t in tables):
        return pa.concat_tables(tables)
    return pa.concat_tables(tables, promote_options="permissive")


def wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds both, as Iceberg may widen a column: int to long, float to double, decimals by digits; None: there is none."""
    if one.equals(other):
        return one
    if pa.types.is_decimal(one) and pa.types.is_decimal(other):
        return max(one, other, key=lambda t: t.precision) if one.scale == other.scale else None
    for narrow, wide in ((pa.int32(), pa.int64()), (pa.float32(), pa.float64())):
        if {one, other} == {narrow, wide}:
            return wide
    return None
