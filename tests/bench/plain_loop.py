"""The loop that everybody writes first: fastavro record by record, `from_pylist`, `table.append`. Prints JSON.

    python -m tests.bench.plain_loop HOME ROWS

It reads the same embedded log into the same columns (no partitions, no order), keeps no offsets,
finds no gap and no duplicate; the rate is from the first read to the last append.
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from k2stream.records import Record, TopicPartition
from k2stream.rows import avro_schema, table_schema
from k2stream.transport.embedded_log import EmbeddedLog
from tests.bench.market import PARTITIONS, SCHEMA, TOPIC

APPEND_ROWS = 10_000
READ_BYTES = 1 << 20
FRAME_BYTES = 5


def records(log: EmbeddedLog) -> Iterator[Record]:
    """Records of the topic, partitions in turn."""
    positions = {TopicPartition(TOPIC, p): 0 for p in range(PARTITIONS)}
    while positions:
        for tp, position in list(positions.items()):
            log_batches = log.read(tp, position, READ_BYTES)
            for log_batch in log_batches:
                yield from log_batch.records()
            if not log_batches:
                del positions[tp]
                continue
            positions[tp] = log_batches[-1].last_offset + 1


def main(arguments: list[str]) -> int:
    home, rows = Path(arguments[0]), int(arguments[1])
    schema, arrow = fastavro.parse_schema(avro_schema(SCHEMA)), table_schema(SCHEMA)
    with tempfile.TemporaryDirectory() as folder:
        catalog = SqlCatalog("plain", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
        catalog.create_namespace("plain")
        table = catalog.create_table("plain.trades", schema=arrow)
        log = EmbeddedLog(home / "log")
        started, done = time.perf_counter(), 0
        waiting: list[dict[str, Any]] = []
        for r in records(log):
            row = fastavro.schemaless_reader(io.BytesIO((r.value or b"")[FRAME_BYTES:]), schema)
            waiting.append({**row, "is_sample_data": False, "topic": r.topic, "partition": r.partition, "offset": r.offset})
            if len(waiting) == APPEND_ROWS or done + len(waiting) == rows:
                table.append(pa.Table.from_pylist(waiting, schema=arrow))
                done += len(waiting)
                waiting.clear()
            if done == rows:
                break
        seconds = time.perf_counter() - started
        log.close()
    print(json.dumps({"rows": done, "seconds": seconds, "cpu_seconds": time.process_time()}))
    return 0 if done == rows else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
