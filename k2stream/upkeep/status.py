"""How healthy a table is: files, bytes, snapshots, pins, and what a plan of it costs."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from k2stream.errors import LakeError
from k2stream.lake.commit import Committer
from k2stream.lake.head import summary_of
from k2stream.lake.overwrite import live_files
from k2stream.lake.pins import pins_of
from k2stream.lake.trouble import translated
from k2stream.upkeep.forecast import Flow

log = structlog.get_logger(__name__)

MEASURED = 20
"""Newest windows that the present flow is taken from."""


@dataclass(frozen=True, slots=True)
class Health:
    """One table as it is now."""

    table: str
    rows: int
    files: int
    small_files: int
    """Below half of the target size."""
    size_bytes: int
    partitions: int
    manifests: int
    snapshots: int
    pins: int
    metadata_bytes: int
    """Of the file that every commit writes anew."""
    planning_ms: float
    """What reading the lists of its files takes."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        return (
            f"{self.table}: {self.rows:,} rows in {self.files:,} files ({self.small_files:,} small), {self.size_bytes / (1 << 20):,.1f} MB, "
            f"{self.partitions} partitions; {self.snapshots} snapshots ({self.pins} pinned), {self.manifests} manifests, "
            f"metadata {self.metadata_bytes / 1024:,.0f} kB, planned in {self.planning_ms:.0f} ms"
        )


def health_of(committer: Committer, target_bytes: int) -> Health:
    """Look at the head as it is now; raises LakeError."""
    table = committer.load()
    with translated("read the list of data files", table.location()):
        started = time.perf_counter()
        files = live_files(table).values()
        planning_ms = (time.perf_counter() - started) * 1000
        snapshot = table.current_snapshot()
        return Health(
            committer.name[1],
            sum(f.record_count for f in files),
            len(files),
            sum(f.file_size_in_bytes < target_bytes // 2 for f in files),
            sum(f.file_size_in_bytes for f in files),
            len({(f.spec_id, str(f.partition)) for f in files}),
            len(snapshot.manifests(table.io)) if snapshot else 0,
            len(table.metadata.snapshots),
            sum(1 for _ in pins_of(table)),
            len(table.io.new_input(table.metadata_location)),
            planning_ms,
        )


def healths_of(committers: Iterable[Committer], target_bytes: int) -> list[Health]:
    """The same of many tables; one that cannot be read just now is left out."""
    found = list[Health]()
    for committer in committers:
        try:
            found.append(health_of(committer, target_bytes))
        except LakeError as exc:
            log.info("table.unread", table=committer.name[1], cause=str(exc))
    return found


def flow_of(committer: Committer) -> Flow | None:
    """What arrived with the newest windows that are kept; None without two of them. Raises LakeError."""
    table = committer.load()
    kept = sorted(table.metadata.snapshots, key=lambda s: s.sequence_number or 0)
    windows = [(s, summary_of(s)) for s in kept if summary_of(s).get("k2.kind") == "window" and "added-records" in summary_of(s)][-MEASURED:]
    seconds = (windows[-1][0].timestamp_ms - windows[0][0].timestamp_ms) / 1000 if len(windows) > 1 else 0
    if seconds <= 0:
        return None
    said = [summary for _, summary in windows[1:]]
    rows, files, size = (sum(int(s.get(name, 0)) for s in said) for name in ("added-records", "added-data-files", "added-files-size"))
    workers = len({s.get("k2.worker-id") for s in said})
    return Flow(rows / seconds, size / max(1, rows), files / len(said), workers)
