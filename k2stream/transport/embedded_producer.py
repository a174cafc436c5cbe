"""Faust's producer on the embedded log: changelogs, replies, anything that is sent event by event."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faust.exceptions import ProducerSendError
from faust.transport import base
from faust.types import TP, RecordMetadata

from k2stream.errors import TransportError
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_path import folder_of
from k2stream.transport.embedded_thread import declare, partitioner_of
from k2stream.transport.ending import or_exit
from k2stream.transport.sink import Outgoing

COMMIT_RECORDS = 10_000
"""Records of one transaction at most: the next ones are not kept waiting for long."""

Pending = tuple[TP, Outgoing, "asyncio.Future[RecordMetadata]"]


class Producer(base.Producer):
    """Whatever is sent while a transaction is written goes into the next one, one log batch a partition, in order."""

    _log: EmbeddedLog | None = None
    _writer: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self._partitioner = partitioner_of(self.app)
        self._pending: list[Pending] = []

    @property
    def folder(self) -> Path:
        return folder_of(self.transport.url)

    def _opened(self) -> EmbeddedLog:
        if self._log is None:
            raise ProducerSendError("The producer was not started, or is stopped by now.")
        return self._log

    async def on_start(self) -> None:
        await super().on_start()
        self._log = await or_exit(self, asyncio.to_thread(lambda: EmbeddedLog(self.folder)))

    async def on_stop(self) -> None:
        await super().on_stop()
        await self._written()
        log, self._log = self._log, None
        if log is not None:  # Faust stops what never started, too
            await asyncio.to_thread(log.close)

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> "asyncio.Future[RecordMetadata]":
        """Hand one record in; the future holds its place once it is on disk."""
        tp = TP(topic, partition) if partition is not None else self.key_partition(topic, key)
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        record = Outgoing(key, value, int((timestamp or time.time()) * 1000), tuple(pairs))
        done: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self._pending.append((tp, record, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return done

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> RecordMetadata:
        """Send one record and wait until it is on disk."""
        return await (await self.send(*args, **kwargs))

    async def flush(self) -> None:
        """Wait for all that was handed in."""
        await self.buffer.flush()
        await self._written()

    async def _written(self) -> None:
        while self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer})

    async def _write(self) -> None:
        while self._pending:
            taken, self._pending = self._pending[:COMMIT_RECORDS], self._pending[COMMIT_RECORDS:]
            by_partition: dict[TP, list[Pending]] = {}
            for pending in taken:
                by_partition.setdefault(pending[0], []).append(pending)
            try:
                bases = await asyncio.to_thread(self._append, by_partition)
            except Exception as exc:  # every sender of this transaction is told
                _fail(taken, ProducerSendError(f"Error while sending: {exc}"))
            else:
                _succeed(by_partition, bases)

    def _append(self, by_partition: Mapping[TP, list[Pending]]) -> list[int]:
        batches = [(tp.topic, tp.partition, build_log_batch([record for _, record, _ in pending])) for tp, pending in by_partition.items()]
        return self._opened().append_many(batches)

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:  # Faust's keywords
        """Create it unless it exists."""
        await asyncio.to_thread(declare, self._opened(), topic, partitions, **kwargs)

    def key_partition(self, topic: str, key: bytes | None) -> TP:
        """Where a key belongs, by Kafka's own hash."""
        try:
            partitions = list(range(self._opened().topic(topic).partitions))
        except TransportError as exc:
            raise ProducerSendError(str(exc)) from exc
        return TP(topic, self._partitioner(key, partitions, partitions))

    def supports_headers(self) -> bool:
        return True


def _succeed(by_partition: Mapping[TP, list[Pending]], bases: list[int]) -> None:
    for (tp, pending), base_offset in zip(by_partition.items(), bases, strict=True):
        for offset, (_, record, done) in enumerate(pending, base_offset):
            if not done.done():
                done.set_result(RecordMetadata(tp.topic, tp.partition, tp, offset, record.timestamp_ms / 1000, 0))


def _fail(taken: list[Pending], exc: Exception) -> None:
    for _, _, done in taken:
        if not done.done():
            done.set_exception(exc)
