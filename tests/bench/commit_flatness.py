"""Does a commit cost the same after 500 of them? Prints JSON; the bar is late / early at most 1.3, wall and CPU.

    python -m tests.bench.commit_flatness [--commits 500] [--partitions 160] [--fsync]

Every commit holds a few rows of every partition of a 160-partition topic, one gap event in ten commits and a tracker
file in twenty: the summaries, manifests and metadata that a table of that size carries. Each sample is write, commit and
outbox with expiry, wall seconds; a median over 51 samples tells growth from noise.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from k2stream.clock import Deadline
from k2stream.gaps import EVENTS
from k2stream.lake.offsets import Counts, Mark
from k2stream.lake.table import RowsLake
from k2stream.lake.window import Window
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.testing import gap_events, trade_rows
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES

TOPIC = "market.crypto.trades.binance"
BAR = 1.3


@dataclass(frozen=True, slots=True)
class Sample:
    """One commit."""

    number: int
    seconds: float
    cpu_seconds: float
    """CPU of this process: what other processes of the machine cannot blur."""


def run(home: Path, *, commits: int, partitions: int, fsync: bool) -> Iterator[Sample]:
    """Commit `commits` windows into a fresh table and time each."""
    lake = RowsLake.open(Settings(home=home, fsync=fsync), TRADES, GAPS)
    lake.register({TopicPartition(TOPIC, p): 0 for p in range(partitions)}, Deadline.after(60))
    rows = trade_rows([{"topic": TOPIC, "partition": p} for p in range(partitions)])
    for number in range(commits):
        window = window_of(number, rows, partitions)
        started, cpu_started = time.perf_counter(), time.process_time()
        lake.commit(lake.write(window), Deadline.after(60))
        lake.take_outbox(Deadline.after(60))
        yield Sample(number, time.perf_counter() - started, time.process_time() - cpu_started)
    lake.close()


def window_of(number: int, rows: pa.Table, partitions: int) -> Window:
    """One row a partition, at offset `number`."""
    offsets = pa.array(np.full(partitions, number, dtype=np.int64))
    tps = [TopicPartition(TOPIC, p) for p in range(partitions)]
    place = rows.schema.get_field_index("offset")
    return Window(
        number=number,
        rows=rows.set_column(place, rows.schema.field("offset"), offsets),
        events=gap_events([{"event_id": f"e{number}", "topic": TOPIC, "partition": 0, "offset": number}]) if number % 10 == 0 else EVENTS.empty_table(),
        deltas={tp: Counts(rows=1) for tp in tps},
        spans=dict.fromkeys(tps, (number, number + 1)),
        tracker=dict.fromkeys(tps, b"x" * 500) if number % 20 == 19 else None,
        watermark_us=1_700_000_000_000_000 + number,
        marks={tp: Mark(number, hash((tp.partition, number)) & 0xFFFF_FFFF) for tp in tps},
    )


def medians_ms(samples: list[Sample], first: int, last: int) -> tuple[float, float]:
    """Medians of the commits `first..last`, milliseconds: wall and CPU."""
    chosen = [s for s in samples if first <= s.number <= last]
    return statistics.median(s.seconds for s in chosen) * 1000, statistics.median(s.cpu_seconds for s in chosen) * 1000


def main(arguments: list[str] | None = None) -> int:
    """Run, print JSON, return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=501)
    parser.add_argument("--partitions", type=int, default=160)
    parser.add_argument("--fsync", action="store_true", help="sync files as a worker does; measures the disk too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        samples = list(run(Path(folder), commits=options.commits, partitions=options.partitions, fsync=options.fsync))
    early, late = medians_ms(samples, 100, 150), medians_ms(samples, options.commits - 51, options.commits - 1)
    result: dict[str, object] = {"bar": BAR}
    for name, before, after in zip(("wall", "cpu"), early, late, strict=True):
        result |= {f"early_{name}_ms": round(before, 2), f"late_{name}_ms": round(after, 2), f"ratio_{name}": round(after / before, 3)}
    is_met = all(after / before <= BAR for before, after in zip(early, late, strict=True))
    about = {"commits": options.commits, "partitions": options.partitions, "fsync": options.fsync}
    print(json.dumps({**result, **about, "verdict": "met" if is_met else "missed"}))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
