"""Zigzag varints, as Avro and Kafka write numbers: many at once, each at a position of its own."""

import numpy as np
from numpy.typing import NDArray

VARINT_BYTES = 10
"""The most that 64 bits take."""
PADDING = np.zeros(VARINT_BYTES, np.uint8)
ONE_BYTE = (np.arange(128) >> 1) ^ -(np.arange(128) & 1)
"""The numbers of one byte."""

Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


def padded(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same bytes and some more, so that a number at their end may be read."""
    return np.concatenate([data, PADDING])


def read_varints(data: NDArray[np.uint8], at: Places) -> tuple[NDArray[np.int64], Places, Mask]:
    """Numbers at these positions of padded bytes, where each ends, and whether it is one and as short as can be."""
    first = data[at]
    if first.max(initial=0) < 0x80:
        return ONE_BYTE[first], at + 1, np.ones(len(at), np.bool_)
    zigzag, is_well = np.zeros(len(at), np.uint64), np.ones(len(at), np.bool_)
    going = np.ones(len(at), np.bool_)
    for n in range(VARINT_BYTES):
        byte = data[at]
        zigzag |= np.where(going, byte & 0x7F, 0).astype(np.uint64) << np.uint64(7 * n)
        at = at + going
        ends_here = going & (byte < 0x80)
        if n:
            is_well &= ~(ends_here & ((byte == 0) | ((n == VARINT_BYTES - 1) & (byte > 1))))
        going &= ~ends_here
        if not going.any():
            break
    number = (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64)
    return number, at, is_well & ~going
