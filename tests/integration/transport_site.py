"""What the transport suite runs on: a log that tests can write to and damage, and a Faust worker in this process."""

import asyncio
import contextlib
import itertools
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import faust

from k2stream.clock import Deadline
from k2stream.records import Batch, Kind, Record, TopicPartition
from k2stream.settings import Settings
from k2stream.transport.conductor import KeepingTopic
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_schema import PARTITION_SHIFT
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.sink import LogSink, Outgoing

WAIT_SECONDS = 60.0
CLEANED = {"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0", "min.compaction.lag.ms": "0"}
"""A topic whose cleaner has something to do as soon as a segment is closed."""
names = (f"suite-{os.getpid()}-{n}" for n in itertools.count())


class Site(Protocol):
    """One log. Topic names are unique in it, so that one broker serves every test."""

    url: str
    sink: LogSink
    is_embedded: bool

    async def topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """A new topic."""

    async def hole(self, tp: TopicPartition, count: int, kind: Kind) -> int:
        """Append at least `count` offsets that hold no record, then one that holds `after`: its offset. For COMPACTED, to a topic made CLEANED."""

    async def lose_below(self, tp: TopicPartition, offset: int) -> None:
        """Delete everything below `offset`, a border of log batches."""

    async def commit(self, group: str, tp: TopicPartition, offset: int) -> None:
        """Set the group's committed offset, while nobody is in the group."""

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        """The group's committed offset."""

    async def close(self) -> None:
        """Let go."""


class EmbeddedSite:
    """A log in a temporary folder."""

    is_embedded = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "log"
        self.url = f"embedded://{self.folder}"
        self.sink = EmbeddedSink(self.folder)
        self.log = EmbeddedLog(self.folder)

    async def topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = next(names)
        await self.sink.create_topic(name, partitions, config or {})
        return name

    async def hole(self, tp: TopicPartition, count: int, kind: Kind) -> int:
        self.log.append_hole(tp.topic, tp.partition, count, kind)
        return await self.sink.send(tp.topic, tp.partition, values("after"))

    async def lose_below(self, tp: TopicPartition, offset: int) -> None:
        self._damage(tp, 0, offset, "UPDATE partitions SET begin_offset = ? WHERE id = ?", offset)

    def lose_inside(self, tp: TopicPartition, first: int, last: int) -> None:
        """Delete log batches in the middle, as nothing but damage does."""
        self._damage(tp, first, last + 1, "UPDATE partitions SET begin_offset = begin_offset + 0 * ? WHERE id = ?", 0)

    def rot(self) -> None:
        """Let the last byte of every log batch rot."""
        with contextlib.closing(sqlite3.connect(self.folder / "log.db")) as db, db:
            db.create_function("rotten", 1, lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))
            db.execute("UPDATE log_batches SET raw = rotten(raw)")

    def expire_all(self) -> bool:
        """Run retention as if everything were old, once the group's floor is there."""
        with contextlib.closing(sqlite3.connect(self.folder / "log.db")) as db:
            (floors,) = db.execute("SELECT count(*) FROM floors").fetchone()
        if floors:
            self.log.expire(0)
        return bool(floors)

    def _damage(self, tp: TopicPartition, first: int, next_offset: int, bounds: str, value: int) -> None:
        with contextlib.closing(sqlite3.connect(self.folder / "log.db")) as db, db:
            (id_,) = db.execute("SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic_id WHERE name = ? AND partition = ?", tp).fetchone()
            key = id_ << PARTITION_SHIFT
            db.execute("DELETE FROM log_batches WHERE id >= ? AND id < ?", (key | first, key | next_offset))
            db.execute(bounds, (value, id_))

    async def commit(self, group: str, tp: TopicPartition, offset: int) -> None:
        self.log.commit(group, {tp: offset})

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        return self.log.committed(group).get(tp)

    async def close(self) -> None:
        await self.sink.close()
        self.log.close()


