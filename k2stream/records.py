"""Records as the log holds them: the record, Kafka's batch of records, and what one fetch brings."""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch

HEADER = struct.Struct(">qiibIhiqqqhii")
"""Kafka record batch v2: base offset, length, leader epoch, magic, crc, attributes, last offset delta,
base timestamp, max timestamp, producer id, producer epoch, base sequence, record count."""

LENGTH_BEFORE = 12
"""Bytes that a batch's length does not count."""

APPEND_TIME = 0x08
"""Attribute bit: the records' times are the broker's."""

FURTHEST_MS = (2**63 - 1) // 1000
"""What microseconds of 64 bits hold; a producer may stamp its records with anything."""

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    """One partition of one topic; equal to a plain pair and to Faust's TP."""

    topic: str
    partition: int


class Kind(StrEnum):
    """What a log batch holds; all but DATA carry no payload and are holes to the ledger."""

    DATA = "data"
    CONTROL = "control"
    ABORTED = "aborted"
    COMPACTED = "compacted"


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka message as read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def timestamp_us(self) -> int:
        """The same time in microseconds, as near as 64 bits come to it."""
        return micros_of(self.timestamp_ms)


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Kafka's unit on the wire and on disk, bytes as Kafka wrote them."""

    topic: str
    partition: int
    base_offset: int
    last_offset: int
    from_offset: int
    """Rows below it were asked for by nobody and are trimmed after decode."""
    count: int
    """Records in the batch (fewer than offsets once a topic is compacted)."""
    base_timestamp_ms: int
    codec: int
    """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
    kind: Kind
    raw: bytes | memoryview
    """The whole batch with its 61-byte header; empty unless kind is DATA."""

    @classmethod
    def parse(cls, topic: str, partition: int, raw: bytes | memoryview, from_offset: int = 0) -> "LogBatch":
        """Read the header of one whole batch. Control batches are recognised by their attribute bit."""
        base, _, _, _, _, attributes, last_delta, base_ts, _, _, _, _, count = HEADER.unpack_from(raw)
        is_control = bool(attributes & 0x20)
        return cls(
            topic,
            partition,
            base,
            base + last_delta,
            max(from_offset, base),
            count,
            base_ts,
            attributes & 0x07,
            Kind.CONTROL if is_control else Kind.DATA,
            b"" if is_control else raw,
        )

    @classmethod
    def hole(cls, topic: str, partition: int, first: int, last: int, kind: Kind) -> "LogBatch":
        """Offsets `first..last` with nothing to read, and why."""
        return cls(topic, partition, first, last, first, 0, 0, 0, kind, b"")

    def of(self, records: bytes, count: int) -> "LogBatch":
        """The same log batch if it held nothing but these of its records, uncompressed; its checksum is no longer one."""
        base, _, epoch, magic, crc, attributes, *others, _ = HEADER.unpack_from(self.raw)
        length = HEADER.size - LENGTH_BEFORE + len(records)
        header = HEADER.pack(base, length, epoch, magic, crc, attributes & ~0x07, *others, count)
        return replace(self, count=count, codec=0, raw=header + records)

    @property
    def payload(self) -> memoryview:
        """The records, compressed as the producer left them."""
        return memoryview(self.raw)[HEADER.size :]

    @property
    def crc(self) -> int:
        return int(HEADER.unpack_from(self.raw)[4]) if self.raw else 0

    @property
    def append_time_ms(self) -> int | None:
        """When the broker appended it, which then is the time of all its records; None where each has its producer's."""
        *_, attributes, _, _, newest, _, _, _, _ = HEADER.unpack_from(self.raw)
        return int(newest) if attributes & APPEND_TIME else None

    def records(self, only: Collection[int] | None = None) -> Iterator[Record]:
        """Every record at or above `from_offset`, or of these offsets only, one by one: the slow path."""
        if self.kind is not Kind.DATA:
            return
        for r in DefaultRecordBatch(bytes(self.raw)):
            if r.offset >= self.from_offset and (only is None or r.offset in only):
                headers = tuple((k, bytes(v or b"")) for k, v in r.headers)
                yield Record(self.topic, self.partition, r.offset, r.timestamp, r.key, r.value, headers)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Batch:
    """The log batches of one partition that arrived in one fetch; the unit an agent gets.

    Covers offsets `first_offset` to `next_offset - 1` without a jump: what has no record is a log batch of another kind.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    log_batches: tuple[LogBatch, ...]
    size_bytes: int
    epoch: int = 0
    """Which seek of the partition it was read after; a batch of an older epoch is dropped."""
    last_data: tuple[int, int] | None = None
    """Of a receipt: base offset and CRC of the last log batch that held records."""
    arrivals: tuple[tuple[int, int], ...] = ()
    """Of a receipt, for each log batch with records: timestamp of its first, milliseconds, and how many it holds."""

    def receipt(self) -> "Batch":
        """The same without its bytes: what is acked once it is committed."""
        held = [b for b in self.log_batches if b.kind is Kind.DATA]
        arrivals = tuple((b.base_timestamp_ms, b.count) for b in held)
        return replace(self, log_batches=(), last_data=(held[-1].base_offset, held[-1].crc) if held else None, arrivals=arrivals)

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


def micros_of(time_ms: int) -> int:
    """A time of the log in microseconds, as near as 64 bits come to it."""
    return max(-FURTHEST_MS, min(FURTHEST_MS, time_ms)) * 1000


def records_at(batch: Batch, offsets: Collection[int]) -> dict[int, Record]:
    """The records at these offsets, read one by one from the log batches that hold them and from no others."""
    wanted = set(offsets)
    found: dict[int, Record] = {}
    for log_batch in batch.log_batches:
        if any(log_batch.base_offset <= offset <= log_batch.last_offset for offset in wanted):
            found.update((r.offset, r) for r in log_batch.records(wanted))
    return found
