"""Joining a fetch: every offset exactly once, or an honest jump."""

from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.records import Kind, LogBatch
from k2stream.transport.continuity import join


def log_batch(base: int, last: int, kind: Kind = Kind.DATA) -> LogBatch:
    """Offsets base..last, with or without something to read."""
    if kind is not Kind.DATA:
        return LogBatch.hole("t", 0, base, last, kind)
    return LogBatch("t", 0, base, last, base, last - base + 1, 0, 0, Kind.DATA, b"bytes")


@st.composite
def fetches(draw: st.DrawFn) -> list[LogBatch]:
    """Log batches in order, some of them holes, with jumps between some."""
    batches: list[LogBatch] = []
    offset = draw(st.integers(0, 20))
    for _ in range(draw(st.integers(0, 8))):
        offset += draw(st.sampled_from([0, 0, 0, 0, 5]))
        size = draw(st.integers(1, 6))
        batches.append(log_batch(offset, offset + size - 1, draw(st.sampled_from([Kind.DATA, Kind.DATA, Kind.CONTROL, Kind.ABORTED]))))
        offset += size
    return batches


def offsets(batches: tuple[LogBatch, ...] | list[LogBatch]) -> list[tuple[int, bool]]:
    """Every offset that is covered, and whether there is something to read."""
    return [(o, b.kind is Kind.DATA) for b in batches for o in range(b.from_offset, b.last_offset + 1)]


@settings(max_examples=300)
@given(fetches(), st.integers(0, 60), st.booleans())
def test_every_offset_comes_once_and_a_jump_ends_the_run(batches: list[LogBatch], position: int, is_compacted: bool) -> None:
    """The run covers position..next without jump or repeat; what it leaves out lies behind the jump that it names."""
    joined = join(batches, position, is_compacted=is_compacted)
    wanted = [(o, is_data) for o, is_data in offsets(batches) if o >= position]
    covered = offsets(joined.log_batches)

    assert [o for o, _ in covered] == list(range(position, joined.next_offset))
    assert [c for c in covered if c in set(wanted)] == [w for w in wanted if w[0] < joined.next_offset]
    rest = [o for o, _ in wanted if o >= joined.next_offset]
    assert joined.jump_to == (rest[0] if rest else None)
    assert joined.jump_to is None or joined.jump_to > joined.next_offset
    if is_compacted:
        assert joined.jump_to is None


@given(fetches(), st.integers(0, 60))
def test_compacted_stretch_is_named_so(batches: list[LogBatch], position: int) -> None:
    """Exactly the offsets that no batch covers come as COMPACTED."""
    joined = join(batches, position, is_compacted=True)
    compacted = [o for b in joined.log_batches if b.kind is Kind.COMPACTED for o in range(b.from_offset, b.last_offset + 1)]
    present = {o for o, _ in offsets(batches)}

    assert compacted == [o for o in range(position, joined.next_offset) if o not in present]


def test_trimmed_batch_keeps_its_bytes_and_its_borders() -> None:
    """Decode needs the whole batch; only `from_offset` says what is wanted of it."""
    (trimmed,) = join([log_batch(10, 19)], 14, is_compacted=False).log_batches
    assert (trimmed.base_offset, trimmed.last_offset, trimmed.from_offset, trimmed.count, trimmed.raw) == (10, 19, 14, 10, b"bytes")


def test_join_again_changes_nothing() -> None:
    """A fetch that was trimmed by the driver already comes through as it is."""
    once = join([log_batch(0, 9), log_batch(10, 12, Kind.CONTROL)], 4, is_compacted=False)
    assert join(once.log_batches, 4, is_compacted=False) == once
