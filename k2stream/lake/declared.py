"""A table's declaration as the table itself says it: what rewrites files also knows columns that came after this program."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import _pyarrow_schema_ensure_small_types, schema_to_pyarrow
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform

from k2stream.errors import LakeError
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.head import name_of

BOUNDS = "write.metadata.metrics.column."


def declared_by(table: Table, unique: tuple[str, ...] = ()) -> TableDeclaration:
    """Raises LakeError if the table is cut or sorted in a way that k2stream does not write."""
    schema = table.schema()
    days = [schema.find_column_name(f.source_id) for f in table.spec().fields if isinstance(f.transform, DayTransform)]
    values = [schema.find_column_name(f.source_id) for f in table.spec().fields if isinstance(f.transform, IdentityTransform)]
    buckets = [(schema.find_column_name(f.source_id), f.transform.num_buckets) for f in table.spec().fields if isinstance(f.transform, BucketTransform)]
    order = [schema.find_column_name(f.source_id) for f in table.sort_order().fields if isinstance(f.transform, IdentityTransform)]
    fields = [*days, *values, *buckets]
    is_ours = len(days) <= 1 and len(buckets) <= 1 and len(fields) == len(table.spec().fields)
    if not is_ours or len(order) != len(table.sort_order().fields) or not order:
        found = f"partitioned by {table.spec()} and sorted by {table.sort_order()}"
        raise LakeError(f"{name_of(table)} is {found}: expected days, values, buckets and a plain order.")
    return TableDeclaration(
        name=table.name()[-1],
        schema=_pyarrow_schema_ensure_small_types(schema_to_pyarrow(schema)),
        day_of=days[0] if days else None,
        partition_by=tuple(name for name in values if name is not None),
        buckets=next(((name, count) for name, count in buckets if name is not None), None),
        sort_by=tuple(name for name in order if name is not None),
        bounds=tuple(key.removeprefix(BOUNDS) for key, how in table.properties.items() if key.startswith(BOUNDS) and how == "full"),
        unique=unique,
    )


def as_made(table: Table, declaration: TableDeclaration) -> TableDeclaration:
    """The declaration, but without days for a table that was made before it had any: it stays as it is, and is written to as it is."""
    return replace(declaration, day_of=None) if table.spec().is_unpartitioned() else declaration


def is_rewritable(table: Table) -> bool:
    """False for a table whose writer replaces whole parts itself, as that of instruments does: no small files pile up there."""
    return all(isinstance(f.transform, DayTransform | IdentityTransform) for f in table.spec().fields)


def unique_columns(io: FileIO, path: str) -> tuple[str, ...]:
    """Columns that one of the table's own files holds without a dictionary, numbers and times apart. Raises OSError."""
    with io.new_input(path).open() as stream:
        file = pq.ParquetFile(stream)
        coded = set[str]()
        for group in range(file.metadata.num_row_groups):
            columns = (file.metadata.row_group(group).column(i) for i in range(file.metadata.num_columns))
            coded |= {c.path_in_schema for c in columns if any("DICTIONARY" in encoding for encoding in c.encodings)}
        return tuple(f.name for f in file.schema_arrow if _may_be_coded(f.type) and f.name not in coded)


def _may_be_coded(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_int64(kind) or pa.types.is_timestamp(kind))
