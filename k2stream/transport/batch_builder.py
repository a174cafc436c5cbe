"""Log batches as Kafka writes them, built from records; base offset 0 until a log appends them."""

from collections.abc import Sequence

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from k2stream.records import HEADER
from k2stream.transport.sink import Outgoing

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NO_LIMIT_BYTES = 1 << 30
"""The builder stops at a size; who calls it decides how much goes into one batch."""


def build_log_batch(records: Sequence[Outgoing], codec: str = "lz4") -> bytes:
    """One log batch (format v2) of at least one record, at offsets 0..n-1.

    The checksum does not cover the base offset, so a log may write its own into the first 8 bytes.
    """
    if not records:
        raise ValueError("A log batch holds at least one record.")
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=CODECS[codec],
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=NO_LIMIT_BYTES,
    )
    for offset, r in enumerate(records):
        builder.append(offset, r.timestamp_ms, r.key, r.value, list(r.headers))
    return bytes(builder.build())


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
