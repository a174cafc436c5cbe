"""What a worker says of itself at /metrics is what it did."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from k2stream.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
ROWS = 500

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker that committed everything the log holds."""
    home = tmp_path_factory.mktemp("metrics") / "k2"
    command = [sys.executable, "-m", "k2stream.cli", "feed", "recorded", "--rows", str(ROWS)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"K2_HOME": str(home), "K2_PARTITIONS": "8"}, capture_output=True, check=True)
    log = tmp_path_factory.mktemp("logs") / "worker.log"
    with WorkerProcess(home=home, root=ROOT, log_path=log, environment={"K2_WINDOW_MS": "300"}) as worker:
        deadline = time.monotonic() + 60
        while samples(worker).get(("k2_rows_total", "trades"), 0) < ROWS:
            assert worker.exit_code() is None, worker.last_lines(20)
            assert time.monotonic() < deadline, worker.last_lines(20)
            time.sleep(0.2)
        yield worker


def samples(worker: WorkerProcess) -> dict[tuple[str, str], float]:
    """Every series of the worker with at most one label, by its name and that label's value; {} while no page opens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found = [s for family in text_string_to_metric_families(text) for s in family.samples if len(s.labels) <= 1]
    return {(s.name, next(iter(s.labels.values()), "")): s.value for s in found}


def test_rows_windows_and_commits_agree(worker: WorkerProcess) -> None:
    """Told once a window, and by different hands: what they count must be the same records."""
    said = samples(worker)
    assert said["k2_rows_total", "trades"] == ROWS
    assert said["k2_window_rows_sum", "trades"] == ROWS
    assert said["k2_latency_seconds_count", "trades"] == ROWS + said["k2_markers_total", "trades"]
    commits = said["k2_commits_total", "trades"]
    assert commits == said["k2_window_rows_count", "trades"] == said["k2_window_age_seconds_count", "trades"] == said["k2_commit_seconds_count", "trades"]
    assert said["k2_latency_seconds_sum", "trades"] > 0
    assert said["k2_decoded_bytes_total", "trades"] > said["k2_fetched_bytes_total", "trades"] > 0


def test_a_worker_that_has_read_everything_is_well_and_not_behind(worker: WorkerProcess) -> None:
    """Every partition is owned, none lags, nothing is red; the newest commit is a moment ago."""
    said = samples(worker)
    assert said["k2_partitions", "trades"] == 16
    assert said["k2_lag_offsets", "trades"] == 0
    assert said["k2_healthy", ""] == 1
    assert 0 <= time.time() - said["k2_last_commit_timestamp_seconds", "trades"] < 60
    assert said["process_resident_memory_bytes", ""] > 50 << 20
    assert said["k2_stage_cpu_seconds_total", "decode"] > 0
