"""Repeats and recent windows against plain sets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.dedup.seen import RecentWindows, repeats

few = st.integers(0, 3)
pairs = st.lists(st.tuples(st.sampled_from([0, 1, 2**63, 2**64 - 1]), few), max_size=60)
"""Many equal halves: the first word alone must never decide."""


def keys_of(rows: list[tuple[int, int]]) -> np.ndarray:
    return np.array(rows, np.uint64).reshape(-1, 2)


@settings(max_examples=300, deadline=None)
@given(rows=pairs)
def test_repeats_are_all_but_the_first(rows: list[tuple[int, int]]) -> None:
    """One row of each key stays, the earliest; keys that share a half are different keys."""
    expected = [row in rows[:i] for i, row in enumerate(rows)]
    assert repeats(keys_of(rows)).tolist() == expected


def test_repeats_among_many_rows() -> None:
    """The sieve for few repeats among many rows finds each of them and nobody else."""
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 2**64, (50_000, 2), dtype=np.uint64)
    keys[40_000:40_100] = keys[100:200]
    keys[40_200, 0] = keys[7, 0]
    mask = repeats(keys)
    assert np.flatnonzero(mask).tolist() == list(range(40_000, 40_100))


@settings(max_examples=200, deadline=None)
@given(windows=st.lists(pairs, max_size=5), asked=pairs, dropped=st.integers(0, 6))
def test_recent_windows_are_sets(windows: list[list[tuple[int, int]]], asked: list[tuple[int, int]], dropped: int) -> None:
    """A hit is a key of a window that is still held, whole key for whole key."""
    recent = RecentWindows()
    for number, rows in enumerate(windows, start=1):
        recent.add(number, keys_of(rows))
    recent.drop_through(dropped)
    held = {row for number, rows in enumerate(windows, start=1) if number > dropped for row in rows}
    assert recent.hits(keys_of(asked)).tolist() == [row in held for row in asked]
    assert len(recent) == sum(bool(rows) and number > dropped for number, rows in enumerate(windows, start=1))
