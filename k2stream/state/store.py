"""What is kept of a partition between runs, and by which rules it may be overwritten.

The store may lose everything at any time; then state is rebuilt from the tables. What it may never do is to hand back
less than it promises: keys missing above a floor would let duplicates through. Hence a chunk is appended only to keys that
reach up to the chunk's first offset; anything else starts anew, with the floor that the writer names for that case.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from k2stream.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Stamp:
    """The commit that a partition's state belongs to."""

    table_uuid: str
    sequence_number: int
    """Of the commit's snapshot; it never goes back, not even by rollback, so a zombie's is always lower."""
    snapshot_id: int
    next: int
    """The offset that the state stands at."""


@dataclass(frozen=True, slots=True)
class KeyChunk:
    """Dedup keys of one partition's new rows in one window. Event times in microseconds."""

    max_time_us: int
    min_time_us: int
    hashes: bytes
    """16 bytes a key."""


@dataclass(frozen=True, slots=True)
class Update:
    """State of one partition after one commit."""

    stamp: Stamp
    tracker: bytes
    chunk: KeyChunk | None
    """Keys that this commit added."""
    since: int
    """First offset of this commit: stored keys go on only if they reach up to here."""
    floor_us: int
    """Event time from which the writer's filter holds every key; stored keys below it are dropped."""
    floor_alone_us: int
    """The same if this chunk is all there is."""


@dataclass(frozen=True, slots=True)
class Saved:
    """State of one partition as stored: with these keys, "not seen" is true from `floor_us` on."""

    stamp: Stamp
    tracker: bytes
    keys: Sequence[KeyChunk]
    """Oldest event time first."""
    floor_us: int


class StateStore(Protocol):
    """Keeps state per partition. Thread-safe; every call may raise StateError, after which nothing is known of its effect."""

    def ping(self) -> None:
        """Returns if the store answers."""
        ...

    def load(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, Saved]:
        """What is stored of these partitions; one whose value cannot be read is absent."""
        ...

    def save(self, updates: Mapping[TopicPartition, Update]) -> set[TopicPartition]:
        """Store each partition's update if nothing is stored, the table differs or the stamp is newer.

        Returns the partitions refused, of which something newer is stored. The same update twice is no refusal.
        """
        ...

    def close(self) -> None:
        """Let go of connections and of a server started for this store."""
        ...
