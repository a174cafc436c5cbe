"""5,000 small files to under 20 while others read and write. Writes build/compaction.md; exit code 1 if a read was wrong or a bar is missed.

    python -m tests.bench.compaction [--files 5000] [--readers 2] [--rows 400]

Three days of two exchanges. Readers pin a head, count its rows and add up their checksum with DuckDB, and hold both against what the
writers had committed at that head; a writer goes on with a window a second. Scans are timed before and after, with and without planning.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2stream.clock import Deadline
from k2stream.gaps import EVENTS
from k2stream.lake.home_turn import HomeTurn
from k2stream.lake.offsets import Counts
from k2stream.lake.reader import TableReader
from k2stream.lake.table import RowsLake
from k2stream.lake.window import Window
from k2stream.logs import set_up_logs
from k2stream.query.engine import Engine
from k2stream.records import TopicPartition
from k2stream.settings import Settings, process_environment
from k2stream.testing import trade_rows
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES
from tests.bench.worker_run import ROOT

TP = TopicPartition("market.crypto.trades.binance", 0)
FIRST_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000
DAYS, EXCHANGES, SYMBOLS = 3, ("BINANCE", "KRAKEN"), 40
MOST_FILES = 20

CHECK = """
SELECT count(*) AS rows, count(DISTINCT "offset") AS offsets, coalesce(sum("offset"), 0)::HUGEINT::VARCHAR AS total,
    coalesce(sum(hash(trade_id, price, quantity, symbol, timestamp, "offset")::HUGEINT), 0)::VARCHAR AS checksum
