"""Reading single records of a batch again."""

from k2stream.records import Batch, LogBatch, records_at
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing


def log_batch(base: int, count: int) -> LogBatch:
    raw = bytearray(build_log_batch([Outgoing(b"k", str(base + i).encode(), 7) for i in range(count)]))
    raw[:8] = base.to_bytes(8, "big")
    return LogBatch.parse("t", 0, bytes(raw))


def test_only_what_was_asked_comes_back() -> None:
    """Each offset gives its own record, from whichever log batch holds it; offsets that nobody holds give none."""
    batch = Batch("t", 0, 10, 30, (log_batch(10, 10), log_batch(20, 10)), 0)
    found = records_at(batch, [11, 29, 99])
    assert {offset: r.value for offset, r in found.items()} == {11: b"11", 29: b"29"}
    assert all(r.offset == offset for offset, r in found.items())
