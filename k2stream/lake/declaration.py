"""What a table is: the form in which tables/lake declares columns, partitions, order and bounds."""

from dataclasses import dataclass

import pyarrow as pa

COMMIT_FIELDS = (
    pa.field("commit_id", pa.string(), nullable=False),
    pa.field("written_at", pa.timestamp("us", tz="UTC"), nullable=False),
)
"""What the lake adds to every gap event: the commit that brought it, and when its file was written."""


@dataclass(frozen=True, slots=True)
class TableDeclaration:
    """One Iceberg table, said without any Iceberg type."""

    name: str
    """Name inside the namespace of settings."""
    schema: pa.Schema
    """Columns in the table's order; a field that is not nullable becomes a required column."""
    day_of: str | None
    """Timestamp column whose day partitions the table; None: not by day."""
    partition_by: tuple[str, ...]
    """Columns whose values partition the table as they are."""
    sort_by: tuple[str, ...]
    """Order of the rows inside a file."""
    bounds: tuple[str, ...]
    """Columns whose exact lower and upper bounds the manifests keep: what queries prune files by."""
    buckets: tuple[str, int] | None = None
    """A text column whose hash cuts each partition into so many: small ones, to be replaced whole. None: not cut."""
    unique: tuple[str, ...] = ()
    """Columns whose values hardly repeat: a dictionary would cost time and save nothing."""
