"""What a capture has done since it started, for pages, metrics and the demo's progress line."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from k2stream import metrics
from k2stream.clock import Clock
from k2stream.gaps import Kind
from k2stream.lake.offsets import Counts, Vector
from k2stream.pipeline import Settled
from k2stream.quality.flags import Flag
from k2stream.quality.tally import Tally
from k2stream.records import TopicPartition
from k2stream.verdict import Reason
from k2stream.window import OpenWindow


@dataclass(slots=True)
class Progress:
    """Counts since the worker started; the ledger in `vector` is cumulative since the table's start."""

    data_type: str
    counts: Counts = field(default_factory=Counts)
    events: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    flags: Tally = field(default_factory=Tally)
    commits: int = 0
    restarts: int = 0
    last_commit_at: float | None = None
    """Monotonic seconds."""
    vector: Vector = field(default_factory=dict)
    log_ends: dict[TopicPartition, int] = field(default_factory=dict)
    owned: set[TopicPartition] = field(default_factory=set)

    def __post_init__(self) -> None:
        metrics.begin(self.data_type, reasons=Reason, kinds=Kind, flags=Flag)

    def assigned(self, vector: Vector, tps: set[TopicPartition], log_ends: Mapping[TopicPartition, int]) -> None:
        self.vector, self.owned, self.log_ends = dict(vector), set(tps), dict(log_ends)
        metrics.show_lag(self.data_type, self.lags())

    def fetched(self, size_bytes: int) -> None:
        metrics.FETCHED_BYTES.labels(self.data_type).inc(size_bytes)

    def revoked(self) -> None:
        """Nothing is owned until the next assignment."""
        self.owned = set()
        metrics.show_lag(self.data_type, {})

    def committed(self, settled: Settled, vector: Vector, now: float) -> None:
        for counts in settled.deltas.values():
            self.counts += counts
        self.events.update(settled.events["kind"].to_pylist())
        self.reasons.update(r.reason.value for r in settled.rejects)
        for flag, count in self.flags.add(settled.flags).items():
            metrics.QUALITY_FLAGS.labels(self.data_type, flag).inc(count)
        self.commits += 1
        self.last_commit_at = now
        self.vector = dict(vector)
        self._measure(settled)

    def ends(self, log_ends: Mapping[TopicPartition, int]) -> None:
        """Where the log ends now."""
        self.log_ends.update(log_ends)
        metrics.show_lag(self.data_type, self.lags())

    def restarted(self, tps: set[TopicPartition]) -> None:
        """These are read again from the table: until its vector was read, a lag of what was known before would be a lie.

        Metrics keep the last one meanwhile: an alert of lag must not end because the table cannot be read.
        """
        self.owned -= tps
        self.restarts += 1
        metrics.RESTARTS.labels(self.data_type).inc()

    def fenced(self) -> None:
        metrics.FENCED.labels(self.data_type).inc()

    def stopped(self, partitions: int) -> None:
        """So many partitions stand still until somebody acts."""
        metrics.STOPPED.labels(self.data_type).set(partitions)

    @contextmanager
    def commit_timed(self) -> Iterator[None]:
        """Around steps 2 to 6; one that fails counts too."""
        with metrics.COMMIT_SECONDS.labels(self.data_type).time():
            yield

    def _measure(self, settled: Settled) -> None:
        for counts in settled.deltas.values():
            metrics.ROWS.labels(self.data_type).inc(counts.rows)
            metrics.DUPLICATES.labels(self.data_type).inc(counts.duplicates)
            metrics.MARKERS.labels(self.data_type).inc(counts.markers)
            metrics.HOLES.labels(self.data_type).inc(counts.holes)
        for reason, count in Counter(r.reason.value for r in settled.rejects).items():
            metrics.DEAD_LETTERS.labels(self.data_type, reason).inc(count)
        for kind, count in Counter(settled.events["kind"].to_pylist()).items():
            metrics.GAP_EVENTS.labels(self.data_type, kind).inc(count)
        if len(settled.times_us):
            metrics.WATERMARK.labels(self.data_type).set(int(settled.times_us.max()) / 1e6)
        metrics.COMMITS.labels(self.data_type).inc()
        metrics.LAST_COMMIT.labels(self.data_type).set_to_current_time()
        metrics.show_lag(self.data_type, self.lags())

    def landed(self, window: OpenWindow, clock: Clock) -> None:
        """A window is in the table."""
        now_seconds = clock.now_us() / 1e6
        arrivals = (arrival for batch in window.batches for arrival in batch.arrivals)
        metrics.LATENCY.observe(self.data_type, ((now_seconds - first_ms / 1000, records) for first_ms, records in arrivals))
        metrics.WINDOW_SIZE_ROWS.labels(self.data_type).observe(window.rows)
        metrics.WINDOW_SIZE_BYTES.labels(self.data_type).observe(window.size_bytes)
        metrics.DECODED_BYTES.labels(self.data_type).inc(window.size_bytes)
        if window.opened_at is not None:
            metrics.WINDOW_AGE.labels(self.data_type).observe(clock.monotonic() - window.opened_at)

    def lags(self) -> dict[TopicPartition, int]:
        """Offsets of each owned partition that are in the log and not yet in the table, as far as known."""
        return {tp: max(0, self.log_ends.get(tp, 0) - self.vector[tp].next) for tp in self.owned if tp in self.vector}

    def lag(self) -> int:
        """The same for all owned partitions together."""
        return sum(self.lags().values())

    def as_json(self) -> dict[str, Any]:  # JSON
        """One object for `/state`."""
        c = self.counts
        return {
            "since_start": {
                "rows": c.rows, "duplicates": c.duplicates, "dead_letters": c.dead_letters, "markers": c.markers, "holes": c.holes,
                "commits": self.commits, "restarts": self.restarts, "gap_events": dict(self.events), "reasons": dict(self.reasons),
            },
            "quality": self.flags.as_json(),
            "lag": self.lag(),
            "partitions": [
                {
                    "topic": tp.topic, "partition": tp.partition, "start": e.start, "next": e.next, "log_end": self.log_ends.get(tp),
                    "rows": e.counts.rows, "duplicates": e.counts.duplicates, "dead_letters": e.counts.dead_letters,
                    "markers": e.counts.markers, "holes": e.counts.holes, "retired": e.counts.retired,
                }
                for tp, e in sorted(self.vector.items()) if tp in self.owned
            ],
        }
