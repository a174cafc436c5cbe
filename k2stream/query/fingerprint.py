"""What a table holds as one number: for comparing two tables whose rows lie in other files and another order."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from k2stream.query.engine import Engine
from k2stream.table_file import TableFile

FROM_FILES = "FROM read_parquet($files, hive_partitioning = false, union_by_name = true)"


class Fingerprint(NamedTuple):
    """Equal for tables of equal rows, whatever files and order they lie in; comparable on one version of DuckDB only."""

    rows: int
    checksum: int
    """Sum of the rows' 64-bit hashes: a row more, less, twice or changed shows."""


def table_fingerprint(engine: Engine, files: Sequence[TableFile], columns: Sequence[str]) -> Fingerprint:
    """Fingerprint of these columns of all rows; the order of a map's entries does not count. Raises QueryError."""
    if not files:
        return Fingerprint(0, 0)
    schema = engine.ask(f"SELECT {', '.join(quoted(name) for name in columns)} {FROM_FILES} LIMIT 0", files=files).schema
    values = ", ".join(comparable(field) for field in schema)
    found = engine.ask(f"SELECT count(*) AS rows, sum(hash({values})::HUGEINT)::VARCHAR AS checksum {FROM_FILES}", files=files)
    return Fingerprint(found["rows"][0].as_py(), int(found["checksum"][0].as_py() or 0))


def comparable(field: pa.Field) -> str:
    """SQL of a column such that equal values hash alike."""
    name = quoted(field.name)
    return f"list_sort(map_entries({name}))" if pa.types.is_map(field.type) else name


def quoted(name: str) -> str:
    """A column's name as SQL means it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'
