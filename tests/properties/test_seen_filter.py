"""The filter's "no" against a set that remembers everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.dedup.bloom import SeenFilter
from k2stream.records import TopicPartition

TP, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)
NOTHING_BEFORE = -(1 << 63)
TOLERANCE = 50
window = st.tuples(st.integers(-3_000, 5_000), st.integers(0, 600), st.integers(1, 120), st.booleans())
"""Start, spread and count of the event times of a window; whether it is marked with one time."""


@settings(max_examples=150, deadline=None)
@given(windows=st.lists(window, min_size=1, max_size=12), floor=st.sampled_from([NOTHING_BEFORE, 0, 700]), seed=st.integers(0, 2**32))
def test_no_is_never_said_of_a_marked_key_above_the_floor(windows: list[tuple[int, int, int, bool]], floor: int, seed: int) -> None:
    """Whatever the order of event times and however little memory: at floor + tolerance or later, a committed key is maybe."""
    rng = np.random.default_rng(seed)
    seen = SeenFilter(memory_bytes=6 * 8 * 8 * 4, horizon_us=1_000, tolerance_us=TOLERANCE)
    seen.set_floor(TP, floor)
    keys, times = np.empty((0, 2), np.uint64), np.empty(0, np.int64)
    for start, spread, count, is_scalar in windows:
        new = rng.integers(0, 2**64, (count, 2), dtype=np.uint64)
        at = rng.integers(start, start + spread + 1, count)
        before = seen.floor(TP)
        seen.mark(new, int(at.max()) if is_scalar else at)
        assert seen.floor(TP) >= before
        keys, times = np.concatenate([keys, new]), np.concatenate([times, at])
        told = times + rng.integers(-TOLERANCE, TOLERANCE + 1, len(times))
        promised = times >= floor
        assert seen.maybe(keys[promised], told[promised], TP).all()
        below = told < seen.floor(TP) + TOLERANCE
        assert seen.maybe(rng.integers(0, 2**64, (len(told), 2), dtype=np.uint64), told, TP)[below].all()


def test_a_partition_without_a_floor_is_all_maybe() -> None:
    """Nothing was promised of it, so nothing is denied."""
    seen = SeenFilter(1 << 20, 1_000, 10)
    keys = np.arange(20, dtype=np.uint64).reshape(-1, 2)
    seen.set_floor(OTHER, NOTHING_BEFORE)
    assert seen.maybe(keys, np.full(10, 1 << 50), TP).all()
    assert not seen.maybe(keys, np.full(10, 1 << 50), OTHER).any()


def test_the_floor_is_exact() -> None:
    """A row at floor + tolerance may be denied, one microsecond earlier may not."""
    seen = SeenFilter(1 << 20, 1 << 40, 10)
    seen.set_floor(TP, 100)
    mask = seen.maybe(np.arange(4, dtype=np.uint64).reshape(-1, 2), np.array([109, 110]), TP)
    assert mask.tolist() == [True, False]


def test_the_horizon_raises_every_floor() -> None:
    """What is older than the newest event by more than the horizon is a question to the table again."""
    seen = SeenFilter(1 << 20, 1_000, 10)
    seen.set_floor(TP, NOTHING_BEFORE)
    seen.set_floor(OTHER, 5_000)
    seen.mark(np.ones((1, 2), np.uint64), np.array([3_000]))
    assert (seen.floor(TP), seen.floor(OTHER)) == (2_000, 5_000)


def test_false_positives_at_capacity() -> None:
    """Full to the last key, in several slots of time, at most one new key in 10,000 is a needless question."""
    seen = SeenFilter(4 << 20, 1_000_000, 0)
    seen.set_floor(TP, NOTHING_BEFORE)
    rng = np.random.default_rng(7)
    capacity = seen.stats()["capacity"]
    assert isinstance(capacity, int)
    for half in (0, 1):
        for _ in range(2):
            seen.mark(rng.integers(0, 2**64, (capacity // 4, 2), dtype=np.uint64), 600_000 + half * 250_000)
    assert seen.stats()["forgotten"] == 0
    strangers = rng.integers(0, 2**64, (2_000_000, 2), dtype=np.uint64)
    assert seen.maybe(strangers, np.full(len(strangers), 900_000), TP).mean() <= 1e-4


@pytest.mark.parametrize("memory_bytes", [1 << 16, 1 << 20])
def test_memory_is_bounded(memory_bytes: int) -> None:
    """Marking for ever takes no more memory than it was given."""
    seen = SeenFilter(memory_bytes, 1_000_000, 0)
    rng = np.random.default_rng(1)
    for second in range(40):
        seen.mark(rng.integers(0, 2**64, (50_000, 2), dtype=np.uint64), np.full(50_000, second * 10_000))
    stats = seen.stats()
    assert isinstance(stats["memory_bytes"], int)
    assert stats["memory_bytes"] <= memory_bytes
    assert stats["forgotten"]
