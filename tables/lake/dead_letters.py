"""`dead_letters`: every record that could not become a row, with its bytes as they came; one row a letter, appended from the outbox."""

import pyarrow as pa

from k2stream.deadletter.rows import LETTERS
from k2stream.lake.declaration import COMMIT_FIELDS, TableDeclaration

DEAD_LETTERS = TableDeclaration(
    name="dead_letters",
    schema=pa.schema([*LETTERS, *COMMIT_FIELDS]),
    day_of=None,
    partition_by=(),
    sort_by=("topic", "partition", "offset"),
    bounds=("origin", "first_origin", "topic", "partition", "offset", "reason", "symbol", "first_seen"),
    unique=("origin", "first_origin", "value"),
)
