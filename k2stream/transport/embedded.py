"""`embedded:///absolute/path`: a whole worker on one machine without a broker.

One worker a group (a second is refused), any number of other processes that append and read. Batch topics come as they
do from Kafka: the same `BatchNativeConsumer`, over SQLite instead of a socket.
"""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from faust.transport.consumer import ensure_TP
from faust.types import TP, ConsumerMessage

from k2stream.records import Record, TopicPartition
from k2stream.transport.base import BatchNativeConsumer, BatchNativeTransport
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_path import GroupLock, folder_of
from k2stream.transport.embedded_producer import Producer
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.embedded_thread import LogThread
from k2stream.transport.ending import EndsOnce, or_exit

__all__ = ["Consumer", "EmbeddedSink", "Producer", "Transport"]


class Consumer(EndsOnce, BatchNativeConsumer):
    """Faust's consumer on the embedded log; holds the group's lock as long as it lives."""

    _thread: LogThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder = folder_of(self.transport.url)
        self._group_lock = GroupLock(self.folder, self.app.conf.id)
        self._floors: dict[TopicPartition, int] = {}
        self._risen: dict[TopicPartition, int] = {}
        self._floors_lock = threading.Lock()

    def _new_consumer_thread(self) -> LogThread:
        return LogThread(self, loop=self.loop, beacon=self.beacon)

    async def on_first_start(self) -> None:
        """The log is opened and locked here, where one sentence can still end the worker."""
        await or_exit(self, asyncio.to_thread(self._open))
        await super().on_first_start()

    def _open(self) -> None:
        with ExitStack() as undo:
            undo.callback(self._thread.thread_loop.close)  # Faust makes it early, and closes it only where the thread was started
            reader = EmbeddedLog(self.folder)
            undo.callback(reader.close)
            if not self.app.client_only:
                self._group_lock.take()
                undo.callback(self._group_lock.free)
            self._thread.open(reader, EmbeddedLog(self.folder))
            undo.pop_all()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        self._group_lock.free()

    # what the base asks of a driver

    def is_compacted(self, topic: str) -> bool:
        return self._thread.is_compacted(topic)

    async def committed(self, tps: set[TP]) -> Mapping[TP, int | None]:
        return await self._thread.committed(tps)

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:  # Faust's keywords
        await self._thread.create_topic(topic, partitions, replication, **kwargs)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def _to_message(self, tp: TP, record: Record) -> ConsumerMessage:
        return ConsumerMessage(
            record.topic, record.partition, record.offset, record.timestamp_ms / 1000, 0, list(record.headers), record.key, record.value, None,
            len(record.key or b""), len(record.value or b""), ensure_TP(tp), generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    # retention never passes what the tables do not hold yet

    def set_floors(self, floors: Mapping[TopicPartition, int]) -> None:
        """Offsets from which on this group still needs the log; written within a second. Any thread."""
        with self._floors_lock:
            for tp, offset in floors.items():
                self._floors[TopicPartition(*tp)] = self._risen[TopicPartition(*tp)] = offset

    def risen_floors(self) -> Mapping[TopicPartition, int]:
        """Floors that are not in the log yet; each is given once."""
        with self._floors_lock:
            risen, self._risen = self._risen, {}
            return risen

    def all_floors_are_known(self) -> bool:
        """Whether every batch partition of this worker was sought to its table's position."""
        return all(TopicPartition(*tp) in self._floors for tp in self.assignment() if self.is_batch_topic(tp.topic))

    def _begin_epoch(self, positions: Mapping[TP, int]) -> None:
        super()._begin_epoch(positions)
        self.set_floors({TopicPartition(*tp): offset for tp, offset in positions.items()})

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """A batch topic's offset is committed once its rows are in the table: so far the log is not needed."""
        did_commit = await super()._commit(offsets)
        if did_commit:
            self.set_floors({TopicPartition(*tp): offset for tp, offset in offsets.items() if self.is_batch_topic(tp.topic)})
        return bool(did_commit)


class Transport(BatchNativeTransport):
    """Faust's transport for `embedded://`."""

    Consumer = Consumer
    Producer = Producer
    driver_version = "k2stream-embedded"
