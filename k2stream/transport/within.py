"""Work that has to end in time, and is left behind if it does not."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from k2stream.clock import Deadline

MIN_GRACE_SECONDS = 0.2
"""Offsets are committed even if the windows took the whole budget: it is one short request."""


async def within(deadline: Deadline, work: Coroutine[Any, Any, Any], *, log: Any) -> None:
    """Wait for `work` as long as the deadline allows; then cancel it and go on. What it raises is logged. `log` is a Faust service's.

    Not `asyncio.wait_for`: that waits for the cancelled task to end, and a commit's thread cannot be cancelled.
    """
    name, task = getattr(work, "__qualname__", "a step"), asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=max(deadline.remaining_seconds(), MIN_GRACE_SECONDS))
    if not done:
        task.cancel()
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        log.warning("Partitions are taken away and %s did not end in time; it is left to the fence.", name)
    elif task.exception() is not None:
        log.error("%s failed while partitions are taken away: %r", name, task.exception())
