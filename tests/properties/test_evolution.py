"""Evolution: records of any chain of schemas, interleaved in one log batch, become what their own writer's schema says."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.decode import decoder as decoder_module
from k2stream.decode.decoder import Decoder
from k2stream.decode.framing import frame
from k2stream.records import Batch
from k2stream.rows import TRADES, AvroSchema, avro_schema, joined
from k2stream.verdict import Decoded, Reason
from tests.properties.trade_records import a_trade, batch_of, body_of, log_batch

V2 = avro_schema("trade_v2")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Avro type, values as fastavro writes them (logical types given as plain numbers), the column's type
KINDS: dict[str, tuple[Any, Any, st.SearchStrategy[Any], pa.DataType]] = {
    "boolean": ("boolean", True, st.booleans(), pa.bool_()),
    "int": ("int", 7, st.integers(-(2**31), 2**31 - 1), pa.int32()),
    "long": ("long", 7, st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "float": ("float", 0.5, st.floats(width=32, allow_nan=False), pa.float32()),
    "double": ("double", 0.5, st.floats(allow_nan=False), pa.float64()),
    "bytes": ("bytes", "x", st.binary(max_size=9), pa.binary()),
    "string": ("string", "x", st.text(max_size=9), pa.string()),
    "decimal": (
        {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3},
        "\x00",
        st.integers(-(10**12) + 1, 10**12 - 1).map(lambda n: Decimal(n).scaleb(-3)),
        pa.decimal128(12, 3),
    ),
    "wide": (
        {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 10},
        "\x00",
        st.integers(-(10**30) + 1, 10**30 - 1).map(lambda n: Decimal(f"{n}E-10")),
        pa.decimal128(30, 10),
    ),
    "enum": ({"type": "enum", "name": "Liquidity", "symbols": ["MAKER", "TAKER"]}, "MAKER", st.sampled_from(["MAKER", "TAKER"]), pa.string()),
    "fixed": ({"type": "fixed", "name": "Hash", "size": 4}, "\x00\x00\x00\x00", st.binary(min_size=4, max_size=4), pa.binary(4)),
    "date": ({"type": "int", "logicalType": "date"}, 0, st.integers(-700_000, 2_900_000), pa.date32()),
    "time_millis": ({"type": "int", "logicalType": "time-millis"}, 0, st.integers(0, 86_399_999), pa.time64("us")),
    "time_micros": ({"type": "long", "logicalType": "time-micros"}, 0, st.integers(0, 86_399_999_999), pa.time64("us")),
    "at_millis": ({"type": "long", "logicalType": "timestamp-millis"}, 0, st.integers(-(10**12), 10**13), pa.timestamp("us", tz="UTC")),
    "at_micros": ({"type": "long", "logicalType": "timestamp-micros"}, 0, st.integers(-(10**15), 10**16), pa.timestamp("us", tz="UTC")),
    "local_millis": ({"type": "long", "logicalType": "local-timestamp-millis"}, 0, st.integers(-(10**12), 10**13), pa.timestamp("us")),
    "words": ({"type": "array", "items": "string"}, [], st.lists(st.text(max_size=3), max_size=3), pa.list_(pa.field("element", pa.string(), nullable=False))),
    "levels": (
        {"type": "array", "items": "double"},
        [],
        st.lists(st.floats(allow_nan=False), max_size=3),
        pa.list_(pa.field("element", pa.float64(), nullable=False)),
    ),
    "counts": (
        {"type": "map", "values": "long"},
        {},
        st.dictionaries(st.text(max_size=3), st.integers(-(2**63), 2**63 - 1), max_size=3),
        pa.map_(pa.string(), pa.field("value", pa.int64(), nullable=False)),
    ),
}
WIDER = {"int": "long", "float": "double"}


def the_field(name: str, kind: str, *, optional: bool) -> dict[str, Any]:
    written, default = KINDS[kind][:2]
    return {"name": name, "type": ["null", written], "default": None} if optional else {"name": name, "type": written, "default": default}


def as_column_value(kind: str, value: Any) -> Any:
    """What Arrow gives for a value that fastavro wrote."""
    if value is None:
        return None
    match kind:
        case "date":
            return date.fromordinal(date(1970, 1, 1).toordinal() + value)
        case "time_millis" | "time_micros":
            found = EPOCH + timedelta(microseconds=value * (1000 if kind == "time_millis" else 1))
            return time(found.hour, found.minute, found.second, found.microsecond)
        case "at_millis" | "at_micros" | "local_millis":
            found = EPOCH + timedelta(microseconds=value * (1 if kind == "at_micros" else 1000))
            return found.replace(tzinfo=None) if kind == "local_millis" else found
        case "counts":
            return list(value.items())
    return value


class Chain:
    """Versions of a schema: each adds, drops or widens fields of the one before."""

    def __init__(self, versions: list[dict[str, tuple[str, bool]]]) -> None:
        self.versions = versions

    def schema(self, schema_id: int) -> AvroSchema | None:
        """By version, from 1; a registry's part."""
        if not 1 <= schema_id <= len(self.versions):
            return None
        more = [the_field(name, kind, optional=optional) for name, (kind, optional) in self.versions[schema_id - 1].items()]
        middle = len(V2["fields"]) // 2
        return {**V2, "fields": [*V2["fields"][:middle], *more, *V2["fields"][middle:]]}

    def column(self, name: str) -> pa.DataType:
        """The widest type that any version gives a field."""
        kinds = [fields[name][0] for fields in self.versions if name in fields]
        return KINDS[next((k for k in kinds if k in WIDER.values()), kinds[0])][3]


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    versions: list[dict[str, tuple[str, bool]]] = [{}]
    ever: set[str] = set()
    for number in range(draw(st.integers(1, 3))):
        now = dict(versions[-1])
        for name, (kind, optional) in list(now.items()):
            change = draw(st.integers(0, 5))
            if change == 0:
                del now[name]
            elif change == 1 and kind in WIDER:
                now[name] = (WIDER[kind], optional)
        for kind in draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=3, unique=True)):
            if all(k not in ("enum", "fixed") or k != kind for k, _ in now.values()):
                now[f"{kind}_{number}"] = (kind, draw(st.booleans()))
        ever |= now.keys()
        versions.append(now)
    return Chain(versions)


