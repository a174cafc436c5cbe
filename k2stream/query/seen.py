"""The exact stage's look-up: which of these native ids have a row in the table already."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.query.engine import Engine
from k2stream.query.pruning import FIRST_US, LAST_US, bound, may_hold, moment, overlapping
from k2stream.table_file import TableFile

FilesOf = Callable[[int], Sequence[TableFile]]
"""Live data files of a snapshot id; the lake answers it."""

# Only the four key columns are read. The constant ranges let Parquet skip row groups (they are sorted by symbol);
# the join itself compares the whole native id and each row's own time.
SEEN = """
SELECT question.row
FROM question SEMI JOIN (
  SELECT exchange, symbol, {native_id} AS native_id, timestamp
  FROM read_parquet($files, hive_partitioning = false)
  WHERE timestamp BETWEEN $earliest AND $latest AND symbol BETWEEN $first_symbol AND $last_symbol
) held
ON question.exchange = held.exchange AND question.symbol = held.symbol AND question.native_id = held.native_id
AND held.timestamp BETWEEN question.earliest AND question.latest
"""


class TableSeen:
    """SeenLookup over the data files of a pinned snapshot; may be called from any thread.

    A row is seen if the table holds its (exchange, symbol, native id) at most the tolerance away in event time.
    """

    def __init__(self, files_of: FilesOf, tolerance_us: int, *, native_id: str = "trade_id", engine: Engine | None = None) -> None:
        """`native_id` names the table's column of the venue's own id."""
        self._files_of, self._seen = files_of, SEEN.format(native_id=native_id)
        self._tolerance_us = tolerance_us
        self._engine = engine or Engine()

    def __call__(self, exchange: pa.Array, symbol: pa.Array, native_id: pa.Array, time: pa.Array, snapshot_id: int) -> NDArray[np.bool_]:
        """Mask of the rows asked for that `snapshot_id` holds; raises QueryError if a file cannot be read."""
        mask = np.zeros(len(time), dtype=np.bool_)
        if not len(time):
            return mask
        span = Span.around(time, self._tolerance_us)
        files = overlapping(self._files_of(snapshot_id), "timestamp", first=int(span.earliest.min()), last=int(span.latest.max()))
        if not files:  # the common case: times that the table has not reached
            return mask
        exchange, symbol = plain_text(exchange), plain_text(symbol)
        files = Streams.of(exchange, symbol, span, files).files_worth_reading(files)
        if files:
            question = pa.table(
                {
                    "row": np.arange(len(mask)),
                    "exchange": exchange,
                    "symbol": symbol,
                    "native_id": plain_text(native_id),
                    "earliest": as_times(span.earliest),
                    "latest": as_times(span.latest),
                }
            )
            mask[self._rows_held(question, span, files)] = True
        return mask

    def close(self) -> None:
        """Give the engine's memory back."""
        self._engine.close()

    def _rows_held(self, question: pa.Table, span: "Span", files: Sequence[TableFile]) -> NDArray[np.int64]:
        symbols = pc.min_max(question["symbol"]).as_py()
        values = {
            "earliest": moment(int(span.earliest.min())),
            "latest": moment(int(span.latest.max())),
            "first_symbol": symbols["min"],
            "last_symbol": symbols["max"],
        }
        held = self._engine.ask(self._seen, files=files, values=values, tables={"question": question})
        rows: NDArray[np.int64] = held["row"].to_numpy()
        return rows


@dataclass(frozen=True, slots=True)
class Span:
    """Per row asked for, the event times at which the table's row may lie; microseconds, both included."""

    earliest: NDArray[np.int64]
    latest: NDArray[np.int64]

    @classmethod
    def around(cls, time: pa.Array | pa.ChunkedArray, tolerance_us: int) -> "Span":
        times: NDArray[np.int64] = time.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return cls(
            np.maximum(times, FIRST_US + tolerance_us) - tolerance_us,
            np.minimum(times, LAST_US - tolerance_us) + tolerance_us,
        )


class Streams:
    """The (exchange, symbol) pairs of a question, each with its span: what files are pruned by."""

    def __init__(self, pairs: pa.Table) -> None:
        """`pairs` has one row a pair, sorted by both: exchange, symbol, earliest, latest."""
        exchanges = pc.unique(pairs["exchange"]).to_pylist()
        self._of_exchange: Mapping[str, pa.Table] = {name: pairs.filter(pc.equal(pairs["exchange"], name)) for name in exchanges}
        self._symbols = {name: table["symbol"].to_pylist() for name, table in self._of_exchange.items()}

    @classmethod
    def of(cls, exchange: pa.Array, symbol: pa.Array, span: Span, files: Sequence[TableFile]) -> "Streams":
        """The pairs of a question, without the exchanges that none of `files` can hold."""
        rows = pa.table({"exchange": exchange, "symbol": symbol, "earliest": span.earliest, "latest": span.latest})
        asked = pc.unique(exchange).to_pylist()
        held = [name for name in asked if any(may_hold(file, "exchange", name, name) for file in files)]
        if len(held) < len(asked):
            rows = rows.filter(pc.is_in(rows["exchange"], pa.array(held, pa.string())))
        pairs = rows.group_by(["exchange", "symbol"]).aggregate([("earliest", "min"), ("latest", "max")])
        return cls(pairs.rename_columns(["exchange", "symbol", "earliest", "latest"]).sort_by([("exchange", "ascending"), ("symbol", "ascending")]))

    def files_worth_reading(self, files: Sequence[TableFile]) -> list[TableFile]:
        """Files whose bounds admit at least one of the pairs at its times."""
        return [file for file in files if any(self._has_pair_in(file, exchange) for exchange in self._of_exchange)]

    def _has_pair_in(self, file: TableFile, exchange: str) -> bool:
        if not may_hold(file, "exchange", exchange, exchange):
            return False
        symbols = self._symbols[exchange]
        lowest, highest = file.lower.get("symbol"), file.upper.get("symbol")
        first = bisect_left(symbols, lowest) if isinstance(lowest, str) else 0
        last = bisect_right(symbols, highest) if isinstance(highest, str) else len(symbols)
        pairs = self._of_exchange[exchange].slice(first, max(0, last - first))
        return bool(np.any(self._are_at_times_of(file, pairs)))

    def _are_at_times_of(self, file: TableFile, pairs: pa.Table) -> NDArray[np.bool_]:
        oldest, newest = bound(file.lower.get("timestamp")), bound(file.upper.get("timestamp"))
        fits = np.ones(len(pairs), dtype=np.bool_)
        if isinstance(oldest, int):
            fits &= pairs["latest"].to_numpy() >= oldest
        if isinstance(newest, int):
            fits &= pairs["earliest"].to_numpy() <= newest
        return fits


def plain_text(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Strings without their dictionary."""
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


def as_times(times_us: NDArray[np.int64]) -> pa.Array:
    """Microseconds as aware timestamps, without a copy."""
    return pa.array(times_us).cast(pa.timestamp("us", tz="UTC"))
