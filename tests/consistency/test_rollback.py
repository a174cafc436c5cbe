"""The table is changed under the workers by plain PyIceberg: rolled back, it is filled again; robbed of its vector, nothing is guessed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from k2stream.testing import trade_rows
from tests.consistency.harness import ROOT, Outcome, Site, go_on, restarts_of, stopped_at, wait_until_caught_up

NewSite = Callable[[str], Site]

FOREIGN = {"message_id": "foreign", "trade_id": "elsewhere-1", "topic": "elsewhere", "partition": 0, "offset": 0}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@contextmanager
def stranger(home: Path) -> Iterator[Table]:
    """The trades table as plain PyIceberg loads it, with nothing of k2stream."""
    catalog = SqlCatalog("k2", uri=f"sqlite:///{home / 'catalog.db'}?timeout=30")
    try:
        yield catalog.load_table("market_data.trades")
    finally:
        catalog.close()


def roll_back(home: Path, *, windows: int) -> None:
    """Let the head be the snapshot so many windows ago."""
    with stranger(home) as table:
        landed = [s.snapshot_id for s in table.history() if kind_of(table, s.snapshot_id) == "window"]
        assert len(landed) > windows, f"only {len(landed)} windows"
        table.manage_snapshots().rollback_to_snapshot(landed[-1 - windows]).commit()


def roll_back_to_the_start(home: Path) -> None:
    """Let the head be the snapshot before any row."""
    with stranger(home) as table:
        table.manage_snapshots().rollback_to_snapshot(table.history()[0].snapshot_id).commit()


def kind_of(table: Table, snapshot_id: int) -> str | None:
    snapshot = table.snapshot_by_id(snapshot_id)
    return snapshot.summary.additional_properties.get("k2.kind") if snapshot and snapshot.summary else None


def assert_as(reference: Outcome, site: Site) -> None:
    assert site.problems() == ()
    assert site.outcome() == reference


@pytest.mark.parametrize(("windows", "is_wiped"), [(None, False), (3, True)], ids=["to the start", "some windows, redis wiped"])
def test_a_table_rolled_back_while_no_worker_runs_is_filled_again(
    new_site: NewSite, reference: Outcome, windows: int | None, is_wiped: bool
) -> None:
    """State of the future lies in Redis, gap events of the future in their table: neither is believed, none comes twice."""
    site = new_site("rolled-back")
    site.run_until_killed("6.after:8")
    if windows is None:
        roll_back_to_the_start(site.home)
    else:
        roll_back(site.home, windows=windows)
    if is_wiped:
        site.wipe_redis()
    site.run_until_caught_up()
    assert_as(reference, site)


def test_a_table_rolled_back_under_a_window_on_its_way_is_filled_again(new_site: NewSite, reference: Outcome) -> None:
    """The window stands on rows that are gone: fenced, all read again."""
    site = new_site("rolled-back")
    with stopped_at(site, "1.fsync:8") as worker:
        roll_back(site.home, windows=3)
        go_on(worker)
        wait_until_caught_up(worker)
        assert restarts_of(worker) == 1
        assert worker.stop() == 0, worker.last_lines(30)
    assert "or the table was rolled back" in worker.last_lines(10_000)
    assert_as(reference, site)


def test_a_table_rolled_back_under_an_idle_worker_is_filled_again(new_site: NewSite, reference: Outcome) -> None:
    """No record comes that could make it look: the worker compares by itself, within some ten seconds."""
    site = new_site("rolled-back")
    with site.worker() as worker:
        wait_until_caught_up(worker)
        roll_back(site.home, windows=4)
        deadline = time.monotonic() + 30
        while restarts_of(worker) == 0:
            assert time.monotonic() < deadline, worker.last_lines(30)
            time.sleep(0.1)
        wait_until_caught_up(worker)
        assert worker.stop() == 0, worker.last_lines(30)
    assert_as(reference, site)


def append_and_expire_the_rest(home: Path) -> None:
    """A foreign row on top, and every snapshot that carries a vector gone."""
    file = home / "foreign.parquet"
    pq.write_table(trade_rows([FOREIGN]), file)
    with stranger(home) as table:
        table.add_files([str(file)])
        older = [s.snapshot_id for s in table.snapshots()[:-1]]
        table.maintenance.expire_snapshots().by_ids(older).commit()


def k2(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **site.environment, "K2_HOME": str(site.home)}
    return subprocess.run([sys.executable, "-m", "k2stream.cli", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_a_table_without_a_reachable_vector_is_refused_and_adopted(new_site: NewSite, reference: Outcome) -> None:
    """Never taken for a first start, which would read everything twice: one sentence, and `k2 adopt` reads on after the rows."""
    site = new_site("robbed")
    site.run_until_killed("6.after:6")
    append_and_expire_the_rest(site.home)
    with site.worker() as worker:
        assert worker.wait(60) == 1
    assert worker.last_lines(1).startswith("k2: "), worker.last_lines(30)
    assert "k2 adopt" in worker.last_lines(1)
    done = k2(site, "adopt")
    assert done.returncode == 0, done.stderr
    site.run_until_caught_up()
    with stranger(site.home) as table:
        table.delete(f"message_id == '{FOREIGN['message_id']}'")
    assert site.problems() == ()
    assert site.outcome().trades == reference.trades
