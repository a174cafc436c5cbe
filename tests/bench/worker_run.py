"""One measured run: workers that stand ready, from the moment their backlog appears to the table caught up."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2stream.clock import Deadline
from k2stream.errors import K2Error
from k2stream.worker_process import WorkerProcess
from tests.bench.market import PARTITIONS, hold_back, let_go
from tests.quiet import CpuTime

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.05
READY_SECONDS, RUN_SECONDS = 120.0, 600.0
QUIET_SECONDS = 1.0
"""A worker that has just started settles for so long before its CPU is read."""

ENVIRONMENT = {"K2_FSYNC": "false", "K2_WINDOW_MS": "1000"}
"""Not what a disk can sync, and the last, half-full window must not wait five seconds for rows that never come."""

State = dict[str, Any]
"""JSON of /state."""


@dataclass(frozen=True, slots=True)
class Run:
    """Figures of one run."""

    rows: int
    seconds: float
    """From the moment the backlog appears to the commit of its last row."""
    cpu_seconds: float
    """All threads of all workers; what they used before the backlog appeared is not in it."""
    stages: dict[str, float]
    """CPU seconds of each stage on its own thread, all workers together."""
    peak_rss_mb: float
    """The most one worker ever held, its start included."""
    commits: int
    stolen_share: float
    """Of the cores' time, by other machines of the host."""

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
    return run_workers([worker], rows, lambda: let_go(home, ends))


def run_workers(workers: Sequence[WorkerProcess], rows: int, appear: Callable[[], None]) -> Run:
    """Wait until the workers stand ready, call `appear` and let them catch up; they are stopped."""
    try:
        before = wait_until_ready(workers)
        started, cores = time.perf_counter(), CpuTime.now()
        appear()
        after = _wait_until_rows(workers, rows)
        return _run_of(rows, time.perf_counter() - started, before, after, stolen_share=CpuTime.now().stolen_share_since(cores))
    finally:
        for worker in workers:
            worker.stop()


def wait_until_ready(workers: Sequence[WorkerProcess]) -> list[State]:
    """Every worker has partitions, all together have all, and for a second nothing happened."""
    for worker in workers:
        worker.wait_until_up(READY_SECONDS)
    deadline = Deadline.after(READY_SECONDS)
    while not deadline.is_over():
        owned = [len(s.get("trades", {}).get("partitions", ())) for s in states_of(workers)]
        if sum(owned) == PARTITIONS and all(owned):
            time.sleep(QUIET_SECONDS)
            return states_of(workers)
        time.sleep(POLL_SECONDS)
    raise K2Error(f"after {READY_SECONDS:.0f} s the workers do not have all partitions:\n{workers[0].last_lines(20)}")


def states_of(workers: Sequence[WorkerProcess]) -> list[State]:
    """What each says now; raises K2Error if one is silent."""
    return [_state(worker) for worker in workers]


def total_stages(states: Sequence[State]) -> dict[str, float]:
    """CPU seconds of each stage, all workers together."""
    stages: Counter[str] = Counter()
    for state in states:
        stages.update(state["trades"]["stages_cpu_seconds"])
    return dict(stages)


def _wait_until_rows(workers: Sequence[WorkerProcess], rows: int) -> list[State]:
    deadline = Deadline.after(RUN_SECONDS)
    while not deadline.is_over():
        states = states_of(workers)
        if sum(s["trades"]["since_start"]["rows"] for s in states) >= rows:
            return states
        time.sleep(POLL_SECONDS)
    raise K2Error(f"after {RUN_SECONDS:.0f} s the table does not hold {rows} rows:\n{workers[0].last_lines(20)}")


def _state(worker: WorkerProcess) -> State:
    state = worker.state()
    if state is None or worker.exit_code() is not None:
        raise K2Error(f"the worker stopped answering:\n{worker.last_lines(20)}")
    return state


def _run_of(rows: int, seconds: float, before: Sequence[State], after: Sequence[State], *, stolen_share: float) -> Run:
    counts: Counter[str] = Counter()
    for state in after:
        trades = state["trades"]
        counts.update({name: n for name, n in trades["since_start"].items() if isinstance(n, int)})
        counts["gap_events"] += sum(trades["since_start"]["gap_events"].values())
    if counts["rows"] != rows or any(counts[name] for name in ("duplicates", "dead_letters", "gap_events")):
        raise K2Error(f"expected {rows} rows and nothing else, found {dict(counts)}")
    cpu_seconds = sum(a["process"]["cpu_seconds"] - b["process"]["cpu_seconds"] for a, b in zip(after, before, strict=True))
    peak_rss_mb = max(s["process"]["peak_rss_mb"] for s in after)
    return Run(rows, seconds, cpu_seconds, total_stages(after), peak_rss_mb, counts["commits"], stolen_share)
