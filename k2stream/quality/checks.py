"""Rows looked at for what is odd though valid; flags them and drops nothing. Pure, vectorised, about 0.2 us a row.

Rows are compared with those of their stream key that came before, in the order of their offsets: the previous price, the newest event
time, and the day's steps and quantities so far. That memory begins anew when a partition is read again or comes from another worker:
the first row of each symbol then has nothing to be compared with, and means need LEAST rows again. Windows may be cut anywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.quality.feeds import Reporters
from k2stream.quality.flags import FLAGS, Flag
from k2stream.records import TopicPartition
from k2stream.sequence_runs import streams_of

LEAST = 30
"""Rows of a day before its mean says anything."""
STEP_LIMIT_PPM = 100_000
"""A step counts into the mean as at most so much: one wild price must not hide the next."""
STILL_PPM = 100.0
"""The least standard deviation: where prices hardly move, a single tick is no outlier."""
DAY_US = 86_400_000_000

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on a row is flagged."""

    price_move_percent: float
    price_deviations: float
    volume_times: float
    stale_us: int


@dataclass(slots=True)
class Known:
    """What is remembered of a stream key."""

    home: TopicPartition
    price: float = 0.0
    """In units of the eighth digit; 0: none yet."""
    newest_us: int = -(1 << 62)
    steps: int = 0
    step_sum: int = 0
    step_squares: int = 0
    trades: int = 0
    quantity: float = 0.0


