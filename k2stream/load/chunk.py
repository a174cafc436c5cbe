"""A piece of a file: consecutive rows as they stand there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading goes on."""

    row: int = 0
    """Rows before it, rejected ones included."""
    line: int = 1
    """Line of a CSV file, from 1; of Parquet the row, from 1."""
    byte: int = 0
    """Offset in the unpacked file; 0 of Parquet."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that has no columns to speak of."""

    number: int
    """Its place among the chunk's rows, from 0."""
    text: str
    """What was expected, what was found."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `first_row` to `first_row + len(lines) - 1` of a file."""

    columns: pa.Table
    """The columns that the mapping reads; texts of CSV still as bytes. One row for each of `numbers`."""
    numbers: NDArray[np.int64]
    """Place of each of these rows among the chunk's."""
    malformed: tuple[Malformed, ...]
    first_row: int
    lines: NDArray[np.int64]
    """Line of each of the chunk's rows, malformed ones included."""
    raw: Callable[[int], bytes]
    """A row of the chunk as it stands in the file, without its end."""
    after: Place


class RowFile(Protocol):
    """A file of rows."""

    @property
    def column_names(self) -> list[str]:
        """What its columns are called."""

    @property
    def size(self) -> int:
        """What `Place` counts up to: bytes packed on disk, or rows."""

    def chunks(self, place: Place) -> Iterator[Chunk]:
        """From a place that an earlier chunk ended at, to the end. Raises LoadError."""

    def done(self) -> int:
        """How much of `size` was read so far."""

    def close(self) -> None:
        """Let go of the file."""