class KafkaSite:
    """The broker at `bootstrap` (`host:port`)."""

    is_embedded = False

    def __init__(self, bootstrap: str) -> None:
        from k2stream.transport.kafka_sink import KafkaSink

        self.bootstrap = bootstrap
        self.url = f"k2kafka://{bootstrap}"
        self.sink = KafkaSink(bootstrap)

    async def topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = next(names)
        await self.sink.create_topic(name, partitions, {"retention.ms": "-1"} | dict(config or {}))  # the records are years old
        return name

    async def hole(self, tp: TopicPartition, count: int, kind: Kind) -> int:
        """Aborted rows and their marker, or rows that the last one of their key makes needless."""
        if kind is not Kind.COMPACTED:
            await self.abort(tp, count)
            return await self.sink.send(tp.topic, tp.partition, values("after"))
        for _ in range(count):
            first = await self.sink.send(tp.topic, tp.partition, values("after")) - count + 1
        after = await self.sink.send(tp.topic, tp.partition, values("after"))
        await self.abort(tp, 1)  # its time is later than the others', so it begins a segment: only closed ones are cleaned
        deadline = Deadline.after(WAIT_SECONDS)
        while (found := await self.sink.log_batch_at(tp, first)) is None or found.base_offset < after:
            assert not deadline.is_over(), f"{tp} was not compacted: {found and found.base_offset}"
            await asyncio.sleep(0.05)
        return after

    async def abort(self, tp: TopicPartition, count: int) -> None:
        """Append an aborted transaction."""
        from aiokafka import AIOKafkaProducer

        end = (await self.sink.bounds(tp))[1]
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap, transactional_id=next(names)) as producer:
            await producer.begin_transaction()
            for _ in range(count):
                await producer.send_and_wait(tp.topic, b"aborted", key=b"aborted", partition=tp.partition)
            await producer.abort_transaction()
        deadline = Deadline.after(WAIT_SECONDS)  # the marker is written after the answer
        while (await self.sink.bounds(tp))[1] <= end + count:
            assert not deadline.is_over(), f"no abort marker came to {tp}"
            await asyncio.sleep(0.01)

    async def lose_below(self, tp: TopicPartition, offset: int) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
        from aiokafka.structs import TopicPartition as KafkaTopicPartition

        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({KafkaTopicPartition(*tp): RecordsToDelete(before_offset=offset)})
        finally:
            await admin.close()

    async def commit(self, group: str, tp: TopicPartition, offset: int) -> None:
        from aiokafka.structs import TopicPartition as KafkaTopicPartition

        async with self._outsider(group) as consumer:
            consumer.assign([KafkaTopicPartition(*tp)])
            await consumer.commit({KafkaTopicPartition(*tp): offset})

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        from aiokafka.structs import TopicPartition as KafkaTopicPartition

        async with self._outsider(group) as consumer:
            offset: int | None = await consumer.committed(KafkaTopicPartition(*tp))
            return offset

    def _outsider(self, group: str) -> Any:
        from aiokafka import AIOKafkaConsumer

        return AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)

    async def close(self) -> None:
        await self.sink.close()


