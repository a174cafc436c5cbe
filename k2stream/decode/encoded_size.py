"""How many bytes Arrow values take as Avro, in the shortest encoding: the proof that a block's borders are right."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.decode.avro_type import SPANS, Array, AvroType, Decimal, Enum, Fixed, Map, Plain, Union, nullable

Sizes = NDArray[np.int64] | int
"""Bytes of each value; a plain int if all take the same."""

STEPS = np.array([1 << (7 * k) for k in range(1, 10)], dtype=np.uint64)
"""A zigzag number below STEPS[k] takes at most k + 1 bytes."""
FIXED_PLAIN = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def is_sizable(t: AvroType) -> bool:
    """Whether `encoded_size` knows the type, and nothing in it is out of the range checks' sight."""
    match t:
        case Array(inner) | Map(inner):
            has_range = isinstance(inner, (Decimal, Enum, Union)) or (isinstance(inner, Plain) and inner.logical in SPANS)
            return is_sizable(inner) and not has_range
        case Plain() | Decimal() | Enum() | Fixed():
            return True
    inside = nullable(t)
    return inside is not None and is_sizable(inside)


def encoded_size(t: AvroType, values: pa.Array) -> Sizes:
    """Shortest encoding of each value. Strings, lists and bytes are exact; a number may have been written longer, never shorter."""
    match t:
        case Plain("int" | "long"):
            return varint_size(integers(values))
        case Plain("string" | "bytes") | Decimal():
            lengths: NDArray[np.int64] = np.diff(_offsets(values))
            return lengths + varint_size(lengths)
        case Plain(name):
            return FIXED_PLAIN[name]
        case Enum():
            return varint_size(integers(values.indices))
        case Fixed(size):
            return size
        case Array(items):
            return _blocks(values, encoded_size(items, values.values))
        case Map(inner):
            return _blocks(values, encoded_size(Plain("string"), values.keys) + encoded_size(inner, values.items))
    inside = nullable(t)
    assert inside is not None, t
    return 1 + _where_valid(encoded_size(inside, values), values)


def varint_size(values: NDArray[np.int64]) -> Sizes:
    """Bytes of each number as a zigzag varint. Most columns hold numbers of one size, so the extremes usually answer."""
    if not len(values):
        return 0
    low, high = int(values.min()), int(values.max())
    smallest, largest = _one(low), _one(high)
    if smallest == largest and (low >= 0 or high < 0 or largest == 1):
        return largest
    wide = values.astype(np.int64)
    zigzag = ((wide << 1) ^ (wide >> 63)).view(np.uint64)
    sizes: NDArray[np.int64] = np.searchsorted(STEPS, zigzag, side="right").astype(np.int64) + 1
    return sizes


def integers(values: pa.Array) -> NDArray[np.int64]:
    """The numbers of an array; what stands in a null's place is anything."""
    buffer, mine = values.buffers()[1], slice(values.offset, values.offset + len(values))
    if values.type.bit_width == 32:
        return np.frombuffer(buffer, np.int32)[mine].astype(np.int64)
    return np.frombuffer(buffer, np.int64)[mine]


def _one(value: int) -> int:
    return max(1, -(-((value << 1) ^ (value >> 63)).bit_length() // 7))


def _offsets(values: pa.Array) -> NDArray[np.int64]:
    raw = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    return raw.astype(np.int64)


def _blocks(values: pa.Array, items: Sizes) -> Sizes:
    """One block of all items and its end; nothing but the end if there are none."""
    offsets = _offsets(values)
    counts = np.diff(offsets)
    if not counts.any():
        return 1
    total = np.zeros(int(offsets[-1]) + 1, np.int64)
    total[1:] = np.cumsum(np.broadcast_to(items, len(total) - 1))
    sizes: NDArray[np.int64] = 1 + total[offsets[1:]] - total[offsets[:-1]] + np.where(counts > 0, varint_size(counts), 0)
    return sizes


def _where_valid(sizes: Sizes, values: pa.Array) -> Sizes:
    if not values.null_count:
        return sizes
    if values.null_count == len(values):
        return 0
    return np.where(pc.is_valid(values).to_numpy(zero_copy_only=False), sizes, 0)
