"""Rows by the offsets they came from: how state below `next` is rebuilt from the table (design §13.3)."""

from collections.abc import Sequence

import pyarrow as pa

from k2stream.query.engine import Engine, engine_or_own
from k2stream.query.pruning import may_hold, moment, overlapping
from k2stream.records import TopicPartition
from k2stream.table_file import TableFile

ROWS_OF = """
SELECT exchange, symbol, {native_id}, source_sequence, timestamp, topic, partition, "offset"
FROM read_parquet($files, hive_partitioning = false)
WHERE topic = $topic AND partition = $partition AND "offset" >= $from_offset AND "offset" < $to_offset
ORDER BY "offset"
"""

KEYS_BETWEEN = """
SELECT exchange, symbol, trade_id, timestamp
FROM read_parquet($files, hive_partitioning = false)
WHERE timestamp >= $start AND timestamp < $stop
"""

KEYS = pa.schema(
    [
        pa.field("exchange", pa.string()),
        pa.field("symbol", pa.string()),
        pa.field("trade_id", pa.string()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
    ]
)

ORIGINS = pa.schema(
    [
        pa.field("exchange", pa.string()),
        pa.field("symbol", pa.string()),
        pa.field("trade_id", pa.string()),
        pa.field("source_sequence", pa.int64()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
    ]
)


def rows_of(
    files: Sequence[TableFile], tp: TopicPartition, from_offset: int, to_offset: int, *, native_id: str = "trade_id", engine: Engine | None = None
) -> pa.Table:
    """Accepted rows of `tp` with `from_offset <= offset < to_offset` in offset order, as ORIGINS with the table's native id; raises QueryError."""
    schema = ORIGINS.set(ORIGINS.get_field_index("trade_id"), pa.field(native_id, pa.string()))
    topic, partition = tp
    worth = [file for file in files if _may_come_from(file, topic, partition, from_offset, to_offset - 1)]
    if not worth or from_offset >= to_offset:
        return schema.empty_table()
    values = {"topic": topic, "partition": partition, "from_offset": from_offset, "to_offset": to_offset}
    with engine_or_own(engine) as asked:
        return asked.ask(ROWS_OF.format(native_id=native_id), files=worth, values=values).cast(schema)


def keys_between(files: Sequence[TableFile], *, start_us: int, stop_us: int, engine: Engine | None = None) -> pa.Table:
    """Dedup keys with their event times in `[start_us, stop_us)`, unordered, as KEYS: what refills a filter; raises QueryError."""
    worth = overlapping(files, "timestamp", first=start_us, last=stop_us - 1)
    if not worth:
        return KEYS.empty_table()
    values = {"start": moment(start_us), "stop": moment(stop_us)}
    with engine_or_own(engine) as asked:
        return asked.ask(KEYS_BETWEEN, files=worth, values=values).cast(KEYS)


def _may_come_from(file: TableFile, topic: str, partition: int, first: int, last: int) -> bool:
    return may_hold(file, "topic", topic, topic) and may_hold(file, "partition", partition, partition) and may_hold(file, "offset", first, last)
