"""Rows a second from topic to committed Iceberg, CPU and memory, beside two plain baselines of the same run.

    python -m tests.bench.main [--rows 1000000] [--runs 3] [--rss] [--out build/bench.json]

Each round measures the worker, the plain loop and plain Faust, one after the other, so that a busy minute hits all three;
medians of the rounds count. `--rss` adds one run over 5 M rows: memory must not know how long the backlog is.
Data files are not synced (K2_FSYNC=false): the disk is not what is measured. Exit code 1 if a bar is missed.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.market import Made, fill
from tests.bench.worker_run import ENVIRONMENT, ROOT, Run, run_worker

LOOP_ROWS, FAUST_ROWS, LONG_ROWS = 60_000, 20_000, 5_000_000
"""The baselines are slow, and their rate does not depend on how much they read."""

BASELINES = {"plain_loop": LOOP_ROWS, "plain_faust": FAUST_ROWS}

BARS = {"cpu_us_per_row": 7.0, "gaps_and_dedup_us_per_row": 1.5, "peak_rss_mb": 700.0, "over_plain_loop": 10.0, "over_plain_faust": 40.0}
AT_LEAST = ("over_plain_loop", "over_plain_faust")

DEDUP_AND_GAPS = ("judge", "exact", "lookup", "gaps", "mark")
"""`judge` holds validation too: it is counted as dedup here."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: the worker's run and each baseline's rows a second."""

    run: Run
    baselines: dict[str, float]


def measure(made_home: Path, rows: int, environment: dict[str, str]) -> Round:
    """One round on copies of the filled home."""
    with copied(made_home) as home:
        run = run_worker(home, rows, environment)
    with copied(made_home) as home:
        baselines = {name: _baseline(name, home, min(count, rows)) for name, count in BASELINES.items()}
    return Round(run, baselines)


@contextmanager
def copied(made_home: Path) -> Iterator[Path]:
    """A copy of a home, gone afterwards."""
    home = made_home.parent / "run"
    shutil.copytree(made_home, home)
    try:
        yield home
    finally:
        shutil.rmtree(home)


def _baseline(name: str, home: Path, rows: int) -> float:
    """Rows a second of a baseline in a process of its own."""
    command = [sys.executable, "-m", f"tests.bench.{name}", str(home), str(rows)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=600)  # our own interpreter and modules
    line = next((text for text in done.stdout.decode().splitlines() if text.startswith("{")), None)
    if line is None:
        raise RuntimeError(f"{name} ended with code {done.returncode}:\n{done.stderr.decode()}")
    figures = json.loads(line)
    return float(figures["rows"] / figures["seconds"])


def summary(made: Made, rounds: Sequence[Round], long_run: Run | None) -> dict[str, Any]:  # JSON
    """What goes into the file: medians, and how they stand to the bars."""
    runs = [r.run for r in rounds]
    rate = statistics.median(r.rows_per_second for r in runs)
    baselines = {name: statistics.median(r.baselines[name] for r in rounds) for name in BASELINES}
    stages = {name: statistics.median(r.stages.get(name, 0.0) for r in runs) / made.rows * 1e6 for name in runs[0].stages}
    cpu_us = statistics.median(r.cpu_us_per_row for r in runs)
    peak_rss_mb = max(r.peak_rss_mb for r in [*runs, *([long_run] if long_run else [])])
    return {
        "rows": made.rows,
        "bytes_per_row": round(made.value_bytes / made.rows, 1),
        "rows_per_second": round(rate),
        "cpu_us_per_row": round(cpu_us, 2),
        "stages": {**{name: round(us, 3) for name, us in stages.items()}, "everything_else": round(cpu_us - sum(stages.values()), 3)},
        "gaps_and_dedup_us_per_row": round(sum(stages.get(name, 0.0) for name in DEDUP_AND_GAPS), 3),
        "peak_rss_mb": round(peak_rss_mb),
        "peak_rss_mb_by_rows": {str(made.rows): round(max(r.peak_rss_mb for r in runs)), **_long(long_run)},
        "baselines": {name: round(value) for name, value in baselines.items()},
        **{f"over_{name}": round(statistics.median(r.run.rows_per_second / r.baselines[name] for r in rounds), 1) for name in BASELINES},
        "runs": [{"rows_per_second": round(r.rows_per_second), "cpu_us_per_row": round(r.cpu_us_per_row, 2), "commits": r.commits} for r in runs],
        "environment": ENVIRONMENT,
    }


def _long(run: Run | None) -> dict[str, int]:
    return {} if run is None else {str(run.rows): round(run.peak_rss_mb)}


def missed(result: dict[str, Any]) -> list[str]:
    """The bars that this result does not meet."""
    return [name for name, bar in BARS.items() if (result[name] < bar if name in AT_LEAST else result[name] > bar)]


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['rows']:,} trades of {result['bytes_per_row']:.0f} bytes, topic to committed Iceberg",
        f"  rows a second   {result['rows_per_second']:>9,}   {result['over_plain_loop']:.1f}x the plain loop ({result['baselines']['plain_loop']:,}), "
        f"{result['over_plain_faust']:.1f}x plain Faust ({result['baselines']['plain_faust']:,})",
        f"  CPU us a row    {result['cpu_us_per_row']:>9.2f}   of it gaps and dedup {result['gaps_and_dedup_us_per_row']:.2f}",
        *(f"    {name:<15} {us:>7.2f}" for name, us in sorted(result["stages"].items(), key=lambda stage: -stage[1])),
        *(f"  peak RSS, MiB   {mib:>9,}   {int(rows):,} rows" for rows, mib in result["peak_rss_mb_by_rows"].items()),
    ]
    short = missed(result)
    return "\n".join([*lines, "every bar is met" if not short else f"missed: {', '.join(f'{n} (bar {BARS[n]:g})' for n in short)}"])


def main(arguments: list[str] | None = None) -> int:
    """Run, write the file, print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rss", action="store_true", help="one run more, over 5 M rows: takes two minutes and 1.5 GB of disk")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="more environment of the worker, to try a setting")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        made_home = Path(folder) / "made"
        made = fill(made_home, options.rows)
        rounds = [measure(made_home, options.rows, dict(pair.split("=", 1) for pair in options.set)) for _ in range(options.runs)]
    long_run = _long_run() if options.rss else None
    result = summary(made, rounds, long_run)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))
    return 1 if missed(result) else 0


def _long_run() -> Run:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "made"
        fill(home, LONG_ROWS)
        return run_worker(home, LONG_ROWS)


if __name__ == "__main__":
    sys.exit(main())
