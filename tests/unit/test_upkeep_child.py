"""Upkeep that cannot be started, or that hangs, costs a worker neither itself nor its lead."""

import asyncio
import resource
import sys
import threading
import time

import pytest

from k2stream import metrics
from k2stream.upkeep import lease
from k2stream.upkeep.child import run_upkeep, tell
from k2stream.upkeep.lease import redis_lease

HANGS = (sys.executable, "-c", "import time; time.sleep(600)")


def postponed() -> float:
    return metrics.REGISTRY.get_sample_value("k2_upkeep_postponed_total", {"task": "run"}) or 0


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def reports(**trouble: str | None) -> list[dict[str, object]]:
    """What a run says of one table."""
    return [{"task": task, "table": "trades", "counts": {}, "trouble": why} for task, why in trouble.items()]


def test_a_task_that_was_put_off_has_not_succeeded() -> None:
    """One that fails on one table every time would else look as well as any other; who does not lead has no word in it."""
    metrics.UPKEEP_SUCCEEDED.clear()
    metrics.begin_upkeep(600)
    tell({"led": True, "reports": [*reports(compact=None, orphans=None), *reports(compact="no room", orphans=None)]})
    assert value("k2_upkeep_succeeded_timestamp_seconds", task="compact") == 0
    succeeded = value("k2_upkeep_succeeded_timestamp_seconds", task="orphans")
    assert abs((succeeded or 0) - time.time()) < 300
    tell({"led": False})
    assert value("k2_upkeep_succeeded_timestamp_seconds", task="orphans") == succeeded
    tell({"led": True, "reports": reports(compact=None, orphans=None)})
    assert (value("k2_upkeep_succeeded_timestamp_seconds", task="compact") or 0) >= (succeeded or 0)


def test_a_worker_that_leads_no_more_shows_no_tables() -> None:
    """Its numbers would stand still for ever beside those of the leader, and the larger ones would be believed."""
    tell({"led": True, "reports": [], "tables": [{"table": "trades", "files": 9, "small_files": 7}, {"table": "gaps", "files": 1, "small_files": 1}]})
    assert (value("k2_table_files", table="trades"), value("k2_table_small_files", table="trades")) == (9, 7)
    tell({"led": True, "reports": [], "tables": [{"table": "trades", "files": 1, "small_files": 0}]})
    assert (value("k2_table_files", table="trades"), value("k2_table_files", table="gaps")) == (1, None)
    tell({"led": False})
    assert value("k2_table_files", table="trades") is None


def test_a_worker_that_cannot_start_a_process_goes_on() -> None:
    """No file is left for its pipes: it is counted and done at the next run, not raised into the worker's timer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> object:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            return await run_upkeep(command=HANGS)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    before = postponed()
    assert asyncio.run(run()) is None
    assert postponed() == before + 1


def test_upkeep_that_hangs_is_ended_and_counted() -> None:
    """Its process goes, and with it a lock under K2_HOME; the next run is the timer's again."""
    before, started = postponed(), time.monotonic()
    assert asyncio.run(run_upkeep(command=HANGS, limit_seconds=0.1)) is None
    assert postponed() == before + 1
    assert time.monotonic() - started < 300


def test_a_leader_that_hangs_does_not_lead_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its limit the lease is no longer renewed, so it expires and another takes it."""
    monkeypatch.setattr(lease, "LEASE_MS", 30)
    renewed = threading.Event()

    def redis(*_: object) -> int:
        renewed.set()
        return 1

    with redis_lease(redis, "app", rest_ms=0, limit_seconds=0.5) as is_ours:
        assert is_ours
        renewed.clear()
        assert renewed.wait(60)
        keepers = [thread for thread in threading.enumerate() if thread.name == "upkeep-lease"]
        for keeper in keepers:
            keeper.join(60)
        assert [keeper.is_alive() for keeper in keepers] == [False]
