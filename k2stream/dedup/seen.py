"""The exact stage's questions: does a key stand earlier in this window, in a recent window, in the table?"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


class SeenLookup(Protocol):
    """One question to the table for many rows; compares the native ids, not their hashes."""

    def __call__(
        self, exchange: pa.ChunkedArray, symbol: pa.ChunkedArray, native_id: pa.ChunkedArray, time: pa.ChunkedArray, snapshot_id: int
    ) -> NDArray[np.bool_]:
        """True for each row whose (exchange, symbol, native id) the snapshot holds within the tolerance of its event time.

        Raises QueryError or LakeError if it cannot tell; it never guesses.
        """
        ...


def repeats(keys: Keys) -> NDArray[np.bool_]:
    """True for each row whose key an earlier row has: all but the first of equal keys."""
    mask = np.zeros(len(keys), bool)
    first = np.sort(keys[:, 0])
    again = first[1:][first[1:] == first[:-1]]
    if not len(again):
        return mask
    rows = _rows_among(keys[:, 0], _distinct(again))
    order = rows[np.lexsort((rows, keys[rows, 1], keys[rows, 0]))]
    mask[order[1:]] = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    return mask


def _distinct(ordered: Keys) -> Keys:
    is_first = np.ones(len(ordered), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def _rows_among(values: Keys, ordered: Keys) -> NDArray[np.intp]:
    """Numbers of the rows whose value is one of `ordered`."""
    if len(ordered) > len(values) // 16:  # many: nearly every row is one, so sifting first costs more than it saves
        return np.flatnonzero(_holds(ordered, values))
    flags = _flags(ordered)
    rows = np.flatnonzero(flags.take(values >> _FLAG_SHIFT))
    return rows[_holds(ordered, values[rows])]


def _holds(ordered: Keys, values: Keys) -> NDArray[np.bool_]:
    at = np.searchsorted(ordered, values)
    at[at == len(ordered)] = 0
    held: NDArray[np.bool_] = ordered[at] == values
    return held


_FLAG_SHIFT = np.uint64(64 - 22)


def _flags(values: Keys) -> NDArray[np.uint8]:
    """4 M flags by the values' upper bits: a sieve that lets 6 % of strangers through at 250,000 values."""
    flags = np.zeros(1 << 22, np.uint8)
    flags[values >> _FLAG_SHIFT] = 1
    return flags


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    flags: NDArray[np.uint8]
    ordered: Keys
    """Sorted by first word, then second."""


class RecentWindows:
    """Keys of windows that the table or the filter may not answer for yet: in flight, or committed but not marked. One thread.

    About 8 MB for a window of 250,000 rows.
    """

    def __init__(self) -> None:
        self._kept: list[_Kept] = []

    def __len__(self) -> int:
        """Windows held."""
        return len(self._kept)

    def add(self, number: int, keys: Keys) -> None:
        """Hold the keys of a settled window; numbers rise."""
        if len(keys):
            self._kept.append(_Kept(number, _flags(keys[:, 0]), _sorted(keys)))

    def hits(self, keys: Keys) -> NDArray[np.bool_]:
        """True for each key that a held window has."""
        mask = np.zeros(len(keys), bool)
        places = keys[:, 0] >> _FLAG_SHIFT
        for kept in self._kept:
            rows = np.flatnonzero(kept.flags.take(places))
            mask[rows[_among(kept.ordered, keys[rows])]] = True
        return mask

    def drop_through(self, number: int) -> None:
        """Let go of the windows up to this number."""
        self._kept = [kept for kept in self._kept if kept.number > number]


def _sorted(keys: Keys) -> Keys:
    order = np.argsort(keys[:, 0])
    ordered = keys[order]
    if (ordered[1:, 0] == ordered[:-1, 0]).any():
        ordered = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
    return ordered


def _among(ordered: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Which of `keys` are rows of `ordered`; both words count."""
    first = ordered[:, 0]
    at = np.searchsorted(first, keys[:, 0])
    mask = np.zeros(len(keys), bool)
    left = np.arange(len(keys))
    while len(left):
        left = left[at[left] < len(ordered)]
        left = left[first[at[left]] == keys[left, 0]]
        mask[left] |= ordered[at[left], 1] == keys[left, 1]
        left = left[~mask[left]]
        at[left] += 1  # equal first words are one in 10^13 windows; walk on
    return mask
