"""A topic of real-shaped trades for benchmarks: some 256 bytes of Avro each, 50 symbols, 8 partitions, lz4 log batches of 700.

Ids are unique, sequences contiguous per symbol, times rise: what a Binance feed leaves in the log on a good day.
"""

import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from k2stream.decode.registry import FileRegistry
from k2stream.feed.avro import encode
from k2stream.feed.publisher import partition_of
from k2stream.home import Home
from k2stream.rows import TIMESTAMP, avro_schema, body_schema
from k2stream.topics import TopicName
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.sink import Outgoing

TOPIC = "market.crypto.trades.binance"
PARTITIONS = 8
SYMBOLS = tuple(f"T{letter}{digit}USDT" for letter in "ABCDE" for digit in range(10))
BATCH_RECORDS = 700
ENCODE_ROWS = 50_000
FIRST_US = 1_610_064_000_000_000
"""2021-01-08 00:00 UTC."""
STEP_US = 10_000
"""Time between two trades: five million of them fit into one day."""

SCHEMA = "trade_v2"


@dataclass(frozen=True, slots=True)
class Made:
    """What lies in the log."""

    rows: int
    value_bytes: int
    """All values together, Confluent framing included."""
    log_bytes: int
    """All log batches together, compressed."""


def fill(home: Path, rows: int) -> Made:
    """Make a K2_HOME at `home` with `rows` trades in its embedded log and their schema in its registry."""
    Home.open(home)
    schema_id = FileRegistry(home / "schemas").register(TopicName.parse(TOPIC).subject, avro_schema(SCHEMA))
    log = EmbeddedLog(home / "log")
    log.create_topic(TOPIC, PARTITIONS)
    waiting: dict[int, list[Outgoing]] = {p: [] for p in range(PARTITIONS)}
    value_bytes = log_bytes = 0
    for start in range(0, rows, ENCODE_ROWS):
        trades = made_trades(start, min(ENCODE_ROWS, rows - start))
        value_bytes += place(trades, schema_id, waiting)
        appends = [(TOPIC, p, build_log_batch(records)) for p, records in full_batches(waiting, is_last=start + ENCODE_ROWS >= rows)]
        log_bytes += sum(len(raw) for _, _, raw in appends)
        log.append_many(appends)
    log.close()
    return Made(rows, value_bytes, log_bytes)


def hold_back(home: Path) -> dict[int, int]:
    """Make the topic look empty; the ends of its partitions, for `let_go`."""
    with sqlite3.connect(home / "log" / "log.db") as db:
        ends = dict(db.execute("SELECT p.id, p.end_offset FROM partitions p JOIN topics t ON t.id = p.topic_id WHERE t.name = ?", (TOPIC,)).fetchall())
    _set_ends(home, dict.fromkeys(ends, 0))
    return ends


def let_go(home: Path, ends: dict[int, int]) -> None:
    """The whole backlog appears at once, in one transaction: a worker that stands ready has all of it to read."""
    _set_ends(home, ends)


def _set_ends(home: Path, ends: dict[int, int]) -> None:
    db = sqlite3.connect(home / "log" / "log.db")
    with db:
        db.executemany("UPDATE partitions SET end_offset = ? WHERE id = ?", [(end, id_) for id_, end in ends.items()])
    db.close()


def made_trades(start: int, count: int) -> pa.Table:
    """Trades number `start` to `start + count - 1`."""
    number = np.arange(start, start + count)
    random = np.random.default_rng(start)
    symbols = number % len(SYMBOLS)
    native = 553_287_559 + number // len(SYMBOLS)
    times = FIRST_US + number * STEP_US + random.integers(0, STEP_US, count)
    is_maker = random.integers(0, 2, count)
    base = np.array([s.removesuffix("USDT") for s in SYMBOLS])[symbols]
    columns = {
        "message_id": pa.array([str(uuid.UUID(bytes=random.bytes(16))) for _ in range(count)]),
        "trade_id": pa.array([f"BINANCE-{n}" for n in native]),
        "symbol": pa.array(np.array(SYMBOLS)[symbols]),
        "exchange": pa.array(["BINANCE"] * count),
        "asset_class": pa.array(["crypto"] * count),
        "timestamp": pa.array(times).cast(TIMESTAMP),
        "price": _decimals(3_943_248_000_000 // (symbols + 1) // 10**6 * 10**6 + random.integers(0, 10**4, count) * 10**6),
        "quantity": _decimals(random.integers(1, 10**7, count) * 10**3),
        "currency": pa.array(["USDT"] * count),
        "side": pa.array(np.array(["BUY", "SELL"])[is_maker]),
        "trade_conditions": pa.array([[]] * count, body_schema(SCHEMA).field("trade_conditions").type),
        "source_sequence": pa.array(native),
        "ingestion_timestamp": pa.array(times + 60_000).cast(TIMESTAMP),
        "platform_sequence": pa.nulls(count, pa.int64()),
        "vendor_data": _vendor_data(np.array(["false", "true"])[is_maker], (times // 1000).astype(str), base),
    }
    return pa.table(columns, schema=body_schema(SCHEMA))


def _vendor_data(is_maker: NDArray[np.str_], times_ms: NDArray[np.str_], base: NDArray[np.str_]) -> pa.Array:
    """The keys that the Binance feed writes."""
    keys = ["is_buyer_maker", "event_type", "event_time", "trade_time", "base_asset", "quote_asset", "is_best_match"]
    count = len(base)
    items = np.stack([is_maker, np.full(count, "trade"), times_ms, times_ms, base, np.full(count, "USDT"), np.full(count, "true")], axis=1)
    offsets = np.arange(count + 1, dtype=np.int32) * len(keys)
    entries = pa.MapArray.from_arrays(pa.array(offsets), pa.array(keys * count), pa.array(items.ravel()))
    return entries.cast(body_schema(SCHEMA).field("vendor_data").type)


def _decimals(units: NDArray[np.int64]) -> pa.Array:
    words = np.zeros((len(units), 2), dtype=np.int64)
    words[:, 0] = units
    return pa.Array.from_buffers(body_schema(SCHEMA).field("price").type, len(units), [None, pa.py_buffer(words.tobytes())])


def place(trades: pa.Table, schema_id: int, waiting: dict[int, list[Outgoing]]) -> int:
    """Give each record to its partition, as Kafka's partitioner would; returns the bytes of all values."""
    values = encode(trades, schema=SCHEMA, schema_id=schema_id)
    home = {s: partition_of(s.encode(), PARTITIONS) for s in SYMBOLS}
    times_ms = trades["ingestion_timestamp"].cast(pa.int64()).to_numpy() // 1000
    for symbol, value, time_ms in zip(trades["symbol"].to_pylist(), values.to_pylist(), times_ms.tolist(), strict=True):
        waiting[home[symbol]].append(Outgoing(symbol.encode(), value, time_ms))
    return int(values.nbytes)


def full_batches(waiting: dict[int, list[Outgoing]], *, is_last: bool) -> Iterator[tuple[int, list[Outgoing]]]:
    """Batches in the order of their first records' times, so that partitions rise side by side."""
    found = []
    for partition, records in waiting.items():
        whole = len(records) if is_last else len(records) // BATCH_RECORDS * BATCH_RECORDS
        found += [(partition, records[at : min(at + BATCH_RECORDS, whole)]) for at in range(0, whole, BATCH_RECORDS)]
        del records[:whole]
    yield from sorted(found, key=lambda batch: batch[1][0].timestamp_ms)
