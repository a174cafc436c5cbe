"""Writers of one table that all want the head at once: is every conflict resolved, how often does a commit try, who waits?

    python -m tests.bench.commit_conflicts [--writers 4] [--seconds 20] [--catalog postgres] [--store file] [--out FILE]

Each writer is a process with partitions of its own. First all commit as fast as they can, the worst there is; then each
commits once a second, as workers with windows of 1 s do. At the end every row must be there once and the ledger balance.
Prints Markdown, and exits with 1 if something is missing.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from k2stream.audit import audit_lake
from k2stream.clock import Deadline
from k2stream.dev.services import SERVICES
from k2stream.gaps import EVENTS
from k2stream.lake.offsets import Counts
from k2stream.lake.table import RowsLake
from k2stream.lake.window import Window
from k2stream.records import TopicPartition
from k2stream.settings import load_settings, process_environment
from k2stream.testing import trade_rows
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES

TOPIC = "market.crypto.trades.binance"
ROWS = 100
"""Of a window: the commit is measured here, not the writing of rows."""

HEADER = "| pace | commits | commits/s | lost races | retries a commit | unknown | commit p50 / p99 / max ms | commits a writer |"


@dataclass(frozen=True, slots=True)
class Told:
    """What one writer says of itself."""

    commits: int
    conflicts: int
    unknown_outcomes: int
    seconds: tuple[float, ...]
    """Of each commit: step 2 until it landed, lost races included; without the writing of files."""


def write(number: int, *, seconds: float, pause_seconds: float) -> Told:
    """Commit windows of one partition, once somebody says go; `pause_seconds` apart, 0: without a pause."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # standard output is the answer's
    tp, taken = TopicPartition(TOPIC, number), list[float]()
    with closing(RowsLake.open(load_settings(), TRADES, GAPS, worker_id=f"writer-{number}")) as lake:
        lake.register({tp: 0}, Deadline.after(60))
        before = lake.committers()["trades"]
        commits, conflicts, unknown = before.commits, before.conflicts, before.unknown_outcomes
        first = lake.head().vector[tp].next
        print("ready", flush=True)
        sys.stdin.readline()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.perf_counter()
            taken.append(commit_one(lake, tp, first + len(taken) * ROWS))
            lake.take_outbox(Deadline.after(60))
            time.sleep(max(0.0, pause_seconds - (time.perf_counter() - started)) if pause_seconds else 0.0)
        after = lake.committers()["trades"]
        return Told(after.commits - commits, after.conflicts - conflicts, after.unknown_outcomes - unknown, tuple(taken))


def commit_one(lake: RowsLake, tp: TopicPartition, first: int) -> float:
    """One window of ROWS rows from `first` on; the seconds of its commit."""
    rows = trade_rows([{"topic": tp.topic, "partition": tp.partition, "offset": first + i, "trade_id": f"B-{tp.partition}-{first + i}"} for i in range(ROWS)])
    staged = lake.write(Window(first, rows, EVENTS.empty_table(), {tp: Counts(rows=ROWS)}, {tp: (first, first + ROWS)}))
    started = time.perf_counter()
    lake.commit(staged, Deadline.after(60))
    return time.perf_counter() - started


@contextmanager
def place(catalog: str, store: str, folder: Path) -> Iterator[dict[str, str]]:
    """Variables that name a fresh catalog and store, on servers of this run."""
    given = {name: value for name, value in process_environment().items() if not name.startswith("K2_") or name == "K2_CACHE"}
    said = given | {"K2_HOME": str(folder / "home"), "K2_LOG_LEVEL": "error"}
    with ExitStack() as stack:
        for name in (catalog, store):
            if name not in ("sqlite", "file"):
                said |= stack.enter_context(SERVICES[name](folder / name, load_settings())).exports()
        yield said


def measure(variables: dict[str, str], *, writers: int, seconds: float, pause_seconds: float) -> list[Told]:
    """Let so many writers commit side by side."""
    told = ["--seconds", str(seconds), "--pause", str(pause_seconds)]
    command = [sys.executable, "-m", "tests.bench.commit_conflicts", *told, "--writer"]
    processes = [subprocess.Popen([*command, str(n)], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for n in range(writers)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=seconds + 120)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a writer failed; its words are above")
    return [Told(**(found | {"seconds": tuple(found["seconds"])})) for found in map(json.loads, answers)]


def line(name: str, told: Sequence[Told], seconds: float) -> str:
    """One line of the table."""
    commits, conflicts, unknown = (sum(getattr(t, field) for t in told) for field in ("commits", "conflicts", "unknown_outcomes"))
    taken = sorted(s for t in told for s in t.seconds)
    p50, p99 = statistics.median(taken), taken[int(len(taken) * 0.99)]
    shares = [t.commits for t in told]
    return (
        f"| {name} | {commits} | {commits / seconds:.1f} | {conflicts} | {conflicts / commits:.2f} | {unknown} "
        f"| {p50 * 1000:.0f} / {p99 * 1000:.0f} / {taken[-1] * 1000:.0f} | {min(shares)}-{max(shares)} |"
    )


def check(variables: dict[str, str], expected_rows: int) -> str:
    """The verdict of an audit over all that was committed; raises SystemExit if a row is missing or there twice."""
    code = "import json, sys; from tests.bench.commit_conflicts import verdict; print(json.dumps(verdict()))"
    answer = subprocess.run([sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(answer)
    if not found["balanced"] or found["rows"] != expected_rows:
        raise SystemExit(f"expected {expected_rows} rows, found {found}")
    return f"Afterwards: {found['rows']:,} rows, each once, ledger balanced."


def verdict() -> dict[str, Any]:
    """What an audit of the settings' own table says."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    report = audit_lake(load_settings())
    return {"balanced": report.balanced, "rows": report.tables["trades"], "problems": list(report.problems)}


def main(arguments: argparse.Namespace) -> None:
    """Both paces, then the audit."""
    text = [f"# Commit conflicts: {arguments.writers} writers, one table, {arguments.catalog} and {arguments.store}", ""]
    text += [HEADER, "|---|---|---|---|---|---|---|---|"]
    rows = 0
    with tempfile.TemporaryDirectory(prefix="k2-conflicts-") as folder, place(arguments.catalog, arguments.store, Path(folder)) as variables:
        for name, pause in (("as fast as they can", 0.0), ("one a second each", 1.0)):
            told = measure(variables, writers=arguments.writers, seconds=arguments.seconds, pause_seconds=pause)
            rows += ROWS * sum(len(t.seconds) for t in told)
            text.append(line(name, told, arguments.seconds))
        text += ["", check(variables, rows)]
    whole = "\n".join(text) + "\n"
    print(whole)
    if arguments.out:
        arguments.out.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--catalog", choices=("sqlite", "postgres", "rest"), default="postgres")
    parser.add_argument("--store", choices=("file", "s3"), default="file")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--writer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--pause", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.writer is None:
        main(given)
    else:
        print(json.dumps(asdict(write(given.writer, seconds=given.seconds, pause_seconds=given.pause))))
