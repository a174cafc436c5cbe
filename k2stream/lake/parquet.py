"""Rows to Parquet data files: one per partition of the table, sorted, with exact bounds. About 1 us of CPU a row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform
from pyiceberg.typedef import Record

from k2stream.errors import LakeError
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.evolution import arrow_columns, evolution_of

ROW_GROUP_ROWS = 1 << 16
"""Look-ups read few symbols: a smaller group is skipped more often, one below this costs more in footers than it saves."""

DAY_US = 86_400_000_000

# Measured with 256-byte trades: level 1 takes 0.63 us a row and 48 bytes, level 3 0.85 us and 46 bytes.
ZSTD_LEVEL = 1


Partition = tuple[int | str, ...]
"""Values of a table's partition: days since 1970, then texts."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one partition of the table, and the order to write them in.

    They are gathered a row group at a time: a window in order would be as large as the window, and memory that is touched
    for the first time costs more than the sorting.
    """

    partition: Partition
    rows: pa.Table
    order: NDArray[np.int64]
    """Row numbers of `rows`, in the table's sort order."""

    def row_groups(self) -> Iterator[pa.Table]:
        for start in range(0, len(self.order), ROW_GROUP_ROWS):
            yield self.rows.take(pa.array(self.order[start : start + ROW_GROUP_ROWS]))


class ParquetFormat:
    """How the files of one table are written; built once from the table and its declaration."""

    def __init__(self, table: Table, declaration: TableDeclaration, *, columns: Sequence[pa.Field] = (), is_whole: bool = False) -> None:
        """`columns` are what the rows have beyond the declaration, whether or not the table has them yet; `is_whole`: and all that the table has.

        Raises Fenced if the table cannot take them, and LakeError for a required column that nobody declared.
        """
        schema = evolution_of(table, columns).schema
        self.declaration, self.columns = declaration, tuple(columns)
        self.written_as = schema if columns else None
        """Names and field ids of the files' columns, where they are not the declared ones alone."""
        self.schema = _arrow_schema(schema, declaration.schema, [f.name for f in schema.fields if not f.required] if is_whole else [c.name for c in columns])
        self._spec_id = table.metadata.default_spec_id
        self._sort_order_id = table.metadata.default_sort_order_id
        self._paths = parquet_path_to_id_mapping(schema)
        self._statistics = compute_statistics_plan(schema, table.properties)
        self._options = _options(self.schema, declaration)
        self._check(table)

    def _check(self, table: Table) -> None:
        """The writer fills in the partition itself, so a table that is cut otherwise must not be written to."""
        declared = [*([DayTransform()] if self.declaration.day_of else []), *self.declaration.partition_by, *(self.declaration.buckets or ())[:1]]
        if len(table.spec().fields) != len(declared):
            raise ValueError(f"the table is partitioned by {table.spec()}, expected {declared}")

    def slices(self, rows: pa.Table) -> Iterator[Slice]:
        """`rows` cut by partition and sorted; columns in the table's order and types."""
        if not rows.num_rows:
            return
        whole = self.cast(rows)
        order, edges, partitions = _order(whole, self.declaration)
        for partition, first, last in zip(partitions, edges[:-1], edges[1:], strict=True):
            yield Slice(partition, whole, order[first:last])

    def whole(self, rows: pa.Table) -> Slice:
        """All of `rows` in the table's order, whatever partitions they lie in: for a file that is cut when its table takes it."""
        cast = self.cast(rows)
        return Slice((), cast, _order(cast, replace(self.declaration, day_of=None, partition_by=()))[0])

    def cast(self, rows: pa.Table) -> pa.Table:
        """The table's columns in its order and types; dictionary-encoded text stays so, Parquet takes it as it is."""
        columns = [_as_written(rows.column(f.name), f.type) for f in self.schema]
        fields = [f.with_type(c.type) for f, c in zip(self.schema, columns, strict=True)]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def write(self, io: FileIO, location: str, part: Slice) -> DataFile:
        """Write one data file; on the disk when it returns. Raises OSError; ArrowInvalid for a null in a required column."""
        found: list[pq.FileMetaData] = []
        with (
            io.new_output(location).create(overwrite=True) as stream,
            pq.ParquetWriter(stream, part.rows.schema, metadata_collector=found, **self._options) as writer,
        ):
            for rows in part.row_groups():
                writer.write_table(rows, ROW_GROUP_ROWS)
        return self.data_file(location, len(io.new_input(location)), found[0], part.partition)

    def data_file(self, location: str, size: int, footer: pq.FileMetaData, partition: Partition) -> DataFile:
        """What a manifest says of a file, read from the file's own footer."""
        statistics = data_file_statistics_from_parquet_metadata(footer, self._statistics, self._paths)
        file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=location,
            file_format=FileFormat.PARQUET,
            partition=Record(*partition),
            file_size_in_bytes=size,
            sort_order_id=self._sort_order_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
        file.spec_id = self._spec_id
        return file


