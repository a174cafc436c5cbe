"""`gaps`: what happened to the sequence numbers of every stream, one row an event, appended from the outbox."""

import pyarrow as pa

from k2stream.gaps import EVENTS
from k2stream.lake.declaration import COMMIT_FIELDS, TableDeclaration

GAPS_COLUMNS: tuple[str, ...] = tuple(EVENTS.names)
"""What the records decide: equal whatever crashed or raced, unlike the columns that know the commit."""

GAPS = TableDeclaration(
    name="gaps",
    schema=pa.schema([*EVENTS, *COMMIT_FIELDS]),
    day_of=None,
    partition_by=(),
    sort_by=("exchange", "symbol"),
    bounds=("event_id", "exchange", "symbol", "timestamp", "topic", "partition", "offset"),
    unique=("event_id",),
)
