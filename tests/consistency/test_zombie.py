"""Two workers of one group on one log, one Redis and one table, for the lock that keeps the second one out is gone: nothing comes twice."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from k2stream.settings import Settings
from k2stream.state.server import start_server
from k2stream.worker_process import WorkerProcess
from tests.consistency.harness import Outcome, Site, go_on, restarts_of, stopped_at, wait_until_caught_up, wait_until_stopped

NewSite = Callable[[str], Site]

STEPS = ("1.fsync:4", "3.before:4", "3.after:4", "6.before:4")
"""Files written; commit on its way; landed and never heard of; before old state would be written over new."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@contextmanager
def shared_redis(site: Site) -> Iterator[None]:
    """One server for all workers of a site, as on several machines."""
    server = start_server(Settings(home=site.home))
    if server is None:
        pytest.skip("no Redis or Valkey binary")
    try:
        site.environment["K2_REDIS_URL"] = server.url
        yield
    finally:
        server.close()


def lose_the_group_lock(site: Site) -> None:
    """As on a disk whose locks do not hold."""
    (lock,) = (site.home / "log").glob("group-*.lock")
    lock.unlink()


def times_logged(site: Site, event: str) -> int:
    """How often the workers of a site logged this; lines of two processes may run into each other."""
    return (site.home / "worker.log").read_text().count(f'"event": "{event}"')


def wait_until_restarted(worker: WorkerProcess, seconds: float = 30) -> None:
    """Until the worker found that the table went on without it."""
    deadline = time.monotonic() + seconds
    while restarts_of(worker) == 0:
        assert time.monotonic() < deadline, worker.last_lines(30)
        time.sleep(0.1)


@contextmanager
def zombie_of(new_site: NewSite, step: str) -> Iterator[tuple[Site, WorkerProcess]]:
    """A site whose worker stands still at a step, and does not happen to be writing to the log, which would hold up everybody."""
    for _ in range(5):
        site = new_site("zombie")
        with shared_redis(site), stopped_at(site, step) as worker:
            if is_free(site.home / "log" / "log.db"):
                lose_the_group_lock(site)
                yield site, worker
                return
            worker.kill()
    raise AssertionError("its other threads were always writing")


def is_free(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection, suppress(sqlite3.OperationalError):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return True
    return False


def assert_harmless(new_site: NewSite, reference: Outcome, step: str) -> Site:
    """A successor finishes; then the worker that stood still has its say, and nothing changes."""
    with zombie_of(new_site, step) as (site, zombie):
        site.run_until_caught_up()
        assert site.outcome() == reference, step
        go_on(zombie)
        wait_until_restarted(zombie)
        wait_until_caught_up(zombie)
        assert zombie.stop() == 0, zombie.last_lines(30)
    assert site.problems() == (), step
    assert site.outcome() == reference, step
    return site


def test_a_worker_that_wakes_up_behind_its_successor_changes_nothing(new_site: NewSite, reference: Outcome) -> None:
    """It stood still at a step while another took over and finished; what it had on its way is refused, or stands once."""
    with ThreadPoolExecutor(2) as threads:
        sites = list(threads.map(lambda step: assert_harmless(new_site, reference, step), STEPS))
    refused = [times_logged(site, "state.refused") for site in sites]
    assert refused == [0, 0, 1, 1], "old state must not be written over new"


def test_two_workers_at_the_same_time_end_as_one(new_site: NewSite, reference: Outcome) -> None:
    """Both read all partitions and commit as fast as they can: each window lands from one of them, the other is fenced and reads on."""
    site = new_site("two")
    with shared_redis(site), stopped_at(site, "restore:1") as first:
        lose_the_group_lock(site)
        with site.worker(K2_CRASH_AT="restore:1:SIGSTOP") as second:
            wait_until_stopped(second)
            go_on(first)
            go_on(second)
            wait_until_caught_up(first)
            wait_until_caught_up(second)
            assert (first.stop(), second.stop()) == (0, 0), first.last_lines(30)
    assert times_logged(site, "capture.restart")
    assert site.problems() == ()
    assert site.outcome() == reference
