"""Keeps the tables healthy: small files merged, old snapshots and unnamed files let go, days past their time taken out.

Topic in:   none; a timer, every K2_UPKEEP_MS
Effect:     `k2 upkeep run` in a process of its own, on one worker of the group; `/state` shows what it did last
Guarantee:  inside the commit protocol: no row more, less or other than before, whatever crashes or races; two leaders lose work, never rows
"""

from typing import Any

from agents import app
from k2stream import metrics
from k2stream.upkeep.child import run_upkeep

last_run: dict[str, Any] = {}


async def keep_healthy() -> None:
    """Take the lead if nobody has it, and do what is due."""
    found = await run_upkeep()
    if found is not None and found["led"]:
        last_run.update(found)


if app.settings.upkeep_ms:
    metrics.begin_upkeep(app.settings.upkeep_ms / 1000)
    app.timer(interval=app.settings.upkeep_ms / 1000, name="upkeep")(keep_healthy)

app.on_report("upkeep", lambda: last_run)
