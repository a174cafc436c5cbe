"""Does a window cost the same in a table of 1, 10 and 50 M rows? CPU a row and commit time; the bar is 1.3 times those at the first size.

    python -m tests.bench.growth [--sizes 1000000 10000000 50000000] [--out build/bench_growth.json]

The table grows by real windows of different trades, 8.6 M a day. At each size 15 windows of 100,000 rows are measured, stage by stage: a
look-up of 5,000 rows (half of them are in the table, an hour old at most), the files, the commit, the outbox with expiry. Medians count.
Files are not synced. Takes some 5 GB of disk.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.clock import Deadline
from k2stream.gaps import EVENTS
from k2stream.lake.offsets import Counts
from k2stream.lake.table import RowsLake
from k2stream.lake.window import Window
from k2stream.logs import set_up_logs
from k2stream.query.seen import TableSeen
from k2stream.records import TopicPartition
from k2stream.rows import TIMESTAMP
from k2stream.settings import Settings
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES
from tests.bench.market import FIRST_US, STEP_US
from tests.bench.worker_run import ROOT
from tests.bench.write_speed import decoded_rows

BAR = 1.3
FILL_ROWS, WINDOW_ROWS, WINDOWS = 250_000, 100_000, 15
SMALL_ROWS, SMALL_WINDOWS = 10_000, 60
"""The table's first windows: what is compared are tables that keep their 50 snapshots, not a young one and an old one."""
ASKED = 5_000
TOLERANCE_US = 3_600_000_000
TP = TopicPartition("market.crypto.trades.binance", 0)
STAGES = ("look_up", "write", "commit", "outbox")
T = TypeVar("T")


