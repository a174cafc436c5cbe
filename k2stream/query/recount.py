"""The table recounted by origin: what the audit sets against the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from k2stream.errors import QueryError
from k2stream.lake.offsets import Vector
from k2stream.query.engine import Engine
from k2stream.records import TopicPartition
from k2stream.table_file import TableFile

# A partition may have rows and no entry (a foreign writer, an adopted table): it is counted with all of them stray.
RECOUNT = """
SELECT
  held.topic,
  held.partition,
  count(*) FILTER (held."offset" >= span.start AND held."offset" < span.next) AS rows,
  count(DISTINCT held."offset") FILTER (held."offset" >= span.start AND held."offset" < span.next) AS offsets,
  min(held."offset") FILTER (held."offset" >= span.start AND held."offset" < span.next) AS first,
  max(held."offset") FILTER (held."offset" >= span.start AND held."offset" < span.next) AS last,
  count(*) FILTER (held."offset" >= coalesce(span.next, 0)) AS beyond,
  count(*) FILTER (held."offset" < span.start) AS before
FROM (SELECT topic, partition, "offset" FROM read_parquet($files, hive_partitioning = false)) held
LEFT JOIN span ON held.topic = span.topic AND held.partition = span.partition
GROUP BY held.topic, held.partition
ORDER BY held.topic, held.partition
"""

# Hashes first: a group of eight bytes a row, where the keys themselves would be sixty.
REPEATS = """
WITH held AS (
  SELECT exchange, symbol, {native_id} AS native_id, timestamp, topic, partition, "offset", hash(exchange, symbol, {native_id}) AS key
  FROM read_parquet($files, hive_partitioning = false)
),
suspects AS (
  SELECT * FROM held SEMI JOIN (SELECT key FROM held GROUP BY key HAVING count(*) > 1) twice ON held.key = twice.key
),
neighbours AS (
  SELECT *, timestamp - lag(timestamp) OVER key_by_time AS since, lead(timestamp) OVER key_by_time - timestamp AS until
  FROM suspects
  WINDOW key_by_time AS (PARTITION BY exchange, symbol, native_id ORDER BY timestamp)
)
SELECT neighbours.topic, neighbours.partition, count(*) AS rows, min(exchange || '/' || symbol || '/' || native_id) AS example
FROM neighbours JOIN span ON neighbours.topic = span.topic AND neighbours.partition = span.partition
WHERE least(since, until) <= to_microseconds($tolerance_us) AND "offset" >= span.start AND "offset" < span.next
GROUP BY neighbours.topic, neighbours.partition
"""

REPEATED_COMPANIES = """
WITH held AS (
  SELECT topic, partition, exchange, company_id, count(*) OVER (PARTITION BY asset_class, exchange, company_id) AS times
  FROM read_parquet($files, hive_partitioning = false)
)
SELECT topic, partition, count(*) AS rows, min(exchange || '/' || company_id) AS example
FROM held JOIN span USING (topic, partition)
WHERE times > 1
GROUP BY topic, partition
"""

ROWS_IN_FILE = "SELECT sum(num_rows)::BIGINT AS rows FROM parquet_file_metadata($files)"


@dataclass(frozen=True, slots=True)
class Recount:
    """The rows of one topic partition as the data files hold them."""

    rows: int = 0
    """Rows whose offset lies in `[start, next)` of the vector."""
    offsets: int = 0
    """Different offsets among them; fewer than rows when one record made two rows."""
    first: int | None = None
    last: int | None = None
    beyond: int = 0
    """Rows at or above `next`: no commit of ours speaks of them."""
    before: int = 0
    """Rows below `start`: from before an adoption; counted by nobody."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows of one topic partition that share their native id with another row within the tolerance."""

    rows: int
    """Both of a pair, where both are this partition's."""
    example: str


def recount(engine: Engine, files: Sequence[TableFile], vector: Vector) -> Mapping[TopicPartition, Recount]:
    """Count of each topic partition that has rows; raises QueryError if a file cannot be read."""
    if not files:
        return {}
    found = engine.ask(RECOUNT, files=files, tables={"span": spans(vector)}).to_pylist()
    return {TopicPartition(row.pop("topic"), row.pop("partition")): Recount(**row) for row in found}


def repeated_keys(
    engine: Engine, files: Sequence[TableFile], vector: Vector, *, tolerance_us: int, native_id: str = "trade_id"
) -> Mapping[TopicPartition, Repeats]:
    """Keys held twice although dedup should have dropped the second; `native_id` names their column. Raises QueryError."""
    if not files:
        return {}
    found = engine.ask(REPEATS.format(native_id=native_id), files=files, values={"tolerance_us": tolerance_us}, tables={"span": spans(vector)}).to_pylist()
    return {TopicPartition(row["topic"], row["partition"]): Repeats(row["rows"], row["example"]) for row in found}


def repeated_companies(engine: Engine, files: Sequence[TableFile], vector: Vector) -> Mapping[TopicPartition, Repeats]:
    """Instruments that a table holds twice although the newest should have replaced the others; raises QueryError."""
    if not files:
        return {}
    found = engine.ask(REPEATED_COMPANIES, files=files, tables={"span": spans(vector)}).to_pylist()
    return {TopicPartition(row["topic"], row["partition"]): Repeats(row["rows"], row["example"]) for row in found}


def spans(vector: Vector) -> pa.Table:
    """The vector as a table that a question joins."""
    return pa.table(
        {
            "topic": pa.array([tp[0] for tp in vector], pa.string()),
            "partition": pa.array([tp[1] for tp in vector], pa.int32()),
            "start": pa.array([entry.start for entry in vector.values()], pa.int64()),
            "next": pa.array([entry.next for entry in vector.values()], pa.int64()),
        }
    )


@dataclass(frozen=True, slots=True)
class FileFaults:
    """Data files that are not what their manifest says."""

    unreadable: frozenset[str]
    """Paths that cannot be opened."""
    sentences: tuple[str, ...]


def faults_of_files(engine: Engine, files: Sequence[TableFile]) -> FileFaults:
    """Open every file's footer and compare its count of rows with the manifest's."""
    unreadable: list[str] = []
    sentences: list[str] = []
    for file in files:
        try:
            held = engine.ask(ROWS_IN_FILE, files=[file])["rows"][0].as_py()
        except QueryError as exc:
            unreadable.append(file.path)
            sentences.append(f"{file.path}: the snapshot names it and it cannot be read: {exc}")
            continue
        if held != file.rows:
            sentences.append(f"{file.path}: the manifest says {file.rows} rows, the file holds {held}")
    return FileFaults(frozenset(unreadable), tuple(sentences))
