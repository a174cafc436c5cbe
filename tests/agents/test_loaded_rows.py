"""A file that was loaded in spite of a kill -9: each of its rows is one row of the table, and the books balance."""

import json
import time
from pathlib import Path

import pytest

from k2stream.worker_process import WorkerProcess
from tests.integration.test_load import BAD, KILLED, ROOT, ROWS, Site

pytestmark = pytest.mark.timeout(180)
GOOD = ROWS - len(BAD)


def wait_for_rows(worker: WorkerProcess, rows: int, seconds: float = 90) -> dict[str, int]:
    """The ledger of all partitions added up, once the log is read and the table holds so many rows."""
    deadline = time.monotonic() + seconds
    total: dict[str, int] = {}
    while time.monotonic() < deadline:
        trades = (worker.state() or {}).get("trades") or {}
        partitions = trades.get("partitions") or []
        total = {name: sum(p[name] for p in partitions) for name in ("rows", "duplicates", "dead_letters")}
        if partitions and trades.get("lag") == 0 and total["rows"] >= rows:
            return total
        assert worker.exit_code() is None, worker.last_lines(20)
        time.sleep(0.1)
    raise AssertionError(f"{rows} rows within {seconds} s: {total}")


def test_rows_that_were_published_twice_are_one_row(tmp_path: Path) -> None:
    """Killed between publishing and writing it down, loaded to the end, and all of it once more: one row each, the rest duplicates; letters of lines
    are no letters of offsets."""
    site = Site(tmp_path, "")
    site.k2(K2_CRASH_AT="load.published:2", code=KILLED)
    site.loaded()
    site.loaded("--again")
    published = len(site.records())
    environment = {**site.environment, "K2_WINDOW_MS": "300"}
    with WorkerProcess(home=site.settings.home, root=ROOT, log_path=tmp_path / "worker.log", environment=environment) as worker:
        total = wait_for_rows(worker, GOOD)
    assert total == {"rows": GOOD, "duplicates": published - GOOD, "dead_letters": 0}
    assert published > 2 * GOOD
    audit = json.loads(site.run("audit", "--json").stdout)
    assert (audit["balanced"], audit["tables"]["trades"], audit["notes"]) == (True, GOOD, [])
