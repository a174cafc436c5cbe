"""Rows of many data files as one sorted stream, in bounded memory: sorted runs on the disk, merged a piece at a time."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.io import FileIO

from k2stream.errors import LakeError
from k2stream.lake.parquet import ROW_GROUP_ROWS, ParquetFormat
from k2stream.lake.trouble import translated

FIELD_ID = b"PARQUET:field_id"
PIECE_ROWS, PIECE_BYTES = 8_192, 4 << 20
"""What a run holds in memory at once, while it is merged with others."""
GROUP_BYTES = 64 << 20
"""No row group takes more in memory, however few rows that are: dead letters may be of any size, and whoever reads one holds a group."""
GROUP_SHARE, GATHER_SHARE = 8, 32
"""A group is at most the eighth part of the memory that a merge may take, for who writes one holds it while the next is made; what is gathered
at once is the thirty-second."""


def sorted_groups(io: FileIO, files: Sequence[str], form: ParquetFormat, *, memory_bytes: int, spill: Path) -> Iterator[pa.Table]:
    """All rows of `files`, which lie in one partition of the table, in its sort order; a row group at a time.

    `memory_bytes` bounds the rows held while they are sorted; what is more waits in unnamed files in `spill`, gone with this process. What is
    taken beside them is half as much at most.
    Raises LakeError if a file cannot be read.
    """
    runs, held, held_bytes = list[_Run](), list[pa.Table](), 0
    try:
        for rows in _joined(_rows(io, files, form.schema)):
            held.append(rows)
            held_bytes += rows.nbytes
            if held_bytes >= memory_bytes:
                runs.append(_Run(_sorted(held, form, memory_bytes // GATHER_SHARE), spill))
                held, held_bytes = [], 0
        rest = _sorted(held, form, memory_bytes // GATHER_SHARE) if held else iter(())
        if runs and held:
            runs.append(_Run(rest, spill))
            held.clear()
        yield from _regrouped(_merged(runs, form) if runs else rest, max(PIECE_BYTES, min(GROUP_BYTES, memory_bytes // GROUP_SHARE)))
    finally:
        for run in runs:
            run.close()


def aligned(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table's columns by field id, by name where a file has none; a column that came later is null in files before it."""
    by_id = {id: i for i, f in enumerate(rows.schema) if (id := (f.metadata or {}).get(FIELD_ID)) is not None}
    by_name = {f.name: i for i, f in enumerate(rows.schema)} if not by_id else {}
    places = [by_id.get(f.metadata[FIELD_ID], by_name.get(f.name)) for f in schema]
    columns = [pa.nulls(rows.num_rows, f.type) if at is None else _cast(rows.column(at), f.type) for f, at in zip(schema, places, strict=True)]
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type.equals(kind, check_metadata=True) else column.cast(kind)


