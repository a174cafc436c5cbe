"""`quality`: what is odd about rows that are good, and records that came twice; one row a flagged record, appended from the outbox."""

import pyarrow as pa

from k2stream.lake.declaration import COMMIT_FIELDS, TableDeclaration
from k2stream.quality.flags import FLAGS

QUALITY = TableDeclaration(
    name="quality",
    schema=pa.schema([*FLAGS, *COMMIT_FIELDS]),
    day_of="timestamp",
    partition_by=(),
    sort_by=("exchange", "symbol", "timestamp"),
    bounds=("origin", "exchange", "symbol", "timestamp", "topic", "partition", "offset"),
    unique=("origin",),
)
