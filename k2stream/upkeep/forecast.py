"""What the present settings make of a table in a day, and settings that would do better; pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

DAY_SECONDS = 86_400
FIRST_TIER_BYTES = 64 << 10
FRESH_SECONDS = 60.0
"""Nobody waits longer for a row than so, whatever it would save."""
FILES_A_DAY = 20_000
"""So many small files a day are merged with a hundredth of a core, and planned in no time between two runs."""
COMMITS_A_SECOND = 2.0
"""Workers that commit more often than this to one table spend their time waiting for each other."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What arrives, and in how many parts."""

    rows_a_second: float
    bytes_a_row: float
    """On the disk, compressed."""
    partitions_a_window: float
    """Files of one window: days times exchanges."""
    workers: int


@dataclass(frozen=True, slots=True)
class Knobs:
    """The settings that decide."""

    window_ms: int
    window_rows: int
    upkeep_ms: int
    target_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """A day of these settings."""

    commits_a_second: float
    fresh_seconds: float
    """Age of a row when it can be asked for, at most."""
    files_a_day: float
    """Before compaction."""
    file_bytes: float
    bytes_a_day: float
    files_kept_a_day: float
    """After compaction of a day that is over."""
    small_files_between_runs: float
    """How many files a query may find beside the large ones."""

    def as_json(self) -> dict[str, float]:
        """For programs."""
        return asdict(self)


def forecast(flow: Flow, knobs: Knobs) -> Forecast:
    """A day of `flow` under `knobs`; without rows nothing is committed."""
    rows_a_worker = flow.rows_a_second / max(1, flow.workers)
    if rows_a_worker <= 0:
        return Forecast(0, knobs.window_ms / 1000, 0, 0, 0, 0, 0)
    window_seconds = min(knobs.window_ms / 1000, knobs.window_rows / rows_a_worker)
    commits = flow.workers / window_seconds
    files_a_second = commits * max(1.0, flow.partitions_a_window)
    bytes_a_second = flow.rows_a_second * flow.bytes_a_row
    bytes_a_day = bytes_a_second * DAY_SECONDS
    kept = max(max(1.0, flow.partitions_a_window), bytes_a_day / knobs.target_bytes)
    between = files_a_second * (knobs.upkeep_ms / 1000 if knobs.upkeep_ms else DAY_SECONDS)
    return Forecast(commits, window_seconds, files_a_second * DAY_SECONDS, bytes_a_second / files_a_second, bytes_a_day, kept, between)


def suggested(flow: Flow, knobs: Knobs) -> tuple[Knobs, Sequence[str]]:
    """Better settings, with a sentence for each that changes; the same if there is nothing to better."""
    now, says = forecast(flow, knobs), list[str]()
    window_ms, target_bytes, upkeep_ms = knobs.window_ms, knobs.target_bytes, knobs.upkeep_ms
    if now.files_a_day:
        least = max(
            flow.workers / COMMITS_A_SECOND,
            flow.workers * max(1.0, flow.partitions_a_window) * DAY_SECONDS / FILES_A_DAY,
        )
        window_ms = round(min(max(now.fresh_seconds, least), max(FRESH_SECONDS, now.fresh_seconds)) * 1000)
    if window_ms > now.fresh_seconds * 1000 * 1.05:
        says.append(
            f"K2_WINDOW_MS={window_ms}: {now.files_a_day:,.0f} files a day of {now.file_bytes / 1024:,.0f} kB become "
            f"{now.files_a_day * now.fresh_seconds * 1000 / window_ms:,.0f}; rows can be asked for after {window_ms / 1000:.0f} s at most"
        )
    else:
        window_ms = knobs.window_ms
    if not upkeep_ms and now.files_a_day:
        upkeep_ms = 600_000
        says.append(f"K2_UPKEEP_MS={upkeep_ms}: without upkeep {now.files_a_day:,.0f} files a day stay as small as they are")
    if now.bytes_a_day / max(1.0, flow.partitions_a_window) > 20 * target_bytes and target_bytes < 512 << 20:
        target_bytes = 512 << 20
        says.append(f"K2_COMPACT_TARGET_BYTES={target_bytes}: a day of {now.bytes_a_day / (1 << 30):,.1f} GB is {now.bytes_a_day / target_bytes:,.0f} files")
    return Knobs(window_ms, knobs.window_rows, upkeep_ms, target_bytes), says
