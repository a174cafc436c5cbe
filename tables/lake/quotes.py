"""`quotes`: one row per accepted best bid and ask of any venue, exactly once, with where it came from."""

from k2stream.lake.declaration import TableDeclaration
from k2stream.rows import QUOTES as ROWS

QUOTES = TableDeclaration(
    name="quotes",
    schema=ROWS,
    day_of="timestamp",
    partition_by=("exchange",),
    sort_by=("symbol", "timestamp"),
    bounds=("symbol", "exchange", "timestamp", "bid_price", "ask_price", "source_sequence", "topic", "partition", "offset"),
    unique=("message_id", "quote_id", "bid_quantity", "ask_quantity"),
)
