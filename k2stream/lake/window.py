"""A closed and settled window, as the lake takes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from k2stream.lake.offsets import Counts, Mark
from k2stream.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Window:
    """Everything that one commit writes down; decided, and never decided again."""

    number: int
    """Counts the windows of one worker; windows are committed in this order."""
    rows: pa.Table
    """New rows: the columns of the table in any order; strings may be dictionary-encoded."""
    events: pa.Table
    """Gap events with the columns of k2stream.gaps.EVENTS."""
    deltas: Mapping[TopicPartition, Counts]
    """What the window adds to the ledger."""
    spans: Mapping[TopicPartition, tuple[int, int]]
    """Per partition the first offset and the one after the last; the fence asks for the first."""
    tracker: Mapping[TopicPartition, bytes] | None = None
    """Tracker state to be kept as a file, or None. A partition outside `spans` must have been in the spans of an
    earlier window that was written since the partition was last restarted: its state stands where that window ended."""
    watermark_us: int | None = None
    """Newest event time of the rows, microseconds; None without rows."""
    letters: pa.Table | None = None
    """Dead letters with the columns of k2stream.deadletter.rows.LETTERS; None or empty without any."""
    flags: pa.Table | None = None
    """What is odd about rows, with the columns of k2stream.quality.flags.FLAGS; None or empty where nothing is."""
    marks: Mapping[TopicPartition, Mark] = field(default_factory=dict)
    """Per partition the last log batch of the window that held records."""
