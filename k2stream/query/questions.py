"""The questions people ask of the trades: SQL constants, every value bound."""

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from k2stream.query.engine import Engine
from k2stream.query.pruning import FIRST_US, LAST_US, micros, overlapping
from k2stream.rows import TRADES
from k2stream.table_file import TableFile

COLUMNS = ", ".join(f'"{name}"' for name in TRADES.names)

LATEST_TRADES = f"""
SELECT {COLUMNS}
FROM read_parquet($files, hive_partitioning = false)
WHERE ($symbol IS NULL OR symbol = $symbol) AND ($exchange IS NULL OR exchange = $exchange)
AND ($start IS NULL OR timestamp >= $start) AND ($stop IS NULL OR timestamp < $stop)
ORDER BY timestamp DESC, exchange, symbol, source_sequence DESC NULLS LAST, topic, partition, "offset" DESC
LIMIT $limit
"""

# DuckDB multiplies two DECIMAL(18) as 64-bit integers and overflows on a large block trade: one side is made wider.
# The volume-weighted average is the one figure here that is rounded; all others are exact decimals.
DAILY_BARS = """
SELECT
  CAST(timestamp AS DATE) AS day, exchange, symbol, count(*) AS trades,
  first(price ORDER BY timestamp, source_sequence, "offset") AS open, max(price) AS high, min(price) AS low,
  last(price ORDER BY timestamp, source_sequence, "offset") AS close,
  sum(quantity) AS volume,
  CAST(sum(price::DECIMAL(20, 8) * quantity) / sum(quantity) AS DECIMAL(18, 8)) AS vwap
FROM read_parquet($files, hive_partitioning = false)
WHERE ($symbol IS NULL OR symbol = $symbol) AND ($exchange IS NULL OR exchange = $exchange)
GROUP BY day, exchange, symbol
ORDER BY day, exchange, symbol
"""

_PRICE = TRADES.field("price").type
BARS = pa.schema(
    [
        ("day", pa.date32()),
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        ("trades", pa.int64()),
        *((name, _PRICE) for name in ("open", "high", "low", "close")),
        ("volume", pa.decimal128(38, 8)),
        ("vwap", pa.decimal128(18, 8)),
    ]
)

BUSIEST_SECONDS = """
SELECT
  date_trunc('second', timestamp) AS second, exchange, symbol, count(*) AS trades,
  sum(quantity) AS volume, min(price) AS low, max(price) AS high
FROM read_parquet($files, hive_partitioning = false)
GROUP BY second, exchange, symbol
ORDER BY trades DESC, second, exchange, symbol
LIMIT $limit
"""


def trades(
    engine: Engine,
    files: Sequence[TableFile],
    *,
    symbol: str | None = None,
    exchange: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 20,
) -> pa.Table:
    """The newest `limit` trades, newest first, with `start <= timestamp < end`, as k2stream.rows.TRADES.

    None asks for any. `start` and `end` are aware; raises QueryError if a file cannot be read.
    """
    return newest(engine, files, LATEST_TRADES, TRADES, symbol=symbol, exchange=exchange, start=start, end=end, limit=limit)


def newest(
    engine: Engine,
    files: Sequence[TableFile],
    question: str,
    schema: pa.Schema,
    *,
    symbol: str | None,
    exchange: str | None,
    start: datetime | None,
    end: datetime | None,
    limit: int,
) -> pa.Table:
    """What `question` finds in the files that may hold it, as `schema`; it binds $symbol, $exchange, $start, $stop and $limit."""
    worth = files_for(files, symbol=symbol, exchange=exchange, start=start, end=end)
    if not worth:
        return schema.empty_table()
    values = {"symbol": symbol, "exchange": exchange, "start": start, "stop": end, "limit": limit}
    return engine.ask(question, files=worth, values=values).cast(schema)


def daily_bars(engine: Engine, files: Sequence[TableFile], *, symbol: str | None = None, exchange: str | None = None) -> pa.Table:
    """Open, high, low, close, volume and volume-weighted average price per day (UTC), exchange and symbol; no files, no bars."""
    if not files:
        return BARS.empty_table()
    return engine.ask(DAILY_BARS, files=files, values={"symbol": symbol, "exchange": exchange}).cast(BARS)


def busiest_seconds(engine: Engine, files: Sequence[TableFile], *, limit: int = 5) -> pa.Table:
    """The seconds with the most trades of one symbol."""
    return engine.ask(BUSIEST_SECONDS, files=files, values={"limit": limit})


def files_for(
    files: Sequence[TableFile], *, symbol: str | None = None, exchange: str | None = None, start: datetime | None = None, end: datetime | None = None
) -> Sequence[TableFile]:
    """Those of `files` whose bounds do not exclude that they hold an asked-for row."""
    if symbol is not None:
        files = overlapping(files, "symbol", first=symbol, last=symbol)
    if exchange is not None:
        files = overlapping(files, "exchange", first=exchange, last=exchange)
    first = FIRST_US if start is None else micros(start)
    last = LAST_US if end is None else micros(end) - 1
    return overlapping(files, "timestamp", first=first, last=last)