FROM read_parquet($files, hive_partitioning = false)
"""
SCAN = "SELECT symbol, count(*), sum(price::DOUBLE * quantity::DOUBLE), max(timestamp) FROM read_parquet($files, hive_partitioning = false) GROUP BY symbol"


class Market:
    """Windows of trades, all different, each in one day of one exchange."""

    def __init__(self, rows: int, spread: int) -> None:
        """`spread` windows go round the days, one after the other; then all are of the last."""
        self._form = trade_rows([{"symbol": f"S{i % SYMBOLS:02}", "topic": TP.topic, "partition": TP.partition} for i in range(rows)])
        self._rows, self._spread, self.number = rows, spread, 0

    def window(self) -> Window:
        first, day = self.number * self._rows, min(self.number * DAYS // self._spread, DAYS - 1)
        numbers = np.arange(first, first + self._rows)
        values: dict[str, pa.Array] = {
            "offset": pa.array(numbers),
            "timestamp": pa.array(FIRST_US + day * DAY_US + numbers, pa.timestamp("us", tz="UTC")),
            "exchange": pa.repeat(pa.scalar(EXCHANGES[self.number % len(EXCHANGES)], pa.string()), self._rows),
            "trade_id": pc.binary_join_element_wise("B-", pa.array(numbers).cast(pa.string()), ""),
        }
        rows = self._form
        for name, column in values.items():
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column.cast(rows.schema.field(name).type))
        self.number += 1
        span = (first, first + self._rows)
        newest = FIRST_US + day * DAY_US + span[1]
        return Window(self.number, rows, EVENTS.empty_table(), {TP: Counts(rows=self._rows)}, {TP: span}, watermark_us=newest)


@dataclass
class Reads:
    """What readers saw."""

    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    checksums: dict[int, set[str]] = field(default_factory=dict)
    """By `next` of the head: one checksum, whatever files the rows lay in."""


def read(settings: Settings, seen: Reads, is_over: threading.Event) -> None:
    """Pin heads and compare what they hold with their vector."""
    reader = TableReader.open_reader(settings, "trades")
    with closing(reader), closing(Engine.of(settings)) as engine:
        while not is_over.is_set():
            head = reader.head()
            expected, files = head.vector[TP].next, reader.files(head.snapshot_id or 0)
            (found,) = engine.ask(CHECK, files=files).to_pylist()
            seen.reads += 1
            if (found["rows"], found["offsets"], int(found["total"])) != (expected, expected, expected * (expected - 1) // 2):
                seen.wrong.append(f"snapshot {head.snapshot_id}: {found}, expected {expected} rows")
            seen.checksums.setdefault(expected, set()).add(found["checksum"])


def scan_seconds(settings: Settings) -> tuple[float, float, int]:
    """Median of three: reading the list of files, the scan of all rows; and how many files that were."""
    planned, scanned, count = [], [], 0
    for _ in range(3):
        reader = TableReader.open_reader(settings, "trades")
        with closing(reader), closing(Engine.of(settings)) as engine:
            started = time.perf_counter()
            files = reader.files(reader.head().snapshot_id or 0)
            planned.append(time.perf_counter() - started)
            started = time.perf_counter()
            engine.ask(SCAN, files=files)
            scanned.append(time.perf_counter() - started)
            count = len(files)
    return statistics.median(planned), statistics.median(scanned), count


def compacted(settings: Settings) -> dict[str, Any]:
    """`k2 upkeep compact`, in a process of its own as always; its report."""
    environment = {**process_environment(), "K2_HOME": str(settings.home), "K2_FSYNC": "false"}
    command = [sys.executable, "-m", "k2stream.cli", "upkeep", "compact", "--table", "trades", "--json"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    report: dict[str, Any] = json.loads(done.stdout)["reports"][0]
    return report


def run(home: Path, *, files: int, readers: int, rows: int, say: Callable[[str], None]) -> tuple[list[str], bool]:
    """Fill, measure, compact among readers and a writer, measure again: lines for people, and whether all held."""
    settings = Settings(home=home, fsync=False)
    lake, market = RowsLake.open(settings, TRADES, GAPS), Market(rows, files)
    lake.take_turns(HomeTurn(settings.home_path("upkeep")))
    lake.register({TP: 0}, Deadline.after(60))
    for number in range(files):
        lake.commit(lake.write(market.window()), Deadline.after(60))
        lake.take_outbox(Deadline.after(60))
        if number % 500 == 499:
            say(f"{number + 1} files")
    before = scan_seconds(settings)
    seen, is_over = Reads(), threading.Event()
    commits: list[float] = []

    def write() -> None:
        while not is_over.is_set():
            started = time.perf_counter()
            lake.commit(lake.write(market.window()), Deadline.after(60))
            lake.take_outbox(Deadline.after(60))
            commits.append(time.perf_counter() - started)
            is_over.wait(max(0.0, 1.0 - commits[-1]))

    threads = [threading.Thread(target=read, args=(settings, seen, is_over)) for _ in range(readers)]
    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    report = compacted(settings)
    took, during = time.perf_counter() - started, len(commits)
    is_over.wait(2)
    is_over.set()
    for thread in threads:
        thread.join()
    left = scan_seconds(settings)[2]
    compacted(settings)
    after = scan_seconds(settings)
    torn = [f"{end} rows have {len(sums)} checksums" for end, sums in seen.checksums.items() if len(sums) > 1]
    lake.close()
    is_good = not (seen.wrong or torn or report["trouble"]) and after[2] < MOST_FILES
    say("\n".join([*seen.wrong[:5], *torn[:5], report["trouble"] or ""]))
    return [
        "| | before | after |",
        "|---|---|---|",
        f"| data files | {before[2]:,} | {after[2]:,} |",
        f"| list of files read | {before[0] * 1000:,.0f} ms | {after[0] * 1000:,.0f} ms |",
        f"| all rows scanned | {before[1] * 1000:,.0f} ms | {after[1] * 1000:,.0f} ms |",
        "",
        f"{report['counts']['files_before']:,} files became {report['counts']['files_after']} in {took:.1f} s beside readers and writer, "
        f"{report['counts']['rows']:,} rows, each compared. With the writer's {during} windows meanwhile {left} files were left; a second run took those in.",
        f"{readers} readers asked {seen.reads} times, at {len(seen.checksums)} heads: {len(seen.wrong)} wrong counts, {len(torn)} checksums that changed.",
        f"A window beside it took {statistics.median(commits) * 1000:,.0f} ms at the median, {max(commits) * 1000:,.0f} ms at most.",
        "",
        "Held." if is_good else "NOT held.",
    ], is_good


def main(arguments: list[str] | None = None) -> int:
    """Run, write, return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=400, help="rows of a file")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "compaction.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        set_up_logs(Settings(home=Path(folder), log_level="warning"))
        lines, is_good = run(
            Path(folder) / "k2", files=options.files, readers=options.readers, rows=options.rows, say=lambda line: print(line, file=sys.stderr, flush=True)
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(["# Compaction", "", *lines, ""]), encoding="utf-8")
    print("\n".join(lines))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
