"""`k2 audit --json` on tables that a real worker filled: balanced as they are, and not once somebody touched them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table

from k2stream.lake.catalog import open_catalog
from k2stream.lake.head import head_of
from k2stream.settings import Settings
from k2stream.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
ROWS = 3_000
KEYS = ["topic", "partition", "start", "next", "rows", "duplicates", "dead_letters", "markers", "holes", "retired"]

pytestmark = pytest.mark.timeout(120)


def k2(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "K2_HOME": str(home), "K2_PARTITIONS": "8"}
    return subprocess.run([sys.executable, "-m", "k2stream.cli", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def audited(home: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    done = k2(home, "audit", "--json")
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose tables hold real trades of two venues, in one place that copies keep on using."""
    home = tmp_path_factory.mktemp("audit") / "k2"
    assert k2(home, "feed", "recorded", "--rows", str(ROWS)).returncode == 0
    with WorkerProcess(home=home, root=ROOT, log_path=home.parent / "worker.log", environment={"K2_WINDOW_MS": "300"}) as worker:
        deadline = time.monotonic() + 60
        while sum(p["rows"] for p in (worker.state() or {}).get("trades", {}).get("partitions", [])) < ROWS:
            assert time.monotonic() < deadline, worker.last_lines(20)
            time.sleep(0.1)
        assert worker.stop() == 0
    return home


@pytest.fixture
def home(committed: Path, tmp_path: Path) -> Path:
    """The same home, put back as it was: Iceberg's paths are absolute, so tests touch it where it lies."""
    kept = tmp_path / "kept"
    shutil.copytree(committed, kept, ignore=shutil.ignore_patterns("*.sock"))
    shutil.rmtree(committed)
    shutil.copytree(kept, committed)
    return committed


@pytest.fixture(autouse=True)
def put_back(home: Path, tmp_path: Path) -> Iterator[None]:
    """What a test broke is whole again for the next one."""
    yield
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "kept", home)


def trades_of(home: Path) -> Table:
    settings = Settings(home=home)
    return open_catalog(settings).load_table((settings.namespace, "trades"))


def test_the_report_has_exactly_the_promised_shape(home: Path) -> None:
    """Three keys of the contract, three more for a person; each partition has its whole ledger and nothing else."""
    code, report = audited(home)
    assert code == 0
    assert list(report) == ["balanced", "tables", "partitions", "snapshot_id", "problems", "notes"]
    assert (report["balanced"], report["tables"], report["problems"]) == (True, {"trades": ROWS}, [])
    assert len(report["partitions"]) == 16
    assert {tuple(partition) for partition in report["partitions"]} == {tuple(KEYS)}
    assert sum(p["rows"] for p in report["partitions"]) == ROWS


def test_rows_that_somebody_deleted_are_missed_in_their_partition(home: Path) -> None:
    """A delete by plain PyIceberg that drops one data file: the vector is carried by an ancestor, the rows are not there."""
    trades_of(home).delete(EqualTo("exchange", "BINANCE"))
    code, report = audited(home)
    assert (code, report["balanced"]) == (1, False)
    assert report["tables"]["trades"] < ROWS
    lost = [f"{p['topic']}/{p['partition']}" for p in report["partitions"] if p["rows"] and "binance" in p["topic"]]
    assert len(lost) == 1
    assert [problem.split(": ")[0] for problem in report["problems"]] == lost


@pytest.mark.parametrize("count", ["rows", "duplicates", "holes"])
def test_an_edited_count_names_its_partition(home: Path, count: str) -> None:
    """One number of one partition changed by a commit whose summary says so."""
    table = trades_of(home)
    head = head_of(table)
    tp = next(tp for tp, entry in sorted(head.vector.items()) if entry.counts.rows)
    entry = head.vector[tp]
    counts = replace(entry.counts, **{count: getattr(entry.counts, count) + 1})
    edited = replace(head.carried, vector={**head.vector, tp: replace(entry, counts=counts)})
    table.append(table.schema().as_arrow().empty_table(), snapshot_properties=edited.properties())
    code, report = audited(home)
    assert (code, report["balanced"]) == (1, False)
    assert report["problems"]
    assert {problem.split(": ")[0] for problem in report["problems"]} == {f"{tp.topic}/{tp.partition}"}
