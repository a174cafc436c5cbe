"""Log batches as Kafka writes them, built from records; base offset 0 until a log appends them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import cramjam
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from k2stream.records import HEADER, LENGTH_BEFORE
from k2stream.transport.sink import Outgoing

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NO_LIMIT_BYTES = 1 << 30
"""The builder stops at a size; who calls it decides how much goes into one batch."""
LZ4_LEVEL = 1
"""aiokafka packs at 9, which takes twenty times as long and holds the interpreter meanwhile, for a hundredth less."""
SEQUENCES = 1 << 31
"""After the last one comes 0 again."""
CRC, ATTRIBUTES_AT = struct.Struct(">I"), 21
"""The checksum lies before the attributes and is of all bytes from there."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """Where a log batch stands among those of its producer: a broker takes each number once (KIP-98), so a copy of it is dropped.

    Without a transaction an epoch has nobody to fence: it is 0 for all.
    """

    producer_id: int = -1
    """As `LogSink.new_producer_id` gave it; -1: the log takes every batch as it comes."""
    first: int = 0
    """The number of its first record in its partition, from 0."""

    @property
    def fields(self) -> dict[str, int]:
        if self.producer_id < 0:
            return {"producer_id": -1, "producer_epoch": -1, "base_sequence": -1}
        return {"producer_id": self.producer_id, "producer_epoch": 0, "base_sequence": self.first % SEQUENCES}


UNNUMBERED = Numbered()


def build_log_batch(records: Sequence[Outgoing], codec: str = "lz4", *, numbered: Numbered = UNNUMBERED) -> bytes:
    """One log batch (format v2) of at least one record, at offsets 0..n-1.

    The checksum does not cover the base offset, so a log may write its own into the first 8 bytes.
    """
    if not records:
        raise ValueError("A log batch holds at least one record.")
    is_lz4 = codec == "lz4"
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0 if is_lz4 else CODECS[codec],
        is_transactional=0,
        batch_size=NO_LIMIT_BYTES,
        **numbered.fields,
    )
    for offset, r in enumerate(records):
        builder.append(offset, r.timestamp_ms, r.key, r.value, list(r.headers))
    raw = bytes(builder.build())
    return _packed(raw) if is_lz4 else raw


def _packed(raw: bytes) -> bytes:
    """The same log batch with its records packed by LZ4; as it was if that makes it no smaller."""
    # Kafka's brokers know no linked blocks (KIP-57).
    packer = cramjam.lz4.Compressor(level=LZ4_LEVEL, content_checksum=False, block_linked=False)
    packer.compress(raw[HEADER.size :])
    packed = bytes(packer.finish())
    if HEADER.size + len(packed) >= len(raw):
        return raw
    base, _, epoch, magic, _, attributes, *others = HEADER.unpack_from(raw)
    header = HEADER.pack(base, HEADER.size - LENGTH_BEFORE + len(packed), epoch, magic, 0, attributes | CODECS["lz4"], *others)
    checked = header[ATTRIBUTES_AT:] + packed
    return header[: ATTRIBUTES_AT - CRC.size] + CRC.pack(calc_crc32c(checked)) + checked


def offsets_of(raw: bytes | bytearray | memoryview) -> int:
    """How many offsets one whole batch takes; raises ValueError if `raw` is not exactly one batch of format v2."""
    if len(raw) < HEADER.size:
        raise ValueError(f"A log batch has a header of {HEADER.size} bytes, found {len(raw)} bytes in all.")
    _, length, _, magic, _, _, last_delta, *_ = HEADER.unpack_from(raw)
    if magic != 2 or length + 12 != len(raw) or last_delta < 0:
        raise ValueError(f"Not one log batch of format v2: magic {magic}, {length + 12} bytes by its header, {len(raw)} found.")
    return int(last_delta) + 1


def is_intact(raw: bytes) -> bool:
    """Whether the checksum of the batch fits its bytes."""
    return bool(DefaultRecordBatch(raw).validate_crc())
