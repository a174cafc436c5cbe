"""Every metric, declared once; nothing else imports prometheus_client. docs/metrics.md lists them.

Values are told once a window, a fetch or a rebalance, never once a row. Labels come from fixed lists, but for topic and
partition of the lag, which are the partitions this worker owns.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from k2stream.records import TopicPartition

CONTENT_TYPE = CONTENT_TYPE_LATEST

disable_created_metrics()  # type: ignore[no-untyped-call] # they double the series and nobody asks for them
REGISTRY = CollectorRegistry()

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Bounds of what takes seconds; the last is the default budget of a commit."""
WAIT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
LATENCY_SECONDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0)
WINDOW_ROWS = (1, 100, 1_000, 10_000, 50_000, 100_000, 250_000, 500_000)
WINDOW_BYTES = (1 << 16, 1 << 20, 4 << 20, 16 << 20, 48 << 20, 96 << 20)


class RecordLatency(Collector):
    """A histogram that counts a whole log batch of records in one step."""

    def __init__(self, name: str, documentation: str, *, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self.name, self.documentation, self._bounds = name, documentation, tuple(bounds)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._lock = Lock()
        registry.register(self)

    def observe(self, data_type: str, latencies: Iterable[tuple[float, int]]) -> None:
        """Count pairs of (seconds, how many records); a clock that ran ahead counts as 0."""
        with self._lock:
            counts = self._counts.setdefault(data_type, [0] * (len(self._bounds) + 1))
            total = self._sums.get(data_type, 0.0)
            for seconds, records in latencies:
                counts[bisect_left(self._bounds, seconds)] += records
                total += max(seconds, 0.0) * records
            self._sums[data_type] = total

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape sees."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=["data_type"])
        with self._lock:
            for data_type, counts in self._counts.items():
                bounds = [*(str(bound) for bound in self._bounds), "+Inf"]
                running = [float(sum(counts[: i + 1])) for i in range(len(counts))]
                family.add_metric([data_type], list(zip(bounds, running, strict=True)), self._sums[data_type])
        yield family


# What became of the records.
ROWS = Counter("k2_rows", "Rows committed", ["data_type"], registry=REGISTRY)
DUPLICATES = Counter("k2_duplicates", "Records whose native id is in the table already", ["data_type"], registry=REGISTRY)
DEAD_LETTERS = Counter("k2_dead_letters", "Records that became a dead letter, by reason", ["data_type", "reason"], registry=REGISTRY)
MARKERS = Counter("k2_markers", "Session starts and reconnects told by feeds", ["data_type"], registry=REGISTRY)
HOLES = Counter("k2_holes", "Offsets without a record, each explained", ["data_type"], registry=REGISTRY)
GAP_EVENTS = Counter("k2_gap_events", "Sequence gaps opened, shrunk and filled, and resets", ["data_type", "kind"], registry=REGISTRY)
UNKNOWN_INSTRUMENTS = Counter("k2_unknown_instrument_rows", "Rows of symbols without reference data; `/state` names them", ["data_type"], registry=REGISTRY)
QUALITY_FLAGS = Counter("k2_quality_flags", "What was odd about committed rows, and duplicates, by flag", ["data_type", "flag"], registry=REGISTRY)
FETCHED_BYTES = Counter("k2_fetched_bytes", "Bytes of log batches as fetched, compressed", ["data_type"], registry=REGISTRY)
DECODED_BYTES = Counter("k2_decoded_bytes", "Bytes of committed windows as decoded, in memory", ["data_type"], registry=REGISTRY)

# Windows and commits.
WINDOW_SIZE_ROWS = Histogram("k2_window_rows", "Rows of a committed window, duplicates included", ["data_type"], buckets=WINDOW_ROWS, registry=REGISTRY)
WINDOW_SIZE_BYTES = Histogram("k2_window_bytes", "Decoded bytes of a committed window", ["data_type"], buckets=WINDOW_BYTES, registry=REGISTRY)
WINDOW_AGE = Histogram("k2_window_age_seconds", "From a window's first batch to its commit", ["data_type"], buckets=SECONDS, registry=REGISTRY)
COMMITS = Counter("k2_commits", "Windows committed", ["data_type"], registry=REGISTRY)
COMMIT_SECONDS = Histogram("k2_commit_seconds", "Steps 2 to 6 of a commit, retries included", ["data_type"], buckets=SECONDS, registry=REGISTRY)
COMMIT_CONFLICTS = Counter("k2_commit_conflicts", "Tries of a commit that lost a race and were made again", ["table"], registry=REGISTRY)
COMMITS_UNKNOWN = Counter("k2_commits_unknown", "Tries of a commit whose outcome had to be looked up", ["table"], registry=REGISTRY)
TURN_WAIT = Histogram("k2_turn_wait_seconds", "How long a commit waited for its turn", ["table"], buckets=WAIT_SECONDS, registry=REGISTRY)
TURNS_MISSED = Counter("k2_turns_missed", "Commits tried without a turn, as Redis did not answer or the queue did not move", ["table"], registry=REGISTRY)
FENCED = Counter("k2_fenced", "Windows dropped because another writer had moved their partitions", ["data_type"], registry=REGISTRY)
LATENCY = RecordLatency(
    "k2_latency_seconds", "From a record's timestamp, its log batch's first, to its commit", bounds=LATENCY_SECONDS, registry=REGISTRY
)
LAST_COMMIT = Gauge("k2_last_commit_timestamp_seconds", "When the newest window was committed; 0 before the first", ["data_type"], registry=REGISTRY)
WATERMARK = Gauge("k2_watermark_timestamp_seconds", "Newest event time of the newest committed window", ["data_type"], registry=REGISTRY)

# Partitions.
PARTITIONS = Gauge("k2_partitions", "Partitions this worker owns", ["data_type"], registry=REGISTRY)
STOPPED = Gauge("k2_partitions_stopped", "Partitions that stand still until somebody acts", ["data_type"], registry=REGISTRY)
LAG = Gauge("k2_lag_offsets", "Offsets of owned partitions in the log that are not in the table yet, as last seen", ["data_type"], registry=REGISTRY)
PARTITION_LAG = Gauge("k2_partition_lag_offsets", "The same for each owned partition", ["data_type", "topic", "partition"], registry=REGISTRY)
RESTARTS = Counter("k2_restarts", "Times partitions were read again from the table's vector", ["data_type"], registry=REGISTRY)
REBALANCES = Counter("k2_rebalances", "Times the group shared its partitions out anew, as seen by this worker", registry=REGISTRY)
REBALANCE_PAUSE = Histogram(
    "k2_rebalance_pause_seconds", "From partitions taken away to the first one read again", buckets=SECONDS, registry=REGISTRY
)
REBALANCE_COMMIT_PAUSE = Histogram(
    "k2_rebalance_commit_pause_seconds", "From partitions taken away to the next commit", buckets=SECONDS, registry=REGISTRY
)

# Upkeep, as the worker that leads it counts.
UPKEEP_COUNTS = ("files_before", "files_after", "rows", "bytes", "snapshots", "pins", "files", "days")
UPKEEP_TASKS = ("compact", "expire", "orphans", "retention")
UPKEEP_DONE = Counter("k2_upkeep_done", "What upkeep did: files it merged and made, snapshots, files and days it let go", ["task", "what"], registry=REGISTRY)
UPKEEP_POSTPONED = Counter("k2_upkeep_postponed", "Tasks of upkeep that did not come to their end; the next run does them", ["task"], registry=REGISTRY)
UPKEEP_SUCCEEDED = Gauge(
    "k2_upkeep_succeeded_timestamp_seconds", "When a task of upkeep last came to its end on all tables; 0 before the first time", ["task"], registry=REGISTRY
)
UPKEEP_INTERVAL = Gauge("k2_upkeep_interval_seconds", "How often upkeep is to run: K2_UPKEEP_MS", registry=REGISTRY)
TABLE_FILES = Gauge("k2_table_files", "Data files of a table after upkeep, as its leader saw them", ["table"], registry=REGISTRY)
TABLE_SMALL_FILES = Gauge("k2_table_small_files", "Of these, files below half of K2_COMPACT_TARGET_BYTES", ["table"], registry=REGISTRY)

# State and process.
STATE_SAVES = Counter("k2_state_saves", "Partitions whose state was saved to Redis", registry=REGISTRY)
STATE_FAILURES = Counter("k2_state_save_failures", "Partitions whose state was not saved, by cause", ["cause"], registry=REGISTRY)
STAGE_CPU = Counter("k2_stage_cpu_seconds", "CPU a stage took on its own thread", ["stage"], registry=REGISTRY)
HEALTHY = Gauge("k2_healthy", "1 while nothing is wrong, 0 while /healthz names a cause", registry=REGISTRY)
UNHEALTHY = Gauge("k2_unhealthy", "1 for each kind of cause that /healthz names now", ["cause"], registry=REGISTRY)
ProcessCollector(registry=REGISTRY)


def begin(data_type: str, *, reasons: Iterable[str], kinds: Iterable[str], flags: Iterable[str] = ()) -> None:
    """Show a data type's counters at nothing: one that is born with its first event hides it from every rate."""
    for counter in (ROWS, DUPLICATES, MARKERS, HOLES, FETCHED_BYTES, DECODED_BYTES, COMMITS, FENCED, RESTARTS, STOPPED, LAST_COMMIT):
        counter.labels(data_type)
    for reason in reasons:
        DEAD_LETTERS.labels(data_type, reason)
    for kind in kinds:
        GAP_EVENTS.labels(data_type, kind)
    for flag in flags:
        QUALITY_FLAGS.labels(data_type, flag)


def begin_upkeep(interval_seconds: float) -> None:
    """Show what upkeep puts off, and when it last succeeded, at nothing: only where it is to run, so that nothing is missed elsewhere."""
    UPKEEP_INTERVAL.set(interval_seconds)
    UPKEEP_POSTPONED.labels("run")
    for task in UPKEEP_TASKS:
        UPKEEP_POSTPONED.labels(task)
        UPKEEP_SUCCEEDED.labels(task)


def show_tables(files: Mapping[str, tuple[int, int]]) -> None:
    """Tell of each table how many files it has and how many of them are small; nothing where this worker does not lead."""
    TABLE_FILES.clear()
    TABLE_SMALL_FILES.clear()
    for table, (count, small) in files.items():
        TABLE_FILES.labels(table).set(count)
        TABLE_SMALL_FILES.labels(table).set(small)


def show_health(causes: Iterable[str]) -> None:
    """Tell what /healthz says; of a cause's name only the first word, for the rest names partitions."""
    kinds = {name.split()[0] for name in causes}
    HEALTHY.set(not kinds)
    UNHEALTHY.clear()
    for kind in kinds:
        UNHEALTHY.labels(kind).set(1)


def show_lag(data_type: str, lags: Mapping[TopicPartition, int]) -> None:
    """Tell the lag of every owned partition of a data type; those not named are no longer this worker's."""
    PARTITION_LAG.remove_by_labels({"data_type": data_type})
    for (topic, partition), lag in lags.items():
        PARTITION_LAG.labels(data_type, topic, str(partition)).set(lag)
    PARTITIONS.labels(data_type).set(len(lags))
    LAG.labels(data_type).set(sum(lags.values()))


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    text: bytes = generate_latest(REGISTRY)
    return text
