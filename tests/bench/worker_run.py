"""One measured run: a worker process on a log full of trades, from the first batch to the table caught up."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2stream.errors import K2Error
from k2stream.worker_process import WorkerProcess
from tests.bench.market import PARTITIONS, hold_back, let_go

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.05
QUIET_SECONDS = 1.0
"""A worker that has just started settles for so long before its CPU is read."""

ENVIRONMENT = {"K2_FSYNC": "false", "K2_WINDOW_MS": "1000"}
"""Not what a disk can sync, and the last, half-full window must not wait five seconds for rows that never come."""


@dataclass(frozen=True, slots=True)
class Run:
    """Figures of one run."""

    rows: int
    seconds: float
    """From the moment the backlog appears to the commit of its last row."""
    cpu_seconds: float
    """All threads of the worker process; what it used before the backlog appeared is not in it."""
    stages: dict[str, float]
    """CPU seconds of each stage on its own thread."""
    peak_rss_mb: float
    """The most the process ever held, its start included."""
    commits: int

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def cpu_us_per_row(self) -> float:
        return self.cpu_seconds / self.rows * 1e6


def run_worker(home: Path, rows: int, environment: dict[str, str] | None = None) -> Run:
    """Start a worker on `home`, whose log holds `rows` trades and whose table none of them, and let it catch up."""
    ends = hold_back(home)
    worker = WorkerProcess(home=home, root=ROOT, log_path=home / "worker.log", environment={**ENVIRONMENT, **(environment or {})})
    try:
        before = _wait_until_ready(worker)
        started = time.perf_counter()
        let_go(home, ends)
        after = _wait_until_rows(worker, rows)
        return _run_of(rows, time.perf_counter() - started, before, after)
    finally:
        worker.stop()


def _wait_until_ready(worker: WorkerProcess) -> dict[str, Any]:  # JSON of /state
    state = worker.wait_until_up()
    while len(state.get("trades", {}).get("partitions", ())) < PARTITIONS:
        time.sleep(POLL_SECONDS)
        state = _alive(worker)
    time.sleep(QUIET_SECONDS)
    return _alive(worker)


def _wait_until_rows(worker: WorkerProcess, rows: int) -> dict[str, Any]:  # JSON of /state
    while True:
        state = _alive(worker)
        if state["trades"]["since_start"]["rows"] >= rows:
            return state
        time.sleep(POLL_SECONDS)


def _alive(worker: WorkerProcess) -> dict[str, Any]:  # JSON of /state
    state = worker.state()
    if state is None or worker.exit_code() is not None:
        raise K2Error(f"the worker stopped answering:\n{worker.last_lines(20)}")
    return state


def _run_of(rows: int, seconds: float, before: dict[str, Any], after: dict[str, Any]) -> Run:
    trades = after["trades"]
    counts = trades["since_start"]
    if (counts["rows"], counts["duplicates"], counts["dead_letters"], counts["restarts"]) != (rows, 0, 0, 0) or counts["gap_events"]:
        raise K2Error(f"expected {rows} rows and nothing else, found {counts}")
    cpu_seconds = after["process"]["cpu_seconds"] - before["process"]["cpu_seconds"]
    return Run(rows, seconds, cpu_seconds, trades["stages_cpu_seconds"], after["process"]["peak_rss_mb"], counts["commits"])