def partition_path(declaration: TableDeclaration, partition: Partition) -> str:
    """Folder of a partition below the table's data, as Hive names it: `timestamp_day=2014-03-10/exchange=ASX/`."""
    days = [f"{declaration.day_of}_day"] if declaration.day_of else []
    buckets = [f"{declaration.buckets[0]}_bucket"] if declaration.buckets else []
    texts = [_text(value, is_day=bool(days) and place == 0) for place, value in enumerate(partition)]
    return "".join(f"{name}={_plain(text)}/" for name, text in zip([*days, *declaration.partition_by, *buckets], texts, strict=True))


def _text(value: int | str, *, is_day: bool) -> str:
    return str(np.datetime64(value, "D")) if is_day else str(value)


def _plain(text: str) -> str:
    """The folder's name is for people; the partition's value is in the manifest."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)


def _arrow_schema(schema: Schema, declared: pa.Schema, more: Sequence[str]) -> pa.Schema:
    """The declared Arrow types, and the table's own for `more`, with its field ids, which Parquet keeps and other readers go by.

    Columns of the table that are neither are left out: they are null in these files.
    """
    fields = []
    for field in arrow_columns(schema):
        if field.name in declared.names:
            fields.append(_with_ids(declared.field(field.name), field))
        elif field.name in more:
            fields.append(field)
        elif not field.nullable:
            raise LakeError(f"Column {field.name} of the table is required and no record has it. Make it optional, or drop it.")
    return pa.schema(fields)


def _with_ids(declared: pa.Field, numbered: pa.Field) -> pa.Field:
    kind, other = declared.type, numbered.type
    if pa.types.is_map(kind):
        kind = pa.map_(_with_ids(kind.key_field, other.key_field), _with_ids(kind.item_field, other.item_field))
    elif pa.types.is_list(kind):
        kind = pa.list_(_with_ids(kind.value_field, other.value_field))
    elif pa.types.is_struct(kind):
        kind = pa.struct([_with_ids(kind.field(f.name), f) for f in other])
    return pa.field(declared.name, kind, nullable=declared.nullable, metadata=numbered.metadata)


def _options(schema: pa.Schema, declaration: TableDeclaration) -> dict[str, Any]:
    """Options of write_table: dictionaries where values repeat, differences for numbers and times."""
    numbers = [f.name for f in schema if pa.types.is_int64(f.type) or pa.types.is_timestamp(f.type)]
    plain = {*numbers, *declaration.unique}
    return {
        "compression": "zstd",
        "compression_level": ZSTD_LEVEL,
        "use_dictionary": [path for f in schema if f.name not in plain for path in _leaves(f)],
        "column_encoding": dict.fromkeys((n for n in numbers if n not in declaration.unique), "DELTA_BINARY_PACKED"),
        "write_statistics": list(declaration.bounds),
        "store_schema": False,  # dictionary encoding is ours, not the table's: readers shall see plain text
        "store_decimal_as_integer": True,  # as Iceberg asks for up to 18 digits
    }


def _leaves(field: pa.Field) -> list[str]:
    """The columns that Parquet makes of a field, without those whose values rarely repeat."""
    if pa.types.is_map(field.type):  # what repeats among a map's values compression finds: a dictionary takes longer and more room
        return [f"{field.name}.key_value.key"]
    if pa.types.is_list(field.type):
        element = field.type.value_type
        names = [f".{part.name}" for part in element] if pa.types.is_struct(element) else [""]
        return [f"{field.name}.list.element{name}" for name in names]
    return [field.name]


def _as_written(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type) and column.type.value_type == kind:
        return column.unify_dictionaries()
    if pa.types.is_map(kind):
        return _with_coded_keys(column if column.type == kind else column.cast(kind), kind)
    is_same = column.type.equals(kind, check_metadata=True)  # field ids of lists and maps are metadata of their types
    return column if is_same else column.cast(kind)


def _with_coded_keys(maps: pa.ChunkedArray, kind: pa.MapType) -> pa.ChunkedArray:
    """Maps with their keys as one dictionary: gathered and written in half the time."""
    spans = [_entries_of(chunk) for chunk in maps.chunks]
    keys = pa.concat_arrays([pa.array([], kind.key_type), *(c.keys[first:last] for c, (first, last) in zip(maps.chunks, spans, strict=True))])
    coded_keys, at, chunks = keys.dictionary_encode(), 0, []
    coded = pa.map_(kind.key_field.with_type(coded_keys.type), kind.item_field)
    for chunk, (first, last) in zip(maps.chunks, spans, strict=True):
        offsets, mask = pa.array(np.asarray(chunk.offsets) - first), chunk.is_null() if chunk.null_count else None
        chunks.append(pa.MapArray.from_arrays(offsets, coded_keys[at : at + last - first], chunk.items[first:last], coded, mask=mask))
        at += last - first
    return pa.chunked_array(chunks, coded)


def _entries_of(maps: pa.MapArray) -> tuple[int, int]:
    """Where the entries of these maps begin and end among all that their array may be cut from."""
    return (maps.offsets[0].as_py(), maps.offsets[-1].as_py()) if len(maps) else (0, 0)


def _order(rows: pa.Table, declaration: TableDeclaration) -> tuple[NDArray[np.int64], list[int], list[Partition]]:
    """Row order by partition and sort columns, the edges between partitions, and each partition's values."""
    keys: list[NDArray[np.int64]] = []
    values: list[Mapping[int, str] | None] = []
    if declaration.day_of is not None:
        keys.append(_numbers(rows[declaration.day_of]) // DAY_US)
        values.append(None)
    for name in declaration.partition_by:
        ranks, texts = _ranks(rows[name])
        keys.append(ranks)
        values.append(texts)
    within = [_ranks(rows[n])[0] if _is_text(rows[n].type) else _numbers(rows[n]) for n in declaration.sort_by]
    order = _stable_order([*keys, *within])
    if not keys:
        return order, [0, len(order)], [()]
    sorted_keys = np.stack([key[order] for key in keys])
    cuts = np.flatnonzero((np.diff(sorted_keys, axis=1) != 0).any(axis=0)) + 1
    firsts = [0, *cuts.tolist()]
    partitions = [tuple(_value(v, int(sorted_keys[i, at])) for i, v in enumerate(values)) for at in firsts]
    return order, [*firsts, len(order)], partitions


def _value(values: Mapping[int, str] | None, key: int) -> int | str:
    return key if values is None else values[key]


def _stable_order(keys: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Indices that sort by `keys`, first key first, equal rows as they came.

    All keys in one integer if they fit into 63 bits (a window of days and hundreds of symbols does): one sort instead of four.
    """
    if not keys:
        raise ValueError("a table needs a partition or a sort order")
    spans = [int(k.max()) - int(k.min()) + 1 for k in keys]
    bits = [span.bit_length() for span in spans]
    if sum(bits) > 63:
        return np.lexsort(keys[::-1])
    packed = np.zeros(len(keys[0]), dtype=np.int64)
    for key, width in zip(keys, bits, strict=True):
        packed = (packed << width) | (key - key.min())
    return np.argsort(packed, kind="stable")


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return numbers


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind))


def _ranks(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], Mapping[int, str]]:
    """Each row's place among the sorted different texts, and the text of each place."""
    whole = column.combine_chunks()
    coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    texts = coded.dictionary.to_pylist()
    places = {text: rank for rank, text in enumerate(sorted(set(texts)))}
    rank_of = np.array([places[text] for text in texts], dtype=np.int64)
    return rank_of[coded.indices.to_numpy()], {rank: text for text, rank in places.items()}
