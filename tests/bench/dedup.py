"""What dedup costs a row, stage by stage, with a filter that is nearly full. Prints JSON; the bar is 1.5 us for new rows.

    python -m tests.bench.dedup [--rows 250000] [--windows 8]

CPU microseconds a row of this thread, medians over the windows: first windows of new rows, then the same rows again.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa

from k2stream.dedup.bloom import SeenFilter
from k2stream.dedup.keys import dedup_keys
from k2stream.dedup.seen import RecentWindows, repeats
from k2stream.records import TopicPartition

BAR = 1.5
TP = TopicPartition("market.equities.trades.asx", 0)
NOW_US = 1_394_400_000_000_000
T = TypeVar("T")


class Meter:
    """CPU microseconds a row by stage."""

    def __init__(self, rows: int) -> None:
        self._rows, self._spent = rows, defaultdict[str, list[float]](list)

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        start = time.thread_time()
        result = work()
        self._spent[stage].append((time.thread_time() - start) / self._rows * 1e6)
        return result

    def medians(self) -> dict[str, float]:
        return {stage: round(statistics.median(spent), 3) for stage, spent in self._spent.items()}


def window(number: int, rows: int) -> tuple[pa.ChunkedArray, pa.ChunkedArray, pa.ChunkedArray]:
    """Exchange, symbol and trade id as the decoder gives them."""
    ids = pa.chunked_array([pa.array([f"ASX-20100310-BHP-{number * rows + i:09d}" for i in range(rows)])])
    symbols = pa.array(["BHP", "CBA", "RIO", "WBC"] * (rows // 4 + 1)).dictionary_encode()[:rows]
    return pa.chunked_array([pa.array(["ASX"] * rows).dictionary_encode()]), pa.chunked_array([symbols]), ids


def full_filter(windows: int, rows: int) -> SeenFilter:
    """A filter of the default size with room for what is to come and no more."""
    seen = SeenFilter(64 << 20, 86_400_000_000, 3_600_000_000)
    seen.set_floor(TP, -(1 << 63))
    capacity = seen.stats()["capacity"]
    assert isinstance(capacity, int)
    rng = np.random.default_rng(1)
    left = capacity - windows * rows - 10
    while left > 0:
        seen.mark(rng.integers(0, 2**64, (min(left, 2_000_000), 2), dtype=np.uint64), NOW_US)
        left -= 2_000_000
    return seen


def run(rows: int, windows: int) -> dict[str, object]:
    """Figures of new rows and of the same rows again."""
    seen, recent, doubts = full_filter(windows, rows), RecentWindows(), 0
    new, again = Meter(rows), Meter(rows)
    times = np.arange(rows) + NOW_US
    batches = [window(number, rows) for number in range(windows)]
    for number, batch in enumerate(batches):
        keys = new.timed("keys", lambda b=batch: dedup_keys(*b))  # type: ignore[misc] # lambda default
        doubts += int(new.timed("maybe", lambda k=keys: seen.maybe(k, times, TP)).sum())  # type: ignore[misc] # mypy infers no lambda with defaults
        new.timed("repeats", lambda k=keys: repeats(k))  # type: ignore[misc] # mypy infers no lambda with defaults
        new.timed("recent", lambda k=keys: recent.hits(k))  # type: ignore[misc] # mypy infers no lambda with defaults
        new.timed("add", lambda k=keys, n=number: recent.add(n, k))  # type: ignore[misc] # mypy infers no lambda with defaults
        recent.drop_through(number - 4)
        new.timed("mark", lambda k=keys: seen.mark(k, times))  # type: ignore[misc] # mypy infers no lambda with defaults
    for batch in batches[-4:]:
        keys = again.timed("keys", lambda b=batch: dedup_keys(*b))  # type: ignore[misc] # mypy infers no lambda with defaults
        again.timed("maybe", lambda k=keys: seen.maybe(k, times, TP))  # type: ignore[misc] # mypy infers no lambda with defaults
        again.timed("repeats", lambda k=keys: repeats(k))  # type: ignore[misc] # mypy infers no lambda with defaults
        again.timed("recent", lambda k=keys: recent.hits(k))  # type: ignore[misc] # mypy infers no lambda with defaults
    total = sum(new.medians().values())
    return {
        "new_us_a_row": new.medians(),
        "new_total_us": round(total, 3),
        "bar_us": BAR,
        "again_us_a_row": again.medians(),
        "again_total_us": round(sum(again.medians().values()), 3),
        "false_positives": doubts / rows / windows,
        "filter": seen.stats(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run, print JSON, return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--windows", type=int, default=8)
    options = parser.parse_args(arguments)
    result = run(options.rows, options.windows)
    print(json.dumps(result, indent=2))
    total = result["new_total_us"]
    assert isinstance(total, float)
    return 0 if total <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
