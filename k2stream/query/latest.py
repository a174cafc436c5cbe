"""The newest quotes, and what is known of instruments: SQL constants, every value bound."""

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from k2stream.query.engine import Engine
from k2stream.query.pruning import overlapping
from k2stream.query.questions import newest
from k2stream.rows import QUOTES
from k2stream.table_file import TableFile

LATEST_QUOTES = f"""
SELECT {", ".join(f'"{name}"' for name in QUOTES.names)}
FROM read_parquet($files, hive_partitioning = false)
WHERE ($symbol IS NULL OR symbol = $symbol) AND ($exchange IS NULL OR exchange = $exchange)
AND ($start IS NULL OR timestamp >= $start) AND ($stop IS NULL OR timestamp < $stop)
ORDER BY timestamp DESC, exchange, symbol, source_sequence DESC NULLS LAST, topic, partition, "offset" DESC
LIMIT $limit
"""

INSTRUMENTS = """
SELECT exchange, symbol, company_id, company_name, asset_class, isin, currency, listing_date, delisting_date, is_active, delisted_at
FROM read_parquet($files, hive_partitioning = false)
WHERE ($symbol IS NULL OR symbol = $symbol) AND ($exchange IS NULL OR exchange = $exchange)
AND (NOT $only_listed OR (delisted_at IS NULL AND is_active))
ORDER BY exchange, symbol, company_id
LIMIT $limit
"""


def quotes(
    engine: Engine,
    files: Sequence[TableFile],
    *,
    symbol: str | None = None,
    exchange: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 20,
) -> pa.Table:
    """The newest `limit` quotes, newest first, as k2stream.rows.QUOTES; arguments and errors as questions.trades has them."""
    return newest(engine, files, LATEST_QUOTES, QUOTES, symbol=symbol, exchange=exchange, start=start, end=end, limit=limit)


def instruments(
    engine: Engine, files: Sequence[TableFile], *, symbol: str | None = None, exchange: str | None = None, only_listed: bool = False, limit: int = 100
) -> pa.Table:
    """Instruments by exchange and symbol; raises QueryError if a file cannot be read."""
    for name, value in (("symbol", symbol), ("exchange", exchange)):
        if value is not None:
            files = overlapping(files, name, first=value, last=value)
    if not files:
        return pa.table({name: pa.array([], pa.string()) for name in ("exchange", "symbol", "company_id", "company_name")})
    values = {"symbol": symbol, "exchange": exchange, "only_listed": only_listed, "limit": limit}
    return engine.ask(INSTRUMENTS, files=files, values=values)
