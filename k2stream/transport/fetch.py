"""The one module that reaches into aiokafka's fetcher: whole log batches instead of records, for one consumer.

aiokafka turns a fetch response into records in `Fetcher._proc_fetch_request`, through two module names: `MemoryRecords` cuts the bytes
into batches and `PartitionRecords` iterates the records. `deliver_log_batches` gives one fetcher its own copy of that method with the two
names bound to the classes below. Group membership, fetch requests, positions and back-off stay aiokafka's; other consumers of the process
see nothing. What `PartitionRecords` does besides iterating is done here too: trimming below the fetch position, the filter of aborted
transactions, control batches, checksums.

It rests on private code, so aiokafka is pinned and `tests/unit/test_fetch.py` holds a fingerprint of everything relied on.
"""

import struct
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any, Protocol

import aiokafka.consumer.fetcher as fetcher_module
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedForMessageFormatError
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from k2stream.errors import TransportError
from k2stream.records import Kind, LogBatch

E_NOT_THE_FETCHER = (
    "aiokafka's Fetcher._proc_fetch_request no longer uses {names}: log batches cannot be read with this version. Install the aiokafka that k2stream pins."
)
E_OLD_FORMAT = "{tp} holds a batch of message format {magic} near offset {offset}; k2stream reads format 2 (Kafka 0.11 and later) only."

LENGTH_OFFSET = struct.calcsize(">q")
LOG_OVERHEAD_BYTES = struct.calcsize(">qi")
MAGIC_OFFSET = struct.calcsize(">qii")
REPLACED_NAMES = frozenset({"MemoryRecords", "PartitionRecords"})


class KafkaBatch(Protocol):
    """What is used of aiokafka's DefaultRecordBatch."""

    base_offset: int
    next_offset: int
    producer_id: int
    is_control_batch: bool
    is_transactional: bool

    def validate_crc(self) -> bool:
        """True if the stored checksum is that of the bytes."""


class RawBatches:
    """aiokafka's MemoryRecords, and beside it the bytes of the batch it handed out last."""

    def __init__(self, data: bytes) -> None:
        self.records: Any = MemoryRecords(data)
        self._view = memoryview(data)
        self._position = 0
        self.raw = self._view[:0]

    def has_next(self) -> bool:
        """False at the end and before a batch that the response cut off."""
        return bool(self.records.has_next())

    def size_in_bytes(self) -> int:
        """Bytes of the response, a cut off batch included."""
        return len(self._view)

    def next_batch(self) -> KafkaBatch:
        """The next whole batch; `raw` holds its bytes."""
        batch: KafkaBatch = self.records.next_batch()
        (length,) = struct.unpack_from(">i", self._view, self._position + LENGTH_OFFSET)
        end = self._position + LOG_OVERHEAD_BYTES + length
        self.raw = self._view[self._position : end]
        self._position = end
        return batch


class PartitionLogBatches(PartitionRecords):  # type: ignore[misc] # aiokafka ships no types
    """The log batches of one partition in one fetch response, without a jump from the fetch position on.

    What has no record to read comes as `LogBatch.hole`: control batches, aborted transactions (read_committed only), and, as COMPACTED,
    every offset that the log left out; whether compaction explains it is for the consumer to say. Raises CorruptRecordException at a wrong
    checksum, once all good log batches before it were delivered.
    """

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[LogBatch]:
        delivered = False
        while self._records.has_next():
            batch = self._records.next_batch()
            raw = self._records.raw
            if not self._is_intact(batch, raw):
                if delivered:  # the next fetch begins with the broken one, and says so
                    return
                raise CorruptRecordException(f"Wrong checksum in {self._tp} at offset {batch.base_offset}")
            kind = self._kind(batch)
            position = self.next_fetch_offset
            if batch.next_offset <= position:
                continue
            if batch.base_offset > position:
                self.next_fetch_offset = batch.base_offset
                yield self._hole(position, batch.base_offset - 1, Kind.COMPACTED)
            # Before the yield: the iterator may be left there, and aiokafka then reads the position.
            self.next_fetch_offset = batch.next_offset
            yield self._log_batch(raw, position, kind)
            delivered = True

    def _is_intact(self, batch: KafkaBatch, raw: memoryview) -> bool:
        if raw[MAGIC_OFFSET] != 2:
            text = E_OLD_FORMAT.format(tp=self._tp, magic=raw[MAGIC_OFFSET], offset=self.next_fetch_offset)
            raise UnsupportedForMessageFormatError(text)
        return not self._check_crcs or batch.validate_crc()

    def _kind(self, batch: KafkaBatch) -> Kind:
        """What the batch is; must be asked for every batch in order, as the filter of aborted transactions moves on."""
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and not batch.is_control_batch and batch.producer_id in self._aborted_producers:
                return Kind.ABORTED
        return Kind.CONTROL if batch.is_control_batch else Kind.DATA

    def _log_batch(self, raw: memoryview, position: int, kind: Kind) -> LogBatch:
        parsed = LogBatch.parse(self._tp.topic, self._tp.partition, raw, position)
        if kind is Kind.DATA and parsed.count == 0:  # the cleaner keeps an empty batch for its producer's sequence
            kind = Kind.COMPACTED
        return parsed if kind is Kind.DATA else self._hole(parsed.from_offset, parsed.last_offset, kind)

    def _hole(self, first: int, last: int, kind: Kind) -> LogBatch:
        return LogBatch.hole(self._tp.topic, self._tp.partition, first, last, kind)


def deliver_log_batches(consumer: AIOKafkaConsumer, *, is_batch_topic: Callable[[str], bool]) -> None:
    """Let this consumer fetch LogBatch values for the topics named by `is_batch_topic`, records for all others.

    To be called when it was started and nothing is assigned yet: a response fetched before holds records. The question is asked for each
    response, on the consumer's thread. Raises TransportError if aiokafka's fetcher is not the one this was written for.
    """
    replace_unpacking(consumer._fetcher, is_batch_topic)  # noqa: SLF001 # the one place that reaches into aiokafka


def replace_unpacking(fetcher: Fetcher, is_batch_topic: Callable[[str], bool]) -> None:
    """Bind the fetcher's own copy of the method that unpacks responses."""
    original = Fetcher._proc_fetch_request  # noqa: SLF001 # the one place that reaches into aiokafka
    if missing := REPLACED_NAMES - set(original.__code__.co_names):
        raise TransportError(E_NOT_THE_FETCHER.format(names=" and ".join(sorted(missing))))

    def unpack(tp: KafkaTopicPartition, batches: RawBatches, *rest: Any) -> PartitionRecords:
        if is_batch_topic(tp.topic):
            return PartitionLogBatches(tp, batches, *rest)
        return PartitionRecords(tp, batches.records, *rest)

    names = {**vars(fetcher_module), "MemoryRecords": RawBatches, "PartitionRecords": unpack}
    copy = FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)
    fetcher._proc_fetch_request = MethodType(copy, fetcher)  # noqa: SLF001 # the one place that reaches into aiokafka
