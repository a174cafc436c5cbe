"""What can be odd about a good row: the fixed list of flags, each with its meaning, and the rows of the table that keeps them; pure."""

from enum import StrEnum

import pyarrow as pa

from k2stream.rows import TIMESTAMP


class Flag(StrEnum):
    """A flagged row is a row like any other: flags drop nothing."""

    PRICE_MOVE = "price_move"
    PRICE_OUTLIER = "price_outlier"
    VOLUME_SPIKE = "volume_spike"
    STALE = "stale"
    CROSSED_QUOTE = "crossed_quote"
    AHEAD_OF_INGESTION = "ahead_of_ingestion"
    DUPLICATE = "duplicate"


MEANING = {
    Flag.PRICE_MOVE: "The price is further from that of the symbol's previous trade than K2_QUALITY_PRICE_MOVE_PERCENT.",
    Flag.PRICE_OUTLIER: "The step from the previous price is further from the day's mean step than K2_QUALITY_PRICE_DEVIATIONS standard deviations.",
    Flag.VOLUME_SPIKE: "The quantity is more than K2_QUALITY_VOLUME_TIMES that of the symbol's mean trade of the day.",
    Flag.STALE: "The symbol was silent for longer than K2_QUALITY_STALE_MS before this row, by event time.",
    Flag.CROSSED_QUOTE: "The bid is above the ask.",
    Flag.AHEAD_OF_INGESTION: "The event time is later than the ingestion time.",
    Flag.DUPLICATE: "No row: a record whose native id was in the table already. Not where several feeds report: each second report is one.",
}
"""One sentence each, for docs/quality.md and people."""

FLAGS = pa.schema(
    [
        pa.field("origin", pa.string(), nullable=False),
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("data_type", pa.string(), nullable=False),
        pa.field("flags", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field("price_change", pa.float64()),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
"""One row a flagged record; `origin` is topic/partition/offset. price_change is relative, 0.1 for ten percent up; null without a previous price."""
