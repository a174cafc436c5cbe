"""Which feed saved what: of redundant feeds, whose report of a trade came first, and whose filled what another had missed."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from k2stream.lake.offsets import Vector
from k2stream.query.engine import Engine
from k2stream.table_file import TableFile

FILLS = """
SELECT DISTINCT topic, partition, "offset" FROM read_parquet($files, hive_partitioning = false) WHERE kind IN ('shrunk', 'filled')
"""

FIRST_REPORTS = """
SELECT held.exchange, held.topic, coalesce(held.vendor_data['feed'], '') AS feed, count(*) AS rows, count(fills."offset") AS filled
FROM read_parquet($files, hive_partitioning = false) held
LEFT JOIN fills ON held.topic = fills.topic AND held.partition = fills.partition AND held."offset" = fills."offset"
WHERE $exchange IS NULL OR held.exchange = $exchange
GROUP BY ALL
ORDER BY ALL
"""

FEEDS = pa.schema(
    [
        pa.field("exchange", pa.string()),
        pa.field("topic", pa.string()),
        pa.field("feed", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("filled", pa.int64()),
        pa.field("topic_duplicates", pa.int64()),
    ]
)
"""rows: trades whose first report was this feed's; filled: those of them that had been missed by then; topic_duplicates: the ledger's, of the whole topic."""

NO_FILLS = pa.table({"topic": pa.array([], pa.string()), "partition": pa.array([], pa.int32()), "offset": pa.array([], pa.int64())})


def feeds(engine: Engine, files: Sequence[TableFile], gap_files: Sequence[TableFile], vector: Vector, *, exchange: str | None = None) -> pa.Table:
    """FEEDS, one row a topic and feed; feeds without a name have an empty one. `vector` is that of the snapshot of `files`."""
    if not files:
        return FEEDS.empty_table()
    fills = engine.ask(FILLS, files=gap_files) if gap_files else NO_FILLS
    found = engine.ask(FIRST_REPORTS, files=files, values={"exchange": exchange}, tables={"fills": fills})
    duplicates = _duplicates(vector)
    column = pa.array([duplicates.get(topic, 0) for topic in found["topic"].to_pylist()], pa.int64())
    return found.append_column("topic_duplicates", column).cast(FEEDS)


def _duplicates(vector: Vector) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for tp, entry in vector.items():
        found[tp.topic] = found.get(tp.topic, 0) + entry.counts.duplicates
    return found
