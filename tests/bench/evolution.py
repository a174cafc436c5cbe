"""What schemas cost decode: CPU of one version, of three interleaved in each log batch, and of records of version 1. `python -m tests.bench.evolution`."""

import io
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro

from k2stream.decode.decoder import Decoder
from k2stream.decode.framing import frame
from k2stream.records import Batch, LogBatch
from k2stream.rows import AvroSchema, avro_schema
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing

TOPIC = "market.equities.trades.asx"
RECORDS, LOG_BATCHES, ROUNDS = 3_000, 4, 25
RESULT = Path("build/evolution.md")


def grown(*fields: dict[str, Any]) -> AvroSchema:
    schema = avro_schema("trade_v2")
    return {**schema, "fields": [*schema["fields"], *fields]}


FEE = {"name": "fee", "type": ["null", "long"], "default": None}
VENUE = {"name": "venue", "type": ["null", "string"], "default": None}
SCHEMAS = {1: grown(), 2: grown(FEE), 3: grown(FEE, VENUE), 4: avro_schema("trade_v1")}


class Schemas:
    """A registry that knows SCHEMAS."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return SCHEMAS.get(schema_id)


def a_trade(n: int) -> dict[str, Any]:
    """The fields of all versions."""
    time_us = 1_700_000_000_000_000 + n * 1000
    new = {
        "message_id": f"0190-{n:032d}",
        "trade_id": f"ASX-{n}",
        "symbol": "BHP",
        "exchange": "ASX",
        "asset_class": "equities",
        "timestamp": time_us,
        "price": Decimal(n + 1) / 100,
        "quantity": Decimal("0.5"),
        "currency": "AUD",
        "side": "BUY",
        "trade_conditions": [],
        "source_sequence": n,
        "ingestion_timestamp": time_us,
        "platform_sequence": None,
        "vendor_data": {"maker": "false", "base": "BTC"},
        "fee": n,
        "venue": "TM",
    }
    old = {"company_id": 7, "exchange_timestamp": time_us // 1000, "volume": 100, "qualifiers": 0, "buyer_id": None, "sequence_number": n}
    return new | old


def batch_of(ids: tuple[int, ...]) -> Batch:
    parsed = {i: fastavro.parse_schema(SCHEMAS[i]) for i in ids}
    records = []
    for n in range(RECORDS):
        body, schema_id, row = io.BytesIO(), ids[n % len(ids)], a_trade(n)
        if schema_id == 4:
            row["ingestion_timestamp"] //= 1000
        fastavro.schemaless_writer(body, parsed[schema_id], row)
        records.append(Outgoing(b"BHP", frame(schema_id, body.getvalue()), 1_700_000_000_000 + n))
    raw = build_log_batch(records)
    logs = tuple(LogBatch.parse(TOPIC, 0, (number * RECORDS).to_bytes(8, "big") + raw[8:], 0) for number in range(LOG_BATCHES))
    return Batch(TOPIC, 0, 0, LOG_BATCHES * RECORDS, logs, 0)


def micros_a_row(batch: Batch) -> float:
    """The fastest of some rounds."""
    decoder = Decoder("trade_v2", Schemas())
    assert decoder.decode(batch).rows.num_rows == RECORDS * LOG_BATCHES
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        decoder.decode(batch)
        rounds.append(time.process_time() - began)
    return min(rounds) / (RECORDS * LOG_BATCHES) * 1e6


def main() -> None:
    """Measure, print, and leave a table in build/."""
    cases = {"one version": (1,), "three versions interleaved in each log batch": (1, 2, 3), "version 1": (4,), "versions 1 and 2 interleaved": (4, 1)}
    lines = ["| records | CPU us a row |", "|---|---|", *(f"| {name} | {micros_a_row(batch_of(ids)):.2f} |" for name, ids in cases.items())]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