def decoded(batch: Batch, chain: Any, few: int) -> Decoded:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder_module, "FEW_RECORDS", few)
        return Decoder("trade_v2", chain).decode(batch)


def plain(rows: pa.Table) -> pa.Table:
    """Rows with their words as plain strings."""
    return rows.cast(pa.schema(f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in rows.schema))


@settings(deadline=None, max_examples=80)
@given(chains(), st.data())
def test_any_chain_of_versions_interleaved_gives_each_writers_own_values(chain: Chain, data: st.DataObject) -> None:
    """Fast and slow path equal the record-by-record oracle: a field its writer had is there, one it had not is null, as wide as the widest."""
    written, values = [], []
    for n in range(data.draw(st.integers(1, 12))):
        version = data.draw(st.integers(1, len(chain.versions)))
        fields = chain.versions[version - 1]
        more = {name: data.draw(st.none() | KINDS[kind][2] if optional else KINDS[kind][2]) for name, (kind, optional) in fields.items()}
        schema = chain.schema(version)
        assert schema is not None
        written.append((fields, more))
        values.append(frame(version, body_of(schema, {**a_trade(n), **more})))
    cut = len(values) // 2 + 1
    batch = batch_of(log_batch(values[:cut]), *([log_batch(values[cut:], cut)] if values[cut:] else []))
    fast, slow = decoded(batch, chain, 1), decoded(batch, chain, 1 << 40)
    assert not fast.rejects
    assert not slow.rejects
    assert plain(fast.rows).select(slow.rows.column_names).equals(plain(slow.rows))
    assert fast.rows["offset"].to_pylist() == list(range(len(values)))
    assert fast.rows["trade_id"].to_pylist() == [f"BINANCE-{n}" for n in range(len(values))]
    added = {name for fields, _ in written for name in fields}
    assert set(fast.rows.column_names) == {*TRADES.names, *added}
    for name in added:
        expected = [as_column_value(fields[name][0], more[name]) if name in fields else None for fields, more in written]
        assert fast.rows[name].to_pylist() == expected, name


