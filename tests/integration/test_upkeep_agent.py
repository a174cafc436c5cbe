"""The agent in real workers: one of them does the upkeep, the others see that it is done."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from k2stream.clock import SystemClock
from k2stream.dev.service import Service
from k2stream.errors import StateError
from k2stream.upkeep.lease import file_lease, redis_lease
from k2stream.worker_process import WorkerProcess
from tests.integration.lake_site import LakeSite
from tests.integration.upkeep_site import filled

ROOT = Path(__file__).parents[2]


def test_a_worker_keeps_its_tables_healthy_by_itself(tmp_path: Path) -> None:
    """Small files are merged without anybody asking, and `/state` shows it; an order to die that is the worker's own is left to it."""
    site = LakeSite(tmp_path / "k2")
    filled(site, 10).close()
    order = tmp_path / "order"
    order.write_text("3.after", encoding="ascii")
    environment = {"K2_UPKEEP_MS": "1000", "K2_FSYNC": "false", "K2_CRASH_AT": f"@{order}"}
    with WorkerProcess(home=tmp_path / "k2", root=ROOT, log_path=tmp_path / "log", environment=environment) as worker:
        until = time.monotonic() + 120
        while not any(r["counts"].get("files_before") for r in ((worker.state() or {}).get("upkeep") or {}).get("reports", ())):
            assert worker.exit_code() is None, (tmp_path / "log").read_text(encoding="utf-8")
            assert time.monotonic() < until, (tmp_path / "log").read_text(encoding="utf-8")
            time.sleep(0.2)
    assert order.exists()
    assert site.snapshots("compaction") == 1
    assert site.offsets() == list(range(30))


def test_of_two_processes_of_a_home_one_leads(tmp_path: Path) -> None:
    """The other is told so at once; after a run nobody leads until it is time again."""
    now_us = SystemClock().now_us()
    with file_lease(tmp_path / "lease", rest_ms=60_000, now_us=now_us) as first, file_lease(tmp_path / "lease", rest_ms=60_000, now_us=now_us) as second:
        assert (first, second) == (True, False)
    with file_lease(tmp_path / "lease", rest_ms=60_000, now_us=now_us + 59_000_000) as early:
        assert not early
    with file_lease(tmp_path / "lease", rest_ms=60_000, now_us=now_us + 61_000_000) as later:
        assert later


def test_a_redis_that_does_not_answer_keeps_nobody_from_upkeep() -> None:
    """The lease is advice: the required head keeps two leaders right."""

    def gone(*_: object) -> int:
        raise StateError("away")

    with redis_lease(gone, "app", rest_ms=0) as is_ours:
        assert is_ours


@pytest.mark.redis
def test_of_workers_that_share_a_redis_one_leads(redis: Service) -> None:
    """Until it is done, and for the rest of the time between two runs."""
    from k2stream.state.redis import RedisStore

    with ExitStack() as stack:
        stores = [RedisStore(redis.exports()["K2_REDIS_URL"], app_id="upkeep-test") for _ in range(2)]
        for store in stores:
            stack.callback(store.close)
        app = f"upkeep-{time.time_ns()}"
        with redis_lease(stores[0].evaluate, app, rest_ms=300) as first, redis_lease(stores[1].evaluate, app, rest_ms=300) as second:
            assert (first, second) == (True, False)
        with redis_lease(stores[1].evaluate, app, rest_ms=300) as early:
            assert not early
        until = time.monotonic() + 30
        while True:
            with redis_lease(stores[1].evaluate, app, rest_ms=0) as later:
                if later:
                    break
            assert time.monotonic() < until
            time.sleep(0.05)