class Checks:
    """Flags of one data type, for one user at a time."""

    def __init__(self, data_type: str, thresholds: Thresholds) -> None:
        self._data_type, self._limits = data_type, thresholds
        self._known: dict[tuple[str, str], Known] = {}
        self._reporters = Reporters()

    def keep(self, tps: set[TopicPartition]) -> None:
        """Forget stream keys of all other partitions."""
        self._known = {key: known for key, known in self._known.items() if known.home in tps}
        self._reporters.keep({tp.topic for tp in tps})

    def flag(self, rows: pa.Table, doubles: pa.Table | None = None) -> pa.Table:
        """FLAGS of new rows, in the order (topic, partition, offset), and of records that were in the table already and that nobody expects."""
        found = [self._flagged(rows)] if rows.num_rows else []
        doubles = self._odd(rows, doubles)
        if doubles is not None and doubles.num_rows:
            masks = {Flag.DUPLICATE: np.ones(doubles.num_rows, dtype=bool)}
            found.append(_table(doubles, masks, np.full(doubles.num_rows, np.nan), self._data_type))
        return pa.concat_tables(found) if found else FLAGS.empty_table()

    def _odd(self, rows: pa.Table, doubles: pa.Table | None) -> pa.Table | None:
        """Doubles but those of topics that several feeds fill: each second report is one."""
        self._reporters.note(rows)
        if doubles is None:
            return None
        self._reporters.note(doubles)
        shared = pa.array(self._reporters.shared(), pa.string())
        return doubles.filter(pc.invert(pc.is_in(doubles["topic"].cast(pa.string()), shared))) if len(shared) else doubles

    def _flagged(self, rows: pa.Table) -> pa.Table:
        times = rows["timestamp"].cast(pa.int64()).to_numpy()
        masks = {Flag.AHEAD_OF_INGESTION: times > rows["ingestion_timestamp"].cast(pa.int64()).to_numpy()}
        if "bid_price" in rows.column_names:
            bid, ask = units_of(rows["bid_price"]), units_of(rows["ask_price"])
            masks[Flag.CROSSED_QUOTE] = (bid > ask) & (ask > 0)
        streams, stream = streams_of(rows)
        order = np.argsort(stream, kind="stable")
        starts = np.flatnonzero(np.r_[True, stream[order][1:] != stream[order][:-1]])
        known = [self._of(streams[number], rows, int(at)) for number, at in zip(stream[order][starts].tolist(), order[starts].tolist(), strict=True)]
        sorted_rows = _Sorted(order, starts, known)
        newest, before = _newest(times[order], sorted_rows)
        in_order = {Flag.STALE: (before > -(1 << 61)) & (times[order] - np.maximum(before, -(1 << 61)) > self._limits.stale_us)}
        change = np.full(len(order), np.nan)
        if "price" in rows.column_names:
            prices, quantities = units_of(rows["price"])[order].astype(np.float64), units_of(rows["quantity"])[order].astype(np.float64)
            change = _changes(prices, sorted_rows)
            in_order |= self._of_trades(change, quantities, newest // DAY_US, before // DAY_US, sorted_rows)
        for one, end in zip(known, [*starts[1:].tolist(), len(order)], strict=True):
            one.newest_us = int(newest[end - 1])
        for flag, mask in in_order.items():
            masks[flag] = np.empty_like(mask)
            masks[flag][order] = mask
        unsorted = np.empty_like(change)
        unsorted[order] = change
        return _table(rows, masks, unsorted, self._data_type)

    def _of(self, key: tuple[str, str], rows: pa.Table, at: int) -> Known:
        home = TopicPartition(rows["topic"][at].as_py(), rows["partition"][at].as_py())
        known = self._known.setdefault(key, Known(home))
        known.home = home
        return known

    def _of_trades(self, change: Floats, quantities: Floats, days: Numbers, before: Numbers, rows: "_Sorted") -> dict[Flag, Mask]:
        """Price and quantity beside those of the day so far; comparisons with a change that is not there are false."""
        has_step = ~np.isnan(change)
        ppm = change * 1e6
        steps = np.where(has_step, np.clip(np.rint(ppm), -STEP_LIMIT_PPM, STEP_LIMIT_PPM), 0.0).astype(np.int64)
        fresh = days != before  # the day's first row
        day = _Days.of(rows, fresh)
        trades = day.rows_so_far([one.trades for one in rows.known])
        count = day.so_far(has_step.astype(np.int64), [one.steps for one in rows.known])
        total = day.so_far(steps, [one.step_sum for one in rows.known])
        squares = day.so_far(steps * steps, [one.step_squares for one in rows.known])
        quantity = day.so_far(quantities, [one.quantity for one in rows.known])
        for _, end, one in rows.spans():
            at = end - 1
            one.trades, one.steps = int(trades[at]) + 1, int(count[at]) + int(has_step[at])
            one.step_sum, one.step_squares = int(total[at] + steps[at]), int(squares[at] + steps[at] ** 2)
            one.quantity = float(quantity[at] + quantities[at])
        some = np.maximum(count, 1)
        mean = total / some
        deviation = np.sqrt(np.maximum(squares / some - mean * mean, STILL_PPM**2))
        limits = self._limits
        return {
            Flag.PRICE_MOVE: np.abs(change) * 100 > limits.price_move_percent,
            Flag.PRICE_OUTLIER: (count >= LEAST) & (np.abs(ppm - mean) > limits.price_deviations * deviation),
            Flag.VOLUME_SPIKE: (trades >= LEAST) & (quantities * trades > limits.volume_times * quantity),
        }


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A window's rows, stream by stream."""

    order: Numbers
    starts: Numbers
    """Where each stream begins."""
    known: Sequence[Known]
    """What was known of each before."""

    def spans(self) -> Iterator[tuple[int, int, Known]]:
        ends = [*self.starts[1:].tolist(), len(self.order)]
        yield from zip(self.starts.tolist(), ends, self.known, strict=True)


@dataclass(frozen=True, slots=True)
class _Days:
    """The same rows, cut where a stream begins and where its day does."""

    heads: Numbers
    counts: Numbers
    """Rows of each part."""
    carries: Numbers
    """Parts that go on with what was known before, and whose streams these are."""
    streams: Numbers

    @classmethod
    def of(cls, rows: _Sorted, fresh: Mask) -> "_Days":
        begins = fresh.copy()
        begins[rows.starts] = True
        heads = np.flatnonzero(begins)
        streams = np.flatnonzero(~fresh[rows.starts])
        return cls(heads, np.diff(np.r_[heads, len(fresh)]), np.searchsorted(heads, rows.starts[streams]), streams)

    def rows_so_far(self, known: Sequence[int]) -> Numbers:
        """How many rows of its day stand before each."""
        sums: Numbers = np.arange(int(self.counts.sum())) - np.repeat(self.heads - self._carried(known, np.dtype(np.int64)), self.counts)
        return sums

    def so_far(self, values: NDArray[Any], known: Sequence[int | float]) -> NDArray[Any]:
        """Sum of what stands before each row in its day."""
        before = np.cumsum(values) - values
        sums: NDArray[Any] = before - np.repeat(before[self.heads] - self._carried(known, values.dtype), self.counts)
        return sums

    def _carried(self, known: Sequence[int | float], kind: np.dtype[Any]) -> NDArray[Any]:
        carried = np.zeros(len(self.heads), dtype=kind)
        carried[self.carries] = np.array(known, dtype=kind)[self.streams]
        return carried


def _newest(times: Numbers, rows: _Sorted) -> tuple[Numbers, Numbers]:
    """Per row the newest event time of its stream with it, and before it."""
    newest, before = np.empty_like(times), np.empty_like(times)
    for first, end, known in rows.spans():
        np.maximum.accumulate(times[first:end], out=newest[first:end])
        np.maximum(newest[first:end], known.newest_us, out=newest[first:end])
        before[first], before[first + 1 : end] = known.newest_us, newest[first : end - 1]
    return newest, before


def _changes(prices: Floats, rows: _Sorted) -> Floats:
    """Relative change from the price before; NaN without one. Remembers the last price of each stream."""
    before = np.r_[0.0, prices[:-1]]
    before[rows.starts] = [known.price for known in rows.known]
    for _, end, known in rows.spans():
        known.price = float(prices[end - 1])
    return np.where(before > 0, prices / np.where(before > 0, before, 1.0) - 1.0, np.nan)


def units_of(column: pa.ChunkedArray) -> Numbers:
    """Decimals of up to 18 digits as whole numbers of their last digit; null is 0."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    words = np.frombuffer(array.buffers()[1], dtype=np.int64)[2 * array.offset : 2 * (array.offset + len(array)) : 2]
    return words if not array.null_count else np.where(array.is_valid().to_numpy(zero_copy_only=False), words, 0)


def _table(rows: pa.Table, masks: dict[Flag, Mask], change: Floats, data_type: str) -> pa.Table:
    """Flagged rows only."""
    at = np.flatnonzero(np.logical_or.reduce(list(masks.values())))
    some = rows.select(["exchange", "symbol", "timestamp", "topic", "partition", "offset"]).take(pa.array(at))
    text = {name: some[name].cast(pa.string()) for name in ("exchange", "symbol", "topic")}
    chosen = np.stack([mask[at] for mask in masks.values()], axis=1) if len(at) else np.zeros((0, len(masks)), dtype=bool)
    names = pa.array(np.array([str(flag) for flag in masks], dtype=object)[np.nonzero(chosen)[1]], pa.string())
    ends = np.r_[0, np.cumsum(chosen.sum(axis=1))].astype(np.int32)
    columns = {
        "origin": pc.binary_join_element_wise(text["topic"], some["partition"].cast(pa.string()), some["offset"].cast(pa.string()), "/"),
        "exchange": text["exchange"],
        "symbol": text["symbol"],
        "data_type": pa.array([data_type] * len(at), pa.string()),
        "flags": pa.ListArray.from_arrays(pa.array(ends), names).cast(FLAGS.field("flags").type),
        "price_change": pa.array(change[at], mask=np.isnan(change[at])),
        "timestamp": some["timestamp"],
        "topic": text["topic"],
        "partition": some["partition"],
        "offset": some["offset"],
    }
    return pa.table(columns).cast(FLAGS)
