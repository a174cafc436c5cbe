"""Decode: the fast path and the record-by-record path agree on every record, whatever was done to its bytes."""

import random
import struct
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.decode import decoder as decoder_module
from k2stream.decode.block import BlockReader, open_block
from k2stream.decode.decoder import Decoder
from k2stream.decode.framing import frame
from k2stream.errors import DecodeError, RegistryUnavailable
from k2stream.feed.avro import encode
from k2stream.feed.publisher import RECONNECT, FeedMarker
from k2stream.records import Batch, Kind, LogBatch
from k2stream.rows import TRADES, AvroSchema, avro_schema
from k2stream.testing import trade_rows
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing
from k2stream.verdict import Decoded, Marker, Reason
from tests.properties.trade_records import TOPIC, a_trade, batch_of, body_of, log_batch

CURRENT = avro_schema("trade_v2")
INT64 = st.integers(-(2**63), 2**63 - 1)
MONEY = st.integers(-(10**18) + 1, 10**18 - 1).map(lambda n: Decimal(n).scaleb(-8))


def older() -> AvroSchema:
    """A version before vendor_data, with an int where a long stands now, and a field that is gone."""
    fields = [dict(f) for f in CURRENT["fields"] if f["name"] not in ("vendor_data", "platform_sequence")]
    for f in fields:
        if f["name"] == "source_sequence":
            f["type"] = ["null", "int"]
    return {**CURRENT, "fields": [{"name": "gone", "type": ["null", {"type": "array", "items": "double"}]}, *fields]}


def turned() -> AvroSchema:
    """A version that only the record-by-record path reads: a field that may be null in it and not in the contract."""
    fields = [dict(f) for f in CURRENT["fields"]]
    fields[0]["type"] = ["null", "string"]
    return {**CURRENT, "fields": fields}


SCHEMAS: dict[int, AvroSchema] = {1: CURRENT, 2: older(), 3: turned(), 4: avro_schema("quote_v2")}


class Schemas:
    """A registry that knows SCHEMAS."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return SCHEMAS.get(schema_id)


class Down:
    """A registry that does not answer."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        raise RegistryUnavailable("down")


TRADE = st.fixed_dictionaries(
    {
        "message_id": st.text(max_size=40),
        "trade_id": st.text(max_size=70),
        "symbol": st.sampled_from(["BTCUSDT", "ETHUSDT", "é", ""]),
        "exchange": st.just("BINANCE"),
        "asset_class": st.sampled_from(["equities", "crypto", "futures", "options"]),
        "timestamp": INT64,
        "price": MONEY,
        "quantity": MONEY,
        "currency": st.sampled_from(["USDT", "AUD"]),
        "side": st.sampled_from(["BUY", "SELL", "SELL_SHORT", "UNKNOWN"]),
        "trade_conditions": st.lists(st.text(max_size=3), max_size=3),
        "source_sequence": st.none() | st.integers(-(2**31), 2**31 - 1),
        "ingestion_timestamp": INT64,
        "platform_sequence": st.none() | INT64,
        "vendor_data": st.none() | st.dictionaries(st.sampled_from(["is_sample_data", "a", ""]), st.sampled_from(["true", "x"])),
    }
)


def value_of(trade: Mapping[str, Any], schema_id: int = 1) -> bytes:
    """The trade by one of SCHEMAS, in its frame."""
    return frame(schema_id, body_of(SCHEMAS[schema_id], {**trade, "gone": [1.5]}))


