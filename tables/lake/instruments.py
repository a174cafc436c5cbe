"""`instruments`: one row a company of a venue, the newest that was said of it; what is delisted stays and says since when."""

from k2stream.instruments.merge import KEPT
from k2stream.lake.declaration import TableDeclaration

BUCKETS = 32
"""A change rewrites one of so many parts of its venue: of 30,000 instruments that is a file of 1,000 rows."""

INSTRUMENTS = TableDeclaration(
    name="instruments",
    schema=KEPT,
    day_of=None,
    partition_by=("exchange",),
    buckets=("company_id", BUCKETS),
    sort_by=("symbol", "company_id"),
    bounds=("symbol", "exchange", "company_id", "topic", "partition", "offset"),
    unique=("message_id", "company_id"),
)
