"""Workers that are killed for real, and what their tables hold afterwards."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.fingerprint import Fingerprint, table_fingerprint
from k2stream.rows import TRADES
from k2stream.settings import Settings
from k2stream.worker_process import WorkerProcess
from tables.lake.gaps import GAPS_COLUMNS

ROOT = Path(__file__).parents[2]
KILLED = -9
SMALL_WINDOWS = {"K2_WINDOW_ROWS": "1500", "K2_WINDOW_MS": "300", "K2_FSYNC": "false", "K2_LOG_FORMAT": "json"}
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
        settings = Settings(home=self.home)
        trades, gaps = (TableReader.open_reader(settings, name) for name in ("trades", "gaps"))
        head = trades.head()
        ledger = {
            f"{tp.topic}/{tp.partition}": (e.start, e.next, e.counts.rows, e.counts.duplicates, e.counts.dead_letters, e.counts.markers)
            for tp, e in sorted(head.vector.items())
        }
        outcome = Outcome(_fingerprint(trades, TRADES.names), _fingerprint(gaps, GAPS_COLUMNS), ledger)
        for reader in (trades, gaps):
            reader.close()
        return outcome


def _fingerprint(table: TableReader, columns: Sequence[str]) -> Fingerprint:
    """Of a table's head; no file is no row."""
    snapshot_id = table.head().snapshot_id
    return table_fingerprint(Engine(), table.files(snapshot_id) if snapshot_id else [], columns)


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
