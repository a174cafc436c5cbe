"""One data file of a pinned snapshot: the seam between the lake that names files and the queries that read them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableFile:
    """A live Parquet data file, with what the manifest knows of its columns."""

    path: str
    """As the manifest names it: an absolute path or a URL."""
    rows: int
    size_bytes: int
    lower: Mapping[str, object]
    """By column name a value that no row of the file is below; timestamps as microseconds. A column without bounds is absent."""
    upper: Mapping[str, object]
    """By column name a value that no row of the file is above; strings may be cut short and rounded up."""
