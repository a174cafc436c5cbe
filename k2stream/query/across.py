"""Trades of one pair on all venues, whatever each of them calls it."""

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from k2stream.query.engine import Engine
from k2stream.query.questions import files_for
from k2stream.rows import TRADES
from k2stream.table_file import TableFile

ACROSS = """
SELECT names.pair, held.timestamp, held.exchange, held.symbol, held.price, held.quantity, held.side, held.trade_id
FROM read_parquet($files, hive_partitioning = false) held JOIN names ON held.exchange = names.exchange AND held.symbol = names.symbol
WHERE ($start IS NULL OR held.timestamp >= $start) AND ($stop IS NULL OR held.timestamp < $stop)
ORDER BY held.timestamp DESC, held.exchange, held.symbol, held.source_sequence DESC NULLS LAST, held.topic, held.partition, held."offset" DESC
LIMIT $limit
"""

COLUMNS = ("timestamp", "exchange", "symbol", "price", "quantity", "side", "trade_id")
TRADES_ACROSS = pa.schema([pa.field("pair", pa.string()), *(TRADES.field(name) for name in COLUMNS)])


def across(
    engine: Engine,
    files: Sequence[TableFile],
    names: Sequence[tuple[str, str, str]],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 20,
) -> pa.Table:
    """The newest `limit` trades of (pair, exchange, symbol) in `names`, newest first, with `start <= timestamp < end`, as TRADES_ACROSS."""
    worth = {f.path: f for _, exchange, symbol in names for f in files_for(files, symbol=symbol, exchange=exchange, start=start, end=end)}
    if not worth:
        return TRADES_ACROSS.empty_table()
    table = pa.table(dict(zip(("pair", "exchange", "symbol"), map(list, zip(*names, strict=True)), strict=True)))
    values = {"start": start, "stop": end, "limit": limit}
    return engine.ask(ACROSS, files=list(worth.values()), values=values, tables={"names": table}).cast(TRADES_ACROSS)
