"""The 128-bit dedup key of a trade: exchange, symbol and native trade id, hashed by NumPy over Arrow's buffers.

The values are stored (Redis), so they are the same for every chunking, encoding, version and byte order; a test pins them.
Not a keyed hash: whoever chooses trade ids can, with effort, make two of them collide.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = ((0xBF58476D1CE4E5B9, 0x94D049BB133111EB), (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53))
"""Odd multipliers of the two lanes (those of splitmix64 and of MurmurHash3's finaliser)."""
_LENGTH_FACTOR = 0xD6E8FEB86659FD93
_EXCHANGE, _SYMBOL, _TRADE_ID = 1, 2, 3
"""Seeds: the same text as exchange and as symbol hashes to different values."""
_STEPWISE_WORDS = 12
"""Ids up to 96 bytes are taken word by word over all rows; what is longer, word by word over each row's rest."""


def dedup_keys(exchange: pa.ChunkedArray, symbol: pa.ChunkedArray, trade_id: pa.ChunkedArray) -> Words:
    """Keys of shape (rows, 2). Columns are strings, plain or dictionary-encoded, chunked anyhow.

    Raises ValueError for a null: three rows without an id are not one trade.
    """
    keys = np.empty((len(trade_id), 2), np.uint64)
    parts = (_by_entry(exchange, _EXCHANGE), _by_entry(symbol, _SYMBOL), _by_row(trade_id, _TRADE_ID))
    for lane in (0, 1):
        total = parts[2][lane]
        total += parts[0][lane]
        total += parts[1][lane]
        keys[:, lane] = _finish(total, lane)
    return keys


def _by_entry(column: pa.Array | pa.ChunkedArray, seed: int) -> tuple[Words, Words]:
    """Hash each distinct text once and spread the hashes over the rows."""
    lanes: list[tuple[Words, Words]] = []
    for chunk in _chunks(column):
        encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        entries = _by_row(encoded.dictionary, seed)
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        lanes.append((_finish(entries[0], 0)[indices], _finish(entries[1], 1)[indices]))
    return _joined(lanes)


def _by_row(column: pa.Array | pa.ChunkedArray, seed: int) -> tuple[Words, Words]:
    """Unfinished hash of each row's text."""
    lanes: list[tuple[Words, Words]] = []
    for chunk in _chunks(column):
        if pa.types.is_dictionary(chunk.type):
            entries = _hash_texts(chunk.dictionary, seed)
            indices = chunk.indices.to_numpy(zero_copy_only=False)
            lanes.append((entries[0][indices], entries[1][indices]))
        else:
            lanes.append(_hash_texts(chunk, seed))
    return _joined(lanes)


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    if column.null_count:
        raise ValueError(f"{column.null_count} nulls in a key column; validate drops such rows before their keys are made")
    return cast(list[pa.Array], column.chunks if isinstance(column, pa.ChunkedArray) else [column])


def _joined(lanes: list[tuple[Words, Words]]) -> tuple[Words, Words]:
    if len(lanes) == 1:
        return lanes[0]
    empty = [np.empty(0, np.uint64)]
    return np.concatenate([a for a, _ in lanes] or empty), np.concatenate([b for _, b in lanes] or empty)


def _hash_texts(texts: pa.Array, seed: int) -> tuple[Words, Words]:
    """Sum over a text's 8-byte words of a bijection of (word, place), plus its length: any order of adding gives the same."""
    starts, lengths, read = _layout(texts)
    base = lengths.astype(np.uint64)
    base *= np.uint64(_LENGTH_FACTOR)
    base += np.uint64(_scrambled(seed))
    sums = (base, base.copy())
    words = (lengths + 7) >> 3
    most = int(words.max(initial=0))
    shortest = int(words.min(initial=0))
    for place in range(min(most, _STEPWISE_WORDS)):
        if place < shortest:
            word = _word(read, starts, lengths, place)
            for lane in (0, 1):
                sums[lane][:] += _mixed(word, _place_constant(place, lane), lane)
        else:
            rows = np.flatnonzero(words > place)
            word = _word(read, starts[rows], lengths[rows], place)
            for lane in (0, 1):
                sums[lane][rows] += _mixed(word, _place_constant(place, lane), lane)
    if most > _STEPWISE_WORDS:
        _add_rests(sums, read, starts, lengths, words)
    return sums


def _add_rests(
    sums: tuple[Words, Words], read: Callable[[NDArray[np.int64]], Words], starts: NDArray[np.int64], lengths: NDArray[np.int64], words: NDArray[np.int64]
) -> None:
    """Add the words beyond the stepwise ones, all of all long rows in one flat array."""
    rows = np.flatnonzero(words > _STEPWISE_WORDS)
    rest = words[rows] - _STEPWISE_WORDS
    first = np.cumsum(rest) - rest
    places = np.arange(int(rest.sum())) - np.repeat(first, rest) + _STEPWISE_WORDS
    row_of = np.repeat(rows, rest)
    word = read(starts[row_of] + places * 8)
    word &= _tail_mask(lengths[row_of] - places * 8)
    for lane in (0, 1):
        sums[lane][rows] += np.add.reduceat(_mixed(word, _place_constants(places, lane), lane), first)


def _layout(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Callable[[NDArray[np.int64]], Words]]:
    """Start and length of each text in bytes, and a reader of the 8 bytes at given positions as little-endian numbers."""
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TypeError(f"a key column must hold strings, found {texts.type}")
    width: type = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offset_buffer, data = texts.buffers()
    bounds = np.zeros(1, np.int64)
    if len(texts):
        bounds = np.frombuffer(offset_buffer, width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    bytes_ = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    first, last = int(bounds[0]), int(bounds[-1])
    if len(bytes_) < last + 8:  # the last word may reach past the buffer: Arrow pads its own, others need not
        bytes_ = np.concatenate([bytes_[first:last], np.zeros(8, np.uint8)])
        bounds -= first
    at_every_byte = np.ndarray((len(bytes_) - 7,), "<u8", buffer=bytes_, strides=(1,))
    return bounds[:-1], np.diff(bounds), lambda positions: at_every_byte[positions].astype(np.uint64, copy=False)


def _word(
    read: Callable[[NDArray[np.int64]], Words], starts: NDArray[np.int64], lengths: NDArray[np.int64], place: int
) -> Words:
    word = read(starts + place * 8 if place else starts)
    rest = lengths - place * 8
    if int(rest.min(initial=8)) < 8:
        word &= _tail_mask(rest)
    return word


_TAIL_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)


def _tail_mask(rest: NDArray[np.int64]) -> Words:
    """Mask of a word of which only `rest` bytes belong to the text."""
    masks: Words = _TAIL_MASKS[np.minimum(rest, 8)]
    return masks


def _mixed(word: Words, constant: Words | np.uint64, lane: int) -> Words:
    """A bijection of the word, different for each place and lane."""
    one, two = (np.uint64(f) for f in _FACTORS[lane])
    x = word ^ constant
    x *= one
    x ^= x >> np.uint64(32 - lane)
    x *= two
    x ^= x >> np.uint64(29 + 2 * lane)
    return x


def _finish(total: Words, lane: int) -> Words:
    """Spread every bit over the whole word (finaliser of splitmix64 and of MurmurHash3)."""
    one, two = (np.uint64(f) for f in _FACTORS[lane])
    x = total ^ (total >> np.uint64(30 + 3 * lane))
    x *= one
    x ^= x >> np.uint64(27 + 6 * lane)
    x *= two
    x ^= x >> np.uint64(31 + 2 * lane)
    return x


def _place_constant(place: int, lane: int) -> np.uint64:
    return np.uint64(_scrambled(2 * place + lane + 16))


def _place_constants(places: NDArray[np.int64], lane: int) -> Words:
    """The same as `_place_constant` for many places."""
    z = (2 * places + lane + 16 + 1).astype(np.uint64) * np.uint64(_GOLDEN)
    return _finish(z, 0)


def _scrambled(n: int) -> int:
    """The n-th number of splitmix64's stream."""
    one, two = _FACTORS[0]
    whole = (1 << 64) - 1
    z = (n + 1) * _GOLDEN & whole
    z = (z ^ z >> 30) * one & whole
    z = (z ^ z >> 27) * two & whole
    return z ^ z >> 31
