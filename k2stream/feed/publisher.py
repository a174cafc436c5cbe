"""Rows into a topic: encoded, keyed, placed by key, and handed to the log a batch at a time.

At least once: what `flush` returned for is durable. After a crash the same rows are published again, and dedup drops them by their ids.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pyarrow as pa
from aiokafka.partitioner import murmur2

from k2stream.clock import Clock, SystemClock
from k2stream.feed.avro import encode
from k2stream.topics import KINDS
from k2stream.transport.sink import LogSink, Outgoing

MARKER, SESSION, TIME_US = "k2-marker", "k2-session", "k2-time-us"
"""Headers of a marker."""
SESSION_START, RECONNECT = "session_start", "reconnect"

BATCH_RECORDS = 1000
"""Records of a log batch: about 200 kB before compression; more gains nothing, fewer cost a transaction each."""

BATCH_BYTES = 512 << 10
"""... or so much of keys and values: half of what Kafka takes at once by default, and a refused batch would be sent for ever."""

ENCODE_ROWS = 8192

Progress = Callable[[int], None]
"""Told how many records more are durable, markers left out."""


@dataclass(frozen=True, slots=True)
class FeedMarker:
    """What a feed says about itself to one symbol's readers; makes no row."""

    symbol: str
    kind: str
    """SESSION_START or RECONNECT."""
    session: str
    """Later sessions have names that sort later."""
    time_us: int
    """Event time, microseconds since the epoch."""

    def record(self, timestamp_ms: int) -> Outgoing:
        """As it lies in the topic: no value, all in headers."""
        headers = ((MARKER, self.kind.encode()), (SESSION, self.session.encode()), (TIME_US, str(self.time_us).encode()))
        return Outgoing(self.symbol.encode(), None, timestamp_ms, headers)


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's default partitioner puts `key`."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


class Publisher:
    """One topic's writer, one user at a time. Order within a partition is the order of the calls.

    A partition has one batch under way at most, so that an error or a crash never lets a later batch pass an earlier one; batches of
    different partitions are under way together and share the log's syncs. Errors of the log are raised by a later call or by `flush`.
    """

    def __init__(
        self, sink: LogSink, topic: str, *, schema: str, schema_id: int, partitions: int, clock: Clock | None = None, progress: Progress | None = None
    ) -> None:
        """`partitions` as the topic has them; `schema` names the contract that `schema_id` stands for in the registry."""
        self.topic = topic
        self._sink = sink
        self._schema, self._schema_id = schema, schema_id
        self._key = next(kind.key for kind in KINDS.values() if kind.schema == schema)
        self._partitions = partitions
        self._clock = clock or SystemClock()
        self._progress = progress or (lambda count: None)
        self._waiting: dict[int, list[Outgoing]] = {}
        self._waiting_bytes: dict[int, int] = {}
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._places: dict[bytes, int] = {}

    def encode(self, rows: pa.Table) -> list[Outgoing]:
        """The rows as records, in order; their time is now, for a log keeps records by their time and history would be dropped at once."""
        values = encode(rows, schema=self._schema, schema_id=self._schema_id).to_pylist()
        keys = [word.encode() for word in rows[self._key].to_pylist()]
        now_ms = self._clock.now_us() // 1000
        return [Outgoing(key, value, now_ms) for key, value in zip(keys, values, strict=True)]

    async def rows(self, rows: pa.Table) -> None:
        """Publish rows of the contract; full log batches go out, the rest waits for more."""
        for start in range(0, rows.num_rows, ENCODE_ROWS):
            await self.records(self.encode(rows.slice(start, ENCODE_ROWS)))

    async def records(self, records: Iterable[Outgoing]) -> None:
        """Publish records that are made already; each must have a key."""
        for record in records:
            place, size_bytes = self._place(record.key or b""), record.size_bytes
            if self._waiting_bytes.get(place, 0) + size_bytes > BATCH_BYTES:
                await self._send(place)
            batch = self._waiting.setdefault(place, [])
            batch.append(record)
            self._waiting_bytes[place] = self._waiting_bytes.get(place, 0) + size_bytes
            if len(batch) >= BATCH_RECORDS:
                await self._send(place)

    async def marker(self, marker: FeedMarker) -> None:
        """Publish a marker after all that was published before it, in a log batch of its own: batches of rows stay fast to decode."""
        await self.alone(marker.record(self._clock.now_us() // 1000))

    async def alone(self, record: Outgoing) -> None:
        """Publish a record after all that was published before it, in a log batch of its own."""
        place = self._place(record.key or b"")
        await self._send(place)
        self._waiting[place] = [record]
        await self._send(place)

    async def push(self) -> None:
        """Hand everything that waits to the log, full log batches or not; returns before it is durable."""
        for place in list(self._waiting):
            await self._send(place)

    async def flush(self) -> None:
        """Wait until everything is durable; raises TransportError if something could not be written."""
        await self.push()
        for task in list(self._under_way.values()):
            await task

    async def abandon(self) -> None:
        """Drop what waits and let what is under way end, whatever becomes of it."""
        self._waiting.clear()
        self._waiting_bytes.clear()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _place(self, key: bytes) -> int:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = partition_of(key, self._partitions)
        return place

    async def _send(self, place: int) -> None:
        batch = self._waiting.pop(place, None)
        self._waiting_bytes.pop(place, None)
        before = self._under_way.get(place)
        if before is not None:
            await before
        if batch:
            self._under_way[place] = asyncio.create_task(self._append(place, batch))

    async def _append(self, place: int, batch: Sequence[Outgoing]) -> None:
        await self._sink.send(self.topic, place, batch)
        self._progress(sum(1 for record in batch if record.value is not None))


@asynccontextmanager
async def publishing(
    sink: LogSink, topic: str, *, schema: str, schema_id: int, clock: Clock | None = None, progress: Progress | None = None
) -> AsyncIterator[Publisher]:
    """A Publisher of an existing topic, flushed at the end; after an error nothing more is sent."""
    publisher = Publisher(
        sink, topic, schema=schema, schema_id=schema_id, partitions=await sink.partitions(topic), clock=clock, progress=progress
    )
    try:
        yield publisher
        await publisher.flush()
    finally:
        await publisher.abandon()
