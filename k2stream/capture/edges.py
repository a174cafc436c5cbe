"""What a capture asks of the world: the Protocols where transport, decode, lake, query, state and letters meet."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from k2stream.clock import Deadline
from k2stream.dedup.seen import SeenLookup
from k2stream.lake.offsets import Vector
from k2stream.lake.window import Window
from k2stream.records import Batch, LogBatch, TopicPartition
from k2stream.state.store import StateStore
from k2stream.transport.base import BatchConsumer
from k2stream.verdict import Decoded, Reject


class Decoder(Protocol):
    """Log batches to rows; called in a thread."""

    def decode_many(self, batches: Sequence[Batch]) -> list[Decoded]: ...


class Head(Protocol):
    """One snapshot of the table, as read."""

    @property
    def snapshot_id(self) -> int | None: ...
    @property
    def sequence_number(self) -> int: ...
    @property
    def table_uuid(self) -> str: ...
    @property
    def vector(self) -> Vector: ...
    @property
    def watermark_us(self) -> int | None: ...
    def is_ancestor(self, snapshot_id: int) -> bool: ...


Staged = Any
"""A window's files, written and synced, not yet in the table: what `Table.write` gave goes back to `commit` as it is."""


class Table(Protocol):
    """The exactly-once sink; each call blocks and is made from one thread."""

    def head(self) -> Head: ...
    def register(self, starts: Mapping[TopicPartition, int], deadline: Deadline) -> Head: ...
    def write(self, window: Window) -> Staged: ...
    def commit(self, staged: Staged, deadline: Deadline) -> Head: ...
    def take_outbox(self, deadline: Deadline) -> int: ...
    def tracker_blob(self, name: str, tp: TopicPartition) -> tuple[int, bytes] | None: ...


class Log(Protocol):
    """The log beside what is fetched from it; every call raises TransportError if it does not answer."""

    async def partitions(self, topic: str) -> int: ...
    async def bounds(self, tp: TopicPartition) -> tuple[int, int]: ...
    async def log_batch_at(self, tp: TopicPartition, offset: int) -> LogBatch | None: ...


RowsOf = Callable[[int, TopicPartition, int, int], pa.Table]
"""(snapshot id, topic partition, from offset, to offset) -> the table's rows of that origin, in offset order."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Everything a capture needs that is not itself."""

    consumer: Callable[[], BatchConsumer]
    log: Log
    decoder: Decoder
    table: Table
    lookup: SeenLookup
    rows_of: RowsOf
    store: StateStore
    letters: Callable[[Sequence[Reject]], Awaitable[None]]
    """Returns once the log holds every letter."""
    on_step: Callable[[str], None]
    """Told the name of each step; crash tests die there."""
