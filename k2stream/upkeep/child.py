"""Upkeep in a process of its own, beside the worker: what it takes of memory is bounded there, and what it does wrong ends there."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson
import structlog

from k2stream import metrics
from k2stream.clock import SystemClock
from k2stream.settings import process_environment
from k2stream.upkeep.lease import LIMIT_SECONDS

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-m", "k2stream.cli", "upkeep", "run", "--lead", "--child", "--json")


async def run_upkeep(*, command: Sequence[str] = COMMAND, limit_seconds: float = LIMIT_SECONDS) -> dict[str, Any] | None:
    """Run all tasks if this group has no other leader; what they say, or None if they said nothing.

    Its process ends when this is cancelled and after `limit_seconds`. Raises nothing: a worker goes on without upkeep.
    """
    environment = {**process_environment(), "K2_CRASH_AT": ""}  # an order to die is this process's own
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    except OSError as exc:  # no memory, no process or no file left for it
        _failed(cause=f"its process was not started: {exc}")
        return None
    try:
        said, errors = await asyncio.wait_for(process.communicate(), limit_seconds)
    except TimeoutError:
        _failed(cause=f"not done after {limit_seconds:g} s, so its process was ended")
        return None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()  # every step of it may be the last
            await process.wait()
    try:
        found: dict[str, Any] = orjson.loads(said)
    except orjson.JSONDecodeError:
        _failed(exit_code=process.returncode, says=errors.decode(errors="replace")[-500:])
        return None
    tell(found)
    return found


def _failed(**why: object) -> None:
    log.warning("upkeep.failed", **why)
    metrics.UPKEEP_POSTPONED.labels("run").inc()


def tell(found: dict[str, Any]) -> None:
    """Count what was done, and by a leader which tasks came to their end on all tables."""
    reports = found.get("reports", ())
    for report in reports:
        for what, count in report["counts"].items():
            if what in metrics.UPKEEP_COUNTS:
                metrics.UPKEEP_DONE.labels(report["task"], what).inc(count)
        if report["trouble"]:
            metrics.UPKEEP_POSTPONED.labels(report["task"]).inc()
            log.warning("upkeep.postponed", task=report["task"], table=report["table"], cause=report["trouble"])
    if found["led"]:
        now_seconds = SystemClock().now_us() / 1_000_000
        for task in set(metrics.UPKEEP_TASKS) - {report["task"] for report in reports if report["trouble"]}:
            metrics.UPKEEP_SUCCEEDED.labels(task).set(now_seconds)
    metrics.show_tables({health["table"]: (health["files"], health["small_files"]) for health in found.get("tables", ())})
