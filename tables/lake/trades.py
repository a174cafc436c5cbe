"""`trades`: one row per accepted trade of any venue, exactly once, with where it came from."""

from k2stream.lake.declaration import TableDeclaration
from k2stream.rows import TRADES as ROWS

TRADES = TableDeclaration(
    name="trades",
    schema=ROWS,
    day_of="timestamp",
    partition_by=("exchange",),
    sort_by=("symbol", "timestamp"),
    bounds=("symbol", "exchange", "timestamp", "price", "quantity", "source_sequence", "topic", "partition", "offset"),
    unique=("message_id", "trade_id", "price", "quantity"),
)
