"""Every metric, declared once; nothing else imports prometheus_client."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

REGISTRY = CollectorRegistry()

ROWS = Counter("k2_rows", "Rows committed", ["data_type"], registry=REGISTRY)
DUPLICATES = Counter("k2_duplicates", "Records whose native id is in the table already", ["data_type"], registry=REGISTRY)
DEAD_LETTERS = Counter("k2_dead_letters", "Records that became a dead letter", ["data_type", "reason"], registry=REGISTRY)
MARKERS = Counter("k2_markers", "Session starts and reconnects told by feeds", ["data_type"], registry=REGISTRY)
HOLES = Counter("k2_holes", "Offsets without a record, each explained", ["data_type"], registry=REGISTRY)
GAP_EVENTS = Counter("k2_gap_events", "Sequence gaps opened, shrunk, filled, and resets", ["data_type", "kind"], registry=REGISTRY)
COMMITS = Counter("k2_commits", "Windows committed", ["data_type"], registry=REGISTRY)
RESTARTS = Counter("k2_restarts", "Times all partitions were read again from the table's vector", ["data_type"], registry=REGISTRY)
LAG = Gauge("k2_lag_offsets", "Offsets in the log that are not in the table yet, as last seen", ["data_type"], registry=REGISTRY)
LAST_COMMIT = Gauge("k2_last_commit_timestamp_seconds", "When the newest window was committed", ["data_type"], registry=REGISTRY)
WATERMARK = Gauge("k2_watermark_timestamp_seconds", "Newest event time in the table", ["data_type"], registry=REGISTRY)
HEALTHY = Gauge("k2_healthy", "1 while nothing is wrong, 0 while /healthz names a cause", registry=REGISTRY)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    text: bytes = generate_latest(REGISTRY)
    return text
