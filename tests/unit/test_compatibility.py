"""BACKWARD: what the check lets pass, fastavro reads; what it refuses is named by its field."""

import io
from copy import deepcopy
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2stream.decode.compatibility import Version, obstacles, obstacles_to, require_compatible
from k2stream.errors import RegistryError
from k2stream.rows import avro_schema

SIDE = {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}
TYPES: dict[str, tuple[Any, list[Any]]] = {
    "int": ("int", [0, -7]),
    "long": ("long", [1 << 40]),
    "float": ("float", [0.5]),
    "double": ("double", [0.25]),
    "string": ("string", ["text"]),
    "bytes": ("bytes", [b"text"]),
    "boolean": ("boolean", [True]),
    "enum": (SIDE, ["BUY", "SELL"]),
    "wider enum": ({**SIDE, "symbols": ["BUY", "SELL", "CROSS"]}, ["BUY", "SELL", "CROSS"]),
    "enum with default": ({**SIDE, "symbols": ["BUY"], "default": "BUY"}, ["BUY"]),
    "optional long": (["null", "long"], [None, 1 << 40]),
    "optional string": (["null", "string"], [None, "text"]),
    "longs": ({"type": "array", "items": "long"}, [[1, 2]]),
    "strings": ({"type": "array", "items": "string"}, [["a"]]),
    "map": ({"type": "map", "values": "long"}, [{"a": 1}]),
    "fixed": ({"type": "fixed", "name": "Four", "size": 4}, [b"four"]),
    "wider fixed": ({"type": "fixed", "name": "Four", "size": 5}, [b"fives"]),
    "record": ({"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int"}]}, [{"n": 1}]),
    "wider record": ({"type": "record", "name": "Part", "fields": [{"name": "n", "type": "long"}]}, [{"n": 1}]),
}


def record(type_: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": deepcopy(type_), **more}]}


def reads(newer: dict[str, Any], older: dict[str, Any], values: list[Any]) -> bool:
    """Whether fastavro reads every value that the older schema writes."""
    for value in values:
        written = io.BytesIO()
        fastavro.schemaless_writer(written, older, {"f": value})
        written.seek(0)
        try:
            fastavro.schemaless_reader(written, older, newer)
        except Exception:  # fastavro's own, and what its reader stumbles over
            return False
    return True


@given(new=st.sampled_from(sorted(TYPES)), old=st.sampled_from(sorted(TYPES)))
def test_the_check_agrees_with_a_reader(new: str, old: str) -> None:
    """A version that the check lets pass reads every value of the older one; one that it refuses stumbles over some."""
    newer, older = record(TYPES[new][0]), record(TYPES[old][0])
    assert (obstacles(newer, older) == []) == reads(newer, older, TYPES[old][1]), (new, old, obstacles(newer, older))


@pytest.mark.parametrize("name", ["trade_v2", "quote_v2", "reference_data_v2"])
def test_a_contract_reads_itself(name: str) -> None:
    """The same schema again is no new version."""
    assert obstacles(avro_schema(name), avro_schema(name)) == []


def changed(field: str, **change: Any) -> dict[str, Any]:
    """trade_v2 with one field changed."""
    schema = deepcopy(avro_schema("trade_v2"))
    next(f for f in schema["fields"] if f["name"] == field).update(change)
    return schema


REFUSED = {
    "TradeV2.venue": {**avro_schema("trade_v2"), "fields": [*avro_schema("trade_v2")["fields"], {"name": "venue", "type": "string"}]},
    "TradeV2.price": changed("price", type={"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 6}),
    "TradeV2.timestamp": changed("timestamp", type={"type": "long", "logicalType": "timestamp-millis"}),
    "TradeV2.symbol": changed("symbol", type="long"),
    "TradeV2.asset_class": changed("asset_class", type={"type": "enum", "name": "AssetClass", "symbols": ["crypto"]}),
}


@pytest.mark.parametrize("field", REFUSED)
def test_the_field_in_the_way_is_named(field: str) -> None:
    """A new field without a default, another scale, another unit of time, another type, a symbol gone: each by its name."""
    with pytest.raises(RegistryError, match=rf"market\.crypto\.trades-value.*{field} "):
        require_compatible("market.crypto.trades-value", REFUSED[field], [Version(1, 1, avro_schema("trade_v2"))])


def test_a_field_with_a_default_or_an_alias_is_welcome() -> None:
    """What BACKWARD is for: new optional fields, dropped fields, renamed ones that say what they were called."""
    grown = deepcopy(avro_schema("trade_v2"))
    grown["fields"] = [f for f in grown["fields"] if f["name"] != "vendor_data"] + [{"name": "venue", "type": ["null", "string"], "default": None}]
    assert obstacles(grown, avro_schema("trade_v2")) == []
    assert obstacles(changed("symbol", name="ticker", aliases=["symbol"]), avro_schema("trade_v2")) == []


def test_a_field_that_comes_back_with_another_type_is_refused() -> None:
    """The last version no longer has it, an older one has: every version's records are still in some log."""
    first, last = record("string"), record("string")
    first["fields"].append({"name": "venue", "type": "int", "default": 0})
    back = record("string")
    back["fields"].append({"name": "venue", "type": "string", "default": ""})
    assert obstacles(back, last) == []
    assert [clause for clause in obstacles_to(back, [Version(1, 7, first), Version(2, 8, last)]) if ".venue was int" in clause and "(version 1)" in clause]
