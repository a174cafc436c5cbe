"""Which gaps are open, and which of their numbers the table holds none of."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from k2stream.number_spans import Span, of_numbers, without
from k2stream.query.engine import Engine
from k2stream.query.questions import files_for
from k2stream.table_file import TableFile

# A session that begins anew may open the same range again, so openings and fillings are counted. What is missing only ever shrinks.
OPEN_GAPS = """
SELECT
  exchange, symbol, data_type, first_sequence, last_sequence,
  CASE WHEN count(*) FILTER (kind = 'opened') > 1 THEN last_sequence - first_sequence + 1 ELSE min(missing) END AS missing,
  arg_max(cause, timestamp) FILTER (kind = 'opened') AS cause,
  max(timestamp) FILTER (kind = 'opened') AS timestamp,
  max(previous_timestamp) FILTER (kind = 'opened') AS previous_timestamp
FROM read_parquet($files, hive_partitioning = false)
WHERE kind IN ('opened', 'shrunk', 'filled', 'waived')
AND ($exchange IS NULL OR exchange = $exchange) AND ($data_type IS NULL OR data_type = $data_type)
GROUP BY exchange, symbol, data_type, first_sequence, last_sequence
HAVING count(*) FILTER (kind = 'opened') > count(*) FILTER (kind IN ('filled', 'waived'))
ORDER BY timestamp, exchange, symbol, first_sequence
"""

HELD = """
SELECT DISTINCT source_sequence AS number
FROM read_parquet($files, hive_partitioning = false)
WHERE exchange = $exchange AND symbol = $symbol AND source_sequence BETWEEN $first AND $last
ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class OpenGap:
    """A gap as it was opened, and what is missing of it still."""

    exchange: str
    symbol: str
    data_type: str
    first: int
    last: int
    missing: int
    cause: str
    previous_us: int
    """Event time of the row before it, microseconds since the epoch."""
    next_us: int
    """... and of the row that opened it."""


def open_gaps(engine: Engine, files: Sequence[TableFile], *, exchange: str | None = None, data_type: str | None = None) -> list[OpenGap]:
    """Gaps of which something is missing, in order of their time; `files` are those of the gaps table."""
    if not files:
        return []
    found = engine.ask(OPEN_GAPS, files=files, values={"exchange": exchange, "data_type": data_type})
    times = [found[name].cast(pa.int64()).to_pylist() for name in ("previous_timestamp", "timestamp")]
    words = found.select(["exchange", "symbol", "data_type", "first_sequence", "last_sequence", "missing", "cause"]).to_pylist()
    return [
        OpenGap(w["exchange"], w["symbol"], w["data_type"], w["first_sequence"], w["last_sequence"], w["missing"], w["cause"], before or after, after)
        for w, before, after in zip(words, *times, strict=True)
    ]


def missing_numbers(engine: Engine, files: Sequence[TableFile], gap: OpenGap) -> list[Span]:
    """The numbers of the gap that no row has; `files` are those of its data type's table."""
    worth = files_for(files, symbol=gap.symbol, exchange=gap.exchange)
    if not worth:
        return [(gap.first, gap.last)]
    held = engine.ask(HELD, files=worth, values={"exchange": gap.exchange, "symbol": gap.symbol, "first": gap.first, "last": gap.last})
    return without([(gap.first, gap.last)], of_numbers(held["number"].to_pylist()))
