"""Appending to the embedded log from asyncio: calls that come at the same time share one transaction, and one sync."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from k2stream.records import LogBatch, TopicPartition
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.embedded_log import Append, EmbeddedLog
from k2stream.transport.sink import Outgoing, TopicState

COMMIT_BYTES = 16 << 20
"""A transaction takes no more than this, so that it fits the write-ahead file and readers are not kept waiting."""


class GroupCommit:
    """One writer task; whatever was handed in while a transaction ran goes into the next one, in order."""

    def __init__(self, log: Callable[[], EmbeddedLog]) -> None:
        self._log = log
        self._queue: list[tuple[Sequence[Append], asyncio.Future[list[int]]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def append_many(self, appends: Sequence[Append]) -> list[int]:
        """Offsets of each append's first record, once all of them are on disk; all or none are."""
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._queue.append((appends, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await done

    async def flush(self) -> None:
        """Wait for all that was handed in."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer})

    async def _write(self) -> None:
        while self._queue:
            taken = self._take()
            try:
                offsets = iter(await asyncio.to_thread(self._append, [a for appends, _ in taken for a in appends]))
            except Exception as exc:  # handed to every caller of this transaction
                _each_failed([done for _, done in taken], exc)
            else:
                for appends, done in taken:
                    own = [next(offsets) for _ in appends]
                    if not done.done():
                        done.set_result(own)

    def _append(self, appends: Sequence[Append]) -> list[int]:
        return self._log().append_many(appends)

    def _take(self) -> list[tuple[Sequence[Append], asyncio.Future[list[int]]]]:
        size_bytes = count = 0
        for appends, _ in self._queue:
            count += 1
            size_bytes += sum(len(raw) for _, _, raw in appends)
            if size_bytes >= COMMIT_BYTES:
                break
        taken, self._queue = self._queue[:count], self._queue[count:]
        return taken


def _each_failed(waiting: Sequence["asyncio.Future[list[int]]"], exc: Exception) -> None:
    for done in waiting:
        if not done.done():
            done.set_exception(exc)


class EmbeddedSink:
    """A LogSink on the embedded log in `folder`; opened at its first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log: EmbeddedLog | None = None
        self._writer = GroupCommit(self._open)

    def _open(self) -> EmbeddedLog:
        if self._log is None:
            self._log = EmbeddedLog(self.folder)
        return self._log

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        """Append `records` as one lz4 log batch; the offset of the first, once it is on disk."""
        return await self.send_batch(topic, partition, await asyncio.to_thread(build_log_batch, records))

    async def send_batch(self, topic: str, partition: int, raw: bytes) -> int:
        """Append one prebuilt log batch."""
        return (await self._writer.append_many([(topic, partition, raw)]))[0]

    async def append_many(self, appends: Sequence[Append]) -> list[int]:
        """Append several log batches (topic, partition, raw) in one transaction: all or none."""
        return await self._writer.append_many(appends)

    async def new_producer_id(self) -> int:
        """-1: this log looks at no numbers, and what a process has appended ends with it."""
        return -1

    async def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""
        return (await asyncio.to_thread(lambda: self._open().topic(topic))).partitions

    async def create_topic(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create the topic unless it exists."""
        await asyncio.to_thread(lambda: self._open().create_topic(topic, partitions, config))

    async def topics(self) -> Mapping[str, int]:
        """Every topic and its number of partitions."""
        infos = await asyncio.to_thread(lambda: self._open().topics())
        return {name: info.partitions for name, info in infos.items()}

    async def describe_topics(self) -> Mapping[str, TopicState]:
        """Every topic."""
        infos = await asyncio.to_thread(lambda: self._open().topics())
        return {name: TopicState(info.partitions, info.config) for name, info in infos.items()}

    async def grow(self, topic: str, partitions: int) -> None:
        """Give a topic so many partitions; one that has as many or more is left as it is."""
        await asyncio.to_thread(lambda: self._open().grow(topic, partitions))

    async def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Set these of a topic's settings; the others stay as they are."""
        await asyncio.to_thread(lambda: self._open().configure(topic, config))

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic and its records; one that does not exist is no error."""
        await asyncio.to_thread(lambda: self._open().delete_topic(topic))

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """First offset still kept and the offset after the last one."""
        return await asyncio.to_thread(lambda: self._open().bounds(tp))

    async def log_batch_at(self, tp: TopicPartition, offset: int) -> LogBatch | None:
        """The log batch that holds `offset`, or the first one behind it; None if the log keeps none there."""
        begin, end = await self.bounds(tp)
        if not begin <= offset < end:
            return None
        return next(iter(await asyncio.to_thread(lambda: self._open().read(tp, offset, 1))), None)

    async def close(self) -> None:
        """Write what was handed in, and let go of the file."""
        await self._writer.flush()
        log, self._log = self._log, None
        if log is not None:
            await asyncio.to_thread(log.close)
