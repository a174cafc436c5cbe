"""Rows a second from a real Kafka topic to committed Iceberg: broker, workers and this script on the machine's cores.

    python -m tests.bench.kafka [--rows 1000000 5000000] [--codecs none lz4 zstd] [--workers 1 2] [--runs 3] [--again 3]
        [--out build/bench_kafka.json]

Trades of some 256 bytes lie in an 8-partition topic, in a transaction that is committed once the workers stand ready, so that start-up
is not measured. A round runs every combination once, so that a busy minute hits all; medians of the rounds count. A run during which the
host of a virtual machine gave 5 % of its cores to others is no run on a quiet machine: it is shown, and made again, up to --again times a
case. Two workers run on lz4 and the larger backlog. Data files are not synced (K2_FSYNC=false). Exit code 1 if a bar is missed.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2stream.decode.registry import FileRegistry
from k2stream.dev.kafka import Kafka
from k2stream.home import Home
from k2stream.rows import avro_schema
from k2stream.settings import load_settings
from k2stream.worker_process import WorkerProcess
from tests.bench.kafka_log import HeldBack
from tests.bench.market import SCHEMA, TOPIC
from tests.bench.spool import Spool
from tests.bench.worker_run import ENVIRONMENT, ROOT, Run, run_workers
from tests.quiet import QUIET

MAIN_CODEC = "lz4"
ROWS_PER_SECOND, CPU_US, RSS_MB, TWO_OVER_ONE = 200_000, 7.0, 700, 0.9


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """What one run varies."""

    workers: int
    rows: int
    codec: str

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.codec}, {self.workers} worker{'s' if self.workers > 1 else ''}"


def cases(rows: Sequence[int], codecs: Sequence[str], workers: Sequence[int]) -> list[Case]:
    """Every codec and size for one worker; more workers on one codec and the largest size."""
    alone = [Case(1, r, c) for r in rows for c in codecs if 1 in workers]
    codec = MAIN_CODEC if MAIN_CODEC in codecs else codecs[0]
    return [*alone, *(Case(n, max(rows), codec) for n in workers if n > 1)]


def measure_quietly(case: Case, kafka: Kafka, spool: Spool, folder: Path, *, again: int) -> Run:
    """The first of at most `again` + 1 runs that nobody disturbed, or else the one that was disturbed least."""
    runs: list[Run] = []
    while not runs or (runs[-1].stolen_share > QUIET and len(runs) <= again):
        runs.append(measure(case, kafka, spool, folder))
        last = runs[-1]
        told = f"{case}: {last.rows_per_second:,.0f} rows/s, {last.cpu_us_per_row:.2f} us, {last.stolen_share:.1%} stolen"
        print(told, file=sys.stderr, flush=True)
    return min(runs, key=lambda run: run.stolen_share)


def measure(case: Case, kafka: Kafka, spool: Spool, folder: Path) -> Run:
    """One run on a new topic, a new table and new workers."""
    with asyncio.Runner() as runner:
        held = runner.run(_held_back(kafka.address, spool, case))
        shared = folder / "run"
        try:
            workers = [_worker(shared / f"worker{n}", shared, kafka) for n in range(case.workers)]
            return run_workers(workers, spool.count(case.rows), lambda: runner.run(held.let_go()))
        finally:
            runner.run(held.__aexit__())
            shutil.rmtree(shared)


async def _held_back(address: str, spool: Spool, case: Case) -> HeldBack:
    held = await HeldBack(address).__aenter__()
    await held.fill(spool.batches(case.rows), case.codec)
    return held


def _worker(home: Path, shared: Path, kafka: Kafka) -> WorkerProcess:
    """A worker with a home of its own; all of a run share catalog and warehouse."""
    register(home)
    environment = {
        **ENVIRONMENT,
        **kafka.exports(),
        "K2_APP_ID": f"bench-{shared.stat().st_ino}",
        "K2_CATALOG_URI": f"sqlite:///{shared}/catalog.db",
        "K2_WAREHOUSE": str(shared / "warehouse"),
    }
    return WorkerProcess(home=home, root=ROOT, log_path=home / "worker.log", environment=environment)


def register(home: Path) -> int:
    """A new home that knows the trades' schema; its id, the same in every home."""
    Home.open(home)
    return FileRegistry(home / "schemas").register(f"{TOPIC}-value", avro_schema(SCHEMA))


