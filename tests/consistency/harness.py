"""Workers that are killed for real, and what their tables hold afterwards."""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil

from k2stream.audit import audit_lake
from k2stream.deadletter.kept import letters_dropped, origins_of_letters
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.fingerprint import Fingerprint, table_fingerprint
from k2stream.rows import TRADES
from k2stream.settings import Settings
from k2stream.worker_process import WorkerProcess
from tables.lake.gaps import GAPS_COLUMNS

ROOT = Path(__file__).parents[2]
KILLED = -9
SMALL_WINDOWS = {"K2_WINDOW_ROWS": "300", "K2_WINDOW_MS": "300", "K2_FETCH_BUFFER_BYTES": "20000", "K2_FSYNC": "false", "K2_LOG_FORMAT": "json"}
"""So that a few thousand records make many commits."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run left behind."""

    trades: Fingerprint
    gaps: Fingerprint
    ledger: Mapping[str, tuple[int, ...]]


class Site:
    """One K2_HOME whose worker may be killed and started again."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home, self.environment = home, dict(environment)

    def worker(self, **environment: str) -> WorkerProcess:
        return WorkerProcess(home=self.home, root=ROOT, log_path=self.home / "worker.log", environment={**self.environment, **environment})

    def run_until_killed(self, crash_at: str) -> None:
        """Start a worker that kills itself at a step; fails if it ends in any other way."""
        worker = self.worker(K2_CRASH_AT=crash_at)
        try:
            assert worker.wait(60) == KILLED, worker.last_lines(30)
        finally:
            worker.stop()

    def run_until_caught_up(self, seconds: float = 60) -> None:
        """Start a worker and stop it once the table holds the whole log."""
        worker = self.worker()
        try:
            wait_until_caught_up(worker, seconds)
            assert worker.stop() == 0, worker.last_lines(30)
        finally:
            worker.stop()

    def wipe_redis(self) -> None:
        """Between two lives of a worker: its server's files go."""
        shutil.rmtree(self.home / "redis", ignore_errors=True)

    def outcome(self) -> Outcome:
        """What the tables hold now."""
        settings = Settings(home=self.home)
        with closing(TableReader.open_reader(settings, "trades")) as trades, closing(TableReader.open_reader(settings, "gaps")) as gaps, Engine() as engine:
            head, gaps_head = trades.head(), gaps.load().current_snapshot()
            trades_files = trades.files(head.snapshot_id) if head.snapshot_id else []
            gaps_files = gaps.files(gaps_head.snapshot_id) if gaps_head else []
            ledger = {f"{tp.topic}/{tp.partition}": (e.start, e.next, *astuple(e.counts)) for tp, e in sorted(head.vector.items())}
            return Outcome(table_fingerprint(engine, trades_files, TRADES.names), table_fingerprint(engine, gaps_files, GAPS_COLUMNS), ledger)

    def problems(self) -> tuple[str, ...]:
        """What an audit finds wrong."""
        settings = Settings(home=self.home)
        return audit_lake(settings, letters=lambda: origins_of_letters(settings), letters_dropped=lambda: letters_dropped(settings)).problems


def wait_until_caught_up(worker: WorkerProcess, seconds: float = 60) -> None:
    """Until nothing that was in the log at assignment is missing from the table."""
    worker.wait_until_up()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = worker.state()
        trades = (state or {}).get("trades", {})
        if trades.get("partitions") and trades["lag"] == 0:
            return
        assert worker.exit_code() is None, worker.last_lines(30)
        time.sleep(0.1)
    raise AssertionError(f"not caught up within {seconds} s: {state}\n{worker.last_lines(30)}")


@contextmanager
def stopped_at(site: Site, step: str, **environment: str) -> Iterator[WorkerProcess]:
    """A worker that stands still at a step, as in a long pause of its machine, until the block calls `go_on`."""
    worker = site.worker(K2_CRASH_AT=f"{step}:SIGSTOP", **environment)
    try:
        wait_until_stopped(worker)
        yield worker
    finally:
        if worker.exit_code() is None:
            go_on(worker)
        worker.stop()


def wait_until_stopped(worker: WorkerProcess, seconds: float = 60) -> None:
    """Until it stands still where K2_CRASH_AT says SIGSTOP."""
    deadline = time.monotonic() + seconds
    while psutil.Process(worker.pid).status() != psutil.STATUS_STOPPED:
        assert worker.exit_code() is None, worker.last_lines(30)
        assert time.monotonic() < deadline, worker.last_lines(30)
        time.sleep(0.05)


def go_on(worker: WorkerProcess) -> None:
    """The stopped worker knows nothing of the time that passed."""
    os.kill(worker.pid, signal.SIGCONT)


def restarts_of(worker: WorkerProcess) -> int:
    """How often the worker went back to the table's vector since it started."""
    return int((worker.state() or {})["trades"]["since_start"]["restarts"])
