"""Trades as a feed of any schema writes them, and the log batches that they lie in."""

import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import fastavro

from k2stream.records import Batch, LogBatch
from k2stream.rows import AvroSchema
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing

TOPIC = "market.crypto.trades.binance"


def a_trade(n: int, **changed: Any) -> dict[str, Any]:
    """The n-th trade, as trade_v2 has it: times as microseconds, some lists empty, some maps missing."""
    return {
        "message_id": f"m{n}",
        "trade_id": f"BINANCE-{n}",
        "symbol": "BTCUSDT",
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "timestamp": 1_700_000_000_000_000 + n,
        "price": Decimal(n + 1) / 100,
        "quantity": Decimal("0.5"),
        "currency": "USDT",
        "side": "BUY",
        "trade_conditions": ["x"] * (n % 3),
        "source_sequence": n,
        "ingestion_timestamp": 1_700_000_000_000_001 + n,
        "platform_sequence": None,
        "vendor_data": {"maker": "false"} if n % 2 else None,
        **changed,
    }


def body_of(schema: AvroSchema, values: Mapping[str, Any]) -> bytes:
    """fastavro's encoding, times as plain numbers."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), values)
    return out.getvalue()


def log_batch(values: Sequence[bytes | None], base: int = 0, from_offset: int = 0, *, codec: str = "lz4", partition: int = 0) -> LogBatch:
    """Values from offset `base` on, of which those before `from_offset` are not asked for."""
    raw = bytearray(build_log_batch([Outgoing(b"key", v, 1_700_000_000_000 + i) for i, v in enumerate(values)], codec))
    raw[:8] = base.to_bytes(8, "big")
    return LogBatch.parse(TOPIC, partition, bytes(raw), from_offset)


def batch_of(*log_batches: LogBatch) -> Batch:
    """A fetch of these, from the first offset that was asked for on."""
    first = log_batches[0]
    return Batch(TOPIC, first.partition, max(first.from_offset, first.base_offset), log_batches[-1].last_offset + 1, log_batches, 0)
