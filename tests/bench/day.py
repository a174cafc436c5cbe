"""A day of one-second windows with upkeep every ten minutes: do metadata, planning and commits stay as they are? Writes build/day.md.

    python -m tests.bench.day [--commits 7200] [--cycle 600] [--rows 100]

Each window is a second of event time. At the end of each cycle, when most small files lie beside the large ones, what a reader and a
committer have to do is measured; then upkeep runs as the agent runs it. The bar: medians of the last cycles at most 1.3 times those of the
first ones after the tiers of compaction have filled once. 86,400 commits are a day and take about an hour; two hours of it show whether anything grows.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from k2stream.clock import Deadline
from k2stream.lake.reader import TableReader
from k2stream.lake.table import RowsLake
from k2stream.logs import set_up_logs
from k2stream.settings import Settings
from k2stream.upkeep.status import health_of
from k2stream.upkeep.tasks import Upkeep, run_all
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES
from tests.bench.compaction import TP, Market
from tests.bench.worker_run import ROOT

BAR = 1.3
MEASURES = ("commit_ms", "planning_ms", "metadata_kb")


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one cycle came to."""

    commits: int
    """So far."""
    commit_ms: float
    """Median of a window: write, commit, outbox with expiry."""
    planning_ms: float
    """Median of three: the list of files read by a reader that knows nothing."""
    metadata_kb: float
    files: int
    files_after: int
    """When upkeep is done."""
    manifests: int
    upkeep_s: float
    disk_files: int
    """All files below the table, when upkeep is done."""

    def line(self) -> str:
        values = (
            self.commits,
            self.commit_ms,
            self.planning_ms,
            self.metadata_kb,
            self.files,
            self.files_after,
            self.manifests,
            self.upkeep_s,
            self.disk_files,
        )
        return "| " + " | ".join(f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in values) + " |"


def run(home: Path, *, commits: int, cycle: int, rows: int) -> Iterator[Cycle]:
    """Commit and keep healthy; one cycle at a time."""
    settings = Settings(home=home, fsync=False, orphan_age_ms=60_000, unnamed_ms=60_000)
    lake, market = RowsLake.open(settings, TRADES, GAPS), Market(rows, 1)
    lake.register({TP: 0}, Deadline.after(60))
    with closing(lake), closing(Upkeep(settings)) as upkeep:
        for number in range(0, commits, cycle):
            spent = [committed(lake, market) for _ in range(cycle)]
            planned = statistics.median(planning_ms(settings) for _ in range(3))
            found = health_of(upkeep.committer("trades"), settings.compact_target_bytes)
            started = time.perf_counter()
            trouble = [report.trouble for report in run_all(upkeep, settings) if report.trouble]
            took = time.perf_counter() - started
            if trouble:
                raise SystemExit(f"Upkeep did not come to its end: {trouble[0]}")
            after = health_of(upkeep.committer("trades"), settings.compact_target_bytes)
            disk = sum(1 for path in (home / "warehouse").rglob("*") if path.is_file())
            commit_ms = statistics.median(spent) * 1000
            yield Cycle(number + cycle, commit_ms, planned, found.metadata_bytes / 1024, found.files, after.files, found.manifests, took, disk)


def committed(lake: RowsLake, market: Market) -> float:
    """Seconds of one window."""
    window = market.window()
    started = time.perf_counter()
    lake.commit(lake.write(window), Deadline.after(60))
    lake.take_outbox(Deadline.after(60))
    return time.perf_counter() - started


def planning_ms(settings: Settings) -> float:
    """Milliseconds from nothing to the list of files of the head."""
    with closing(TableReader.open_reader(settings, "trades")) as reader:
        started = time.perf_counter()
        reader.files(reader.head().snapshot_id or 0)
        return (time.perf_counter() - started) * 1000


def verdict(cycles: list[Cycle]) -> tuple[list[str], bool]:
    """The first cycles after the fourth beside the last ones, a quarter of them each: lines, and whether the bar is met."""
    settled = cycles[4:] if len(cycles) > 8 else cycles[1:]
    share = max(1, len(settled) // 4)
    lines, is_met = list[str](), True
    for name in MEASURES:
        early, late = (statistics.median(getattr(c, name) for c in part) for part in (settled[:share], settled[-share:]))
        is_met &= late / early <= BAR
        lines.append(f"- {name}: {early:,.1f} early, {late:,.1f} late, ratio {late / early:.2f}")
    return lines, is_met


def main(arguments: list[str] | None = None) -> int:
    """Run, write, return 1 if something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=7_200)
    parser.add_argument("--cycle", type=int, default=600)
    parser.add_argument("--rows", type=int, default=100, help="rows of a window")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "day.md")
    options = parser.parse_args(arguments)
    cycles = list[Cycle]()
    with tempfile.TemporaryDirectory() as folder:
        set_up_logs(Settings(home=Path(folder), log_level="warning"))
        for cycle in run(Path(folder) / "k2", commits=options.commits, cycle=options.cycle, rows=options.rows):
            cycles.append(cycle)
            print(cycle.line(), file=sys.stderr, flush=True)
    said, is_met = verdict(cycles)
    head = "| commits | commit ms | planning ms | metadata kB | files | after upkeep | manifests | upkeep s | files on disk |"
    lines = ["# A day of one-second windows", "", head, "|---|---|---|---|---|---|---|---|---|", *(c.line() for c in cycles), "", *said, ""]
    lines.append(f"Bar {BAR}: {'met' if is_met else 'missed'}.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines[-5:]))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
