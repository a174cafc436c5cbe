"""Parquet in chunks; a row's line is its number, and its bytes are the row as JSON."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2stream.errors import LoadError
from k2stream.load.chunk import Chunk, Place

CHUNK_ROWS = 50_000


class ParquetFile:
    """One Parquet file, read forwards."""

    def __init__(self, path: Path, *, wanted: Sequence[str] | None = None) -> None:
        """`wanted` columns are read, all without; raises LoadError for what is not Parquet."""
        self._path, self._wanted = path, wanted
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as exc:
            raise LoadError(f"{path} is no Parquet file that can be read ({exc}). Fetch it again.") from exc
        self._done = 0

    @property
    def column_names(self) -> list[str]:
        return list(self._file.schema_arrow.names)

    @property
    def size(self) -> int:
        return int(self._file.metadata.num_rows)

    def done(self) -> int:
        return self._done

    def close(self) -> None:
        self._file.close()

    def chunks(self, place: Place) -> Iterator[Chunk]:
        row = place.row
        for columns in self._tables(row):
            numbers = np.arange(columns.num_rows)
            self._done = row + columns.num_rows
            yield Chunk(columns, numbers, (), row, row + 1 + numbers, _raw_of(columns), Place(self._done, self._done + 1))
            row = self._done

    def _tables(self, skipped: int) -> Iterator[pa.Table]:
        groups = [self._file.metadata.row_group(n).num_rows for n in range(self._file.num_row_groups)]
        first = 0
        while first < len(groups) and groups[first] <= skipped:
            skipped -= groups[first]
            first += 1
        wanted = None if self._wanted is None else list(self._wanted)
        try:
            for batch in self._file.iter_batches(CHUNK_ROWS, row_groups=list(range(first, len(groups))), columns=wanted):
                own = batch.slice(skipped)
                skipped = max(0, skipped - batch.num_rows)
                if own.num_rows:
                    yield pa.Table.from_batches([own])
        except (OSError, pa.ArrowException) as exc:
            raise LoadError(f"{self._path} cannot be read to its end ({exc}). Fetch it again; what was loaded stays, and the next run goes on.") from exc


def _raw_of(columns: pa.Table) -> Callable[[int], bytes]:
    return lambda number: json.dumps(columns.slice(number, 1).to_pylist()[0], default=str).encode()
