"""Rows cut into runs: rows of one stream key in one partition whose numbers follow each other without a step."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from k2stream.records import TopicPartition
from k2stream.sequence_notes import Row
from k2stream.verdict import Marker

Integers = NDArray[np.int64]


class Run(NamedTuple):
    """Rows `first_row` to `last_row - 1` of `Runs.rows`; their numbers are `sequence`, `sequence + 1`, and so on."""

    stream: int
    place: int
    first_row: int
    last_row: int
    sequence: int
    oldest_us: int
    """The earliest event time of the run."""


@dataclass(frozen=True, slots=True)
class Runs:
    """A window's rows with a number, stably sorted by stream key: per stream in the order they are to be judged."""

    streams: list[tuple[str, str]]
    """(exchange, symbol) by number."""
    places: list[TopicPartition]
    """Partition by number."""
    stream: NDArray[np.integer]
    place: Integers
    sequence: Integers
    time_us: Integers
    offset: Integers
    at: Integers
    """Where each row stood in the window."""
    untracked: dict[TopicPartition, int]
    """Rows without a number."""

    @classmethod
    def of(cls, rows: pa.Table) -> "Runs":
        """`rows` in the order (topic, partition, offset)."""
        numbers = rows["source_sequence"].combine_chunks()
        places, place = _places(rows)
        untracked: dict[TopicPartition, int] = {}
        tracked: NDArray[np.bool_] | None = None
        if numbers.null_count:
            tracked = numbers.is_valid().to_numpy(zero_copy_only=False)
            counts = np.bincount(place[~tracked], minlength=len(places)).tolist()
            untracked = {tp: count for tp, count in zip(places, counts, strict=True) if count}
            numbers = numbers.fill_null(0)
        streams, stream = streams_of(rows)
        order = np.argsort(stream, kind="stable")
        if tracked is not None:
            order = order[tracked[order]]
        time_us = rows["timestamp"].cast(pa.int64()).to_numpy()
        offset = rows["offset"].to_numpy()
        return cls(
            streams, places, stream[order], place[order], numbers.to_numpy()[order], time_us[order], offset[order], order, untracked
        )

    def row(self, number: int) -> Row:
        """One row of the sorted rows."""
        tp = self.places[int(self.place[number])]
        return Row(int(self.sequence[number]), int(self.time_us[number]), tp, int(self.offset[number]))

    def runs(self, session_starts: Iterable[Marker]) -> Iterator[Run]:
        """All runs, stream by stream; one ends where a session start lies before its next row."""
        if not len(self.at):
            return
        is_first = np.ones(len(self.at), dtype=bool)
        before, after = self.sequence[:-1], self.sequence[1:]
        # The last comparison is for the one step of the largest number to the smallest, whose difference wraps to 1.
        np.not_equal(after - before, 1, out=is_first[1:])
        is_first[1:] |= (self.stream[1:] != self.stream[:-1]) | (self.place[1:] != self.place[:-1]) | (after < before)
        for marker in session_starts:
            is_first[self._rows_behind(marker)] = True
        starts = np.flatnonzero(is_first)
        ends = np.append(starts[1:], len(self.at))
        oldest = np.minimum.reduceat(self.time_us, starts)
        columns = (self.stream[starts], self.place[starts], starts, ends, self.sequence[starts], oldest)
        yield from map(Run, *(column.tolist() for column in columns))

    def _rows_behind(self, marker: Marker) -> list[int]:
        """Of each stream of the marker's symbol the first row behind it in its partition."""
        tp = TopicPartition(marker.topic, marker.partition)
        if tp not in self.places:
            return []
        place = self.places.index(tp)
        found = []
        for number, (_, symbol) in enumerate(self.streams):
            if symbol != marker.symbol:
                continue
            low, high = np.searchsorted(self.stream, [number, number + 1])
            first, last = low + np.searchsorted(self.place[low:high], [place, place + 1])
            row = first + np.searchsorted(self.offset[first:last], marker.offset, side="right")
            if row < last:
                found.append(int(row))
        return found


def _places(rows: pa.Table) -> tuple[list[TopicPartition], Integers]:
    topics, topic = _encoded(rows["topic"])
    partition = rows["partition"].to_numpy()
    is_first = np.ones(len(topic), dtype=bool)
    is_first[1:] = (topic[1:] != topic[:-1]) | (partition[1:] != partition[:-1])
    starts = np.flatnonzero(is_first)
    places = [TopicPartition(topics[t], p) for t, p in zip(topic[starts].tolist(), partition[starts].tolist(), strict=True)]
    return places, np.cumsum(is_first) - 1


def streams_of(rows: pa.Table) -> tuple[list[tuple[str, str]], NDArray[np.integer]]:
    """(exchange, symbol) by number, and each row's number."""
    exchanges, exchange = _encoded(rows["exchange"])
    symbols, symbol = _encoded(rows["symbol"])
    streams = [(e, s) for e in exchanges for s in symbols]
    number: NDArray[np.integer] = exchange.astype(np.int64) * len(symbols) + symbol if len(exchanges) > 1 else symbol
    if len(streams) < 1 << 16:
        number = number.astype(np.uint16)  # NumPy sorts 16-bit integers by radix, five times as fast
    return streams, number


def _encoded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.integer]]:
    """Distinct texts of a column and each row's number among them."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    array = column.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return array.dictionary.to_pylist(), array.indices.to_numpy(zero_copy_only=False)
