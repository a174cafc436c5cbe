"""`k2 upkeep` killed with -9 at each of its steps: the table is good, the next run finishes, and nothing is left but what is named."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from k2stream.audit import audit
from k2stream.lake.listing import plain
from k2stream.lake.offsets import Counts
from k2stream.lake.orphans import named_by
from k2stream.query.engine import Engine
from tests.integration.lake_site import TP, LakeSite, soon, window
from tests.integration.test_upkeep import later
from tests.integration.upkeep_site import filled, sorted_rows, upkeep_of

COMPACT_STEPS = ("compact.1.written", "compact.2.checked", "compact.3.head", "compact.3.before", "compact.3.after")
RETIRE_STEPS = ("retire.1.counted", "retire.2.head", "retire.2.before", "retire.2.after")


@pytest.fixture
def site(tmp_path: Path) -> LakeSite:
    return LakeSite(tmp_path, snapshots_kept=5)


def killed_at(step: str, site: LakeSite, *arguments: str) -> None:
    """Run `k2 upkeep` until it dies there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
    environment |= {"K2_HOME": str(site.settings.home), "K2_FSYNC": "false", "K2_SNAPSHOTS_KEPT": "5", "K2_CRASH_AT": step}
    done = subprocess.run([sys.executable, "-m", "k2stream.cli", "upkeep", *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def assert_good(site: LakeSite) -> None:
    """Plain PyIceberg reads each offset once, and the books balance."""
    lake = site.worker()
    with Engine.of(site.settings) as engine:
        assert audit(lake, engine, tolerance_us=3_600_000_000).problems == ()
    site.rows()


def assert_nothing_left(site: LakeSite) -> None:
    """After expiry and the removal of orphans every file is one that the table names."""
    for days in (10.0, 10.1):
        upkeep = later(site, days)
        assert upkeep.expire("trades").trouble is None
        assert upkeep.orphans("trades").trouble is None
    named = {plain(name) for name in named_by(site.stranger())}
    assert {str(path) for path in site.files() if path.parent.name != "upkeep"} == named


@pytest.mark.parametrize("step", COMPACT_STEPS)
def test_compaction_killed_at_a_step_leaves_a_good_table(site: LakeSite, step: str) -> None:
    """Before the swap the old files hold, after it the new ones; the next run does what is left, once."""
    worker = filled(site, 4)
    before = sorted_rows(site)
    killed_at(step, site, "compact")
    assert sorted_rows(site).equals(before)
    assert_good(site)
    report = upkeep_of(site).compact("trades", is_whole=True)
    assert report.counts["files_before"] == (0 if step == "compact.3.after" else 4)
    assert site.snapshots("compaction") == 1
    assert sorted_rows(site).equals(before)
    worker.commit(worker.write(window(5, 12, 15)), soon())
    assert_nothing_left(site)
    assert site.offsets() == list(range(15))


@pytest.mark.parametrize("step", RETIRE_STEPS)
def test_retention_killed_at_a_step_counts_each_row_once(site: LakeSite, step: str) -> None:
    """Files and ledger go in one snapshot, so they cannot disagree."""
    worker = filled(site, 4)
    worker.commit(worker.write(window(5, 12, 15, tracker=b"state", timestamp=time.time_ns() // 1000)), soon())
    killed_at(step, site, "retention", "--table", "trades", "--days", "9")
    assert_good(site)
    upkeep_of(site).retain("trades", 9)
    assert_good(site)
    assert worker.head().vector[TP].counts == Counts(rows=15, retired=12)
    assert site.offsets() == [12, 13, 14]