class Growing:
    """A table and how many rows it holds."""

    def __init__(self, home: Path) -> None:
        self.lake = RowsLake.open(Settings(home=home, fsync=False), TRADES, GAPS)
        self.head = self.lake.register({TP: 0}, Deadline.after(60))
        self.seen = TableSeen(self.lake.files, TOLERANCE_US)
        self.rows = self.windows = 0
        self._forms = {size: decoded_rows(size, are_texts_coded=True) for size in (SMALL_ROWS, WINDOW_ROWS, FILL_ROWS)}

    def window(self, size: int) -> Window:
        """The next trades."""
        numbers = np.arange(self.rows, self.rows + size)
        rows = renumbered(self._forms[size], numbers)
        span = (self.rows, self.rows + size)
        self.rows += size
        self.windows += 1
        return Window(self.windows, rows, EVENTS.empty_table(), {TP: Counts(rows=size)}, {TP: span}, watermark_us=FIRST_US + span[1] * STEP_US)

    def commit(self, window: Window) -> None:
        self.head = self.lake.commit(self.lake.write(window), Deadline.after(60))
        self.lake.take_outbox(Deadline.after(60))

    def measured(self) -> dict[str, tuple[float, float]]:
        """One window: wall and CPU seconds of each stage."""
        spent: dict[str, tuple[float, float]] = {}
        asked = self._asked()
        window = self.window(WINDOW_ROWS)
        found = timed("look_up", spent, lambda: self.seen(*asked, self.head.snapshot_id or 0))
        if found.sum() != ASKED // 2:
            raise AssertionError(f"of {ASKED} rows {ASKED // 2} are in the table, the look-up found {found.sum()}")
        staged = timed("write", spent, lambda: self.lake.write(window))
        self.head = timed("commit", spent, lambda: self.lake.commit(staged, Deadline.after(60)))
        timed("outbox", spent, lambda: self.lake.take_outbox(Deadline.after(60)))
        return spent

    def _asked(self) -> tuple[pa.ChunkedArray, ...]:
        """Half of it trades of the last hour, half such that come next."""
        an_hour = min(TOLERANCE_US // STEP_US, self.rows)
        known = self.rows - 1 - np.arange(ASKED // 2) * (an_hour // ASKED)
        numbers = np.concatenate([known, self.rows + np.arange(ASKED - ASKED // 2)])
        form = self._forms[WINDOW_ROWS].slice(0, ASKED)
        rows = renumbered(form, numbers)
        return rows["exchange"], rows["symbol"], rows["trade_id"], rows["timestamp"]


def renumbered(form: pa.Table, numbers: NDArray[np.int64]) -> pa.Table:
    """Rows in the shape of `form` that are trades of these numbers; a number has one symbol, one exchange and one time."""
    times = pa.array(FIRST_US + numbers * STEP_US).cast(TIMESTAMP)
    columns = {
        "trade_id": pc.binary_join_element_wise("BINANCE", pa.array(numbers).cast(pa.string()), "-"),
        "symbol": _word(form["symbol"], numbers % 400),
        "exchange": _word(form["exchange"], numbers % 2),
        "timestamp": times,
        "ingestion_timestamp": times,
        "source_sequence": pa.array(numbers),
        "partition": pa.array(np.zeros(len(numbers), np.int32)),
        "offset": pa.array(numbers),
    }
    return pa.table({name: columns.get(name, form[name]) for name in form.column_names})


def _word(column: pa.ChunkedArray, codes: NDArray[np.int64]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), column.chunk(0).dictionary)


def timed(stage: str, spent: dict[str, tuple[float, float]], work: Callable[[], T]) -> T:
    started, cpu_started = time.perf_counter(), time.process_time()
    result = work()
    spent[stage] = time.perf_counter() - started, time.process_time() - cpu_started
    return result


def run(home: Path, sizes: list[int]) -> Iterator[dict[str, Any]]:  # JSON
    """Grow to each size and measure there."""
    growing = Growing(home)
    for _ in range(SMALL_WINDOWS):
        growing.commit(growing.window(SMALL_ROWS))
    for size in sizes:
        while growing.rows + FILL_ROWS <= size:
            growing.commit(growing.window(FILL_ROWS))
        samples = [growing.measured() for _ in range(WINDOWS)]
        files = growing.lake.files(growing.head.snapshot_id or 0)
        yield {"rows": size, "files": len(files), **_medians(samples)}
    growing.lake.close()


def _medians(samples: list[dict[str, tuple[float, float]]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for stage in STAGES:
        found[f"{stage}_ms"] = round(statistics.median(s[stage][0] for s in samples) * 1000, 2)
        found[f"{stage}_cpu_ms"] = round(statistics.median(s[stage][1] for s in samples) * 1000, 2)
    return {**found, "cpu_us_per_row": round(sum(found[f"{s}_cpu_ms"] for s in STAGES) / WINDOW_ROWS * 1000, 3)}


def missed(points: list[dict[str, Any]]) -> list[str]:
    """What grew by more than the bar. Of the commit its CPU counts, which other processes cannot blur, and its wall time is shown."""
    lines = []
    for point in points[1:]:
        for name in ("cpu_us_per_row", "commit_cpu_ms"):
            ratio = point[name] / points[0][name]
            if ratio > BAR:
                lines.append(f"{name} at {point['rows']:,} rows is {ratio:.2f} times that at {points[0]['rows']:,}, at most {BAR} wanted")
    return lines


def markdown(points: list[dict[str, Any]]) -> str:
    """The result as a table for people."""
    heads = ["rows", "data files", "CPU us a row", *(f"{s.replace('_', '-')} ms (CPU)" for s in STAGES)]
    rows = [
        f"| {p['rows']:,} | {p['files']} | {p['cpu_us_per_row']} | " + " | ".join(f"{p[f'{s}_ms']} ({p[f'{s}_cpu_ms']})" for s in STAGES) + " |" for p in points
    ]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *rows, *(f"\n**Missed:** {line}." for line in missed(points))])


def main(arguments: list[str] | None = None) -> int:
    """Run, write the files, print the table; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000, 50_000_000])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench_growth.json")
    options = parser.parse_args(arguments)
    set_up_logs(Settings(log_level="warning"))
    with tempfile.TemporaryDirectory() as folder:
        points = list(run(Path(folder), options.sizes))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"points": points, "missed": missed(points)}, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(markdown(points) + "\n", encoding="utf-8")
    print(markdown(points))
    return 1 if missed(points) else 0


if __name__ == "__main__":
    sys.exit(main())
