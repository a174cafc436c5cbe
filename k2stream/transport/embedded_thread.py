"""The embedded log's side of Faust's consumer: who reads what, from where, and when there is something new.

It runs on a loop of its own, so that reading and checking some megabytes holds nothing else up. It is the only member of
its group, so "rebalance" means only: the subscribed topics that exist are not the assigned ones any more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from aiokafka.partitioner import DefaultPartitioner
from faust.transport.consumer import ConsumerThread, ensure_TP
from faust.types import TP
from mode import Service

from k2stream.clock import Deadline
from k2stream.errors import LogCorruptError, TransportError
from k2stream.records import LogBatch, Record, TopicPartition
from k2stream.transport.budget import BATCH_FLOOR_BYTES
from k2stream.transport.embedded_log import EmbeddedLog, TopicInfo

POLL_SECONDS = 0.02
"""How often a fetch that found nothing asks SQLite for a change: 5 us a time, and the longest a new row waits."""
TOPICS_SECONDS = 0.5
"""A subscribed topic that somebody creates is assigned after so long."""
FETCH_BYTES = 8 << 20
PARTITION_BYTES = 1 << 20
"""Read of one partition before the next one has its turn."""
TROUBLE_SECONDS = 1.0
FLOORS_SECONDS = 1.0
EXPIRY_SECONDS = 60.0

Fetched = list[LogBatch] | list[Record]


class LogThread(ConsumerThread):
    """Reads for one Faust consumer; `reader` is this thread's alone, `writer` takes what waits for the disk."""

    consumer: Any
    """The driver's Consumer."""
    reader: EmbeddedLog
    writer: EmbeddedLog

    def __post_init__(self) -> None:
        self._partitioner: Callable[[bytes | None, list[int], list[int]], int] = partitioner_of(self.app)
        self._subscribed: frozenset[str] | None = None
        self._assigned: frozenset[TP] | None = None
        self._changed = asyncio.Event()
        self._generation = 0
        self._positions: dict[TP, int] = {}
        self._bounds: Mapping[TopicPartition, tuple[int, int]] = {}
        self._topics: Mapping[str, TopicInfo] = {}
        self._version = -1
        self._turn = 0

    def open(self, reader: EmbeddedLog, writer: EmbeddedLog) -> None:
        """To be called before the thread is started."""
        self.reader, self.writer = reader, writer
        self._topics = reader.topics()

    async def on_thread_stop(self) -> None:
        await super().on_thread_stop()
        self.reader.close()
        self.writer.close()

    # who reads what

    async def subscribe(self, topics: Iterable[str]) -> None:
        await self.call_thread(self._subscribe, frozenset(topics))

    async def _subscribe(self, topics: frozenset[str]) -> None:
        self._subscribed = topics
        self._changed.set()

    @Service.task
    async def _assigner(self) -> None:
        """A task of its own: the main loop answers an assignment with calls into this thread's method queue."""
        while not self.should_stop:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), TOPICS_SECONDS)
            self._changed.clear()
            if self._subscribed is not None:
                await self._assign()

    async def _assign(self) -> None:
        try:
            self._topics = self.reader.topics()
        except TransportError as exc:
            self.log.warning("Topics are not known for now: %s", exc)
            return
        topics = {name: info for name, info in self._topics.items() if name in (self._subscribed or ())}
        wanted = frozenset(TP(name, p) for name, info in topics.items() for p in range(info.partitions))
        if self.app.client_only:
            await self._read_without_a_group(wanted)
        elif wanted != self._assigned and self._has_changelogs(topics):
            await self._rebalance(wanted, topics)

    def _has_changelogs(self, topics: Mapping[str, TopicInfo]) -> bool:
        """False until Faust has declared its tables' changelogs: its assignor fails on a global table whose changelog is not there yet."""
        return topics.keys() >= self.app.tables.changelog_topics

    async def _rebalance(self, wanted: frozenset[TP], topics: Mapping[str, TopicInfo]) -> None:
        """Eager, as Faust expects it: all are revoked, then all are assigned."""
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(set(self._assigned or ()))
        self._positions.clear()
        self._assigned = wanted
        self._generation += 1
        self.app.consumer_generation_id = self._generation  # before the assignment, or recovery waits for ever
        self._tell_assignor(topics)
        await self.on_partitions_assigned(set(wanted), self._generation)

    def _tell_assignor(self, topics: Mapping[str, TopicInfo]) -> None:
        """Tables and routers ask Faust's assignor what is ours: everything."""
        assignor: Any = self.app.assignor
        cluster = SimpleNamespace(partitions_for_topic=lambda name: set(range(topics[name].partitions)))
        member = assignor.metadata(set(topics))
        assignor.on_assignment(assignor.assign(cluster, {self.app.conf.id: member})[self.app.conf.id])

    async def _read_without_a_group(self, wanted: frozenset[TP]) -> None:
        """Clients (`faust agents ask`) read replies from now on and commit nothing."""
        for tp in wanted - (self._assigned or frozenset()):
            self._positions[tp] = self.reader.bounds(TopicPartition(*tp))[1]
        self._assigned = wanted

    def assignment(self) -> set[TP]:
        return set(self._assigned or ())

    # fetching

    async def getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, Fetched]:  # noqa: ASYNC109 # Faust's signature
        found: Mapping[TP, Fetched] = await self.call_thread(self._fetch, active_partitions, timeout)
        return found

    async def _fetch(self, active: set[TP] | None, seconds: float) -> Mapping[TP, Fetched]:
        """What is new in `active` partitions; waits up to `seconds` until there is something."""
        deadline = Deadline.after(seconds)
        while self.consumer.flow_active and not self.should_stop:
            try:
                found = self._read(self._assigned or () if active is None else active)
            except LogCorruptError as exc:
                self.consumer.stop_app(exc)
                await asyncio.sleep(seconds)
                return {}
            except TransportError as exc:
                self.log.warning("Nothing can be read for now: %s", exc)
                await asyncio.sleep(min(seconds, TROUBLE_SECONDS))
                return {}
            if found or self.consumer.is_poked() or deadline.is_over():
                return found
            await asyncio.sleep(POLL_SECONDS)
        return {}

    def _read(self, active: Iterable[TP]) -> dict[TP, Fetched]:
        """One round over the partitions that have something new; a different one begins each time."""
        self._look()
        found: dict[TP, Fetched] = {}
        room_bytes = min(self.consumer.budget.room_bytes, FETCH_BYTES)
        for tp in self._in_turn(active):
            is_batch_topic = self.consumer.is_batch_topic(tp.topic)
            if not self._has_news(tp) or (is_batch_topic and room_bytes <= 0):
                continue
            log_batches = self.reader.read(TopicPartition(*tp), self._positions[tp], min(room_bytes, PARTITION_BYTES) if is_batch_topic else PARTITION_BYTES)
            if is_batch_topic:
                found[tp] = log_batches
                room_bytes -= max(BATCH_FLOOR_BYTES, sum(len(b.raw) for b in log_batches))
            elif records := [r for b in log_batches for r in b.records()]:
                found[tp] = records
            self._positions[tp] = log_batches[-1].last_offset + 1 if log_batches else self._positions[tp]
        return {tp: fetched for tp, fetched in found.items() if fetched}

    def _look(self) -> None:
        version = self.reader.version()
        if version != self._version:
            self._bounds = self.reader.all_bounds()
            self._version = version

    def _in_turn(self, active: Iterable[TP]) -> list[TP]:
        tps = sorted(tp for tp in active if tp in self._positions)
        self._turn += 1
        start = self._turn % len(tps) if tps else 0
        return tps[start:] + tps[:start]

    def _has_news(self, tp: TP) -> bool:
        begin, end = self._bounds.get(TopicPartition(*tp), (0, 0))
        position = self._positions[tp]
        if not begin <= position <= end:
            del self._positions[tp]  # until somebody seeks: said once, not at every fetch
            self.consumer.report_out_of_range(tp, begin, end)
            return False
        return position < end

    # positions

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        await self.call_thread(self._seek_wait, {ensure_TP(tp): offset for tp, offset in partitions.items()})

    async def _seek_wait(self, partitions: Mapping[TP, int]) -> None:
        if gone := [tp for tp in partitions if tp not in self.assignment()]:
            raise TransportError(f"{gone[0].topic}/{gone[0].partition} cannot be sought: it is not assigned to this worker any more.")
        for tp, offset in partitions.items():
            self.seek(tp, offset)
            self.consumer._read_offset[tp] = offset or None  # noqa: SLF001 # Faust's own drivers do this here: it drops what is read below

    def seek(self, partition: TP, offset: int) -> None:
        self._positions[ensure_TP(partition)] = offset

    async def seek_to_beginning(self, *partitions: TP) -> None:
        await self.seek_wait(await self.earliest_offsets(*partitions))

    async def seek_to_committed(self) -> Mapping[TP, int]:
        raise NotImplementedError("BatchNativeConsumer seeks: batches to the handler's positions, events to the group's offsets.")

    async def position(self, tp: TP) -> int | None:
        return self._positions.get(ensure_TP(tp))

    # offsets

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: begin for tp, (begin, _) in (await self._bounds_of(partitions)).items()}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: end for tp, (_, end) in (await self._bounds_of(partitions)).items()}

    async def _bounds_of(self, partitions: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        tps = list(partitions)
        bounds = await asyncio.to_thread(self.reader.all_bounds) if tps else {}
        if missing := [tp for tp in tps if TopicPartition(*tp) not in bounds]:
            raise TransportError(f"{missing[0].topic}/{missing[0].partition} does not exist in the log {self.reader.path}.")
        return {ensure_TP(tp): bounds[TopicPartition(*tp)] for tp in tps}

    def highwater(self, tp: TP) -> int:
        return self._bounds.get(TopicPartition(*tp), (0, 0))[1]

    async def committed(self, tps: Iterable[TP]) -> Mapping[TP, int]:
        """The group's offsets that the log still holds; one that retention has passed counts as none."""
        bounds = await self._bounds_of(tps)
        committed = await asyncio.to_thread(self.reader.committed, self.app.conf.id)
        offsets = {tp: committed.get(TopicPartition(*tp)) for tp in bounds}
        return {tp: offset for tp, offset in offsets.items() if offset is not None and bounds[tp][0] <= offset <= bounds[tp][1]}

    async def commit(self, tps: Mapping[TP, int]) -> bool:
        offsets = {TopicPartition(*tp): offset for tp, offset in tps.items()}
        try:
            await asyncio.to_thread(self.writer.commit, self.app.conf.id, offsets)
        except TransportError as exc:
            self.log.warning("Offsets were not committed, the next commit holds them: %s", exc)
            return False
        return True

    # retention

    @Service.task
    async def _keep_house(self) -> None:
        """Write floors soon after they rose; expire what is old about every minute."""
        expires = Deadline.after(EXPIRY_SECONDS)
        while not self.should_stop:
            await self.sleep(FLOORS_SECONDS)
            try:
                await self._write_floors()
                if expires.is_over() and self.consumer.all_floors_are_known():
                    expires = Deadline.after(EXPIRY_SECONDS)
                    deleted = await asyncio.to_thread(self.writer.expire, self.consumer.settings.retention_ms)
                    self.log.info("Retention deleted %s log batches", deleted)
            except TransportError as exc:
                self.log.warning("Retention waits: %s", exc)

    async def _write_floors(self) -> None:
        floors = self.consumer.risen_floors()
        if floors:
            await asyncio.to_thread(self.writer.set_floors, self.app.conf.id, floors)

    # topics

    def topic_partitions(self, topic: str) -> int | None:
        info = self._topics.get(topic)
        return None if info is None else info.partitions

    def is_compacted(self, topic: str) -> bool:
        """As of the last look at the topics."""
        return topic in self._topics and self._topics[topic].is_compacted

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:  # Faust's keywords
        await asyncio.to_thread(declare, self.writer, topic, partitions, **kwargs)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        count = self.topic_partitions(topic)
        if partition is not None or count is None:
            return partition
        return self._partitioner(key, list(range(count)), list(range(count)))

    def close(self) -> None:
        """Nothing to hurry: SQLite has no connection that could hang."""


def partitioner_of(app: Any) -> Callable[[bytes | None, list[int], list[int]], int]:
    """Which of a topic's partitions a key belongs to: the app's own rule, or Kafka's."""
    chosen: Callable[[bytes | None, list[int], list[int]], int] = app.conf.producer_partitioner or DefaultPartitioner()
    return chosen


def declare(log: EmbeddedLog, topic: str, partitions: int, *, config: Mapping[str, Any] | None = None, **faust: Any) -> None:
    """Create a topic as Faust's tables and agents describe it, unless it exists."""
    wanted = {name: str(value) for name, value in (config or {}).items()}
    policy = [name for name, flag in (("compact", "compacting"), ("delete", "deleting")) if faust.get(flag)]
    if policy:
        wanted.setdefault("cleanup.policy", ",".join(policy))
    if faust.get("retention"):
        wanted.setdefault("retention.ms", str(int(want_milliseconds(faust["retention"]))))
    log.create_topic(topic, partitions, wanted)


def want_milliseconds(seconds: Any) -> float:
    """Faust gives seconds as a number or a timedelta."""
    return float(seconds.total_seconds() if hasattr(seconds, "total_seconds") else seconds) * 1000
