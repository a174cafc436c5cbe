"""Log batches whose records were written with several schemas, taken apart by schema in one call.

To a columnar Avro reader a record's value is as good a `bytes` as its key, so the records are read without knowing what is in
them: {length, attributes, timestamp_delta, offset_delta, key, value, header_count}. The proof is that of k2stream.decode.block.
Then the bytes of the records of one schema, put together, are a block again.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from k2stream.decode.avro_type import Plain
from k2stream.decode.block import Block, container_header, fixed_bytes, read_avro
from k2stream.decode.encoded_size import encoded_size, integers, varint_size
from k2stream.decode.framing import FRAME_BYTES, MAGIC

UNFRAMED = -1
"""Instead of a schema id: the value is too short for one, or does not begin with zero."""

_HEADER = container_header({"value": "bytes"})


def split(blocks: Sequence[Block]) -> list[list[Block]] | None:
    """Each block by schema id, records in order; None if the borders of any are not proven. A block's schema id may be UNFRAMED."""
    counts = np.array([b.log_batch.count for b in blocks], dtype=np.int64)
    raw = b"".join(b.raw for b in blocks)
    found = read_avro(_HEADER, raw, int(counts.sum()))
    if found is None or found.num_rows != counts.sum():
        return None
    sizes = _borders(found, blocks, counts)
    if sizes is None:
        return None
    ids, ends = _schema_ids(found.column("value")), np.cumsum(sizes)
    records = pa.Array.from_buffers(pa.large_binary(), len(ends), [None, pa.py_buffer(np.concatenate([[0], ends])), pa.py_buffer(raw)])
    firsts = np.cumsum(counts) - counts
    return [_by_schema(b, records.slice(first, count), ids[first : first + count]) for b, first, count in zip(blocks, firsts, counts, strict=True)]


def _by_schema(block: Block, records: pa.LargeBinaryArray, ids: NDArray[np.int64]) -> list[Block]:
    different = np.unique(ids)
    if len(different) == 1:
        return [Block(block.log_batch, block.raw, int(different[0]))]
    parts = []
    for schema_id in different.tolist():
        places = np.flatnonzero(ids == schema_id)
        mine = records.take(pa.array(places))
        parts.append(Block(block.log_batch, mine.buffers()[2].to_pybytes()[: int(np.asarray(_ends(mine))[-1])], schema_id, places))
    return parts


def _ends(values: pa.LargeBinaryArray) -> NDArray[np.int64]:
    return np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]


def _borders(found: pa.RecordBatch, blocks: Sequence[Block], counts: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Bytes of each record, or None if they are not proven."""
    length, offset, stamp, headers = (integers(found.column(name)) for name in ("length", "offset_delta", "timestamp_delta", "header_count"))
    starts = np.cumsum(counts) - counts
    key_size, value_size = (encoded_size(Plain("bytes"), found.column(name)) for name in ("key", "value"))
    whole: NDArray[np.int64] = length + varint_size(length)
    holds = (
        np.array_equal(offset, np.arange(len(offset)) - np.repeat(starts, counts))
        and not headers.any()
        and not fixed_bytes(found, "attributes").any()
        and (length == 2 + varint_size(stamp) + varint_size(offset) + key_size + value_size).all()
        and np.array_equal(np.add.reduceat(whole, starts), [len(b.raw) for b in blocks])
    )
    return whole if holds else None


def _schema_ids(values: pa.BinaryArray) -> NDArray[np.int64]:
    """What each value's frame says."""
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    data = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    is_framed = np.diff(offsets) >= FRAME_BYTES
    at = np.where(is_framed, offsets[:-1], 0)
    data = data if len(data) >= FRAME_BYTES else np.zeros(FRAME_BYTES, np.uint8)
    head = data[at[:, None] + np.arange(FRAME_BYTES)].astype(np.int64)
    ids: NDArray[np.int64] = np.where(is_framed & (head[:, 0] == MAGIC), head[:, 1:] @ np.array([1 << 24, 1 << 16, 1 << 8, 1]), UNFRAMED)
    return ids
