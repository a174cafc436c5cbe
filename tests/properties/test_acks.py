"""Acks of ranges against an oracle that ticks off every single offset."""

import itertools
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.records import TopicPartition
from k2stream.transport.acks import BatchAcks, RangeAcks

TP = TopicPartition("t", 0)
ranges = st.tuples(st.integers(0, 60), st.integers(0, 60))


def contiguous(start: int, acked: set[int]) -> int:
    """The offset up to which everything from `start` on was acked, one by one."""
    while start in acked:
        start += 1
    return start


@settings(max_examples=300)
@given(st.integers(0, 40), st.lists(ranges, max_size=25))
def test_done_is_what_ticking_off_gives(start: int, acked_ranges: list[tuple[int, int]]) -> None:
    """Any order, overlaps, repeats and ranges below the start: `done` after each ack is the oracle's, and never falls."""
    acks, acked = RangeAcks(start), set[int]()
    for first, next_offset in acked_ranges:
        before = acks.done
        acks.ack(first, next_offset)
        acked.update(range(first, next_offset))
        assert acks.done == contiguous(start, acked)
        assert acks.done >= before


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_memory_is_gone_when_everything_is_acked(sizes: list[int], random: Random) -> None:
    """Batches acked in any order end as one number: nothing is kept of a range that is done."""
    borders = [sum(sizes[:n]) for n in range(len(sizes) + 1)]
    batches = list(itertools.pairwise(borders))
    random.shuffle(batches)
    acks = RangeAcks(0)
    for first, next_offset in batches:
        acks.ack(first, next_offset)

    assert (acks.done, acks.waiting) == (borders[-1], 0)


def test_partition_that_was_not_begun_has_nothing_to_commit() -> None:
    """A late ack after a revoke must not bring a partition back."""
    acks = BatchAcks()
    acks.ack(TP, 0, 10)
    assert (acks.committable(TP), acks.pending()) == (None, [])
    acks.begin(TP, 5)
    assert acks.committable(TP) is None
    acks.ack(TP, 5, 7)
    assert (acks.committable(TP), acks.pending()) == (7, [TP])
    acks.begin(TP, 0)
    assert acks.committable(TP) is None
    acks.forget(TP)
    acks.ack(TP, 0, 3)
    assert acks.pending() == []
