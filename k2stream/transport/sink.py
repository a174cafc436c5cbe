"""What writes to a log: one Protocol for the embedded log and Kafka, and the record as it is handed over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from k2stream.records import Headers, LogBatch, TopicPartition


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to be appended; its offset is given by the log."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    """Milliseconds since the epoch."""
    headers: Headers = ()

    @property
    def size_bytes(self) -> int:
        """About what it takes, headers left out: a marker's are of no weight."""
        return len(self.key or b"") + len(self.value or b"") + 100


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as a log has it."""

    partitions: int
    config: Mapping[str, str]
    """Kafka's topic settings in force, defaults included."""


class LogSink(Protocol):
    """Appends whole log batches. Guarantee: what a call returned an offset for is durable; after an error it may be
    there or not (at least once), so writers that must not repeat carry their own key.

    Every method raises TransportError when the log cannot be reached, is full, or has no such topic.
    """

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        """Append `records` (at least one) as one lz4 log batch and give the offset of the first."""

    async def send_batch(self, topic: str, partition: int, raw: bytes) -> int:
        """Append one prebuilt log batch (its base offset is replaced) and give the offset of its first record."""

    async def new_producer_id(self) -> int:
        """For a writer that must not repeat itself and numbers its log batches (`Numbered`); -1 where the log looks at no numbers.

        Such a log is written to by the process itself: nothing of a dead one is still under way to it.
        """

    async def partitions(self, topic: str) -> int:
        """Number of partitions; TransportError if the topic does not exist."""

    async def create_topic(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create the topic unless it exists; an existing one is left as it is."""

    async def topics(self) -> Mapping[str, int]:
        """Every topic and its number of partitions."""

    async def describe_topics(self) -> Mapping[str, TopicState]:
        """Every topic but those that the log keeps for itself."""

    async def grow(self, topic: str, partitions: int) -> None:
        """Give a topic so many partitions; one that has as many or more is left as it is."""

    async def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Set these of a topic's settings; the others stay as they are."""

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic and its records; one that does not exist is no error."""

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """First offset still kept and the offset after the last one."""

    async def log_batch_at(self, tp: TopicPartition, offset: int) -> LogBatch | None:
        """The log batch that holds `offset`, or the first one behind it; None if the log keeps none there."""

    async def close(self) -> None:
        """Flush and let go; calling it twice is harmless."""
