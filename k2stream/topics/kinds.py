"""What is true of all topics of one data type: key, contract, retention; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from k2stream.topics.name import ASSET_CLASSES, letter_topic

DAY_MS = 86_400_000
KEPT_7_DAYS: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}
KEPT_30_DAYS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": str(30 * DAY_MS),
    "max.message.bytes": str(16 << 20),
    "message.timestamp.type": "LogAppendTime",
}
"""Of letters: base64 makes a record larger than the topic let its producer write, and the record's own time may be any."""
COMPACTED: Mapping[str, str] = {"cleanup.policy": "compact", "min.compaction.lag.ms": "60000", "delete.retention.ms": str(DAY_MS)}


@dataclass(frozen=True, slots=True)
class TopicKind:
    """What is true of all topics of one data type."""

    data_type: str
    key: str
    """Field of the contract that is the record's key."""
    schema: str
    """Contract under k2stream/schemas."""
    config: Mapping[str, str]
    partitions: int | None = None
    """None: as settings say."""


KINDS: Mapping[str, TopicKind] = {
    "trades": TopicKind("trades", "symbol", "trade_v2", KEPT_7_DAYS),
    "quotes": TopicKind("quotes", "symbol", "quote_v2", KEPT_7_DAYS),
    # A table of instruments is read whole and in order, so it has one partition.
    "reference_data": TopicKind("reference_data", "company_id", "reference_data_v2", COMPACTED, partitions=1),
}


LETTER_TYPE = "dead_letters"
"""What the file of topics calls their data type."""

LETTER_TOPICS = tuple(letter_topic(asset_class, data_type) for data_type in KINDS for asset_class in ASSET_CLASSES)
"""All of them; every worker makes those that are missing."""