def _rows(io: FileIO, files: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    for path in files:
        with translated("read rows", path), io.new_input(path).open() as stream:
            file = pq.ParquetFile(stream)
            for group in range(file.metadata.num_row_groups):  # else a batch is put together from many
                for batch in file.iter_batches(ROW_GROUP_ROWS, row_groups=[group]):
                    yield aligned(pa.Table.from_batches([batch]), schema)


def _joined(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of one chunk, small ones put together: thousands of small files would make as many chunks to gather from."""
    held = list[pa.Table]()
    for table in tables:
        held.append(table)
        if sum(t.num_rows for t in held) >= PIECE_ROWS or sum(t.nbytes for t in held) >= PIECE_BYTES:
            yield pa.concat_tables(held).combine_chunks() if len(held) > 1 else table
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _sorted(tables: Sequence[pa.Table], form: ParquetFormat, gather_bytes: int) -> Iterator[pa.Table]:
    """Rows in the table's order, gathered so many bytes at a time, by the row group at most."""
    rows = pa.concat_tables(tables)
    order, starts = order_of(rows, form), np.cumsum([0, *(t.num_rows for t in tables)])
    ends_at = np.cumsum(_row_bytes(rows)[order])
    first = 0
    while first < len(order):
        before = ends_at[first - 1] if first else 0
        last = max(first + 1, min(first + ROW_GROUP_ROWS, int(np.searchsorted(ends_at, before + gather_bytes, "right"))))
        yield _gathered(tables, starts, order[first:last])
        first = last


def _row_bytes(rows: pa.Table) -> NDArray[np.int64]:
    """About what each row takes: its own texts and bytes, and an equal share of all else."""
    own: NDArray[np.int64] = np.zeros(rows.num_rows, np.int64)
    for column in rows.columns:
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            own += pc.binary_length(column).fill_null(0).to_numpy()
    own += (rows.nbytes - int(own.sum())) // max(1, rows.num_rows)
    return own


def _gathered(tables: Sequence[pa.Table], starts: NDArray[np.int64], order: NDArray[np.int64]) -> pa.Table:
    """Rows by their numbers. Table by table: to take from many chunks at once, Arrow makes one of each text column, as large as all rows."""
    owners = np.searchsorted(starts, order, "right") - 1
    by_table = np.argsort(owners, kind="stable")
    parts = [tables[n].take(pa.array(order[owners == n] - starts[n])) for n in np.unique(owners)]
    place = np.empty_like(by_table)
    place[by_table] = np.arange(len(by_table))
    return pa.concat_tables(parts).take(pa.array(place))


def order_of(rows: pa.Table, form: ParquetFormat) -> NDArray[np.int64]:
    """Row numbers in the table's sort order. Raises LakeError if the rows belong to several partitions."""
    slices = list(form.slices(rows))
    if len(slices) > 1:
        raise LakeError(f"A data file holds rows of {len(slices)} partitions: {', '.join(str(s.partition) for s in slices[:3])}. It is not merged.")
    return slices[0].order if slices else np.empty(0, np.int64)


class _Run:
    """Sorted rows in an unnamed file, read a piece at a time."""

    def __init__(self, pieces: Iterator[pa.Table], spill: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=spill)  # noqa: SIM115 - closed by close()
        self._waiting: pa.Table | None = None
        with translated("keep rows that are being sorted", str(spill)):
            self._write(pieces)
        self._reader = pa.ipc.open_file(self._file)
        self._at = 0

    def _write(self, pieces: Iterator[pa.Table]) -> None:
        writer = None
        for piece in pieces:
            writer = writer or pa.ipc.new_file(self._file, piece.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
            while piece.num_rows:
                count = fitting(piece, PIECE_ROWS, PIECE_BYTES)
                writer.write_table(piece.slice(0, count))
                piece = piece.slice(count)
        assert writer is not None
        writer.close()

    def head(self) -> pa.Table | None:
        """Rows that are next; None at the end."""
        if (self._waiting is None or not self._waiting.num_rows) and self._at < self._reader.num_record_batches:
            self._waiting = pa.Table.from_batches([self._reader.get_batch(self._at)])
            self._at += 1
        return self._waiting if self._waiting is not None and self._waiting.num_rows else None

    def is_at_end(self) -> bool:
        """True if nothing comes after `head`."""
        return bool(self._at == self._reader.num_record_batches)

    def cut(self, rows: int) -> pa.Table:
        """Take the first so many of `head`."""
        assert self._waiting is not None
        taken, self._waiting = self._waiting.slice(0, rows), self._waiting.slice(rows)
        return taken

    def close(self) -> None:
        self._file.close()


def _merged(runs: Sequence[_Run], form: ParquetFormat) -> Iterator[pa.Table]:
    """What all runs hold up to the least of their last keys is final: it is sorted and given on, then they read on."""
    names = form.declaration.sort_by
    while heads := [(run, head) for run in runs if (head := run.head()) is not None]:
        bounds = [_key(head, names) for run, head in heads if not run.is_at_end()]
        cut = [(run, head.num_rows if not bounds else _up_to(head, names, min(bounds))) for run, head in heads]
        rows = pa.concat_tables([run.cut(count) for run, count in cut if count])
        yield rows.take(pa.array(order_of(rows, form)))


def _key(rows: pa.Table, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(rows[name][-1].as_py() for name in names)


def _up_to(rows: pa.Table, names: Sequence[str], bound: tuple[Any, ...]) -> int:
    """How many rows of a sorted table have a key not above `bound`."""
    within: pa.ChunkedArray | pa.Scalar = pa.scalar(True)
    for name, value in reversed(list(zip(names, bound, strict=True))):
        column, scalar = rows[name], pa.scalar(value, rows[name].type)
        within = pc.or_(pc.less(column, scalar), pc.and_(pc.equal(column, scalar), within))
    return int(pc.sum(within).as_py())


def _regrouped(tables: Iterator[pa.Table], group_bytes: int) -> Iterator[pa.Table]:
    """The same rows in groups of one size, but for the last and for those that `group_bytes` makes smaller."""
    held = list[pa.Table]()
    for table in tables:
        held.append(table)
        while sum(t.num_rows for t in held) >= ROW_GROUP_ROWS or sum(t.nbytes for t in held) >= group_bytes:
            whole = pa.concat_tables(held)
            count = fitting(whole, ROW_GROUP_ROWS, group_bytes)
            yield whole.slice(0, count)
            held = [whole.slice(count)] if count < whole.num_rows else []
    if held:
        yield pa.concat_tables(held)


def fitting(rows: pa.Table, most_rows: int, most_bytes: int) -> int:
    """How many of the first rows stay within both bounds; one at least, whatever it takes."""
    count: int = min(rows.num_rows, most_rows)
    while count > 1 and rows.slice(0, count).nbytes > most_bytes:
        count //= 2
    return count
