"""A lake in many small files, and what keeps it healthy."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from k2stream.clock import SystemClock
from k2stream.lake.commit import Committer
from k2stream.lake.compaction import Compaction, Limits
from k2stream.lake.table import RowsLake, no_step
from k2stream.query.engine import Engine
from k2stream.upkeep.sameness import is_same
from k2stream.upkeep.tasks import Upkeep
from tests.integration.lake_site import LakeSite, soon, window

LIMITS = Limits(target_bytes=256 << 20, min_files=8, memory_bytes=64 << 20, stale_after_us=3_600_000_000, commit_seconds=60)


def filled(site: LakeSite, windows: int, *, rows: int = 3) -> RowsLake:
    """A worker whose table holds so many files."""
    worker = site.started()
    for number in range(windows):
        worker.commit(worker.write(window(number + 1, number * rows, (number + 1) * rows)), soon())
    return worker


def compaction(
    site: LakeSite, lake: RowsLake, *, limits: Limits = LIMITS, on_step: Callable[[str], None] = no_step, name: str = "trades", **changed: Any
) -> Compaction:
    """What merges the files of a table of `lake`'s catalog."""
    committer = Committer(lake.catalog, (site.settings.namespace, name), worker_id="upkeep", on_step=on_step, step="compact.3")
    arguments: dict[str, Any] = {"spill": Path(site.settings.home), "is_same": partial(is_same, Engine.of(site.settings)), "clock": SystemClock(), **changed}
    return Compaction(committer, limits, on_step=on_step, is_synced=False, **arguments)


def upkeep_of(site: LakeSite, **arguments: Any) -> Upkeep:
    """All tasks on the site's tables; its catalog is closed with the others."""
    upkeep = Upkeep(site.settings, **arguments)
    site.opened.append(upkeep.catalog)
    return upkeep


def sorted_rows(site: LakeSite, name: str = "trades") -> pa.Table:
    """All rows in the order of their origin."""
    return site.rows(name).sort_by([("topic", "ascending"), ("partition", "ascending"), ("offset", "ascending")])
