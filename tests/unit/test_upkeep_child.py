"""Upkeep that cannot be started, or that hangs, costs a worker neither itself nor its lead."""

import asyncio
import resource
import sys
import threading
import time

import pytest

from k2stream import metrics
from k2stream.upkeep import lease
from k2stream.upkeep.child import run_upkeep
from k2stream.upkeep.lease import redis_lease

HANGS = (sys.executable, "-c", "import time; time.sleep(600)")


def postponed() -> float:
    return metrics.REGISTRY.get_sample_value("k2_upkeep_postponed_total", {"task": "run"}) or 0


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