def figures(runs: Sequence[Run]) -> dict[str, Any]:  # JSON
    """Medians of one case, and its runs."""
    cpu_us = statistics.median(r.cpu_us_per_row for r in runs)
    stages = {name: round(statistics.median(r.stages.get(name, 0.0) / r.rows for r in runs) * 1e6, 3) for name in runs[0].stages}
    return {
        "rows_per_second": round(statistics.median(r.rows_per_second for r in runs)),
        "cpu_us_per_row": round(cpu_us, 2),
        "peak_rss_mb": round(max(r.peak_rss_mb for r in runs)),
        "commits": statistics.median(r.commits for r in runs),
        "stages_us_per_row": {**stages, "everything_else": round(cpu_us - sum(stages.values()), 3)},
        "stolen_share": round(max(r.stolen_share for r in runs), 3),
        "runs": [
            {"rows_per_second": round(r.rows_per_second), "cpu_us_per_row": round(r.cpu_us_per_row, 2), "stolen_share": round(r.stolen_share, 3)}
            for r in runs
        ],
    }


def summary(found: Mapping[Case, Sequence[Run]], bytes_per_row: float) -> dict[str, Any]:  # JSON
    """What goes into the file."""
    by_case = {case: figures(runs) for case, runs in found.items()}
    return {
        "bytes_per_row": round(bytes_per_row, 1),
        "cases": [{"workers": c.workers, "rows": c.rows, "codec": c.codec, **f} for c, f in sorted(by_case.items())],
        "workers_over_one": {str(c.workers): round(_over_one(c, found), 3) for c in by_case if c.workers > 1 and Case(1, c.rows, c.codec) in found},
        "missed": missed(found),
        "environment": ENVIRONMENT,
    }


def _over_one(case: Case, found: Mapping[Case, Sequence[Run]]) -> float:
    """Rows a second of many workers by those of one, the median over the rounds."""
    one = found[Case(1, case.rows, case.codec)]
    return statistics.median(many.rows_per_second / alone.rows_per_second for many, alone in zip(found[case], one, strict=True))


def missed(found: Mapping[Case, Sequence[Run]]) -> list[str]:
    """The bars that are not met; speed is asked of one worker on lz4."""
    lines = []
    for case, runs in found.items():
        f = figures(runs)
        if case.workers == 1 and case.codec == MAIN_CODEC and f["rows_per_second"] < ROWS_PER_SECOND:
            lines.append(f"{case}: {f['rows_per_second']:,} rows/s, at least {ROWS_PER_SECOND:,} wanted")
        if case.workers == 1 and f["cpu_us_per_row"] > CPU_US:
            lines.append(f"{case}: {f['cpu_us_per_row']} us of CPU a row, at most {CPU_US} wanted")
        if f["peak_rss_mb"] > RSS_MB:
            lines.append(f"{case}: {f['peak_rss_mb']} MiB, at most {RSS_MB} wanted")
        if case.workers == 2 and Case(1, case.rows, case.codec) in found and _over_one(case, found) < TWO_OVER_ONE:
            lines.append(f"{case}: {_over_one(case, found):.2f} of one worker, at least {TWO_OVER_ONE} wanted")
    return lines


def markdown(result: Mapping[str, Any]) -> str:
    """The result as a table for people."""
    lines = ["| rows | codec | workers | rows/s | CPU us a row | peak RSS, MiB | commits | stolen at most |", "|---|---|---|---|---|---|---|---|"]
    for c in result["cases"]:
        cells = f"{c['rows']:,} | {c['codec']} | {c['workers']} | {c['rows_per_second']:,} | {c['cpu_us_per_row']} | {c['peak_rss_mb']} | {c['commits']:g}"
        lines.append(f"| {cells} | {c['stolen_share']:.1%} |")
    lines += [f"\n{n} workers, {ratio} times the rows/s of one." for n, ratio in result["workers_over_one"].items()]
    stages = next((c["stages_us_per_row"] for c in result["cases"] if c["codec"] == MAIN_CODEC), {})
    lines.append("\nCPU by stage, lz4, us a row: " + ", ".join(f"{name} {us:.2f}" for name, us in stages.items()) + ".")
    lines += [f"\n**Missed:** {line}." for line in result["missed"]]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run, write the files, print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--codecs", nargs="+", choices=("none", "lz4", "zstd"), default=["none", "lz4", "zstd"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--again", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench_kafka.json")
    options = parser.parse_args(arguments)
    found: dict[Case, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool(folder / "spool", max(options.rows), register(folder / "made"))
        with Kafka(folder / "kafka", load_settings()) as kafka:
            for _ in range(options.runs):
                for case in cases(options.rows, options.codecs, options.workers):
                    found[case].append(measure_quietly(case, kafka, spool, folder, again=options.again))
    result = summary(found, spool.value_bytes / max(options.rows))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(markdown(result) + "\n", encoding="utf-8")
    print(markdown(result))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