def test_a_mixed_log_batch_needs_no_reading_record_by_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three versions interleaved in one log batch stay on the columnar path; what a seek asks for is cut there too."""
    chain = Chain([{}, {"fee": ("decimal", True)}, {"fee": ("decimal", True), "venue": ("enum", True)}])
    values = []
    for n in range(300):
        more = {"fee": Decimal(n).scaleb(-3) if n % 2 else None, "venue": "MAKER" if n % 5 else None}
        schema = chain.schema(n % 3 + 1)
        assert schema is not None
        values.append(frame(n % 3 + 1, body_of(schema, {**a_trade(n), **more})))
    monkeypatch.setattr(decoder_module.RecordDecoder, "decode", lambda *_: pytest.fail("a record was read alone"))
    decoder = Decoder("trade_v2", chain)
    for from_offset in (1000, 1100):  # the second time it is known that they are mixed
        rows = decoder.decode(batch_of(log_batch(values, 1000, from_offset))).rows
        expected = range(from_offset - 1000, 300)
        assert rows["offset"].to_pylist() == [1000 + n for n in expected]
        assert rows["fee"].to_pylist() == [Decimal(n).scaleb(-3) if n % 2 and n % 3 else None for n in expected]
        assert rows["venue"].to_pylist() == ["MAKER" if n % 5 and n % 3 == 2 else None for n in expected]


@pytest.mark.parametrize("few", [1, 1 << 40])
def test_an_incompatible_version_costs_its_own_records_only(few: int) -> None:
    """Records of a schema that cannot be read are letters that name the field; versions around them in the log batch are rows."""
    no_price = {**V2, "fields": [f for f in V2["fields"] if f["name"] != "price"]}

    class Schemas(Chain):
        def schema(self, schema_id: int) -> AvroSchema | None:
            return no_price if schema_id == 9 else super().schema(schema_id)

    chain = Schemas([{}, {"fee": ("long", True)}])
    values = []
    for n in range(12):
        version = (1, 2, 9, 77)[n % 4]
        schema = chain.schema(version) or V2
        values.append(frame(version, body_of(schema, {**a_trade(n), "fee": n})))
    values[9] = values[9][:-1]
    found = decoded(batch_of(log_batch(values)), chain, few)
    assert found.rows["offset"].to_pylist() == [0, 1, 4, 5, 8]
    assert found.rows["fee"].to_pylist() == [None, 1, None, 5, None]
    reasons = {2: Reason.SCHEMA_INCOMPATIBLE, 3: Reason.UNKNOWN_SCHEMA, 9: Reason.TRUNCATED}
    assert [(r.offset, r.reason) for r in found.rejects] == [(n, reasons.get(n, reasons.get(n % 4))) for n in (2, 3, 6, 7, 9, 10, 11)]
    assert "field price" in found.rejects[0].text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"fee": ("string", True)}, "field fee: it is string, and the column of that name int64"),
        ({"FEE": ("long", True)}, "field FEE: there is a column fee"),
        ({"offset": ("long", True)}, "field offset: the tables have a column of that name"),
        ({"Price": ("long", True)}, "field Price: the tables have a column of that name"),
    ],
)
def test_a_field_that_no_column_can_take_is_refused_by_name(fields: dict[str, tuple[str, bool]], named: str) -> None:
    """What the table has under that name already decides; the first version that was read holds as well."""
    chain = Chain([{"fee": ("long", True)}, fields])
    values = []
    for n in range(4):
        schema = chain.schema(n % 2 + 1)
        assert schema is not None
        more = {name: "1" if kind == "string" else 1 for name, (kind, _) in (chain.versions[n % 2]).items()}
        values.append(frame(n % 2 + 1, body_of(schema, {**a_trade(n), **more})))
    found = decoded(batch_of(log_batch(values)), chain, 1)
    assert found.rows["offset"].to_pylist() == [0, 2]
    assert [(r.offset, r.reason) for r in found.rejects] == [(1, Reason.SCHEMA_INCOMPATIBLE), (3, Reason.SCHEMA_INCOMPATIBLE)]
    assert named in found.rejects[0].text


def test_the_tables_column_decides_and_is_looked_at_again() -> None:
    """A column that another worker added meanwhile refuses a schema that was read before; a narrower one is widened."""
    held: list[pa.Schema | None] = [None]
    chain = Chain([{"fee": ("int", True)}])
    schema = chain.schema(1)
    assert schema is not None
    batch = batch_of(log_batch([frame(1, body_of(schema, {**a_trade(0), "fee": 5}))]))
    decoder = Decoder("trade_v2", chain, held=lambda: held[0])
    assert decoder.decode(batch).rows["fee"].to_pylist() == [5]
    held[0] = pa.schema([pa.field("fee", pa.int64())])
    assert decoder.decode(batch).rows["fee"].to_pylist() == [5]
    held[0] = pa.schema([pa.field("fee", pa.string())])
    found = decoder.decode(batch)
    assert [r.reason for r in found.rejects] == [Reason.SCHEMA_INCOMPATIBLE]


def test_windows_of_several_shapes_are_one_table() -> None:
    """Rows of different columns under each other: null where one has none, as wide as the widest."""
    one = pa.table({"a": pa.array([1], pa.int32())})
    other = pa.table({"b": pa.array(["x"]), "a": pa.array([2**40], pa.int64())})
    assert joined([one, other]).to_pydict() == {"a": [1, 2**40], "b": [None, "x"]}
    narrow, wide = (pa.table({"d": pa.array([Decimal("1.5")], pa.decimal128(p, 2))}) for p in (10, 20))
    assert joined([narrow, wide]).schema.field("d").type == pa.decimal128(20, 2)
