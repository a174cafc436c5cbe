"""The filter over restarts and losses of its store, against a set that remembers everything."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.dedup.bloom import SeenFilter
from k2stream.records import TopicPartition
from k2stream.state.memory import MemoryStore
from k2stream.state.store import KeyChunk, Stamp, Update

TP = TopicPartition("t", 0)
NOTHING_BEFORE = -(1 << 63)
TOLERANCE = 50
fate = st.sampled_from(["saved", "saved", "saved", "lost", "flushed", "restart"])
commits = st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 60), fate), max_size=14)
"""Event time, rows, and what happens after the commit."""


def new_filter() -> SeenFilter:
    return SeenFilter(6 * 8 * 8 * 4, 1_000, TOLERANCE)


@settings(max_examples=150, deadline=None)
@given(commits=commits, seed=st.integers(0, 2**32))
def test_no_restart_and_no_loss_makes_a_false_no(commits: list[tuple[int, int, str]], seed: int) -> None:
    """Saves lost, Redis flushed, worker restarted in any order: a committed key within the promise is maybe."""
    rng = np.random.default_rng(seed)
    store, seen = MemoryStore(), new_filter()
    seen.set_floor(TP, NOTHING_BEFORE)
    keys, times, watermark = np.empty((0, 2), np.uint64), np.empty(0, np.int64), NOTHING_BEFORE
    for number, (start, count, then) in enumerate(commits, start=1):
        new, at = rng.integers(0, 2**64, (count, 2), dtype=np.uint64), rng.integers(start, start + 100, count)
        since, watermark = len(keys), max(watermark, int(at.max()))
        keys, times = np.concatenate([keys, new]), np.concatenate([times, at])
        if then == "flushed":
            store.close()
        if then != "lost":
            chunk = KeyChunk(int(at.max()), int(at.min()), new.tobytes())
            alone = NOTHING_BEFORE if since == 0 else watermark + 1
            store.save({TP: Update(Stamp("u", number, number, len(keys)), b"", chunk, since, seen.floor(TP), alone)})
        seen.mark(new, at)
        if then == "restart":
            seen = restarted(store, keys, times, watermark)
        assert seen.maybe(keys, times + rng.integers(-TOLERANCE, TOLERANCE + 1, len(times)), TP).all()


def restarted(store: MemoryStore, keys: np.ndarray, times: np.ndarray, watermark: int) -> SeenFilter:
    """A new worker's filter: the store's keys, the table's rows after its stamp, and the floor that goes with them."""
    seen = new_filter()
    saved = store.load([TP]).get(TP)
    if saved is None:
        seen.set_floor(TP, watermark + 1)
        return seen
    for chunk in saved.keys:
        seen.mark(np.frombuffer(chunk.hashes, np.uint64).reshape(-1, 2), chunk.max_time_us)
    seen.set_floor(TP, saved.floor_us)
    seen.mark(keys[saved.stamp.next :], times[saved.stamp.next :])
    return seen