class Vector:
    """A BatchHandler with a vector kept by hand; faults are switched on by name."""

    def __init__(self, topics: list[str]) -> None:
        self.topics = topics
        self.positions_of: dict[TopicPartition, int] = {}
        self.unknown: set[TopicPartition] = set()
        """Partitions whose position nobody knows yet."""
        self.lost: list[tuple[TopicPartition, int, int]] = []
        self.revoked: list[set[TopicPartition]] = []
        self.assigned_to_it: list[set[TopicPartition]] = []
        self.hangs_in_revoke = False

    def batch_topics(self) -> frozenset[str]:
        return frozenset(self.topics)

    async def positions(self, tps: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {tp: self.positions_of.get(tp, 0) for tp in tps - self.unknown}

    def assigned(self, tps: set[TopicPartition]) -> None:
        self.assigned_to_it.append(tps)

    async def revoke(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        self.revoked.append(tps)
        if self.hangs_in_revoke:
            await asyncio.Event().wait()

    def topic_lost(self, tp: TopicPartition, first: int, last: int) -> None:
        self.lost.append((tp, first, last))


class GrowingTopic(KeepingTopic):
    """A topic whose names may become more while an agent reads it."""

    names: list[str]

    @property
    def topics(self) -> Sequence[str]:
        return self.names

    @topics.setter
    def topics(self, names: list[str]) -> None:
        self.names = names  # clones share the list


class Worker:
    """A Faust app with one agent of batches and, if asked for, one of events."""

    def __init__(self, site: Site, folder: Path, topics: Iterable[str], *, events: str | None = None, group: str | None = None, **settings: Any) -> None:
        self.group = group or next(names)
        self.handler = Vector(list(topics))
        self.batches: list[Batch] = []
        self.events: list[tuple[int, bytes]] = []
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.does_release = True
        self.crashes = 0
        self.app = faust.App(
            self.group,
            broker=site.url,
            store="memory://",
            web_enabled=False,
            autodiscover=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            consumer_auto_offset_reset="earliest",
            datadir=str(folder / f"faust-{next(names)}"),
        )
        self.app.settings = Settings(home=folder, web_port=0, **settings)
        self.app.batch_handler = self.handler
        raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
        self.topic = GrowingTopic(self.app, topics=self.handler.topics, maxsize=16, **raw)
        self.app.agent(self.topic, name="batches")(self._take_batches)
        if events is not None:
            self.app.agent(self.app.topic(events, **raw), name="events")(self._take_events)

    async def _take_batches(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self.may_take.wait()
            if self.crashes:
                self.crashes -= 1
                raise RuntimeError("this agent crashes when it is told to")
            self.batches.append(event.value)
            if self.does_release:
                self.consumer.release(event.value)

    async def _take_events(self, stream: Any) -> None:
        async for event in stream.events():
            self.events.append((event.message.offset, event.value))

    @property
    def consumer(self) -> Any:
        """The transport's consumer: what agents and handlers use."""
        return self.app.consumer

    def rows(self, tp: TopicPartition) -> list[Record]:
        """Every record of `tp` that an agent got, in the order in which it came."""
        return [r for b in self.batches if b.tp == tp for log_batch in b.log_batches for r in log_batch.records()]

    def values(self, tp: TopicPartition) -> list[bytes | None]:
        return [r.value for r in self.rows(tp)]

    async def until(self, is_so: Any, what: str) -> None:
        """Wait until `is_so()`; AssertionError naming `what` did not happen."""
        deadline = Deadline.after(WAIT_SECONDS)
        while not is_so():
            assert not deadline.is_over(), f"{what}; delivered {[(b.tp, b.first_offset, b.next_offset, b.epoch) for b in self.batches]}"
            await asyncio.sleep(0.01)

    async def until_read(self, tp: TopicPartition, next_offset: int) -> None:
        """Wait until the agent got everything below `next_offset`."""
        await self.until(lambda: any(b.tp == tp and b.next_offset >= next_offset for b in self.batches), f"{tp} was not read up to {next_offset}")

    def ack(self, *numbers: int) -> None:
        """Ack delivered batches by their number; all of them without one."""
        for number in numbers or range(len(self.batches)):
            self.consumer.ack_batch(self.batches[number])


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    """The worker, started, and stopped in any case."""
    worker.app.finalize()
    try:
        await worker.app.start()
        yield worker
    finally:
        await worker.app.stop()


def values(*texts: str) -> list[Outgoing]:
    """One record a text, which is its key as well."""
    return [Outgoing(text.encode(), text.encode(), 1_700_000_000_000) for text in texts]


async def numbered(site: Site, tp: TopicPartition, sizes: Sequence[int]) -> None:
    """Append log batches of `sizes` records whose values are their offsets."""
    offset = (await site.sink.bounds(tp))[1]
    for size in sizes:
        await site.sink.send(tp.topic, tp.partition, values(*map(str, range(offset, offset + size))))
        offset += size


async def heavy(site: Site, tp: TopicPartition, log_batches: int, records: int, value_bytes: int) -> None:
    """Append log batches that no codec makes smaller."""
    for _ in range(log_batches):
        record = [Outgoing(None, os.urandom(value_bytes), 1_700_000_000_000) for _ in range(records)]
        await site.sink.send(tp.topic, tp.partition, record)
