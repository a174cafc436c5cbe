"""A worker, the servers that it is pointed at, and when they come and go."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from k2stream.dev.service import Service
from k2stream.dev.services import SERVICES
from k2stream.settings import Settings
from k2stream.worker_process import WorkerProcess, free_port

ROOT = Path(__file__).parents[2]
ROWS = 1_000
WAIT_SECONDS = 180.0
"""A start imports seconds of CPU, and many run side by side."""
QUICK = {
    "K2_WINDOW_MS": "200",
    "K2_WINDOW_ROWS": "400",
    "K2_COMMIT_TIMEOUT_MS": "2000",
    "K2_REVOKE_TIMEOUT_MS": "1000",
    "K2_TOPIC_REFRESH_MS": "1000",
    "K2_SESSION_TIMEOUT_MS": "6000",
    "K2_PARTITIONS": "2",
    "K2_FSYNC": "false",
}


def promised(name: str, folder: Path) -> Service:
    """A server that nobody has started yet, whose address is known already: `start(port=server.port)` keeps the promise."""
    server = SERVICES[name](folder, Settings())
    server.folder.mkdir(mode=0o700, parents=True)
    server.port = free_port()
    return server


def k2(home: Path, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command of ours in these surroundings."""
    whole = {**os.environ, "K2_HOME": str(home), **QUICK, **environment}
    return subprocess.run([sys.executable, "-m", "k2stream.cli", *arguments], cwd=ROOT, env=whole, capture_output=True, text=True, timeout=WAIT_SECONDS)


def publish(home: Path, environment: Mapping[str, str], *, rows: int = ROWS) -> None:
    """Recorded trades into the log that the environment names."""
    done = k2(home, "feed", "recorded", "--rows", str(rows), environment=environment)
    assert done.returncode == 0, done.stderr


def worker(home: Path, environment: Mapping[str, str]) -> WorkerProcess:
    """A worker whose log lies beside its home."""
    return WorkerProcess(home=home, root=ROOT, log_path=home.parent / "worker.log", environment={**QUICK, **environment})


def causes(w: WorkerProcess) -> dict[str, str]:
    """What is wrong, by what says so; empty if all is well."""
    state = w.state()
    return {"page": "does not answer"} if state is None else dict(state["causes"])


def rows(w: WorkerProcess) -> int:
    """Rows in the table, as the worker shows them."""
    trades: dict[str, Any] = (w.state() or {}).get("trades", {})
    return sum(p["rows"] for p in trades.get("partitions", []))


def until(w: WorkerProcess, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> float:
    """Seconds that it took; fails if the worker ends or it does not come to pass."""
    began = time.monotonic()
    while not holds():
        assert w.exit_code() is None, w.last_lines(30)
        assert time.monotonic() - began < seconds, f"not {what}, causes {causes(w)}: {w.last_lines(30)}"
        time.sleep(0.1)
    return time.monotonic() - began


def until_red(w: WorkerProcess, *words: str, seconds: float = WAIT_SECONDS) -> float:
    """Until one cause has all these words."""
    return until(w, lambda: any(all(word in cause for word in words) for cause in causes(w).values()), f"red with {words}", seconds)


def until_well(w: WorkerProcess, seconds: float = WAIT_SECONDS) -> float:
    return until(w, lambda: (w.state() or {}).get("started", False) and not causes(w), "well", seconds)


def assert_audited(home: Path, environment: Mapping[str, str], *, rows: int = ROWS) -> None:
    """Every row once, and the ledger adds up."""
    done = k2(home, "audit", "--json", environment=environment)
    report = json.loads(done.stdout)
    assert (done.returncode, report["balanced"], report["tables"]) == (0, True, {"trades": rows}), report
