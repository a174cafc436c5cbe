"""Any vector survives its text, and the fence agrees with a record-by-record reading."""

from hypothesis import given
from hypothesis import strategies as st

from k2stream.lake.offsets import Counts, Entry, Mark, Vector, advanced, pack, stale_partitions, unpack
from k2stream.records import TopicPartition

OFFSETS = st.integers(0, 1 << 61)
PARTITIONS = st.builds(TopicPartition, st.sampled_from(["a", "market.crypto.trades.binance", "ü.\n"]), st.integers(0, 200))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    start, length = draw(OFFSETS), draw(OFFSETS)
    counts = Counts(*draw(st.lists(st.integers(0, 1 << 55), min_size=6, max_size=6)))
    end = start + length
    losses = st.none() if not start else st.none() | st.integers(0, start - 1)
    marks = st.none() if not end else st.none() | st.builds(Mark, st.integers(0, end - 1), st.integers(0, (1 << 32) - 1))
    return Entry(start, end, counts, draw(st.none() | st.text(max_size=20)), draw(marks), draw(losses))


VECTORS = st.dictionaries(PARTITIONS, entries(), max_size=30)


@given(vector=VECTORS)
def test_any_vector_comes_back(vector: Vector) -> None:
    """Text and back is the same, also where the ledger does not add up."""
    assert unpack(pack(vector)) == vector


def slow_fence(vector: Vector, spans: dict[TopicPartition, tuple[int, int]]) -> bool:
    """Offset by offset: the table takes a window only if its first offset is the very next one of each partition."""
    for tp in spans:
        committed = vector.get(tp)
        if committed is None:
            return False
        if spans[tp][0] < committed.next or spans[tp][0] > committed.next:
            return False
    return True


SMALL = st.dictionaries(st.builds(TopicPartition, st.just("t"), st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4)


@given(committed=SMALL, taken=SMALL)
def test_the_fence_lets_through_what_the_slow_reading_lets_through(
    committed: dict[TopicPartition, tuple[int, int]], taken: dict[TopicPartition, tuple[int, int]]
) -> None:
    """And after it `next` is the window's end; every offset is counted once."""
    vector = {tp: Entry(start, start + n, Counts(rows=n)) for tp, (start, n) in committed.items()}
    spans = {tp: (start, start + n) for tp, (start, n) in taken.items()}
    stale = stale_partitions(vector, spans)
    assert (stale == []) == slow_fence(vector, spans)
    if not stale:
        after = advanced(vector, spans, {tp: Counts(rows=end - start) for tp, (start, end) in spans.items()})
        assert {tp: after[tp].next for tp in spans} == {tp: end for tp, (_, end) in spans.items()}
        assert all(e.counts.offsets == e.next - e.start for e in after.values())
        assert after.keys() == vector.keys()
