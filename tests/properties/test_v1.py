"""Records of the first version become what a slow reading by fastavro says, on both paths; what the contract cannot hold is a letter."""

import io
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.decode import decoder as decoder_module
from k2stream.decode.decoder import Decoder
from k2stream.decode.framing import frame
from k2stream.records import Batch, LogBatch
from k2stream.rows import AvroSchema, avro_schema
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing
from k2stream.verdict import Decoded, Reason
from tests.properties.trade_records import body_of

TOPIC = "market.equities.trades.asx"
SCHEMAS = {1: avro_schema("trade_v1"), 2: avro_schema("quote_v1"), 3: avro_schema("trade_v2")}
MILLIS = st.integers(-(2**63) // 1000 + 1, (2**63 - 1) // 1000)
PRICE = st.integers(-(10**16) + 1, 10**16 - 1).map(lambda n: Decimal(n).scaleb(-6))
VOLUME = st.integers(-(10**10) + 1, 10**10 - 1)
COMMON = {
    "symbol": st.sampled_from(["BHP", "RIO", ""]),
    "company_id": st.integers(-(2**31), 2**31 - 1),
    "exchange": st.sampled_from(["ASX", "asx"]),
    "exchange_timestamp": MILLIS,
    "ingestion_timestamp": MILLIS,
    "sequence_number": st.none() | st.integers(-(2**63), 2**63 - 1),
}
TRADE = st.fixed_dictionaries(
    {**COMMON, "price": PRICE, "volume": VOLUME, "qualifiers": st.integers(0, 3), "venue": st.text(max_size=4), "buyer_id": st.none() | st.text(max_size=4)}
)
QUOTE = st.fixed_dictionaries({**COMMON, "bid_price": PRICE, "bid_volume": VOLUME, "ask_price": PRICE, "ask_volume": VOLUME})


class Schemas:
    """A registry that knows SCHEMAS."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return SCHEMAS.get(schema_id)


def value_of(schema_id: int, row: dict[str, Any]) -> bytes:
    return frame(schema_id, body_of(SCHEMAS[schema_id], row))


def decoded(contract: str, values: list[bytes], few: int) -> Decoded:
    log = LogBatch.parse(TOPIC, 0, build_log_batch([Outgoing(b"BHP", v, 0) for v in values]), 0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder_module, "FEW_RECORDS", few)
        return Decoder(contract, Schemas()).decode(Batch(TOPIC, 0, 0, len(values), (log,), 0))


def read_back(value: bytes) -> dict[str, Any]:
    """What fastavro reads, with times as plain numbers."""
    schema = SCHEMAS[int.from_bytes(value[1:5], "big")]
    plain = {**schema, "fields": [{**f, "type": "long"} if f["name"].endswith("timestamp") else f for f in schema["fields"]]}
    row = fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(plain), None)
    assert isinstance(row, dict)
    return row


def expected(old: dict[str, Any], offset: int) -> dict[str, Any]:
    """Record by record, as the docstring of k2stream.decode.v1 says."""
    origin = f"{TOPIC}/0/{offset}"
    number = f"{old['exchange_timestamp']}-{old['sequence_number']}"
    native_id = f"ASX-{origin if old['sequence_number'] is None else number}"
    row = {
        "message_id": origin,
        "symbol": old["symbol"],
        "exchange": old["exchange"],
        "asset_class": "equities",
        "timestamp": old["exchange_timestamp"] * 1000,
        "currency": "AUD",
        "source_sequence": old["sequence_number"],
        "ingestion_timestamp": old["ingestion_timestamp"] * 1000,
        "platform_sequence": None,
        "is_sample_data": False,
        "topic": TOPIC,
        "partition": 0,
        "offset": offset,
    }
    if "bid_price" in old:
        sides = {f"{s}_price": old[f"{s}_price"] for s in ("bid", "ask")} | {f"{s}_quantity": Decimal(old[f"{s}_volume"]) for s in ("bid", "ask")}
        return {**row, **sides, "quote_id": native_id, "vendor_data": [("company_id", str(old["company_id"]))]}
    said = [(name, str(old[name])) for name in ("company_id", "qualifiers", "venue", "buyer_id") if old[name] is not None]
    return {
        **row,
        "trade_id": native_id,
        "price": old["price"],
        "quantity": Decimal(old["volume"]),
        "side": "UNKNOWN",
        "trade_conditions": [],
        "vendor_data": said,
    }


def rows_of(found: Decoded) -> list[dict[str, Any]]:
    rows = found.rows
    times = [f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in rows.schema]
    return rows.cast(pa.schema(times)).to_pylist()


@settings(deadline=None, max_examples=60)
@given(st.lists(TRADE, min_size=1, max_size=8), st.sampled_from([1, 1 << 40]))
def test_trades_become_what_the_oracle_says(trades: list[dict[str, Any]], few: int) -> None:
    """Every value exactly: prices, volumes as quantities, times, ids, and the four fields that go to vendor_data."""
    values = [value_of(1, trade) for trade in trades]
    found = decoded("trade_v2", values, few)
    assert found.rejects == ()
    assert rows_of(found) == [expected(read_back(v), n) for n, v in enumerate(values)]


@settings(deadline=None, max_examples=40)
@given(st.lists(QUOTE, min_size=1, max_size=8), st.sampled_from([1, 1 << 40]))
def test_quotes_become_what_the_oracle_says(quotes: list[dict[str, Any]], few: int) -> None:
    """The same for best bid and ask."""
    values = [value_of(2, quote) for quote in quotes]
    found = decoded("quote_v2", values, few)
    assert found.rejects == ()
    assert rows_of(found) == [expected(read_back(v), n) for n, v in enumerate(values)]


A_TRADE = {
    "symbol": "BHP",
    "company_id": 7,
    "exchange": "ASX",
    "exchange_timestamp": 1_394_400_000_123,
    "price": Decimal("35.125"),
    "volume": 100,
    "qualifiers": 0,
    "venue": "TM",
    "buyer_id": None,
    "ingestion_timestamp": 1_394_400_000_456,
    "sequence_number": 5,
}


@pytest.mark.parametrize("few", [1, 1 << 40])
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"volume": 10**10}, Reason.DECIMAL_OUT_OF_RANGE),
        ({"volume": -(10**10)}, Reason.DECIMAL_OUT_OF_RANGE),
        ({"price": Decimal(10**10)}, Reason.DECIMAL_OUT_OF_RANGE),
        ({"exchange_timestamp": 2**62}, Reason.MALFORMED),
        ({"exchange": "BINANCE"}, Reason.SCHEMA_INCOMPATIBLE),
    ],
)
def test_what_the_contract_cannot_hold_is_a_letter(changed: dict[str, Any], reason: Reason, few: int) -> None:
    """Too many digits, a time beyond microseconds, an exchange of unknown currency: named, and alone."""
    plain = {k: v for k, v in SCHEMAS[1].items() if k != "fields"} | {
        "fields": [{**f, "type": "long"} if f["name"].endswith("timestamp") else f for f in SCHEMAS[1]["fields"]]
    }
    good = value_of(1, A_TRADE)
    found = decoded("trade_v2", [good, frame(1, body_of(plain, {**A_TRADE, **changed})), good], few)
    assert [(r.offset, r.reason) for r in found.rejects] == [(1, reason)]
    assert found.rows["offset"].to_pylist() == [0, 2]


def test_versions_one_and_two_lie_in_one_log_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come out in offset order, whichever version wrote them, and none is read alone."""
    monkeypatch.setattr(decoder_module.RecordDecoder, "decode", lambda *_: pytest.fail("a record was read alone"))
    row = {**expected(A_TRADE, 1), "vendor_data": None, "timestamp": 1, "ingestion_timestamp": 2, "source_sequence": 9}
    values = [value_of(1, A_TRADE), value_of(3, row)] * 60
    found = decoded("trade_v2", values, 1)
    assert found.rows["offset"].to_pylist() == list(range(120))
    assert found.rows["source_sequence"].to_pylist() == [5, 9] * 60


def test_a_record_of_version_one_in_a_topic_of_another_kind_is_a_letter() -> None:
    """A quote among trades stays refused."""
    found = decoded("trade_v2", [value_of(2, {**A_TRADE, "bid_price": Decimal(1), "bid_volume": 1, "ask_price": Decimal(1), "ask_volume": 1})], 1)
    assert [r.reason for r in found.rejects] == [Reason.SCHEMA_INCOMPATIBLE]
