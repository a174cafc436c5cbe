"""Upkeep in a process of its own, beside the worker: what it takes of memory is bounded there, and what it does wrong ends there."""

import asyncio
import sys
from contextlib import suppress
from typing import Any

import orjson
import structlog

from k2stream import metrics
from k2stream.settings import process_environment

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-m", "k2stream.cli", "upkeep", "run", "--lead", "--child", "--json")


async def run_upkeep() -> dict[str, Any] | None:
    """Run all tasks if this group has no other leader; what they say, or None if they said nothing. Cancelled, it ends its process."""
    environment = {**process_environment(), "K2_CRASH_AT": ""}  # an order to die is this process's own
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()  # every step of it may be the last
            await process.wait()
    try:
        found: dict[str, Any] = orjson.loads(said)
    except orjson.JSONDecodeError:
        log.warning("upkeep.failed", exit_code=process.returncode, says=errors.decode(errors="replace")[-500:])
        metrics.UPKEEP_POSTPONED.labels("run").inc()
        return None
    tell(found)
    return found


def tell(found: dict[str, Any]) -> None:
    """Count what was done."""
    for report in found.get("reports", ()):
        for what, count in report["counts"].items():
            if what in metrics.UPKEEP_COUNTS:
                metrics.UPKEEP_DONE.labels(report["task"], what).inc(count)
        if report["trouble"]:
            metrics.UPKEEP_POSTPONED.labels(report["task"]).inc()
            log.warning("upkeep.postponed", task=report["task"], table=report["table"], cause=report["trouble"])
