"""Zigzag varints, as Avro and Kafka write numbers: many at once, each at a position of its own."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

VARINT_BYTES = 10
"""The most that 64 bits take."""
PADDING = bytes(32)
"""Zeros behind all bytes, so that what is read at their end is there."""
ONE_BYTE = (np.arange(128) >> 1) ^ -(np.arange(128) & 1)
"""The numbers of one byte."""

SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
CLOSING = [(np.uint64(low), np.uint64(high), np.uint64(gap)) for low, high, gap in (
    (0x007F007F007F007F, 0x7F007F007F007F00, 1),
    (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2),
    (0x000000000FFFFFFF, 0x0FFFFFFF00000000, 4),
)]
"""How eight groups of seven bits close up to one of 56: neighbours, pairs, halves."""
ONE = np.uint64(1)

Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


def padded(parts: Iterable[bytes]) -> NDArray[np.uint8]:
    """These bytes and some more, so that a number at their end may be read."""
    return np.frombuffer(b"".join([*parts, PADDING]), np.uint8)


def read_varints(data: NDArray[np.uint8], at: Places) -> tuple[NDArray[np.int64], Places, Mask]:
    """Numbers at these positions of padded bytes, where each ends, and whether it is one and as short as can be."""
    first = data[at]
    is_long = first >= 0x80
    number, end, is_well = ONE_BYTE[first & 0x7F], at + 1, np.ones(len(at), np.bool_)
    if is_long.any():
        which = np.flatnonzero(is_long)
        number[which], end[which], is_well[which] = _of_words(data, at[which])
    return number, end, is_well


def words_of(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The eight bytes from each position as a number, the first one lowest; no copy."""
    return np.ndarray((len(data) - 7,), "<u8", buffer=data, strides=(1,))


def _of_words(data: NDArray[np.uint8], at: Places) -> tuple[NDArray[np.int64], Places, Mask]:
    """The same, eight bytes at a time in one unaligned word; the few that are longer byte by byte."""
    words: NDArray[np.uint64] = words_of(data)[at]
    last = ~words & ~SEVEN_BITS
    last &= ~last + ONE  # the lowest bit alone: of the first byte that ends a number
    words &= last - ONE
    words &= SEVEN_BITS
    for low, high, gap in CLOSING:
        words = (words & low) | ((words & high) >> gap)
    size = (np.bitwise_count(last - ONE) + ONE.astype(np.uint8)) >> np.uint8(3)
    is_well = (words >> (np.uint64(7) * (size - np.uint8(1)).astype(np.uint64))) != 0
    is_longer = last == 0
    end = at + size
    if is_longer.any():
        which = np.flatnonzero(is_longer)
        words[which], end[which], is_well[which] = _byte_by_byte(data, at[which])
    return (words >> ONE).astype(np.int64) ^ -(words & ONE).astype(np.int64), end, is_well


def _byte_by_byte(data: NDArray[np.uint8], at: Places) -> tuple[NDArray[np.uint64], Places, Mask]:
    zigzag, is_well = np.zeros(len(at), np.uint64), np.ones(len(at), np.bool_)
    going = np.ones(len(at), np.bool_)
    for n in range(VARINT_BYTES):
        byte = data[at]
        zigzag |= np.where(going, byte & 0x7F, 0).astype(np.uint64) << np.uint64(7 * n)
        at = at + going
        ends_here = going & (byte < 0x80)
        is_well &= ~(ends_here & ((byte == 0) | ((n == VARINT_BYTES - 1) & (byte > 1))))
        going &= ~ends_here
        if not going.any():
            break
    return zigzag, at, is_well & ~going