def both(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> tuple[Decoded, Decoded]:
    """The batch by the fast path wherever it holds, and record by record."""
    monkeypatch.setattr(decoder_module, "FEW_RECORDS", 1)
    fast = Decoder("trade_v2", Schemas()).decode(batch)
    monkeypatch.setattr(decoder_module, "FEW_RECORDS", 1 << 40)
    return fast, Decoder("trade_v2", Schemas()).decode(batch)


def same(fast: Decoded, slow: Decoded) -> None:
    assert fast.rows.schema == slow.rows.schema
    assert fast.rows.cast(TRADES).equals(slow.rows.cast(TRADES))
    assert fast.rejects == slow.rejects
    assert fast.markers == slow.markers


def was_fast(batch: Batch) -> bool:
    """Whether the block reader proves the whole batch at once."""
    decoder = Decoder("trade_v2", Schemas())
    blocks = [open_block(b) for b in batch.log_batches]
    if any(b is None for b in blocks):
        return False
    reader = decoder._reader(blocks[0].schema_id)
    return isinstance(reader, BlockReader) and reader.read(blocks) is not None


@settings(deadline=None, max_examples=60)
@given(st.lists(TRADE, min_size=1, max_size=6), st.sampled_from([1, 2]), st.sampled_from(["none", "gzip", "snappy", "lz4", "zstd"]))
def test_both_paths_give_what_was_written(trades: list[dict[str, Any]], schema_id: int, codec: str) -> None:
    """Any valid trade comes out of either path as it went in, for every codec and for an older schema."""
    batch = batch_of(log_batch([value_of(t, schema_id) for t in trades], base=7, codec=codec))
    assert was_fast(batch)
    with pytest.MonkeyPatch.context() as monkeypatch:
        fast, slow = both(batch, monkeypatch)
    same(fast, slow)
    lost = {"vendor_data": None, "platform_sequence": None} if schema_id == 2 else {}
    rows = fast.rows.cast(TRADES)
    for name in CURRENT["fields"]:
        column = rows[name["name"]]
        found = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        wanted = [{**t, **lost}[name["name"]] for t in trades]
        assert wanted == ([None if f is None else dict(f) for f in found] if name["name"] == "vendor_data" else found)
    sample = [bool(not lost and t["vendor_data"] and t["vendor_data"].get("is_sample_data") == "true") for t in trades]
    assert sample == rows["is_sample_data"].to_pylist()
    assert list(range(7, 7 + len(trades))) == rows["offset"].to_pylist()


def zigzag(value: int) -> bytes:
    left, out = (value << 1) ^ (value >> 63), bytearray()
    while left > 0x7F:
        out.append((left & 0x7F) | 0x80)
        left >>= 7
    return bytes([*out, left])


def kafka_record(delta: int, value: bytes, stated: int | None = None) -> bytes:
    inner = b"\0" + zigzag(0) + zigzag(delta) + zigzag(3) + b"key" + zigzag(len(value) if stated is None else stated) + value + b"\0"
    return zigzag(len(inner)) + inner


def mutated(value: bytes, other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(5, len(value))
    match chance.randrange(8):
        case 0:
            return value[:at]
        case 1:
            return value + chance.randbytes(chance.randrange(1, 9))
        case 2:
            return value + bytes(chance.randrange(1, 9))
        case 3:
            return value[:at] + other[chance.randrange(5, len(other)) :]
        case 4:
            return value[:at] + bytes([value[at] ^ (1 << chance.randrange(8))]) + value[at + 1 :]
        case 5:
            return value + kafka_record(chance.randrange(4), other)
        case 6:
            return value[:at] + zigzag(chance.choice([-1, 2**31, 2**62, -(2**63), 1 << 33])) + value[at:]
    return chance.randbytes(chance.randrange(12))


@pytest.mark.parametrize("seed", range(8))
def test_mutated_records_are_judged_alike_and_cost_no_neighbour(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated, extended, padded, spliced, flipped, forged: accepted rows and rejects are equal offset by offset."""
    chance = random.Random(seed)
    good = [value_of(a_trade(n)) for n in range(8)]
    for _ in range(40):
        values = list(good)
        bad = chance.sample(range(8), chance.choice([1, 1, 2]))
        for n in bad:
            values[n] = mutated(values[n], chance.choice(good), chance)
        fast, slow = both(batch_of(log_batch(values)), monkeypatch)
        same(fast, slow)
        assert set(range(8)) - set(bad) <= set(fast.rows["offset"].to_pylist())
        assert sorted(fast.rows["offset"].to_pylist() + [r.offset for r in fast.rejects]) == list(range(8))


def raw_log_batch(payload: bytes, count: int) -> LogBatch:
    """A log batch of any bytes, as no honest producer builds one."""
    head = struct.pack(">qiibIhiqqqhii", 0, 49 + len(payload), 0, 2, 0, 0, count - 1, 0, 0, -1, -1, -1, count)
    return LogBatch.parse(TOPIC, 0, head + payload)


def test_a_record_forged_so_that_all_stated_lengths_add_up_is_not_accepted() -> None:
    """Two records to Kafka, two other ones to Avro: the second begins inside the first's body and swallows what follows."""
    inside = body_of(CURRENT, a_trade(1))
    honest = kafka_record(1, value_of(a_trade(2)))
    prefix = inside[: inside.index(b"\x16BINANCE-1") if b"\x16BINANCE-1" in inside else 3]
    forged = honest[: honest.index(b"\0\0\0\0\x01") + 5] + prefix
    payload = kafka_record(0, value_of(a_trade(0)) + forged) + honest
    log = raw_log_batch(payload, 2)
    assert not was_fast(batch_of(log))
    found = Decoder("trade_v2", Schemas()).decode(batch_of(log))
    assert [r.offset for r in found.rejects] == [0]
    assert [r.reason for r in found.rejects] == [Reason.TRAILING_BYTES]
    assert found.rows["trade_id"].to_pylist() == ["BINANCE-2"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("extra", [b"\0", b"xx", kafka_record(2, value_of(a_trade(2)))])
def test_bytes_after_the_last_record_do_not_hang_the_reader(extra: bytes) -> None:
    """The columnar reader spins for ever on a block with bytes left over; they are a damaged log batch, said at once."""
    payload = b"".join(kafka_record(n, value_of(a_trade(n))) for n in range(2))
    batch = batch_of(raw_log_batch(payload + extra, 2))
    assert not was_fast(batch)
    with pytest.raises(DecodeError):
        Decoder("trade_v2", Schemas()).decode(batch)


@pytest.mark.parametrize("seed", range(4))
def test_payloads_of_any_bytes_are_refused_or_read_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits flipped anywhere in a log batch: both paths give the same, or both call it damaged, and none hangs."""
    chance = random.Random(seed)
    whole = b"".join(kafka_record(n, value_of(a_trade(n))) for n in range(4))
    for _ in range(60):
        payload = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            payload = payload[: chance.randrange(len(payload))] if chance.random() < 0.5 else payload + chance.randbytes(9)
        batch = batch_of(raw_log_batch(bytes(payload), chance.choice([3, 4, 4, 4, 5])))
        outcomes: list[Decoded | None] = []
        for few in (1, 1 << 40):
            monkeypatch.setattr(decoder_module, "FEW_RECORDS", few)
            try:
                outcomes.append(Decoder("trade_v2", Schemas()).decode(batch))
            except DecodeError:
                outcomes.append(None)
        fast, slow = outcomes
        assert (fast is None) == (slow is None)
        if fast is not None and slow is not None:
            same(fast, slow)


BAD: dict[Reason, bytes | None] = {
    Reason.BAD_MAGIC: b"\x01" + value_of(a_trade(0))[1:],
    Reason.UNKNOWN_SCHEMA: frame(77, body_of(CURRENT, a_trade(0))),
    Reason.TRUNCATED: value_of(a_trade(0))[:-1],
    Reason.TRAILING_BYTES: frame(1, body_of(CURRENT, a_trade(0)) + b"\0"),
    Reason.INVALID_UTF8: frame(1, body_of(CURRENT, a_trade(0, symbol="AAAA")).replace(b"AAAA", b"AA\xffA")),
    Reason.ENUM_OUT_OF_RANGE: frame(1, body_of(CURRENT, a_trade(0, asset_class="options")).replace(b"BINANCE\x06", b"BINANCE\x08")),
    Reason.DECIMAL_OUT_OF_RANGE: frame(
        1, body_of(CURRENT, a_trade(0, price=Decimal("9999999999.99999999"))).replace((10**18 - 1).to_bytes(8, "big"), (10**18).to_bytes(8, "big"))
    ),
    Reason.MALFORMED: frame(1, b"\x01"),
    Reason.NO_VALUE: None,
}


@pytest.mark.parametrize("reason", BAD)
def test_each_kind_of_bad_record_is_named_and_alone(reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad record among good ones is rejected with its reason and its bytes; its neighbours are rows."""
    values = [value_of(a_trade(n)) for n in range(3)]
    batch = batch_of(log_batch([values[0], BAD[reason], values[2]], base=5))
    fast, slow = both(batch, monkeypatch)
    same(fast, slow)
    assert [(6, reason, BAD[reason], b"key")] == [(r.offset, r.reason, r.value, r.key) for r in fast.rejects]
    assert fast.rows["offset"].to_pylist() == [5, 7]


def test_a_schema_of_another_kind_is_incompatible() -> None:
    """A quote among trades is a letter that says why."""
    found = Decoder("trade_v2", Schemas()).decode(batch_of(log_batch([frame(4, b"x")])))
    assert [r.reason for r in found.rejects] == [Reason.SCHEMA_INCOMPATIBLE]
    assert "cannot be read as trade_v2: field trade_id" in found.rejects[0].text


def test_several_versions_in_one_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of different writers, and a batch of mixed ones, come out in offset order with every row."""
    logs = [
        log_batch([value_of(a_trade(n), 1 + n % 3) for n in range(6)], base=0),
        *(log_batch([value_of(a_trade(n), i) for n in range(4)], base=6 + 4 * (i - 1)) for i in (1, 2, 3)),
    ]
    fast, slow = both(batch_of(*logs), monkeypatch)
    same(fast, slow)
    assert list(range(18)) == fast.rows["offset"].to_pylist()
    assert not fast.rejects


def test_rows_that_nobody_asked_for_are_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seek into a log batch gives no row twice; holes and several partitions in one call do not disturb."""
    values = [value_of(a_trade(n)) for n in range(10)]
    first = Batch(TOPIC, 0, 13, 25, (log_batch(values, 10, from_offset=13), LogBatch.hole(TOPIC, 0, 20, 24, Kind.CONTROL)), 0)
    second = batch_of(log_batch(values, 40, partition=1), log_batch([b"bad", *values], 50, partition=1))
    monkeypatch.setattr(decoder_module, "FEW_RECORDS", 1)
    found = Decoder("trade_v2", Schemas()).decode_many([first, second])
    assert [list(range(13, 20)), [*range(40, 50), *range(51, 61)]] == [d.rows["offset"].to_pylist() for d in found]
    assert [{0}, {1}] == [set(d.rows["partition"].to_pylist()) for d in found]
    assert [[r.offset for r in d.rejects] for d in found] == [[], [50]]


def test_what_our_feeds_write_goes_fast_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feeds' own encoder writes what the block reader can prove; several calls for one fetch give the same rows."""
    rows = trade_rows({"offset": n, "trade_id": f"ASX-{n}", "price": Decimal(n + 1) / 8, "vendor_data": [("a", str(n))]} for n in range(300))
    rows = rows.set_column(rows.column_names.index("is_sample_data"), "is_sample_data", pa.array([False] * 300))
    rows = rows.set_column(rows.column_names.index("topic"), "topic", pa.array([TOPIC] * 300)).cast(TRADES)
    values = encode(rows, schema="trade_v2", schema_id=1).to_pylist()
    batch = batch_of(*(log_batch(values[n : n + 100], base=n) for n in (0, 100, 200)))
    assert was_fast(batch)
    monkeypatch.setattr(decoder_module, "MOST_BYTES", 30_000)
    assert Decoder("trade_v2", Schemas()).decode(batch).rows.cast(TRADES).equals(rows)


def test_a_fetch_without_records_has_no_rows() -> None:
    """Only holes: an empty table of the right columns."""
    found = Decoder("trade_v2", Schemas()).decode(Batch(TOPIC, 0, 0, 5, (LogBatch.hole(TOPIC, 0, 0, 4, Kind.ABORTED),), 0))
    assert (0, TRADES.names) == (found.rows.num_rows, found.rows.column_names)


def marked(**headers: bytes) -> Batch:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return batch_of(LogBatch.parse(TOPIC, 0, build_log_batch([Outgoing(b"BHP", None, 1, pairs)])))


def test_markers_are_read_and_bad_ones_are_letters() -> None:
    """A feed's session start is a marker; one that lacks its session or has no number for a time is rejected."""
    decoder = Decoder("trade_v2", Schemas())
    good = decoder.decode(marked(k2_marker=b"session_start", k2_session=b"2014-03-10", k2_time_us=b"17"))
    assert (Marker(TOPIC, 0, 0, "BHP", "session_start", "2014-03-10", 17),) == good.markers
    for bad in (
        {"k2_marker": b"pause", "k2_session": b"s", "k2_time_us": b"1"},
        {"k2_marker": b"reconnect", "k2_time_us": b"1"},
        {"k2_marker": b"session_start", "k2_session": b"", "k2_time_us": b"1"},
        {"k2_marker": b"reconnect", "k2_session": b"s", "k2_time_us": b"x"},
        {"k2_marker": b"reconnect", "k2_session": b"s", "k2_time_us": str(2**63).encode()},
    ):
        assert [r.reason for r in decoder.decode(marked(**bad)).rejects] == [Reason.BAD_MARKER]


def test_a_live_feeds_reconnect_is_a_marker_though_it_has_no_session() -> None:
    """As the publisher writes it: rejected, every reconnect of a live feed would be a dead letter, and its gaps nobody's to fill."""
    record = FeedMarker("BHP", RECONNECT, "", 17).record(1)
    found = Decoder("trade_v2", Schemas()).decode(batch_of(LogBatch.parse(TOPIC, 0, build_log_batch([record]))))
    assert ((Marker(TOPIC, 0, 0, "BHP", "reconnect", "", 17),), ()) == (found.markers, found.rejects)


def test_a_registry_that_is_down_makes_no_dead_letter() -> None:
    """The outage is raised, for the caller to wait and ask again."""
    with pytest.raises(RegistryUnavailable):
        Decoder("trade_v2", Down()).decode(batch_of(log_batch([frame(1, b"x")])))


def test_damaged_log_batches_are_named() -> None:
    """Bytes that are not Kafka's format stop the partition with topic and offsets; they are not skipped."""
    with pytest.raises(DecodeError, match=f"{TOPIC}/0, offsets 0 to 1"):
        Decoder("trade_v2", Schemas()).decode(batch_of(raw_log_batch(b"\x02\0", 2)))
